"""The loop of PPO and GRPO: one function, its steps numbered. An iteration is a set of rollouts and the updates on it.

    pending evaluation? -> done? -> [new iteration: rollouts] -> update -> [iteration over: log, kl_coef] -> save

The sister of `loop.fit`: plan, state, `update`, evaluation and saving are shared, and a step is an update in both. The
maths is in `ppo`, what is learnt from in `rollouts`, the objective in `policy`. Dropout is off throughout, so that the
policy that writes, the one that is measured and the one that learns are the same (Huang et al. 2024, detail 1).

It resumes exactly, inside an iteration too: a checkpoint holds the rollouts, the value head and kl_coef beside what
`fit`'s holds; order, seeds and learning rate are functions of the step. It imports no evaluation and prints nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from tunewright.errors import ModelError
from tunewright.learning.checkpoints import Checkpoint, CheckpointStore
from tunewright.learning.gradients import Budget, Objective, Term, Training, step_gradient
from tunewright.learning.iterations import Iteration, PpoState, begin, finish, measure, row_of
from tunewright.learning.loop import (
    FitPlan,
    FitState,
    Hooks,
    Order,
    count,
    done,
    evaluate_if_due,
    save_or_stop,
    update,
)
from tunewright.learning.ppo_plan import PpoPlan
from tunewright.learning.ppo_tensors import Learner
from tunewright.learning.rollouts import Ending, Practice, PromptSource, Reward, Rollouts
from tunewright.models.forward import Forward
from tunewright.models.starting import Reference
from tunewright.models.value_head import ValueHead
from tunewright.models.writers import kind_of_model
from tunewright.runtime import Runtime, give_back


def ppo(
    forward: Forward,
    reference: Reference,
    value_head: ValueHead | None,
    prompts: PromptSource,
    reward: Reward,
    plan: FitPlan,
    ppo_plan: PpoPlan,
    checkpoints: CheckpointStore,
    hooks: Hooks,
    runtime: Runtime,
    resume: Checkpoint | None = None,
    ptx: tuple[Objective, Training] | None = None,
    *,
    ending: Ending,
) -> FitState:
    """Practise until the plan is done; returns the final state. Steps of the plan are updates.

    `reference`: taken of the policy before anything was learnt. `value_head`: for PPO alone. `ptx`: rows learnt beside
    with weight `ptx_coef`, as many per update as completions (Ouyang et al. 2022, eq. 2). Raises DivergedError (also
    for a KL above `most_kl`), StoppedError, MachineError, ModelError.
    """
    _check(forward, value_head, ppo_plan, prompts)
    learner = Learner.of(forward.model, value_head, plan.weight_decay)
    practice = Practice(
        forward, reference, value_head, prompts, reward, ending, ppo_plan.temperature, ppo_plan.max_new_tokens, runtime
    )
    place = _place(learner, plan, ppo_plan, resume)
    state, own = place.state, place.own
    save = partial(_save, place, learner, checkpoints, ppo_plan, runtime)
    beside = _Beside.of(ptx, plan, ppo_plan)
    iteration: Iteration | None = None
    forward.model.eval()
    while True:
        # 1. evaluate, if this step is due; 2. remember the best and save
        evaluate_if_due(state, plan, hooks, save)
        # 3. done?
        if done(state, plan):
            return state
        # 4. a new iteration: completions, scored and measured; or those of the checkpoint
        number, position = divmod(state.step, ppo_plan.updates_per_iteration)
        if iteration is None or position == 0:
            known = place.rollouts if position else None
            iteration = begin(practice, plan, ppo_plan, number, state, own, known, hooks, save)
            place.rollouts = iteration.rollouts
        # 5. forward and backward over a minibatch, and over pretraining rows; 6. clip and step
        indices, extra = iteration.steps[position], beside.terms(state.step)
        loss, stop = _gradient(forward, iteration, indices, extra, state, learner, runtime, hooks)
        rows = partial(_rows, iteration.rollouts, indices)
        norm = update(learner.optimizer, learner.parameters, loss, plan, state.step, rows)
        # 7. count; log when the iteration is over, and adapt the price of distance
        tokens = _tokens(iteration.training, indices, extra)
        count(state, loss, tokens)
        measure(own, iteration, indices, loss, ppo_plan, runtime)
        hooks.stepped(state, loss, tokens)
        if iteration.is_over(position) or state.step == plan.total_steps:
            hooks.log(row_of(state, own, iteration, norm, plan, ppo_plan, ptx is not None))
            finish(own, iteration.rollouts, ppo_plan)
            give_back()
        # 8. save where asked; stop where asked
        save_or_stop(state, plan, stop, save)


def _check(forward: Forward, value_head: ValueHead | None, plan: PpoPlan, prompts: PromptSource) -> None:
    assert (value_head is not None) == (plan.method == "ppo"), "PPO has a value head and GRPO has none"
    assert len(prompts), "there is no prompt"
    if kind_of_model(forward.model) != "causal":
        named = forward.config.model_type
        raise ModelError(
            f"a {named} model doesn't write from left to right; {plan.method} needs one that does", field="model"
        )


# ---- where the loop is ----


@dataclass
class _Place:
    """All that a checkpoint remembers beside what learns."""

    state: FitState
    own: PpoState
    rollouts: Rollouts | None  # those that are learnt from


def _place(learner: Learner, plan: FitPlan, ppo_plan: PpoPlan, resume: Checkpoint | None) -> _Place:
    """The start, or where the checkpoint was, with everything that learns put back."""
    if resume is None:
        return _Place(FitState(micro_batch_tokens=plan.micro_batch_tokens), PpoState(ppo_plan.kl_coef), None)
    return _Place(resume.fit(FitState), PpoState.of(resume), learner.load(resume))


def _save(place: _Place, learner: Learner, checkpoints: CheckpointStore, plan: PpoPlan, runtime: Runtime) -> None:
    """Rank 0 writes; the others wait. Rollouts are kept until the last update on them."""
    if runtime.is_main:
        inside = place.state.step % plan.updates_per_iteration > 0
        state = {"fit": asdict(place.state), "ppo": asdict(place.own)}
        learner.save(checkpoints, place.state.step, state, place.rollouts if inside else None)
        checkpoints.prune(place.state.best_step)
    runtime.barrier()


# ---- an update ----


@dataclass(frozen=True)
class _Beside:
    """Pretraining rows learnt beside."""

    objective: Objective | None = None
    training: Training | None = None
    order: Order | None = None
    coefficient: float = 0.0

    @classmethod
    def of(cls, ptx: tuple[Objective, Training] | None, plan: FitPlan, ppo_plan: PpoPlan) -> _Beside:
        if ptx is None:
            return cls()
        objective, training = ptx
        rows = -(-ppo_plan.rollouts_per_iteration // ppo_plan.minibatches)
        per_epoch = -(-len(training.lengths) // rows)
        return cls(objective, training, Order(training.lengths, rows, per_epoch, plan.seed), ppo_plan.ptx_coef)

    def terms(self, step: int) -> list[Term]:
        """What an update adds, if anything."""
        if self.objective is None or self.training is None or self.order is None:
            return []
        return [Term(self.objective, self.training, self.order.step(step), self.coefficient)]


def _gradient(
    forward: Forward,
    iteration: Iteration,
    indices: np.ndarray,
    extra: list[Term],
    state: FitState,
    learner: Learner,
    runtime: Runtime,
    hooks: Hooks,
) -> tuple[float, int]:
    """In place; the update's loss, and the signal that some rank was sent."""
    budget = Budget(state.micro_batch_tokens)
    loss, stop = step_gradient(
        forward, iteration.objective, iteration.training, indices, budget, runtime, hooks.stop_signal(), hooks.say,
        beside=extra, parameters=learner.parameters,
    )  # fmt: skip
    state.micro_batch_tokens = budget.tokens
    return loss, stop


def _tokens(training: Training, indices: np.ndarray, extra: list[Term]) -> int:
    return int(training.lengths[indices].sum()) + sum(int(t.training.lengths[t.indices].sum()) for t in extra)


def _rows(rollouts: Rollouts, indices: np.ndarray) -> str:
    return ", ".join(str(number + 1) for number in sorted(set(rollouts.rows[indices].tolist()))[:8])
