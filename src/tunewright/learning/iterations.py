"""An iteration of PPO: its prompts, the updates it is cut into, and what it was like in numbers.

Between `rollouts` (what is written) and `ppo_loop` (what is done with it). Which prompts and which completions make an
update are functions of seed and iteration, so a resumed run needs no state to find its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tunewright.errors import DivergedError, ModelError, StoppedError
from tunewright.learning import ppo as maths
from tunewright.learning.checkpoints import Checkpoint
from tunewright.learning.collapse import Collapse
from tunewright.learning.gradients import Training
from tunewright.learning.loop import FitPlan, FitState, Hooks, learning_rate_at
from tunewright.learning.policy import MEASURES, PolicyObjective, penalised
from tunewright.learning.ppo_plan import PpoPlan
from tunewright.learning.rollouts import Practice, Rollouts, collect, of_all_ranks
from tunewright.runtime import Runtime


@dataclass
class PpoState:
    """What a checkpoint remembers beside tensors and a FitState."""

    kl_coef: float
    sums: list[float] = field(default_factory=lambda: [0.0] * len(MEASURES))  # over the iteration's updates
    tokens: float = 0.0  # completion tokens in them
    ptx_loss: float = 0.0  # sum over them
    collapse: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> PpoState:
        """What this checkpoint remembers. Raises ModelError."""
        try:
            return cls(**checkpoint.state["ppo"])
        except (KeyError, TypeError) as error:
            where = str(checkpoint.path)
            raise ModelError(f"state.json doesn't hold a PPO loop's state ({error})", where=where) from None


@dataclass(frozen=True)
class Iteration:
    """Rollouts with all updates on them."""

    objective: PolicyObjective
    training: Training
    steps: list[np.ndarray]  # which rollouts make each update
    seconds: float | None  # that the rollouts took; None: they come from a checkpoint

    @property
    def rollouts(self) -> Rollouts:
        return self.objective.rollouts

    def is_over(self, position: int) -> bool:
        """Whether this was the last update."""
        return position == len(self.steps) - 1


def begin(
    practice: Practice,
    plan: FitPlan,
    ppo_plan: PpoPlan,
    number: int,
    state: FitState,
    own: PpoState,
    rollouts: Rollouts | None,
    hooks: Hooks,
    save: Callable[[], None],
) -> Iteration:
    """Write and measure (or take what the checkpoint has), look at what was written, find what it teaches.

    Asked to stop meanwhile, it saves and raises StoppedError: the iteration begins again on resume.
    """
    steps = update_steps(ppo_plan, plan.seed, number)
    seconds = None
    if rollouts is None:
        started = time.perf_counter()
        try:
            rollouts = collect(
                practice,
                prompt_numbers(ppo_plan, len(practice.prompts), plan.seed, number),
                steps[: ppo_plan.minibatches],
                seed=int(np.random.SeedSequence([plan.seed, number]).generate_state(1)[0]),
                max_tokens=state.micro_batch_tokens,
                stop_if_asked=_stopping(hooks, practice.runtime, state),
            )
        except StoppedError:
            save()
            raise
        seconds = time.perf_counter() - started
        _look(rollouts, own, ppo_plan, number, hooks)
    objective = PolicyObjective.of(rollouts, practice.value_head, ppo_plan, own.kl_coef)
    return Iteration(objective, Training(rollouts, rollouts.lengths), steps, seconds)


def prompt_numbers(plan: PpoPlan, num_prompts: int, seed: int, iteration: int) -> np.ndarray:
    """Prompts of an iteration, int64 [rollouts], those of a group side by side; shuffled anew each time round."""
    places = np.arange(plan.prompts_per_iteration) + iteration * plan.prompts_per_iteration
    epochs = {int(e): np.random.default_rng([seed, int(e)]).permutation(num_prompts) for e in places // num_prompts}
    chosen = np.array([epochs[int(place // num_prompts)][place % num_prompts] for place in places], np.int64)
    return np.repeat(chosen, plan.completions_per_prompt)


def update_steps(plan: PpoPlan, seed: int, iteration: int) -> list[np.ndarray]:
    """Which rollouts make each update of an iteration: every one once per PPO epoch, shuffled anew."""
    steps: list[np.ndarray] = []
    for epoch in range(plan.ppo_epochs):
        order = np.random.default_rng([seed, iteration, epoch]).permutation(plan.rollouts_per_iteration)
        steps += np.array_split(order, plan.minibatches)
    return steps


def _stopping(hooks: Hooks, runtime: Runtime, state: FitState) -> Callable[[], None]:
    """What is called at each token. Ranks may hear a signal at different times: with several, the update decides."""

    def stop_if_asked() -> None:
        number = hooks.stop_signal() if runtime.world_size == 1 else 0
        if number:
            says = f"stopped at step {state.step}, while completions were written; continue with --resume"
            raise StoppedError(says, signal_number=number)

    return stop_if_asked


def _look(rollouts: Rollouts, own: PpoState, plan: PpoPlan, number: int, hooks: Hooks) -> None:
    """Say what looks like collapse; stop a policy that has run away."""
    collapse = Collapse(**own.collapse)
    for sentence in collapse.sentences(rollouts, plan.completions_per_prompt):
        hooks.say(f"iteration {number + 1}: {sentence}")
    own.collapse = asdict(collapse)
    if rollouts.kl > plan.most_kl:
        raise DivergedError(
            f"the policy has run away from its reference: {rollouts.kl:.1f} nats per completion at iteration "
            f"{number + 1}, and align.max_kl is {plan.most_kl:g}; the last checkpoint is kept: raise align.kl_coef, or "
            "lower training.learning_rate",
            field="align.max_kl",
        )


# ---- what is logged ----


def measure(
    own: PpoState, iteration: Iteration, indices: np.ndarray, loss: float, plan: PpoPlan, runtime: Runtime
) -> None:
    """Add what the update measured, of all ranks, to the iteration's sums."""
    objective = iteration.objective
    sums = of_all_ranks(objective.take_sums(), runtime)
    tokens = objective.weight_of(objective.rollouts, indices)
    own.sums = [one + other for one, other in zip(own.sums, sums.tolist(), strict=True)]
    own.tokens += tokens
    own.ptx_loss += (loss - objective.own_loss(sums, tokens)) / plan.ptx_coef


def row_of(
    state: FitState,
    own: PpoState,
    iteration: Iteration,
    norm: float,
    plan: FitPlan,
    ppo_plan: PpoPlan,
    has_ptx: bool,
) -> dict[str, float]:
    """An iteration in numbers: what was written, then what the updates did. Restarts the sum of losses."""
    objective, rollouts = iteration.objective, iteration.rollouts
    total, steps = state.loss_since_log
    state.loss_since_log = [0.0, 0.0]
    means = dict(zip(MEASURES, (value / own.tokens for value in own.sums), strict=True))
    row = {
        "step": state.step,
        "epoch": round(state.step / plan.steps_per_epoch, 6),
        "train/loss": total / steps,
        "train/learning_rate": learning_rate_at(state.step - 1, plan),
        "train/grad_norm": norm,
        "train/tokens": state.tokens,
        "ppo/score": float(rollouts.scores.mean()),
        "ppo/reward": float(penalised(rollouts, ppo_plan).mean()) - own.kl_coef * rollouts.kl,
        "ppo/kl": rollouts.kl,
        "ppo/kl_coef": own.kl_coef,
        "ppo/entropy": means["entropy"],
        "ppo/policy_loss": means["policy_loss"],
        "ppo/clip_fraction": means["clip_fraction"],
        "ppo/approx_kl": means["approx_kl"],
        "ppo/length": float(rollouts.completion_lengths.mean()),
        "ppo/ended": rollouts.share_ended,
        "ppo/distinct": rollouts.distinct,
    }
    if objective.value_head is not None:
        row["ppo/value_loss"] = means["value_loss"]
        explained = maths.explained_variance(rollouts.values, objective.lessons.returns, rollouts.completion_mask)
        row |= {"ppo/explained_variance": explained} if np.isfinite(explained) else {}
    if has_ptx:
        row["ppo/ptx_loss"] = own.ptx_loss / steps
    if iteration.seconds is not None:
        row["ppo/completions_per_second"] = round(len(rollouts) / iteration.seconds, 2)
    return row


def finish(own: PpoState, rollouts: Rollouts, plan: PpoPlan) -> None:
    """Nothing of this iteration is counted in the next; the next one's price of distance."""
    own.sums, own.tokens, own.ptx_loss = [0.0] * len(MEASURES), 0.0, 0.0
    if plan.kl_target is not None:
        own.kl_coef = maths.next_kl_coef(own.kl_coef, rollouts.kl, plan.kl_target)
