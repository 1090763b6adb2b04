"""The loop: resumed equals uninterrupted from every step, and every way a run can end."""

from __future__ import annotations

import math

import pytest
import torch

from tests.learning import small
from tunewright.errors import DivergedError
from tunewright.learning.checkpoints import CheckpointStore
from tunewright.learning.classification import Classification


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, small.run(folder)


@pytest.mark.parametrize("step", range(1, 12))
def test_resumed_equals_uninterrupted_byte_for_byte(uninterrupted, tmp_path, step):
    folder, whole = uninterrupted
    first = small.run(tmp_path, stop_at=step)
    assert first.stopped
    second = small.run(tmp_path, resume=True)
    assert not second.stopped
    assert all(torch.equal(whole.weights[name], tensor) for name, tensor in second.weights.items())
    ends = [CheckpointStore(f, {}).load(12) for f in (folder, tmp_path)]
    optimizers = [end.optimizer() for end in ends]
    assert optimizers[0].keys() == optimizers[1].keys()
    assert all(torch.equal(tensor, optimizers[1][name]) for name, tensor in optimizers[0].items())
    assert ends[0].state["fit"] == ends[1].state["fit"]
    kept = [row for row in first.rows if row["step"] <= step]
    seen = {(row["step"], "best" in row): row for row in [*kept, *second.rows]}
    assert list(seen.values()) == whole.rows


def test_resume_twice_in_one_epoch(uninterrupted, tmp_path):
    assert small.run(tmp_path, stop_at=5).stopped
    assert small.run(tmp_path, stop_at=7, resume=True).stopped
    last = small.run(tmp_path, resume=True)
    assert all(torch.equal(uninterrupted[1].weights[name], tensor) for name, tensor in last.weights.items())


def test_random_state_matters(tmp_path, monkeypatch):
    """The guard of the test above: without the random state, dropout draws differ and so do the weights."""
    whole = small.run(tmp_path / "a")
    small.run(tmp_path / "b", stop_at=5)
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    other = small.run(tmp_path / "b", resume=True)
    assert any(not torch.equal(whole.weights[name], tensor) for name, tensor in other.weights.items())


@pytest.mark.parametrize("tokens", [1, 25, 60, 10_000])
def test_accumulated_gradient_equals_full(tmp_path, tokens):
    def make():
        return small.model(dropout=0.0)

    full = small.run(tmp_path / "full", plan=small.but(micro_batch_tokens=10**6), make=make)
    cut = small.run(tmp_path / "cut", plan=small.but(micro_batch_tokens=tokens), make=make)
    for name, tensor in full.weights.items():
        torch.testing.assert_close(cut.weights[name], tensor, atol=2e-5, rtol=1e-4)


def test_class_weights_are_normalised_by_the_whole_step(tmp_path):
    objective = Classification("single", torch.tensor([0.2, 3.0, 1.0]))

    def make():
        return small.model(dropout=0.0)

    full = small.run(tmp_path / "a", plan=small.but(micro_batch_tokens=10**6), objective=objective, make=make)
    cut = small.run(tmp_path / "b", plan=small.but(micro_batch_tokens=1), objective=objective, make=make)
    for name, tensor in full.weights.items():
        torch.testing.assert_close(cut.weights[name], tensor, atol=2e-5, rtol=1e-4)


def test_rows_say_what_happened(uninterrupted):
    rows = uninterrupted[1].rows
    evaluations = [row for row in rows if "best" in row]
    assert [row["step"] for row in evaluations] == [0, 4, 8, 12]
    assert "train/loss" not in evaluations[0] and not evaluations[0]["best"]
    logs = [row for row in rows if "train/grad_norm" in row]
    assert [row["step"] for row in logs] == [3, 6, 9, 12]
    assert logs[-1]["train/tokens"] == 3 * int(small.Toy.make().lengths.sum())
    assert evaluations[1]["train/loss"] == pytest.approx(
        sum(row["train/loss"] * 3 for row in logs[:1]) / 3, rel=0.5
    )  # the mean of the epoch's step losses, of which the first log row holds three of four


def test_best_and_newest_are_kept(uninterrupted):
    folder, whole = uninterrupted
    kept = sorted(int(p.name[5:]) for p in folder.iterdir())
    assert set(kept) == {8, 12, whole.state.best_step}


def test_non_finite_loss_stops_before_the_weights_change(tmp_path):
    class Broken(Classification):
        def loss_sum(self, logits, labels):
            loss = super().loss_sum(logits, labels)
            calls.append(1)
            return loss * (float("nan") if len(calls) > 20 else 1.0)

    calls: list[int] = []
    with pytest.raises(DivergedError, match=r"not a number at step \d+ \(loss nan; rows .*learning_rate") as caught:
        small.run(tmp_path, objective=Broken("single"))
    assert caught.value.exit_code == 7
    checkpoint = CheckpointStore(tmp_path, {}).newest()[0]
    assert checkpoint is not None
    assert all(math.isfinite(float(tensor.sum())) for tensor in checkpoint.weights().values())


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_step(tmp_path):
    class Tight(Classification):
        def loss_sum(self, logits, labels):
            if len(labels) > 2:
                raise torch.OutOfMemoryError("made up")
            return super().loss_sum(logits, labels)

    def make():
        return small.model(dropout=0.0)

    roomy = small.run(tmp_path / "a", plan=small.but(micro_batch_tokens=10**6), make=make)
    tight = small.run(tmp_path / "b", plan=small.but(micro_batch_tokens=10**6), make=make, objective=Tight("single"))
    assert any("out of memory: micro-batches now hold" in sentence for sentence in tight.said)
    assert tight.state.micro_batch_tokens < 10**6
    for name, tensor in roomy.weights.items():
        torch.testing.assert_close(tight.weights[name], tensor, atol=2e-5, rtol=1e-4)


def test_early_stopping(tmp_path):
    """A metric that never moves: the first evaluation is the best, the next two are not better."""
    recorded = small.run(tmp_path, plan=small.but(metric="validation/constant", early_stopping=2, evaluate_every=2))
    assert recorded.state.step == 6 and recorded.state.best_step == 2


def test_checkpoints_every_few_steps(tmp_path):
    small.run(tmp_path, plan=small.but(checkpoint_every=5, total_steps=11, evaluate_every=100, evaluate_before=False))
    assert {int(p.name[5:]) for p in tmp_path.iterdir()} == {10, 11}


def test_order_and_learning_rate_do_not_depend_on_evaluation(tmp_path):
    often = small.run(tmp_path / "a", plan=small.but(evaluate_every=1))
    never = small.run(tmp_path / "b", plan=small.but(evaluate_every=100, evaluate_before=False))
    assert all(torch.equal(often.weights[name], tensor) for name, tensor in never.weights.items())
