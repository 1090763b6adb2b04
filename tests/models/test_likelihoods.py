"""Nats, targets and hits of each example: transformers agrees, and neither order, batch nor rank changes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.models import configs
from tunewright.models import boundary
from tunewright.models.forward import Forward
from tunewright.models.language_head import LanguageHead
from tunewright.models.likelihoods import target_likelihoods
from tunewright.runtime import Runtime


@dataclass(frozen=True)
class Written:
    ids: list[np.ndarray]
    masks: list[np.ndarray]

    @property
    def labels(self):
        return np.zeros((len(self.ids), 0), np.float32)

    @property
    def lengths(self):
        return np.array([len(x) for x in self.ids])

    def tokens(self, index):
        return self.ids[index]

    def is_target(self, index):
        return self.masks[index]


def made(lengths=(9, 1, 17, 5, 17, 3)) -> Written:
    """Some tokens at random places count; the last text has none; one has a single token, which nothing predicts."""
    generator = np.random.default_rng(0)
    ids = [generator.integers(3, 50, n).astype(np.int32) for n in lengths]
    masks = [generator.random(n) < 0.6 for n in lengths]
    masks[1][:], masks[0][:], masks[-1][:] = True, True, False
    return Written(ids, masks)


def by_transformers(model, data: Written) -> np.ndarray:
    """One text at a time, the model's own logits, no help of ours: [3, N]."""
    rows = []
    with torch.no_grad():
        for ids, counts in zip(data.ids, data.masks, strict=True):
            tokens = torch.from_numpy(ids).long()
            logits = model(input_ids=tokens[None]).logits[0, :-1].double()
            wanted, counts = tokens[1:], torch.from_numpy(counts[1:])
            losses = -logits.log_softmax(1).gather(1, wanted[:, None])[:, 0]
            right = logits.argmax(1) == wanted
            rows.append([losses[counts].sum().item(), int(counts.sum()), int(right[counts].sum())])
    return np.array(rows).T


def found(forward: Forward, data: Written, **settings) -> np.ndarray:
    one = target_likelihoods(forward, data, **settings)
    return np.stack([one.nats, one.tokens, one.hits])


@pytest.mark.parametrize("kind", configs.WRITERS)
@pytest.mark.parametrize("packed", [True, False])
def test_transformers_agrees_example_by_example(kind, packed):
    model, data = configs.build_writer(kind), made()
    expected = by_transformers(model.eval(), data)
    assert (expected[1] == 0).sum() == 2  # nothing to predict in two of the texts
    np.testing.assert_allclose(found(Forward(model, packed=packed), data), expected, atol=2e-4, rtol=1e-5)


def test_hits_are_counted():
    """The model's own first choices as the text: every one is a hit; one of them changed: one less."""
    forward = Forward(configs.build_writer("llama").eval())
    ids = [7]
    for _ in range(6):
        with torch.no_grad():
            hidden = forward._padded_hidden(texts(ids))
            ids.append(int(LanguageHead.of(forward.model).logits(hidden[-1:]).argmax()))
    whole = Written([np.array(ids)], [np.ones(7, bool)])
    assert found(forward, whole)[1:, 0].tolist() == [6, 6]
    wrong = Written([np.array([*ids[:6], (ids[6] + 1) % 50])], whole.masks)
    assert found(forward, wrong)[1:, 0].tolist() == [6, 5]


def texts(ids):
    from tunewright.data.batching import lay_end_to_end

    return lay_end_to_end([ids])


@pytest.mark.parametrize("budget", [1, 20, 10_000])
def test_any_budget_and_order_give_the_same(budget):
    forward, data = Forward(configs.build_writer("gemma3")), made()
    alone = found(forward, data)
    np.testing.assert_allclose(found(forward, data, max_tokens=budget), alone, atol=1e-4)
    order = np.random.default_rng(1).permutation(len(data.ids))
    turned = Written([data.ids[i] for i in order], [data.masks[i] for i in order])
    np.testing.assert_allclose(found(forward, turned, max_tokens=budget), alone[:, order], atol=1e-4)


@pytest.mark.parametrize("k", [1, 3])
def test_cached_layers_change_nothing(k, tmp_path):
    forward, data = Forward(configs.build_writer("qwen2")), made()
    cache = boundary.build(forward, data, data.lengths, k, tmp_path / "states.npy")
    np.testing.assert_allclose(found(forward, data, cache=cache, max_tokens=20), found(forward, data), atol=1e-4)
    cache.states[:] = 0
    assert abs(found(forward, data, cache=cache)[0] - found(forward, data)[0]).max() > 0.1  # and it was read


def test_ranks_share_the_work():
    """What two ranks find adds up to what one finds."""
    forward, data, parts = Forward(configs.build_writer("llama")), made(), []

    class Rank(Runtime):
        def sum(self, tensor):
            parts.append(tensor.clone())
            return tensor

    for rank in (0, 1):
        found(forward, data, runtime=Rank("cpu", "fp32", 1, rank, 2), max_tokens=20)
    assert all((part[1] > 0).sum() < 4 for part in parts)
    np.testing.assert_allclose(sum(parts), found(forward, data), atol=1e-4)


def test_dropout_is_off_and_the_mode_restored():
    model = configs.build_writer("llama")
    model.config.attention_dropout = 0.5
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    np.testing.assert_array_equal(found(Forward(model), made()), found(Forward(model), made()))
    assert model.training


def test_stopping_between_batches():
    def stop():
        raise KeyboardInterrupt

    model = configs.build_writer("llama")
    with pytest.raises(KeyboardInterrupt):
        target_likelihoods(Forward(model), made(), before_batch=stop)
    assert model.training


def test_no_example_gives_nothing():
    assert found(Forward(configs.build_writer("llama")), Written([], [])).shape == (3, 0)
