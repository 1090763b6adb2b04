"""The next-token loss: transformers agrees, nothing but targets counts, and cutting a step changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.models import configs
from tunewright.data.batching import collate
from tunewright.learning.gradients import Budget, Training, step_gradient
from tunewright.learning.language_modeling import LanguageModeling, next_tokens
from tunewright.models.forward import Forward
from tunewright.runtime import Runtime

OBJECTIVE = LanguageModeling()


@dataclass(frozen=True)
class Written:
    ids: list[np.ndarray]
    masks: list[np.ndarray]

    @property
    def labels(self):
        return np.zeros((len(self.ids), 0), np.float32)

    def tokens(self, index):
        return self.ids[index]

    def is_target(self, index):
        return self.masks[index]

    @property
    def lengths(self):
        return np.array([len(x) for x in self.ids])


def made(lengths=(5, 17, 17, 9, 3)) -> Written:
    generator = np.random.default_rng(0)
    ids = [generator.integers(3, 50, n).astype(np.int32) for n in lengths]
    masks = [np.arange(n) >= n - max(1, n // 3) for n in lengths]  # a completion at the end
    return Written(ids, masks)


def by_transformers(model, data: Written) -> torch.Tensor:
    """Padded, labels -100 where nothing is to be learnt, the model's own loss (a mean) times the targets."""
    longest = max(data.lengths)
    ids = torch.zeros(len(data.ids), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (tokens, counts) in enumerate(zip(data.ids, data.masks, strict=True)):
        ids[i, : len(tokens)], mask[i, : len(tokens)] = torch.from_numpy(tokens).long(), 1
        labels[i, : len(tokens)][counts] = torch.from_numpy(tokens).long()[counts]
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss * (labels[:, 1:] != -100).sum()


@pytest.mark.parametrize("kind", configs.WRITERS)
def test_loss_and_gradients_are_those_of_transformers(kind):
    model, data = configs.build_writer(kind), made()
    forward = Forward(model)
    expected = by_transformers(model, data)
    found = OBJECTIVE.loss_of(forward, collate(data, np.arange(len(data.ids))), None)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-5)
    names = [name for name, _ in model.named_parameters()]
    wanted = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    grads = torch.autograd.grad(found, list(model.parameters()), allow_unused=True)
    for name, one, other in zip(names, grads, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3, msg=name)


def test_what_stands_before_a_target_predicts_it():
    data = Written([np.array([7, 8, 9]), np.array([5, 6])], [np.array([True, False, True]), np.array([True, True])])
    places, targets = next_tokens(collate(data, np.arange(2)))
    # The first token of a text is never predicted, least of all by the text before it.
    assert places.tolist() == [1, 3] and targets.tolist() == [9, 6]
    assert OBJECTIVE.weight_of(data, np.arange(2)) == 2


@pytest.mark.parametrize("budget", [12, 20, 1000])
def test_cutting_a_step_changes_nothing(budget):
    data = made()
    gradients = []
    for tokens in (budget, 10_000):
        model = configs.build_writer("llama")
        training = Training(data, data.lengths)
        loss, _ = step_gradient(
            Forward(model), OBJECTIVE, training, np.arange(len(data.ids)), Budget(tokens), Runtime("cpu", "fp32", 1), 0,
            print,
        )  # fmt: skip
        gradients.append([loss, *(p.grad.clone() for p in model.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_changed_context_token_that_is_no_target_costs_nothing_of_its_own():
    """Its own probability isn't in the loss: only what it does to the targets behind it."""
    data = made((12,))
    model = configs.build_writer("llama")
    batch = collate(data, np.arange(1))
    hidden_places, targets = next_tokens(batch)
    assert len(targets) == 4 and hidden_places.min() == 7  # four targets at the end of twelve tokens
    loss = OBJECTIVE.loss_of(Forward(model), batch, None)
    assert torch.isfinite(loss) and loss > 0
