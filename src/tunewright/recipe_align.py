"""The sections of a recipe that say what a model that writes is aligned with: a reward, or comparisons.

Beside `recipe`, which puts the sections together; as there, nothing is read or decided.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tunewright.recipe_part import Clash, Part, PositiveFloat, PositiveInt

BY_REWARD = ("ppo", "grpo")  # methods that learn from scores of completions they sample


class RuleRecipe(Part):
    """A score given to a completion by its looks, without a model. All that is said must hold."""

    regex: str | None = None
    """Pattern that must be found in the completion."""
    exact: str | None = None
    """Column of the prompt's row whose text the completion must be."""
    min_words: PositiveInt | None = None
    """Words it has at least."""
    max_words: PositiveInt | None = None
    """Words it has at most."""
    score: float = 1.0
    """Added where it holds."""

    @field_validator("regex")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"expected a pattern of Python's re ({error})") from None
        return value

    @model_validator(mode="after")
    def _says_something(self) -> RuleRecipe:
        if all(value is None for value in (self.regex, self.exact, self.min_words, self.max_words)):
            raise Clash("a rule needs regex, exact, min_words or max_words", "reward")
        return self


class RewardRecipe(Part):
    """One source of a completion's score; several are added up by their weights."""

    model: str | None = None
    """Run of a reward model (task reward)."""
    classifier: str | None = None
    """Run, folder or Hub id of a classifier whose belief in `label` is the score."""
    label: str | None = None
    """Label of the classifier that is wanted."""
    rules: list[RuleRecipe] | None = None
    """Scores without a model."""
    weight: float = 1.0
    """Factor of this score in the sum."""
    reads: Literal["completion", "both"] = "both"
    """What the classifier is shown: the completion, or the prompt with it."""
    value: Literal["probability", "log_odds"] = "log_odds"
    """What of the classifier's belief is the score; log-odds still grow where the probability is near 1."""

    @field_validator("rules", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return [value] if isinstance(value, (dict, RuleRecipe)) else value

    @model_validator(mode="after")
    def _one_source(self) -> RewardRecipe:
        given = [name for name in ("model", "classifier", "rules") if getattr(self, name) is not None]
        if len(given) != 1:
            raise Clash(f"a reward is one of model, classifier, rules; found {' and '.join(given) or 'none'}", "reward")
        if (self.classifier is None) != (self.label is None):
            raise Clash("a reward's classifier and label go together; give both", "reward")
        return self


class AlignRecipe(Part):
    """How a model that writes is aligned with a reward, or with comparisons (align)."""

    method: Literal["ppo", "grpo", "dpo"] = "ppo"
    """ppo: against a reward, with a value head; grpo: against a reward, compared within groups; dpo: comparisons."""
    beta: PositiveFloat = 0.1
    """How strongly the model is held to its reference (dpo)."""
    group_size: Annotated[int, Field(ge=2, le=1024)] = 4
    """Completions of each prompt that are compared with each other (grpo)."""
    temperature: PositiveFloat = 1.0
    """Temperature at which completions are sampled (ppo, grpo)."""
    ppo_epochs: PositiveInt = 2
    """Times the completions of an iteration are learnt from (ppo, grpo)."""
    minibatches: PositiveInt = 2
    """Updates that each of those is cut into (ppo, grpo)."""
    kl_coef: Annotated[float, Field(ge=0)] = 0.05
    """Price of a nat of distance from the reference (ppo, grpo)."""
    kl_target: PositiveFloat | None = None
    """Nats per completion that kl_coef is adapted to; none: it stays (ppo)."""
    max_kl: PositiveFloat | None = None
    """Mean nats per completion at which training stops: the policy has run away (ppo, grpo); none: 10 per token."""
    clip_range: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """How far an update may move a token's probability, as a share (ppo, grpo)."""
    value_clip_range: PositiveFloat = 0.2
    """How far an update may move a value (ppo)."""
    value_coef: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the value loss (ppo)."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What a reward one token later is worth (ppo)."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Between one step (0) and the whole completion (1) when advantages are estimated (ppo)."""
    whiten_rewards: bool = False
    """Scale rewards to variance 1 (ppo)."""
    eos_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Taken from the score of a completion that didn't end by itself (ppo, grpo)."""
    ptx: str | None = None
    """Text or pairs learnt beside, so that less is forgotten: a file, or `general` (packaged) (ppo, grpo)."""
    ptx_coef: Annotated[float, Field(gt=0)] = 0.1
    """Weight of their loss."""

    @model_validator(mode="after")
    def _of_this_method(self) -> AlignRecipe:
        for name, methods in _ALIGN_ONLY.items():
            if self.method not in methods and getattr(self, name) != type(self).model_fields[name].default:
                says = f'"align.{name}" is for {" and ".join(methods)}, and the method is {self.method}; leave it out'
                raise Clash(says, f"align.{name}")
        return self

    @property
    def updates_per_iteration(self) -> int:
        """Optimizer steps that the completions of one iteration are learnt from in."""
        return 1 if self.method == "dpo" else self.ppo_epochs * self.minibatches


_ALIGN_ONLY = {
    "beta": ("dpo",),
    "group_size": ("grpo",),
    "temperature": BY_REWARD,
    "ppo_epochs": BY_REWARD,
    "minibatches": BY_REWARD,
    "kl_coef": BY_REWARD,
    "kl_target": ("ppo",),
    "max_kl": BY_REWARD,
    "clip_range": BY_REWARD,
    "value_clip_range": ("ppo",),
    "value_coef": ("ppo",),
    "gamma": ("ppo",),
    "gae_lambda": ("ppo",),
    "whiten_rewards": ("ppo",),
    "eos_penalty": BY_REWARD,
    "ptx": BY_REWARD,
    "ptx_coef": BY_REWARD,
}
