"""A language model's hidden states: packed and cached ones equal the plain ones, in values and gradients."""

from __future__ import annotations

import pytest
import torch

from tests.models import configs
from tests.models.test_forward import LENGTHS, gradients, texts
from tunewright.models.boundary import keeps_one_vector
from tunewright.models.forward import Boundary, Forward


@pytest.mark.parametrize("kind", configs.WRITERS)
def test_packed_equals_padded_in_states_and_gradients(kind):
    model = configs.build_writer(kind)
    forward = Forward.checked(model)
    assert forward.writes and forward.packed and not forward.notes
    plain, packed = forward._padded_hidden(texts()), forward.hidden(texts())
    assert packed.shape == (sum(LENGTHS), 32)
    torch.testing.assert_close(packed, plain, atol=1e-5, rtol=1e-5)
    expected, found = gradients(model, plain), gradients(model, packed)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("kind", configs.WRITERS)
def test_texts_do_not_see_each_other(kind):
    """Another text in the batch changes nothing; another token in the same text does, and only behind it."""
    forward = Forward(configs.build_writer(kind).eval())
    one = texts()
    changed = one.input_ids.clone()
    place = LENGTHS[0] + 7  # inside the second text
    changed[place] = 3 + (int(changed[place]) - 2) % 40
    with torch.no_grad():
        before = forward.hidden(one)
        after = forward.hidden(type(one)(changed, one.lengths))
    moved = (before - after).abs().amax(1) > 1e-7
    end = LENGTHS[0] + LENGTHS[1]
    assert moved[place : place + 5].all() and not moved[:place].any() and not moved[end:].any()


@pytest.mark.parametrize("kind", configs.WRITERS)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_boundary_changes_nothing_above_it(kind, k):
    model = configs.build_writer(kind)
    forward = Forward(model)
    with torch.no_grad():
        states = forward.states(texts(), k)
    assert states.shape == (sum(LENGTHS), 32) and not keeps_one_vector(forward, k)
    plain, cached = forward._padded_hidden(texts()), forward.hidden(texts(), Boundary(k, states))
    torch.testing.assert_close(cached, plain, atol=1e-5, rtol=1e-5)
    expected, found = gradients(model, plain), gradients(model, cached)
    own = [name for name, gradient in found.items() if gradient.abs().sum() > 0]
    assert own and not any("embed" in name or "wte" in name or ".0." in name for name in own)
    for name in own:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-3, msg=name)


def test_a_classifier_does_not_write():
    assert not Forward(configs.build("llama")).writes and not Forward(configs.build("bert")).writes
