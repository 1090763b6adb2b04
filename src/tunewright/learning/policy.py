"""What a policy learns from its rollouts: the lesson of each completion token, and the objective of an update.

Stands between `rollouts` and `ppo_loop`, with the formulas of `ppo`. Losses are sums over completion tokens; the step
divides by those of the whole minibatch, so that micro-batches and ranks change nothing. GRPO differs from PPO in where
advantages come from and in where the distance from the reference is paid: in the loss instead of the reward.

Shapes: B completions, C tokens of the longest one, T completion tokens of a micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batching import Batch, Examples
from tunewright.learning import ppo as maths
from tunewright.learning.ppo_plan import PpoPlan
from tunewright.learning.rollouts import Rollouts, at_completions
from tunewright.models.forward import Boundary, Forward
from tunewright.models.value_head import ValueHead

MEASURES = ("policy_loss", "value_loss", "reference_kl", "entropy", "approx_kl", "clip_fraction")


@dataclass(frozen=True)
class Lessons:
    """What each completion token of an iteration teaches, float32 [B, C], 0 behind the end."""

    advantages: Tensor
    returns: Tensor  # 0 for GRPO

    @classmethod
    def of(cls, rollouts: Rollouts, plan: PpoPlan, kl_coef: float) -> Lessons:
        """From scores, values and the distance from the reference."""
        mask, scores = rollouts.completion_mask, penalised(rollouts, plan)
        if plan.method == "grpo":
            advantages = maths.group_advantages(scores, plan.group_size).float()[:, None]
            return cls(advantages.expand(mask.shape).masked_fill(~mask, 0.0), torch.zeros(mask.shape))
        kl = maths.token_kl(rollouts.logprobs, rollouts.ref_logprobs)
        rewards = maths.token_rewards(scores, kl, mask, kl_coef)
        if plan.whiten_rewards:
            rewards = maths.whiten(rewards, mask, keep_mean=True)
        advantages, returns = maths.advantages_and_returns(
            rewards, rollouts.values, mask, gamma=plan.gamma, gae_lambda=plan.gae_lambda
        )
        return cls(maths.whiten(advantages, mask), returns)


def penalised(rollouts: Rollouts, plan: PpoPlan) -> Tensor:
    """Scores less the penalty of a completion that was cut instead of ending itself: float64 [B]."""
    return rollouts.scores - plan.eos_penalty * (~rollouts.ended).double()


@dataclass(frozen=True, eq=False)
class PolicyObjective:
    """An update's loss over some of an iteration's rollouts, and what was measured on the way."""

    caches: ClassVar[bool] = False

    rollouts: Rollouts
    lessons: Lessons
    value_head: ValueHead | None
    plan: PpoPlan
    kl_coef: float
    measured: Tensor  # float64 [B, MEASURES], sums over the tokens of each completion in this update

    @classmethod
    def of(cls, rollouts: Rollouts, value_head: ValueHead | None, plan: PpoPlan, kl_coef: float) -> PolicyObjective:
        measured = torch.zeros(len(rollouts), len(MEASURES), dtype=torch.float64)
        return cls(rollouts, Lessons.of(rollouts, plan, kl_coef), value_head, plan, kl_coef, measured)

    def loss_of(self, forward: Forward, batch: Batch, boundary: Boundary | None) -> Tensor:
        """Sum over the completion tokens: policy + value_coef·value, or policy + kl_coef·KL for GRPO."""
        part, plan, device = batch.indices, self.plan, batch.texts.device
        old, ref, old_values, advantages, returns = self._tokens(part, device)
        found = at_completions(forward, self.value_head, self.rollouts, part, plan.temperature, device)
        policy = maths.policy_losses(found.logprobs, old, advantages, plan.clip_range)
        value = kl = torch.zeros_like(policy)
        loss = policy
        if found.values is not None:
            value = maths.value_losses(found.values, old_values, returns, plan.value_clip_range)
            loss = loss + plan.value_coef * value
        if plan.method == "grpo":
            kl = maths.token_kl_positive(found.logprobs, ref)
            loss = loss + self.kl_coef * kl
        new = found.logprobs.detach()
        clipped = maths.is_clipped(new, old, plan.clip_range)
        self._note(part, (policy, value, kl, found.entropies, maths.approximate_kl(new, old), clipped))
        return loss.sum()

    def weight_of(self, dataset: Examples, indices: np.ndarray) -> float:
        """Completion tokens."""
        return float(self.rollouts.completion_lengths[indices].sum())

    def take_sums(self) -> Tensor:
        """What the update measured, summed over this rank's tokens: float64 [MEASURES]. The next one starts at 0."""
        sums = self.measured.sum(0)
        self.measured.zero_()
        return sums

    def own_loss(self, sums: Tensor, tokens: float) -> float:
        """The loss that these sums make, a mean over tokens."""
        policy, value, kl = (sums[:3] / tokens).tolist()
        return policy + self.plan.value_coef * value + self.kl_coef * kl

    def _tokens(self, part: np.ndarray, device: torch.device) -> tuple[Tensor, ...]:
        """Old log probabilities, the reference's, old values, advantages and returns of the tokens: [T] each."""
        known, lessons = self.rollouts, self.lessons
        tables = (known.logprobs, known.ref_logprobs, known.values, lessons.advantages, lessons.returns)
        inside = known.completion_mask[part]
        return torch.stack([table[part][inside] for table in tables]).to(device).unbind()

    def _note(self, part: np.ndarray, tokens: tuple[Tensor, ...]) -> None:
        """Sums per completion, set and not added: a micro-batch tried again with less memory counts once."""
        values = torch.stack([column.detach().float() for column in tokens]).cpu().double()
        lengths = self.rollouts.completion_lengths[part]
        owner = torch.from_numpy(np.repeat(np.arange(len(part)), lengths))
        self.measured[part] = torch.zeros(len(part), len(MEASURES), dtype=torch.float64).index_add_(0, owner, values.T)
