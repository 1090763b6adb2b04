"""Trials of several models and methods under one budget: their recipes, and how many tokens each may learn from.

    recipe x models x methods -> candidates -> cost of each, measured -> minutes into tokens -> rungs

All candidates learn from equally many tokens. Where there are many of them and the budget is short, half drop out after
a part of the tokens, judged with one seed, and the others go on (successive halving, Jamieson and Talwalkar 2016): a
candidate that goes on is the very run that it would have been alone, since a rung only pauses it. Runs nothing;
`choosing` measures and runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import UsageError, did_you_mean
from tunewright.recipe import Recipe
from tunewright.recipe_files import build_recipe

METHODS = ("head", "lora", "full")
RUNGS = {1: (1.0,), 2: (0.5, 1.0), 3: (0.25, 0.5, 1.0)}  # shares of the tokens at which candidates are compared
FEWEST_TO_HALVE = 4  # candidates; with fewer all are wanted in the table
GAIN = 1.5  # times as many tokens for those that stay, or halving isn't worth what it leaves unknown
OF_A_METHOD = ("learning_rate", "base_dropout")  # settings of training that suit one method only


@dataclass(frozen=True)
class Candidate:
    """A base model trained in one way."""

    model: str  # as given
    method: str

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{short_name(self.model)} {self.method}"

    @property
    def slug(self) -> str:
        """As a part of a folder's name."""
        clean = re.sub(r"[^A-Za-z0-9_]+", "-", short_name(self.model)).strip("-") or "model"
        return f"{clean[:48]}-{self.method}"


def candidates(recipe: Recipe, models: Sequence[str], methods: Sequence[str]) -> list[Candidate]:
    """Every model in every way; of none named the recipe's own. Raises UsageError."""
    chosen = list(dict.fromkeys(methods)) or [recipe.trainable.method]
    for method in chosen:
        if method not in METHODS:
            near = did_you_mean(method, METHODS)
            raise UsageError(f'"{method}" is no method; expected {", ".join(METHODS)}.{near}', field="--methods")
    found = [Candidate(m, way) for m in dict.fromkeys(models) or [recipe.model] for way in chosen]
    for field in ("name", "slug"):
        names = [getattr(one, field) for one in found]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f'two models would both be called "{twice}"; rename a folder', field="--models")
    return found


def short_name(model: str) -> str:
    """A model's name without the way to it."""
    return model if model.startswith("run:") else Path(model).name.removesuffix(".gguf") or model


# ---- recipes ----


@dataclass(frozen=True)
class Length:
    """How long a trial learns, and how often it is judged meanwhile."""

    steps: int
    every: int  # steps between evaluations


def candidate_values(recipe: Recipe, candidate: Candidate) -> dict[str, Any]:
    """What the person gave, with this model and method. Settings that suit another method or model are left to `auto`.

    As nested values, so that what nobody gave stays a default.
    """
    values = given_values(recipe)
    same_model = candidate.model == recipe.model
    same_method = candidate.method == recipe.trainable.method
    own = dict(values.get("trainable") or {}) if same_method else {}
    if not same_model:
        own.pop("targets", None)  # names of this model's layers
        values.pop("revision", None)
    training = dict(values.get("training") or {})
    if not same_method:
        training = {name: value for name, value in training.items() if name not in OF_A_METHOD}
    return values | {
        "model": candidate.model, "trainable": {**own, "method": candidate.method}, "training": training,
    }  # fmt: skip


def given_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested values, without the defaults."""
    return {name: value for name, value in recipe.model_dump(exclude_unset=True).items() if value != {}}


def trial_recipe(
    values: Mapping[str, Any],
    *,
    name: str,
    seed: int,
    length: Length | None,
    data: Mapping[str, Any],
    model: str,
    evaluation: Mapping[str, Any],
) -> Recipe:
    """A trial's own recipe: these rows, this seed, so many steps (None: as long as the person said).

    `data`, `evaluation`: what all trials share; `model`: where the base lies. The last model is kept, not the best:
    the best of several evaluations would flatter itself by luck.
    """
    training = {**(values.get("training") or {}), "seed": seed, "early_stopping": None}
    if length is not None:
        training.pop("epochs", None)
        training |= {"max_steps": length.steps}
        training.setdefault("checkpoint_every", max(1, math.ceil(length.steps / 4)))
    shared = {**(values.get("evaluation") or {}), "before": False, "keep": "last", "prompts": [], **evaluation}
    shared["every"] = length.every if length is not None else 2**31 - 1
    return build_recipe(
        {
            **values,
            "name": name,
            "model": model,
            "training": training,
            "evaluation": shared,
            "data": {**(values.get("data") or {}), **data},
        }
    )


# ---- from minutes to tokens ----


@dataclass(frozen=True)
class Cost:
    """What a candidate's trial costs on this machine."""

    fixed_seconds: float  # each time it starts: imports, model, data, saving, judging
    once_seconds: float  # what the first trial alone pays: frozen layers, computed once
    evaluation_seconds: float
    seconds_per_token: float
    tokens_per_step: float
    epoch_tokens: float  # of all training rows once
    full_tokens: float  # of as many epochs as the recipe wants
    full_steps: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def steps(self, tokens: float, evaluations: int) -> Length:
        """So many tokens as steps: a multiple of the evaluations, so that they fall on the rungs."""
        wanted = self.full_steps if tokens >= self.full_tokens else max(1, round(tokens / self.tokens_per_step))
        every = max(1, round(wanted / evaluations))
        return Length(every * evaluations, every)


@dataclass(frozen=True)
class Budget:
    """How many tokens each trial learns from, and where candidates are compared on the way."""

    tokens: float  # of a trial that goes to the end; no candidate gets more than its recipe wants
    shares: tuple[float, ...]  # of the tokens, at each rung; the last is 1
    stay: tuple[int, ...]  # candidates that reach each rung
    seconds: float  # that all of it is expected to take

    @property
    def evaluations(self) -> int:
        """Of each trial: at equal distances, on every rung."""
        return round(1 / self.shares[0])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Budget:
        return cls(values["tokens"], tuple(values["shares"]), tuple(values["stay"]), values["seconds"])


def allot(costs: Sequence[Cost], seeds: int, seconds: float | None) -> Budget:
    """The most tokens per trial that fit into the seconds; None: as many as the recipe wants.

    Halving is planned where there are four candidates or more, and it gives those that stay half as many tokens again.
    """
    full = max(cost.full_tokens for cost in costs)
    if seconds is None:
        return _planned(costs, seeds, full, 1)
    plain = _most(costs, seeds, seconds, full, 1)
    if len(costs) < FEWEST_TO_HALVE or plain.tokens >= full:
        return plain
    halved = max((_most(costs, seeds, seconds, full, rungs) for rungs in (2, 3)), key=lambda b: b.tokens)
    return halved if halved.tokens >= GAIN * plain.tokens else plain


def stays(candidates: int, rungs: int) -> tuple[int, ...]:
    """How many candidates reach each rung: all, then half of them each time, two at least."""
    found = [candidates]
    for _ in range(rungs - 1):
        found.append(min(found[-1], max(2, math.ceil(found[-1] / 2))))
    return tuple(found)


def _most(costs: Sequence[Cost], seeds: int, seconds: float, full: float, rungs: int) -> Budget:
    """By bisection: more tokens take longer. One step is the least that there is."""
    low, high = min(cost.tokens_per_step for cost in costs), full
    if _planned(costs, seeds, high, rungs).seconds <= seconds:
        return _planned(costs, seeds, high, rungs)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _planned(costs, seeds, middle, rungs).seconds <= seconds else (low, middle)
    return _planned(costs, seeds, low, rungs)


def _planned(costs: Sequence[Cost], seeds: int, tokens: float, rungs: int) -> Budget:
    """So many tokens, priced as if the dearest candidates stayed."""
    shares, stay = RUNGS[rungs], stays(len(costs), rungs)
    evaluations = round(1 / shares[0])

    def trial(cost: Cost, rung: int) -> float:
        """Seconds of one trial up to this rung; each pause costs a start."""
        learnt = min(tokens, cost.full_tokens) * shares[rung]
        judged = cost.evaluation_seconds * round(evaluations * shares[rung])
        return cost.fixed_seconds * (rung + 1) + learnt * cost.seconds_per_token + judged

    last = rungs - 1
    dearest = sorted(costs, key=lambda cost: -trial(cost, last))
    total = sum(cost.once_seconds for cost in costs)
    for place, cost in enumerate(dearest):
        reached = max(rung for rung in range(rungs) if place < stay[rung])
        total += trial(cost, reached)
        if reached == last:  # further seeds go through without a pause
            total += (seeds - 1) * (trial(cost, last) - cost.fixed_seconds * last)
    return Budget(tokens, shares, stay, total)


def seconds_of(text: str) -> float | None:
    """20m, 1h30m, 90s, or 1.5h as seconds; `none` as None. Raises UsageError."""
    if text.strip().lower() == "none":
        return None
    match = re.fullmatch(r"\s*(?:([\d.]+)\s*h)?\s*(?:([\d.]+)\s*m(?:in)?)?\s*(?:([\d.]+)\s*s)?\s*", text.lower())
    try:
        parts = [float(part or 0) for part in match.groups()] if match else []
    except ValueError:
        parts = []
    found = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not 0 < found < math.inf:
        raise UsageError(
            f'can\'t read "{text}" as a time; expected something like 20m, 1h30m or none', field="--budget"
        )
    return found
