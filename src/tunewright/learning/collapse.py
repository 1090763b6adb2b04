"""Signs that a policy has stopped writing language, or that there is nothing left to learn, each said once.

Looks at an iteration's rollouts beside the first iteration's. Used by `ppo_loop`; stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tunewright.learning.rollouts import Rollouts

LESS = 0.5  # of what the start had, in distinct tokens and completions
STILL_ENDING = 0.1  # of the share that ended at the start
NEGATIVE_KL = -1.0  # nats per completion; a KL divergence is never negative, its estimate only a little


@dataclass
class Collapse:
    """What the start was like, and what was said."""

    ended: float | None = None  # share of the first iteration's completions that ended by themselves
    distinct: float = 0.0  # share of a completion's tokens that aren't repeated
    different: float = 0.0  # share of the completions that no other equals
    said: list[str] = field(default_factory=list)

    def sentences(self, rollouts: Rollouts, group_size: int) -> list[str]:
        """What is new to say of this iteration; the first one is remembered."""
        if self.ended is None:
            self.ended, self.distinct = rollouts.share_ended, rollouts.distinct
            self.different = rollouts.different
        new = [(sign, words) for sign, words in self._signs(rollouts, group_size) if sign not in self.said]
        self.said += [sign for sign, _ in new]
        return [words for _, words in new]

    def _signs(self, rollouts: Rollouts, group_size: int) -> Iterator[tuple[str, str]]:
        assert self.ended is not None
        ended, distinct, different = rollouts.share_ended, rollouts.distinct, rollouts.different
        cure = "raise align.kl_coef or lower training.learning_rate"
        if self.ended >= LESS and ended <= STILL_ENDING * self.ended:
            yield (
                "endless",
                f"{ended:.0%} of the completions end by themselves, at the start {self.ended:.0%}: the reward may "
                "favour long ones; set align.eos_penalty or raise align.kl_coef",
            )
        if distinct < LESS * self.distinct:
            yield (
                "repeating",
                f"completions repeat themselves: {distinct:.0%} of their tokens are new, at the start "
                f"{self.distinct:.0%}; {cure}",
            )
        if different < LESS * self.different:
            yield (
                "same",
                f"the same completion is written again and again: {different:.0%} differ, at the start "
                f"{self.different:.0%}; {cure}",
            )
        if rollouts.are_scores_flat(group_size):
            same = "of each prompt have the same score" if group_size > 1 else "have the same score"
            yield "flat", f"all completions {same}, so there is nothing to learn from; look at the reward"
        if rollouts.kl < NEGATIVE_KL:
            yield (
                "negative",
                f"the distance from the reference is measured as {rollouts.kl:.1f} nats per completion, which should "
                "not be below 0: what writes and what is measured may differ",
            )
