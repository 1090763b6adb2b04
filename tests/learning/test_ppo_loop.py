"""The loop of PPO and GRPO: resumed equals uninterrupted from everywhere, and what each iteration is made of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import whole
from tests.faults import failing, passed
from tests.learning import small_ppo
from tunewright.errors import DivergedError, ModelError, UsageError
from tunewright.learning import iterations, policy, ppo_loop, rollouts
from tunewright.learning.checkpoints import CheckpointStore
from tunewright.learning.policy import PolicyObjective
from tunewright.learning.ppo_plan import PpoPlan
from tunewright.runtime import Runtime

KINDS = {
    "ppo": {"ppo_plan": small_ppo.ppo_but(kl_target=0.1)},
    "grpo": {"ppo_plan": small_ppo.GRPO},
    "ptx": {"beside": small_ppo.ptx()},
    "full": {"make": lambda: small_ppo.model(method="full"), "plan": small_ppo.but(learning_rate=1e-3)},
}


@pytest.fixture(scope="module", params=KINDS)
def uninterrupted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, KINDS[request.param], small_ppo.run(folder, **KINDS[request.param])


def same_end(folder, other, last, expected):
    """Weights, optimizer, value head and state, byte for byte."""
    assert not last.stopped
    assert all(torch.equal(expected.weights[name], tensor) for name, tensor in last.weights.items())
    ends = [CheckpointStore(f, {}).load(12) for f in (folder, other)]
    tensors = [end.optimizer() for end in ends]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    assert ends[0].state["fit"] == ends[1].state["fit"] and ends[0].state["ppo"] == ends[1].state["ppo"]
    if expected.value_head is not None:
        assert all(map(torch.equal, expected.value_head.parameters(), last.value_head.parameters()))


def same_rows(parts, expected):
    """A resumed run writes the same rows again; those past its checkpoint are dropped by the recorder."""
    seen = {(row["step"], "best" in row): row for rows in parts for row in small_ppo.timeless(rows)}
    assert list(seen.values()) == small_ppo.timeless(expected.rows)


# ---- resume ----


@pytest.mark.parametrize("step", range(1, 12))
def test_resumed_equals_uninterrupted_byte_for_byte(uninterrupted, tmp_path, step):
    """Stopped after any update: between iterations and inside them."""
    folder, settings, expected = uninterrupted
    first = small_ppo.run(tmp_path, stop_when=lambda r, now: 15 if now + 1 >= step else 0, **settings)
    assert first.stopped
    at = CheckpointStore(tmp_path, {}).newest()[0]
    held = any(name.startswith("rollout/") for name in at.optimizer())
    assert held == (at.step % 4 > 0)  # rollouts are kept as long as they are learnt from
    second = small_ppo.run(tmp_path, resume=True, **settings)
    same_end(folder, tmp_path, second, expected)
    same_rows([[row for row in first.rows if row["step"] <= at.step], second.rows], expected)


@pytest.mark.parametrize("asked", [1, 3, 20, 48, 60, 100])
def test_a_stop_while_writing_saves_the_iterations_start(uninterrupted, tmp_path, asked):
    """The loop asks at each token and each micro-batch: a signal is heard there, and the iteration begins again."""
    folder, settings, expected = uninterrupted
    first = small_ppo.run(tmp_path, stop_when=lambda r, now: 2 if r.signals >= asked else 0, **settings)
    at = CheckpointStore(tmp_path, {}).newest()[0]
    assert f"stopped at step {at.step}" in first.stopped
    if asked <= 20:
        assert at.step == 0 and "while completions were written" in first.stopped
    second = small_ppo.run(tmp_path, resume=True, **settings)
    same_end(folder, tmp_path, second, expected)
    same_rows([[row for row in first.rows if row["step"] <= at.step], second.rows], expected)


class Killed(BaseException):
    """As SIGKILL: nothing gets to clean up but what the interpreter unwinds."""


@pytest.mark.parametrize("part", range(3))
def test_killed_at_any_fault_point(tmp_path, monkeypatch, part):
    """Saves every second step; each file, sync and rename of them is a place to die."""
    settings = {"plan": small_ppo.but(checkpoint_every=2, evaluate_before=False, evaluate_every=100)}
    folder = tmp_path / "whole"
    points = passed(monkeypatch, lambda: small_ppo.run(folder, **settings))
    expected = small_ppo.run(tmp_path / "again", **settings)
    for number in range(part * 17, len(points), 51):
        dead = tmp_path / str(number)
        with failing(monkeypatch, number, Killed()), pytest.raises(Killed):
            small_ppo.run(dead, **settings)
        CheckpointStore(dead, {}).tidy()
        last = small_ppo.run(dead, resume=True, **settings)
        same_end(folder, dead, last, expected)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.learning import small_ppo
from tunewright import durable
deadly, count = int(sys.argv[2]), [0]
def reached(point):
    count[0] += 1
    if count[0] == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
durable.reached = reached
def reward(asked, completions):
    reward.calls += 1
    if deadly < 0 and reward.calls == -deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return small_ppo.low_tokens(asked, completions)
reward.calls = 0
small_ppo.run(Path(sys.argv[1]), plan=small_ppo.but(checkpoint_every=2), reward=reward)
"""


@pytest.mark.parametrize("deadly", [70, 131, -2])
def test_killed_for_real(tmp_path, deadly):
    """SIGKILL in another process: inside a save, or while the second iteration is scored."""
    folder, plan = tmp_path / "dead", small_ppo.but(checkpoint_every=2)
    environment = whole.child_environment() | {"PYTHONPATH": os.pathsep.join([str(whole.ROOT), *sys.path])}
    died = subprocess.run(
        [whole.PYTHON, "-c", SCRIPT, str(folder), str(deadly)], env=environment, capture_output=True, text=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    expected = small_ppo.run(tmp_path / "whole", plan=plan)
    CheckpointStore(folder, {}).tidy()
    last = small_ppo.run(folder, resume=True, plan=plan)
    same_end(tmp_path / "whole", folder, last, expected)


def test_a_checkpoint_of_another_loop_is_refused(tmp_path):
    first = small_ppo.run(tmp_path, stop_when=lambda r, now: 15 if now >= 2 else 0)
    assert first.stopped
    store = CheckpointStore(tmp_path, {"recipe": "toy"})
    found = store.newest()[0]
    store.save(found.step, found.weights(), found.optimizer(), {"fit": found.state["fit"]})
    with pytest.raises(ModelError, match=r"state\.json doesn't hold a PPO loop's state"):
        small_ppo.run(tmp_path, resume=True)
    torn = {n: t for n, t in found.optimizer().items() if n != "rollout/scores"}
    store.save(found.step, found.weights(), torn, {"fit": found.state["fit"], "ppo": found.state["ppo"]})
    with pytest.raises(ModelError, match="doesn't hold whole rollouts"):
        small_ppo.run(tmp_path, resume=True)


# ---- an iteration ----


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ratio_is_one_at_the_first_update(tmp_path, monkeypatch, precision):
    """1 ± 1e-5 at every token: the policy that is measured is the one that learns."""
    seen = []
    whole_objective = PolicyObjective.loss_of

    def loss_of(self, forward, batch, boundary):
        loss = whole_objective(self, forward, batch, boundary)
        seen.append(self.measured[batch.indices].clone())
        return loss

    monkeypatch.setattr(PolicyObjective, "loss_of", loss_of)

    def make():
        return small_ppo.moved(small_ppo.model())

    from tunewright.models.forward import Forward

    real = Forward.__post_init__
    monkeypatch.setattr(Forward, "__post_init__", lambda self: (real(self), setattr(self, "precision", precision))[0])
    small_ppo.run(tmp_path, make=make, plan=small_ppo.but(total_steps=1, micro_batch_tokens=25))
    assert len(seen) > 1  # several micro-batches
    apart = torch.cat(seen)[:, 4]  # Σ (ρ − 1) − log ρ: half the squared distance of log ρ from 0
    assert (apart.abs() < 0.5e-10 * 7).all()
    assert not torch.cat(seen)[:, 5].any()  # nothing is clipped


def test_measured_in_the_micro_batches_of_the_first_updates(tmp_path, monkeypatch):
    """Products of other shapes round otherwise: the same texts side by side give the same bits."""
    parts = []
    real = rollouts.at_completions

    def at_completions(forward, value_head, known, indices, temperature, device):
        parts.append(indices.tolist())
        return real(forward, value_head, known, indices, temperature, device)

    for module in (rollouts, policy):
        monkeypatch.setattr(module, "at_completions", at_completions)
    small_ppo.run(tmp_path, plan=small_ppo.but(total_steps=2))
    third = len(parts) // 3
    assert third > 2  # both updates are cut
    assert parts[:third] == parts[third : 2 * third] == parts[2 * third :]  # policy, reference, two updates


def test_dropout_stays_off(tmp_path):
    """Adapters with dropout learn the same as adapters without."""
    with_dropout = small_ppo.run(tmp_path / "a")
    without = small_ppo.run(tmp_path / "b", make=lambda: small_ppo.model(dropout=0.0))
    assert all(torch.equal(without.weights[name], tensor) for name, tensor in with_dropout.weights.items())


def test_the_learning_rate_is_annealed(tmp_path):
    rows = small_ppo.run(tmp_path).rows
    rates = [row["train/learning_rate"] for row in rows if "ppo/kl" in row]
    assert rates == pytest.approx([1e-2 * (1 - step / 12) for step in (3, 7, 11)])


def test_a_row_for_each_iteration(tmp_path):
    recorded = small_ppo.run(tmp_path, ppo_plan=small_ppo.ppo_but(kl_target=0.1))
    rows = [row for row in recorded.rows if "ppo/kl" in row]
    assert [row["step"] for row in rows] == [4, 8, 12] and [row["epoch"] for row in rows] == [0.5, 1.0, 1.5]
    names = (
        "score reward kl kl_coef entropy policy_loss value_loss clip_fraction approx_kl explained_variance length "
        "ended distinct completions_per_second"
    )
    assert {name for name in rows[0] if name.startswith("ppo/")} == {f"ppo/{name}" for name in names.split()}
    assert all(isinstance(value, float | int) and np.isfinite(value) for row in rows for value in row.values())
    first = rows[0]
    assert first["ppo/kl"] == 0.0  # the untrained policy is its reference
    assert first["ppo/reward"] == pytest.approx(first["ppo/score"] - 0.5 * (1 - first["ppo/ended"]))
    assert first["ppo/kl_coef"] == 0.05 and rows[1]["ppo/kl_coef"] == pytest.approx(0.05 * 0.98)  # nearer than asked
    assert 0 < first["ppo/entropy"] < np.log(50) and 1 <= first["ppo/length"] <= 7


def test_grpo_has_no_values(tmp_path):
    rows = [row for row in small_ppo.run(tmp_path, ppo_plan=small_ppo.GRPO).rows if "ppo/kl" in row]
    assert len(rows) == 3 and not any("value" in name or "variance" in name for row in rows for name in row)
    assert {row["ppo/kl_coef"] for row in rows} == {0.05}


def test_evaluations_best_and_the_last_checkpoints(tmp_path):
    recorded = small_ppo.run(tmp_path)
    evaluations = [row for row in recorded.rows if "best" in row]
    assert [row["step"] for row in evaluations] == [0, 4, 8, 12]
    kept = {int(p.name[5:]) for p in tmp_path.iterdir()}
    assert kept == {8, 12, recorded.state.best_step}
    weights = CheckpointStore(tmp_path, {}).load(12).weights()
    assert weights.keys() == recorded.weights.keys()  # the value head isn't part of the model


@pytest.mark.parametrize("ppo_plan", [small_ppo.PPO, small_ppo.GRPO], ids=["ppo", "grpo"])
def test_it_learns(tmp_path, ppo_plan):
    """Low tokens are rewarded: after 30 iterations most are low."""
    ppo_plan = replace(ppo_plan, rollouts_per_iteration=24, kl_coef=0.01, eos_penalty=0.0, temperature=1.0)
    plan = small_ppo.but(
        total_steps=120, micro_batch_tokens=1000, learning_rate=3e-3, schedule="constant", evaluate_every=10**6
    )
    recorded = small_ppo.run(tmp_path, plan=plan, ppo_plan=ppo_plan, make=lambda: small_ppo.model(method="full"))
    rows = [row for row in recorded.rows if "ppo/kl" in row]
    scores = [row["ppo/score"] for row in rows]
    assert np.mean(scores[:2]) < 0.5 and np.mean(scores[-3:]) > 0.75
    assert rows[-1]["ppo/kl"] > 2
    if ppo_plan.method == "ppo":
        explained = [row["ppo/explained_variance"] for row in rows]
        assert np.mean(explained[-5:]) > np.mean(explained[:3])


def test_distance_costs(tmp_path):
    """A dear nat keeps the policy near its reference."""
    plan = small_ppo.but(total_steps=60, micro_batch_tokens=1000, schedule="constant", evaluate_every=10**6)
    ends = []
    for kl_coef in (0.0, 1.0):
        ppo_plan = small_ppo.ppo_but(rollouts_per_iteration=16, kl_coef=kl_coef)
        rows = small_ppo.run(tmp_path / str(kl_coef), plan=plan, ppo_plan=ppo_plan).rows
        ends.append(np.mean([row["ppo/kl"] for row in rows if "ppo/kl" in row][-5:]))
    assert ends[1] < 0.5 * ends[0]


def test_pretraining_rows_are_learnt_beside(tmp_path):
    """With a coefficient near nothing the run is the one without them; with a large one their loss falls."""
    alone = small_ppo.run(tmp_path / "alone")
    nearly = small_ppo.run(tmp_path / "nearly", beside=small_ppo.ptx(), ppo_plan=small_ppo.ppo_but(ptx_coef=1e-9))
    for name, tensor in alone.weights.items():
        torch.testing.assert_close(nearly.weights[name], tensor, atol=1e-4, rtol=1e-3)
    plan = small_ppo.but(total_steps=60, evaluate_every=10**6, schedule="constant")
    much = small_ppo.run(
        tmp_path / "much", beside=small_ppo.ptx(), plan=plan, ppo_plan=small_ppo.ppo_but(ptx_coef=10.0)
    )
    losses = [row["ppo/ptx_loss"] for row in much.rows if "ppo/ptx_loss" in row]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    assert np.mean(losses[:1]) == pytest.approx(np.log(50), abs=0.7)  # nats per token of random text


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_step(tmp_path, monkeypatch):
    roomy = small_ppo.run(tmp_path / "a", plan=small_ppo.but(micro_batch_tokens=10**6), beside=small_ppo.ptx())
    whole_objective = PolicyObjective.loss_of

    def tight(self, forward, batch, boundary):
        if len(batch.indices) > 2:
            raise torch.OutOfMemoryError("made up")
        return whole_objective(self, forward, batch, boundary)

    monkeypatch.setattr(PolicyObjective, "loss_of", tight)
    found = small_ppo.run(tmp_path / "b", plan=small_ppo.but(micro_batch_tokens=10**6), beside=small_ppo.ptx())
    assert any("out of memory: micro-batches now hold" in sentence for sentence in found.said)
    for name, tensor in roomy.weights.items():
        torch.testing.assert_close(found.weights[name], tensor, atol=1e-3, rtol=1e-2)


# ---- what goes wrong ----


def test_a_policy_that_runs_away_is_stopped(tmp_path):
    with pytest.raises(
        DivergedError, match=r"run away .* nats per completion at iteration 2, .*max_kl is 1e-09; .*kl_coef"
    ):
        small_ppo.run(
            tmp_path, ppo_plan=small_ppo.ppo_but(max_kl=1e-9, rollouts_per_iteration=16),
            make=lambda: small_ppo.model(method="full"),
        )  # fmt: skip
    assert CheckpointStore(tmp_path, {}).newest()[0].step == 4
    assert PpoPlan(rollouts_per_iteration=4, max_new_tokens=24).most_kl == 240


def test_a_loss_that_is_no_number_leaves_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(
        PolicyObjective,
        "loss_of",
        lambda self, forward, batch, boundary: forward.hidden(batch.texts).sum() * float("nan"),
    )
    with pytest.raises(DivergedError, match=r"not a number at step 1 \(loss nan; rows \d+, \d+"):
        small_ppo.run(tmp_path)
    weights = CheckpointStore(tmp_path, {}).newest()[0].weights()
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_flat_scores_are_said_once(tmp_path):
    def flat(asked, completions):
        return np.full(len(completions), 3.0)

    said = small_ppo.run(tmp_path, reward=flat).said
    assert said == [
        "iteration 1: all completions have the same score, so there is nothing to learn from; look at the reward"
    ]
    said = small_ppo.run(tmp_path / "g", reward=flat, ppo_plan=small_ppo.GRPO).said
    assert len(said) == 1 and "completions of each prompt have the same score" in said[0]


def test_collapse_is_said_once_also_over_a_resume(tmp_path, monkeypatch):
    """Rollouts of a policy that ended and varied at first, and then writes one token for ever."""
    real = iterations.collect

    def collect(practice, numbers, steps, **settings):
        found = real(practice, numbers, steps, **settings)
        first = not collect.count
        collect.count += 1
        if first:
            return replace(found, ended=torch.ones(6, dtype=torch.bool))
        return replace(
            found,
            completions=torch.where(found.completion_mask, 9, 0),
            completion_mask=torch.ones_like(found.completion_mask),
            ended=torch.zeros(6, dtype=torch.bool),
            ref_logprobs=found.logprobs + 1.0,
        )

    collect.count = 0
    monkeypatch.setattr(iterations, "collect", collect)
    first = small_ppo.run(tmp_path, stop_when=lambda r, now: 15 if now >= 6 else 0)
    assert first.stopped
    words = " / ".join(first.said)
    for sign in (
        "0% of the completions end by themselves, at the start 100%", "completions repeat themselves",
        "the same completion is written again and again", "which should not be below 0",
    ):  # fmt: skip
        assert words.count(sign) == 1
    assert all(sentence.startswith("iteration 2: ") for sentence in first.said)
    assert small_ppo.run(tmp_path, resume=True).said == []


def test_plans_that_make_no_sense():
    with pytest.raises(UsageError, match=r"6 completions, which groups of 4 .* don't divide"):
        PpoPlan(method="grpo", rollouts_per_iteration=6, group_size=4, max_new_tokens=5)
    with pytest.raises(UsageError, match=r"training\.batch_size is 2 completions; expected 2 at least, and 4"):
        PpoPlan(rollouts_per_iteration=2, minibatches=4, max_new_tokens=5)
    with pytest.raises(UsageError, match="1 completions; expected 2"):
        PpoPlan(rollouts_per_iteration=1, minibatches=1, max_new_tokens=5)


def test_a_model_that_does_not_write_is_refused(tmp_path):
    import transformers as hf

    config = hf.BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    with pytest.raises(ModelError, match="a bert model doesn't write from left to right; ppo needs one that does"):
        small_ppo.run(tmp_path, make=lambda: hf.BertForMaskedLM(config))


# ---- ranks ----


class Rank(Runtime):
    """Ranks as threads of one process: each gives its share, and all read the sum."""

    def __init__(self, rank, world_size, meeting):
        super().__init__("cpu", "fp32", 1, rank, world_size)
        object.__setattr__(self, "meeting", meeting)

    def sum(self, tensor):
        given, barrier = self.meeting
        given[self.rank] = tensor.clone()
        barrier.wait()
        tensor.copy_(torch.stack([given[r] for r in range(self.world_size)]).sum(0))
        barrier.wait()
        return tensor


@pytest.mark.parametrize("kind", ["ppo", "grpo", "ptx"])
def test_two_ranks_are_one_run(tmp_path, kind):
    """Each writes, scores and measures its half; gradients are summed; rank 0 saves. Other roundings, same run."""
    settings = KINDS[kind] | {"plan": small_ppo.but(learning_rate=1e-3, total_steps=8)}
    meeting, found = ({}, threading.Barrier(2, timeout=60)), {}

    def work(rank):
        found[rank] = small_ppo.run(tmp_path / "both", runtime=Rank(rank, 2, meeting), **settings)

    models = [small_ppo.model() for _ in range(2)]  # made beforehand: the seed is the process's
    settings["make"] = lambda: models.pop()
    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = small_ppo.run(tmp_path / "alone", **settings | {"make": small_ppo.model})
    assert all(torch.equal(found[0].weights[name], tensor) for name, tensor in found[1].weights.items())
    for name, tensor in alone.weights.items():
        torch.testing.assert_close(found[0].weights[name], tensor, atol=2e-5, rtol=1e-2)
    rows = [[row for row in r.rows if "ppo/kl" in row] for r in (found[0], found[1], alone)]
    for one, other in zip(rows[0], rows[1], strict=True):
        assert small_ppo.timeless([one]) == small_ppo.timeless([other])
    for one, other in zip(rows[0], rows[2], strict=True):
        assert small_ppo.timeless([one])[0] == pytest.approx(small_ppo.timeless([other])[0], abs=1e-4, rel=1e-3)


def test_the_loop_is_in_one_place():
    """Both loops end a step in the same function."""
    from tunewright.learning import loop

    assert ppo_loop.update is loop.update
