"""Logits don't depend on order or batch, come back in order, and leave the model as it was."""

from __future__ import annotations

import numpy as np
import pytest

from tests.learning.small import Toy
from tests.models import configs
from tunewright.models.forward import Forward, in_evaluation
from tunewright.models.inference import predict_logits

IDS = Toy.make().ids


@pytest.mark.parametrize("kind", ["bert", "llama", "modernbert-mean", "albert"])
def test_any_budget_gives_the_same(kind):
    forward = Forward.checked(configs.build(kind))
    alone = np.concatenate([predict_logits(forward, [ids]) for ids in IDS])
    for budget in (1, 37, 10_000):
        np.testing.assert_allclose(predict_logits(forward, IDS, max_tokens=budget), alone, atol=1e-5)


def test_order_of_input_is_kept():
    forward = Forward(configs.build("bert"))
    order = np.random.default_rng(0).permutation(len(IDS))
    np.testing.assert_allclose(
        predict_logits(forward, [IDS[i] for i in order]), predict_logits(forward, IDS)[order], atol=1e-5
    )


def test_nothing_gives_nothing():
    assert predict_logits(Forward(configs.build("bert")), []).shape == (0, 3)


def test_a_text_without_tokens_is_one_pad_token():
    forward = Forward(configs.build("gpt2"))
    found = predict_logits(forward, [IDS[0], [], IDS[1]])
    np.testing.assert_allclose(found[1:2], predict_logits(forward, [[0]]), atol=1e-5)


def test_stopping_between_batches_leaves_the_mode():
    def stop():
        raise KeyboardInterrupt

    model = configs.build("bert")
    with pytest.raises(KeyboardInterrupt):
        predict_logits(Forward(model), IDS, before_batch=stop)
    assert model.training


def test_mode_is_restored():
    model = configs.build("bert")
    with in_evaluation(model):
        assert not model.training
    assert model.training
