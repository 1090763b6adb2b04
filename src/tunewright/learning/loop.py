"""The loop: one function, its steps numbered. Loss, batches, evaluation and checkpoints are handed in.

    pending evaluation? -> done? -> forward, backward per micro-batch -> sum over ranks -> clip, step -> log, save

Its parts serve `ppo_loop` too: both loops share `update`, evaluation, counting and learning rate.

It resumes exactly: order and learning rate are functions of the step, and everything else that a step depends on
(weights, moments, random state, sums not yet logged) is in the checkpoint. It imports no evaluation and prints nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from tunewright.data.batching import epoch_steps
from tunewright.errors import DivergedError, StoppedError
from tunewright.learning.checkpoints import Checkpoint, CheckpointStore
from tunewright.learning.gradients import Budget, Objective, Training, step_gradient
from tunewright.learning.optimization import (
    clip_gradients,
    learning_rate_factor,
    make_optimizer,
    set_learning_rate,
)
from tunewright.learning.tensors import load_optimizer, load_trainable, optimizer_tensors, trainable_tensors
from tunewright.models.forward import Forward
from tunewright.runtime import Runtime, give_back

# Steps. Texts of many lengths leave gaps in the heap, which would grow by some 100 MB in each ten steps.
TIDY_EVERY = 16


@dataclass(frozen=True)
class FitPlan:
    """Plain numbers: every decision the loop follows."""

    total_steps: int
    steps_per_epoch: int
    batch_size: int
    micro_batch_tokens: int
    learning_rate: float
    schedule: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    evaluate_every: int  # steps
    evaluate_before: bool
    checkpoint_every: int | None  # steps; None: after each evaluation
    log_every: int
    metric: str  # "validation/accuracy"
    higher_is_better: bool
    early_stopping: int | None
    seed: int


@dataclass
class FitState:
    """What a checkpoint remembers beside tensors."""

    step: int = 0
    evaluated_step: int = -1
    best_step: int | None = None
    best_value: float | None = None
    evaluations_without_better: int = 0
    tokens: int = 0  # real tokens learned from so far
    micro_batch_tokens: int = 0
    loss_since_log: list[float] = field(default_factory=lambda: [0.0, 0.0])  # sum of step losses, steps
    loss_since_evaluation: list[float] = field(default_factory=lambda: [0.0, 0.0])


@dataclass(frozen=True)
class Hooks:
    """How the loop speaks to the run: rows to write, and whether to stop."""

    log: Callable[[dict[str, float]], None]
    evaluate: Callable[[int, float], dict[str, float]]  # (step, epoch) -> "validation/…" metrics
    evaluated: Callable[[dict[str, float], bool], None]  # (row, is it the best)
    stepped: Callable[[FitState, float, int], None]  # after each step: state, loss and tokens of the step
    say: Callable[[str], None]
    stop_signal: Callable[[], int]  # 0, or the signal that asked to stop


def fit(
    forward: Forward,
    objective: Objective,
    training: Training,
    plan: FitPlan,
    checkpoints: CheckpointStore,
    hooks: Hooks,
    runtime: Runtime,
    resume: Checkpoint | None = None,
) -> FitState:
    """Train until the plan is done; returns the final state. Raises DivergedError, StoppedError, MachineError."""
    model, parameters = forward.model, [p for p in forward.model.parameters() if p.requires_grad]
    optimizer = make_optimizer(model, plan.weight_decay)
    state = FitState(micro_batch_tokens=plan.micro_batch_tokens)
    if resume is not None:
        load_trainable(model, resume.weights())
        load_optimizer(model, optimizer, resume.optimizer())
        state = resume.fit(FitState)
    order = Order(training.lengths, plan.batch_size, plan.steps_per_epoch, plan.seed)
    save = partial(_save, model, optimizer, state, checkpoints, runtime)
    model.train()
    while True:
        # 1. evaluate, if this step is due; 2. remember the best and save
        evaluate_if_due(state, plan, hooks, save)
        # 3. done?
        if done(state, plan):
            return state
        # 4. forward and backward, micro-batch by micro-batch, then the sum over ranks
        indices = order.step(state.step)
        budget = Budget(state.micro_batch_tokens)
        loss, stop = step_gradient(
            forward, objective, training, indices, budget, runtime, hooks.stop_signal(), hooks.say
        )
        state.micro_batch_tokens = budget.tokens
        # 5. clip and step, unless the loss is no number: then the weights stay as they were
        norm = update(optimizer, parameters, loss, plan, state.step, partial(_rows, indices, training.dataset))
        # 6. count, log
        tokens = int(training.lengths[indices].sum())
        count(state, loss, tokens)
        hooks.stepped(state, loss, tokens)
        if state.step % plan.log_every == 0 or state.step == plan.total_steps:
            _log(state, plan, norm, hooks)
        if runtime.device == "cpu" and state.step % TIDY_EVERY == 0:
            give_back()
        # 7. save where asked; stop where asked
        save_or_stop(state, plan, stop, save)


def update(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    loss: float,
    plan: FitPlan,
    step: int,
    rows: Callable[[], str],
) -> float:
    """Clip and step with the gradient that is there; returns its norm before clipping. Both loops end a step here.

    A loss or gradient that is no number leaves the weights as they were: DivergedError naming `rows`.
    """
    norm = clip_gradients(parameters, plan.max_grad_norm).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergedError(
            f"the loss or its gradient is not a number at step {step + 1} (loss {loss}; rows {rows()}); the last "
            "checkpoint is kept: lower training.learning_rate, or look at these rows"
        )
    set_learning_rate(optimizer, learning_rate_at(step, plan))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


class Order:
    """Indices of any step; keeps the plan of one epoch."""

    def __init__(self, lengths: np.ndarray, batch_size: int, steps_per_epoch: int, seed: int) -> None:
        self.lengths, self.batch_size, self.steps_per_epoch, self.seed = lengths, batch_size, steps_per_epoch, seed
        self.epoch = -1
        self.steps: list[np.ndarray] = []

    def step(self, number: int) -> np.ndarray:
        epoch, position = divmod(number, self.steps_per_epoch)
        if epoch != self.epoch:
            self.steps = epoch_steps(self.lengths, self.batch_size, seed=self.seed, epoch=epoch)
            self.epoch = epoch
        return self.steps[position]


def evaluate_if_due(state: FitState, plan: FitPlan, hooks: Hooks, save: Callable[[], None]) -> None:
    """Score the model of this step, unless that was done, and save."""
    if not _evaluation_due(state, plan):
        return
    try:
        _evaluate(state, plan, hooks)
    except StoppedError:  # asked to stop while scoring: the evaluation is done again on resume
        save()
        raise
    if plan.checkpoint_every is None or state.best_step == state.step or state.step == plan.total_steps:
        save()


def save_or_stop(state: FitState, plan: FitPlan, stop: int, save: Callable[[], None]) -> None:
    """At the end of a step: save where the plan says so, and where a signal asks to stop. Raises StoppedError."""
    if plan.checkpoint_every and state.step % plan.checkpoint_every == 0 and not _evaluation_due(state, plan):
        save()
    if stop:
        save()
        raise StoppedError(f"stopped at step {state.step}; continue with --resume", signal_number=stop)


def done(state: FitState, plan: FitPlan) -> bool:
    """Whether the plan's steps are made, or early stopping has seen enough."""
    patience = plan.early_stopping
    return state.step >= plan.total_steps or (patience is not None and state.evaluations_without_better >= patience)


def _evaluation_due(state: FitState, plan: FitPlan) -> bool:
    if state.evaluated_step == state.step:
        return False
    if state.step == 0:
        return plan.evaluate_before
    return state.step % plan.evaluate_every == 0 or state.step == plan.total_steps


def _evaluate(state: FitState, plan: FitPlan, hooks: Hooks) -> None:
    """Score, and keep count of what is best; the untrained model never is."""
    epoch = state.step / plan.steps_per_epoch
    row: dict[str, Any] = {"step": state.step, "epoch": round(epoch, 6)}
    total, steps = state.loss_since_evaluation
    if steps:
        row["train/loss"] = total / steps
    row |= hooks.evaluate(state.step, epoch)
    state.evaluated_step = state.step
    state.loss_since_evaluation = [0.0, 0.0]
    value = row.get(plan.metric)  # absent where it is undefined: ROC-AUC of a single class
    better = state.step > 0 and _better(value, state, plan.higher_is_better)
    if better:
        state.best_step, state.best_value, state.evaluations_without_better = state.step, value, 0
    elif state.step > 0:
        state.evaluations_without_better += 1
    hooks.evaluated(row, better)


def _better(value: float | None, state: FitState, higher: bool) -> bool:
    if value is None or state.best_value is None:
        return state.best_step is None or value is not None
    return value > state.best_value if higher else value < state.best_value


def learning_rate_at(step: int, plan: FitPlan) -> float:
    """Learning rate of step number `step` (0-based)."""
    return plan.learning_rate * learning_rate_factor(step, plan.total_steps, plan.warmup_steps, plan.schedule)


def count(state: FitState, loss: float, tokens: int) -> None:
    """A step more."""
    state.step += 1
    state.tokens += tokens
    for sums in (state.loss_since_log, state.loss_since_evaluation):
        sums[0] += loss
        sums[1] += 1


def _log(state: FitState, plan: FitPlan, norm: float, hooks: Hooks) -> None:
    total, steps = state.loss_since_log
    state.loss_since_log = [0.0, 0.0]
    hooks.log(
        {
            "step": state.step,
            "epoch": round(state.step / plan.steps_per_epoch, 6),
            "train/loss": total / steps,
            "train/learning_rate": learning_rate_at(state.step - 1, plan),
            "train/grad_norm": norm,
            "train/tokens": state.tokens,
        }
    )


def _save(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: FitState,
    checkpoints: CheckpointStore,
    runtime: Runtime,
) -> None:
    """Rank 0 writes; the others wait, so that nobody runs ahead of a checkpoint that isn't there."""
    if runtime.is_main:
        checkpoints.save(
            state.step, trainable_tensors(model), optimizer_tensors(model, optimizer), {"fit": asdict(state)}
        )
        checkpoints.prune(state.best_step)
    runtime.barrier()


def _rows(indices: np.ndarray, dataset: Any) -> str:
    return ", ".join(str(int(dataset.rows[i]) + 1) for i in indices[:8])
