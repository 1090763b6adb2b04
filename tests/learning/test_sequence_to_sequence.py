"""A sequence for a sequence: cutting a step changes nothing, evaluation agrees, a copy is learnt and then written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.learning.test_language_modeling import Written
from tests.models.test_guesses import PAIRS, pair_model
from tunewright.data.batching import collate
from tunewright.learning.gradients import Budget, Training, step_gradient
from tunewright.learning.sequence_to_sequence import SequenceToSequence, padding_share, pair_likelihoods
from tunewright.models.forward import Forward
from tunewright.models.generation import generate
from tunewright.models.sampling import Sampling
from tunewright.runtime import Runtime

OBJECTIVE = SequenceToSequence()


def made(sizes=((5, 3), (9, 4), (2, 8), (7, 1))) -> Written:
    generator = np.random.default_rng(0)
    ids = [generator.integers(3, 50, read + written).astype(np.int32) for read, written in sizes]
    return Written(ids, [np.repeat([False, True], size) for size in sizes])


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("budget", [10, 20])
def test_cutting_a_step_changes_nothing(kind, budget):
    data, found = made(), []
    for tokens in (budget, 10_000):
        model = pair_model(kind)
        loss, _ = step_gradient(
            Forward(model), OBJECTIVE, Training(data, data.lengths), np.arange(4), Budget(tokens),
            Runtime("cpu", "fp32", 1), 0, print,
        )  # fmt: skip
        found.append([torch.tensor(loss), *(p.grad.clone() for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_weight_is_the_targets():
    assert OBJECTIVE.weight_of(made(), np.array([0, 2])) == 11


@pytest.mark.parametrize("kind", PAIRS)
def test_likelihoods_are_the_loss(kind):
    data, forward = made(), Forward(pair_model(kind))
    found = pair_likelihoods(forward, data, max_tokens=16)
    loss = OBJECTIVE.loss_of(forward, collate(data, np.arange(4)), None).item()
    assert found.nats.sum() == pytest.approx(loss, rel=1e-5)
    assert found.tokens.tolist() == [3, 4, 8, 1]


def test_padding_is_counted():
    data, step = made(((5, 3), (4, 4), (8, 0))), [np.arange(3)]
    # Sorted by length the rows keep their order: 3 x (8 + 4) places for 24 tokens.
    assert padding_share(data, step, 1000) == pytest.approx(1 - 24 / 36)
    assert padding_share(data, step, 8) == 0


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_it_learns_to_copy(kind):
    ids = [np.array([*[word] * 4, 1, *[word] * 4, 1], np.int32) for word in range(3, 9)]
    data = Written(ids, [np.repeat([False, True], 5) for _ in ids])
    model = pair_model(kind)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.zero_()
    forward, optimizer = Forward(model), torch.optim.Adam(model.parameters(), 3e-3)
    before = pair_likelihoods(forward, data)
    for _ in range(150):
        (OBJECTIVE.loss_of(forward, collate(data, np.arange(6)), None) / 30).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = pair_likelihoods(forward, data)
    assert after.nats.sum() < before.nats.sum() / 3
    assert after.hits.sum() == after.tokens.sum() > before.hits.sum()
    # What is written then begins as it was learnt: training and generation agree on the start token.
    sources = [tokens[:5].tolist() for tokens in ids]
    answers = generate(model, sources, Sampling(max_new_tokens=8, eos_ids=frozenset({1})))
    assert [list(answer.ids) for answer in answers] == sources
