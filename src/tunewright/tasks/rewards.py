"""Where a completion's score comes from: reward models, classifiers and rules, mixed by their weights.

Built from the recipe's `reward` before training starts, so that an unknown run, label or column is said then. Used by
the loop that aligns, by its scorer, and for `evaluation.judge`; knows nothing of KL, advantages or rollouts' tokens.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tunewright.data.tokenizing import encode_texts
from tunewright.errors import DataError, ModelError, NetworkError, RecipeError, did_you_mean
from tunewright.learning.rollouts import Asked
from tunewright.models.finding import resolve_base
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.sharing import SharedBody, share_body
from tunewright.recipe_align import RewardRecipe, RuleRecipe
from tunewright.serving.predict import Predictor
from tunewright.serving.reward_model import RewardModel

MOST_LOG_ODDS = 10.0  # beyond 99.995 % a classifier's certainty says nothing more, and one text would drown the others


class Source(Protocol):
    """One source of scores."""

    def scores(self, prompts: Sequence[Asked], completions: Sequence[str]) -> np.ndarray:
        """float64 [B], higher is better."""
        ...

    def check(self, prompts: Sequence[Asked]) -> None:
        """Raises what scoring would raise because of these prompts' rows."""
        ...

    def sharing(self, policy: Forward) -> Source:
        """The same on the policy's body, where its model stands on the same base; else as it is."""
        ...


@dataclass(frozen=True)
class MixedReward:
    """Σ weight · score over the sources: the `Reward` that rollouts are scored by."""

    sources: tuple[Source, ...]
    names: tuple[str, ...]  # as a person would call them, in the recipe's order
    weights: tuple[float, ...]

    def __call__(self, prompts: Sequence[Asked], completions: Sequence[str]) -> np.ndarray:
        """float64 [B]: a score for each completion. Raises ModelError where one would be no number."""
        scores = self.apart(prompts, completions)
        return sum((w * s for w, s in zip(self.weights, scores, strict=True)), np.zeros(len(completions)))

    def apart(self, prompts: Sequence[Asked], completions: Sequence[str]) -> list[np.ndarray]:
        """The scores of each source before weighting, float64 [B] each."""
        assert len(prompts) == len(completions)
        if not len(completions):
            return [np.zeros(0) for _ in self.sources]
        return [source.scores(prompts, completions) for source in self.sources]

    def check(self, prompts: Sequence[Asked]) -> None:
        """Whether each of these prompts can be scored, by what their rows hold. No model answers yet.

        Raises DataError, UsageError.
        """
        for source in self.sources:
            source.check(prompts)

    def sharing(self, policy: Forward) -> MixedReward:
        """The same with every model that stands on the policy's base answering from its layers: a model less in memory.

        Call it once the policy computes in its precision, and forget this one.
        """
        return replace(self, sources=tuple(source.sharing(policy) for source in self.sources))


def build_reward(
    parts: Sequence[RewardRecipe], runs: Path, device: str = "auto", *, field: str = "reward"
) -> MixedReward:
    """Load everything that `parts` name. `field` is where the recipe says it: `reward`, `evaluation.judge`.

    Raises RecipeError, ModelError, NetworkError; call the result's `check` with the prompts before training starts.
    """
    assert parts, "a reward has a source at least"
    fields = [field if len(parts) == 1 else f"{field}.{number}" for number in range(len(parts))]
    sources = [_source(part, runs, device, place) for part, place in zip(parts, fields, strict=True)]
    return MixedReward(tuple(sources), tuple(map(_name, parts)), tuple(part.weight for part in parts))


def _name(part: RewardRecipe) -> str:
    if part.rules is not None:
        return "rules"
    return f"reward model {part.model}" if part.model is not None else f"{part.label} of {part.classifier}"


def _source(part: RewardRecipe, runs: Path, device: str, field: str) -> Source:
    if part.rules is not None:
        return Rules(tuple(part.rules))
    if part.model is not None:
        folder = _folder(part.model, runs, f"{field}.model")
        try:
            return ModelScore(RewardModel.load(folder, device))
        except ModelError as error:
            raise ModelError(error.message, where=error.where or part.model, field=f"{field}.model") from None
    assert part.classifier is not None and part.label is not None
    folder = _folder(part.classifier, runs, f"{field}.classifier")
    try:
        predictor = Predictor.load(folder, device)
    except ModelError as error:
        raise ModelError(error.message, where=error.where or part.classifier, field=f"{field}.classifier") from None
    place = _place_of(part.label, predictor, part.classifier, field)
    return ClassifierScore(predictor, place, part.reads == "both", part.value == "log_odds")


def _folder(name: str, runs: Path, field: str) -> Path:
    """Of a saved model: a run's, another, or one from the Hub."""
    try:
        return Path(resolve_base(name, runs=runs).path)
    except (ModelError, NetworkError) as error:
        raise type(error)(error.message, where=error.where, field=field) from None


# ---- sources ----


@dataclass(frozen=True)
class ModelScore:
    """What a reward model says, normalised as it was saved."""

    model: RewardModel
    body: SharedBody | None = None  # None: its own

    def scores(self, prompts: Sequence[Asked], completions: Sequence[str]) -> np.ndarray:
        with self.body.answering() if self.body else contextlib.nullcontext():
            return self.model.score([self._asked(prompt) for prompt in prompts], completions)

    def check(self, prompts: Sequence[Asked]) -> None:
        for prompt in prompts:
            self.model.rows.row(self._asked(prompt), "")

    def sharing(self, policy: Forward) -> ModelScore:
        body = share_body(policy, self.model.model)
        if body is None:
            return self
        return ModelScore(replace(self.model, model=body.forward.model, forward=body.forward), body)

    def _asked(self, prompt: Asked) -> Any:
        """The row, where it has the columns that the reward model learnt prompts from; else what the policy was asked.

        Its own way of writing a prompt is what the reward model knows, a chat template's marks for example.
        """
        return prompt.values if self.model.takes(prompt.values) else prompt.text


@dataclass(frozen=True)
class ClassifierScore:
    """A classifier's belief in one label, of a completion or of the prompt with it."""

    predictor: Predictor
    place: int  # of the label among the classifier's
    reads_prompt: bool
    in_log_odds: bool
    body: SharedBody | None = None  # None: its own

    def scores(self, prompts: Sequence[Asked], completions: Sequence[str]) -> np.ndarray:
        if not self.in_log_odds:
            return self.beliefs(prompts, completions)
        return np.clip(self._log_odds(prompts, completions), -MOST_LOG_ODDS, MOST_LOG_ODDS)

    def beliefs(self, prompts: Sequence[Asked], completions: Sequence[str]) -> np.ndarray:
        """Probability of the label, float64 [B]."""
        return np.exp(-np.logaddexp(0.0, -self._log_odds(prompts, completions)))

    def check(self, prompts: Sequence[Asked]) -> None: ...

    def sharing(self, policy: Forward) -> ClassifierScore:
        body = share_body(policy, self.predictor.model)
        if body is None:
            return self
        predictor = replace(self.predictor, model=body.forward.model, forward=body.forward)
        return replace(self, predictor=predictor, body=body)

    def _log_odds(self, prompts: Sequence[Asked], completions: Sequence[str]) -> np.ndarray:
        """log p − log(1 − p), float64 [B]; from the logits, since 1 − p is 0 long before they end."""
        with self.body.answering() if self.body else contextlib.nullcontext():
            logits = predict_logits(self.predictor.forward, self._ids(prompts, completions)).astype(np.float64)
        if not np.isfinite(logits).all():
            raise ModelError("the classifier answers NaN or infinity; its weights are damaged", field="reward")
        chosen = logits[:, self.place]
        if self.predictor.labels.kind == "multi":
            return chosen
        return chosen - np.logaddexp.reduce(np.delete(logits, self.place, axis=1), axis=1)

    def _ids(self, prompts: Sequence[Asked], completions: Sequence[str]) -> list[list[int]]:
        """What the classifier reads. Of a text that is too long the end is kept: the completion is judged."""
        texts, side = list(completions), self.predictor.truncate
        if self.reads_prompt:
            texts, side = [p.text + c for p, c in zip(prompts, completions, strict=True)], "left"
        return encode_texts(texts, self.predictor.tokenizer, self.predictor.max_length, side)


def _place_of(label: str, predictor: Predictor, classifier: str, field: str) -> int:
    names = predictor.labels.names
    if predictor.labels.kind == "number":
        raise RecipeError(f"{classifier} predicts a number and knows no labels", field=f"{field}.classifier")
    if label not in names:
        known = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        says = f'"{label}" is no label of {classifier}; expected one of {known}.{did_you_mean(label, names)}'
        raise RecipeError(says, field=f"{field}.label")
    if len(names) == 1 and predictor.labels.kind == "single":
        raise RecipeError(f"{classifier} knows one label alone and is always sure of it", field=f"{field}.label")
    return names.index(label)


@dataclass(frozen=True)
class Rules:
    """The sum of what each rule gives where it holds."""

    rules: tuple[RuleRecipe, ...]

    def scores(self, prompts: Sequence[Asked], completions: Sequence[str]) -> np.ndarray:
        given = [
            sum(rule.score for rule in self.rules if holds(rule, prompt, completion))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        return np.array(given, np.float64)

    def sharing(self, policy: Forward) -> Rules:
        return self

    def check(self, prompts: Sequence[Asked]) -> None:
        for column in (rule.exact for rule in self.rules if rule.exact is not None):
            for prompt in prompts:
                _accepted(prompt, column)


def holds(rule: RuleRecipe, prompt: Asked, completion: str) -> bool:
    """Whether everything that a rule says is true of a completion."""
    words = len(completion.split())
    return (
        (rule.regex is None or re.search(rule.regex, completion) is not None)
        and (rule.exact is None or completion.strip() in _accepted(prompt, rule.exact))
        and (rule.min_words is None or words >= rule.min_words)
        and (rule.max_words is None or words <= rule.max_words)
    )


def _accepted(prompt: Asked, column: str) -> list[str]:
    """The answers in this column of the prompt's row, without white space around; a list holds several."""
    value = prompt.values.get(column)
    if value is None:
        there = ", ".join(prompt.values) or "none"
        says = f'the prompt "{prompt.text[:40]}" has no answer in "{column}"; its columns are {there}.'
        raise DataError(f"{says}{did_you_mean(column, prompt.values)}", field=column)
    answers = value if isinstance(value, (list, tuple)) else [value]
    return [str(answer).strip() for answer in answers]
