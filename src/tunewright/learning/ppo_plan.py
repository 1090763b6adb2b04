"""Plain numbers for PPO and GRPO: every decision that `ppo_loop` follows, beside those of a `FitPlan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunewright.errors import UsageError

MOST_KL_PER_TOKEN = 10.0  # nats; a policy this far from its reference no longer writes language


@dataclass(frozen=True, kw_only=True)
class PpoPlan:
    """How completions are made and learnt from; an iteration is `updates_per_iteration` steps."""

    method: Literal["ppo", "grpo"] = "ppo"
    rollouts_per_iteration: int
    max_new_tokens: int
    minibatches: int = 2
    ppo_epochs: int = 2
    temperature: float = 1.0
    kl_coef: float = 0.05
    kl_target: float | None = None  # nats per completion; None: kl_coef stays
    max_kl: float | None = None  # nats per completion; None: MOST_KL_PER_TOKEN of max_new_tokens
    clip_range: float = 0.2
    value_clip_range: float = 0.2
    value_coef: float = 0.1
    gamma: float = 1.0
    gae_lambda: float = 0.95
    whiten_rewards: bool = False
    eos_penalty: float = 0.0
    group_size: int = 4  # completions per prompt, GRPO alone
    ptx_coef: float = 0.1

    def __post_init__(self) -> None:
        if self.rollouts_per_iteration < max(2, self.minibatches):
            raise UsageError(
                f"training.batch_size is {self.rollouts_per_iteration} completions; expected 2 at least, and "
                f"{self.minibatches} for as many align.minibatches",
                field="training.batch_size",
            )
        if self.method == "grpo" and self.rollouts_per_iteration % self.group_size:
            raise UsageError(
                f"training.batch_size is {self.rollouts_per_iteration} completions, which groups of "
                f"{self.group_size} (align.group_size) don't divide; use a multiple",
                field="training.batch_size",
            )

    @property
    def updates_per_iteration(self) -> int:
        """Optimizer steps on the same rollouts."""
        return self.ppo_epochs * self.minibatches

    @property
    def completions_per_prompt(self) -> int:
        """In one iteration."""
        return self.group_size if self.method == "grpo" else 1

    @property
    def prompts_per_iteration(self) -> int:
        """Different places in the order of prompts."""
        return self.rollouts_per_iteration // self.completions_per_prompt

    @property
    def most_kl(self) -> float:
        """Nats per completion at which training stops."""
        return self.max_kl if self.max_kl is not None else MOST_KL_PER_TOKEN * self.max_new_tokens
