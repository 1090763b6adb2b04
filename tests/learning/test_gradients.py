"""One step's gradient, whatever it is cut into: micro-batches, ranks, or a retry with less memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.learning import small
from tunewright.errors import MachineError
from tunewright.learning import gradients
from tunewright.learning.classification import Classification
from tunewright.learning.gradients import Budget, Training, step_gradient
from tunewright.models.forward import Forward
from tunewright.runtime import Runtime

DATA = small.Toy.make()
TRAINING = Training(DATA, DATA.lengths)
STEP = np.array([3, 0, 7, 11, 4, 9, 2])  # uneven: seven texts
ALONE = Runtime("cpu", "fp32", 1)
WEIGHTS = torch.tensor([0.2, 3.0, 1.0])


def gradient(tokens=10**6, runtime=ALONE, objective=None, stop=0, step=STEP, training=TRAINING):
    model = small.model(dropout=0.0)
    forward = Forward(model)
    said = []
    budget = Budget(tokens)
    loss, signal = step_gradient(
        forward, objective or Classification("single"), training, step, budget, runtime, stop, said.append
    )
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return loss, grads, signal, budget, said


def equal(one, other, tolerance=1e-6):
    assert one.keys() == other.keys() and any(g is not None and g.abs().max() > 1e-4 for g in one.values())
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, atol=tolerance, rtol=1e-4)


def test_it_is_the_gradient_of_the_mean_loss():
    """Against one plain padded forward of the model and torch's own cross entropy."""
    model = small.model(dropout=0.0)
    longest = max(len(DATA.tokens(i)) for i in STEP)
    ids = torch.zeros(len(STEP), longest, dtype=torch.long)
    mask = torch.zeros(len(STEP), longest, dtype=torch.long)
    for row, i in enumerate(STEP):
        ids[row, : len(DATA.tokens(i))] = torch.from_numpy(DATA.tokens(i))
        mask[row, : len(DATA.tokens(i))] = 1
    logits = model(input_ids=ids, attention_mask=mask).logits
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(DATA.labels[STEP]))
    loss.backward()
    found, grads, *_ = gradient()
    assert found == pytest.approx(loss.item(), abs=1e-6)
    equal({n: p.grad for n, p in model.named_parameters() if p.requires_grad}, grads)


@pytest.mark.parametrize("objective", [Classification("single"), Classification("single", WEIGHTS, 0.1)])
@pytest.mark.parametrize("tokens", [1, 30, 70])
def test_micro_batches_change_nothing(objective, tokens):
    whole, cut = gradient(objective=objective), gradient(tokens, objective=objective)
    assert cut[0] == pytest.approx(whole[0], abs=1e-6)
    equal(whole[1], cut[1])


class Exchange:
    """Ranks in one process: each adds its share, then all read the sum."""

    def __init__(self, world_size):
        self.world_size = world_size
        self.given = []

    def collect(self, stops=None, **arguments):
        for rank in range(self.world_size):
            machine = _Rank(rank, self.world_size, self.given)
            gradient(runtime=machine, stop=stops[rank] if stops else 0, **arguments)
        return torch.stack(self.given).sum(0)


class _Rank(Runtime):
    def __init__(self, rank, world_size, given, total=None):
        super().__init__("cpu", "fp32", 1, rank, world_size)
        object.__setattr__(self, "given", given)
        object.__setattr__(self, "total", total)

    def sum(self, tensor):
        if self.total is not None:
            return tensor.copy_(self.total)
        self.given.append(tensor.clone())
        return tensor


@pytest.mark.parametrize("world_size", [2, 3, 8])  # with eight, one rank has no text at all
@pytest.mark.parametrize("objective", [Classification("single"), Classification("single", WEIGHTS)])
def test_ranks_change_nothing(world_size, objective):
    total = Exchange(world_size).collect(objective=objective)
    whole = gradient(objective=objective)
    for rank in (0, world_size - 1):
        loss, grads, stop, *_ = gradient(runtime=_Rank(rank, world_size, [], total), objective=objective)
        assert loss == pytest.approx(whole[0], abs=1e-6) and stop == 0
        equal(whole[1], grads)


@pytest.mark.parametrize(
    "stops, expected", [((0, 0), 0), ((15, 0), 15), ((0, 2), 2), ((2, 15), 15), ((2, 2), 2), ((15, 15), 15)]
)
def test_all_ranks_stop_at_the_same_step(stops, expected):
    total = Exchange(2).collect(stops)
    heard = {gradient(runtime=_Rank(rank, 2, [], total))[2] for rank in (0, 1)}
    assert heard == {expected}


class Tight(Classification):
    """A machine that holds four texts at once."""

    def loss_sum(self, logits, labels):
        if len(labels) > 4:
            raise torch.OutOfMemoryError("made up")
        return super().loss_sum(logits, labels)


def test_out_of_memory_halves_and_keeps_the_gradient():
    loss, grads, _, budget, said = gradient(objective=Tight("single"))
    whole = gradient()
    assert loss == pytest.approx(whole[0], abs=1e-6)
    equal(whole[1], grads)  # nothing of the failed try is left in it
    assert budget.tokens < int(DATA.lengths[STEP].sum())
    assert said and all("the step stays the same" in sentence for sentence in said)


def test_a_single_text_that_does_not_fit_is_an_error():
    class None_(Classification):
        def loss_sum(self, logits, labels):
            raise torch.OutOfMemoryError("made up")

    with pytest.raises(MachineError, match=r"single text; lower data\.max_length") as caught:
        gradient(objective=None_("single"))
    assert caught.value.field == "data.max_length"


@pytest.mark.parametrize(
    "tokens, lengths, expected", [(1000, [10, 20, 30], 30), (40, [10, 30, 30], 30), (100, [10] * 10, 50)]
)
def test_halving_starts_from_what_was_held(tokens, lengths, expected):
    assert gradients._halved(tokens, np.array(lengths)) == expected
