"""The boundary cache: what the layers below would say, the same bytes whenever it is built."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.learning.small import Toy
from tests.models import configs
from tunewright.data.batching import lay_end_to_end
from tunewright.models.boundary import build, keeps_one_vector, size_bytes
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits

DATA = Toy.make()


@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2", "modernbert-mean"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_states_are_the_forwards(kind, k, tmp_path):
    forward = Forward(configs.build(kind).eval())
    cache = build(forward, DATA, DATA.lengths, k, tmp_path / "a.npy")
    chosen = np.array([3, 0, 7])
    boundary = cache.boundary(chosen)
    with torch.no_grad():
        states = forward.states(lay_end_to_end([DATA.tokens(i) for i in chosen]), k)
    torch.testing.assert_close(boundary.states, states, atol=1e-5, rtol=1e-5)
    assert keeps_one_vector(forward, k) == (k == 3 and kind in ("bert", "llama"))
    plain = predict_logits(forward, DATA.ids)
    np.testing.assert_allclose(predict_logits(forward, DATA.ids, cache=cache), plain, atol=1e-5)


def test_the_same_bytes_again(tmp_path):
    forward = Forward(configs.build("bert"))
    first, second = (build(forward, DATA, DATA.lengths, 2, tmp_path / f"{i}.npy") for i in range(2))
    assert first.fingerprint == second.fingerprint
    forward.inner.bert.encoder.layer[0].output.dense.weight.data[0, 0] += 1
    assert build(forward, DATA, DATA.lengths, 2, tmp_path / "2.npy").fingerprint != first.fingerprint
    assert forward.model.training  # left as it was


def test_dropout_is_off_while_it_is_built(tmp_path):
    model = configs.build("bert")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    first, second = (build(Forward(model), DATA, DATA.lengths, 2, tmp_path / f"{i}.npy") for i in range(2))
    assert first.fingerprint == second.fingerprint and model.training


def test_stopped_while_building_leaves_the_mode(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    forward = Forward(configs.build("bert"))
    with pytest.raises(KeyboardInterrupt):
        build(forward, DATA, DATA.lengths, 2, tmp_path / "a.npy", stop)
    assert forward.model.training


def test_the_cache_of_a_new_head_holds_one_vector_per_text(tmp_path):
    cache = build(Forward(configs.build("bert")), DATA, DATA.lengths, 3, tmp_path / "a.npy")
    assert cache.states.shape == (len(DATA.ids), 32)
    late = build(Forward(configs.build("gpt2")), DATA, DATA.lengths, 3, tmp_path / "b.npy")
    assert late.states.shape == (DATA.lengths.sum(), 32)


def test_size_is_planned(tmp_path):
    forward = Forward(configs.build("bert"))
    for k, per_text in ((2, False), (3, True)):
        path = tmp_path / f"{k}.npy"
        build(forward, DATA, DATA.lengths, k, path)
        planned = size_bytes(forward, DATA.lengths, k)
        assert keeps_one_vector(forward, k) == per_text
        assert planned <= path.stat().st_size <= planned + 256
