"""A search over settings: what the `search:` block of a recipe says, which values come next, and which trials are poor.

    search:
      training.learning_rate: {low: 1e-5, high: 1e-3, log: true}
      trainable.rank: [4, 8, 16]
      method: random          # grid, random, or optuna
      trials: 12
      stop_poor: true

Proposals depend on the block, the seed and the trials so far, and on nothing else, so that a search that was stopped
goes on as it would have. Runs nothing: `choosing` does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field, ValidationError

from tunewright.errors import RecipeError, did_you_mean
from tunewright.planning.trials import given_values
from tunewright.recipe import Recipe
from tunewright.recipe_files import anchored, build_recipe, field_docs, read_yaml
from tunewright.recipe_mistakes import recipe_error
from tunewright.recipe_part import Part, PositiveInt

TRIALS = 16  # where nobody says how many
DIGITS = 3  # of a number that was drawn: more only look exact
FEWEST_OTHERS = 4  # trials that a trial is held against before it may be stopped
MOST_IN_A_GRID = 1000
# Settings that decide which rows judge a trial, or how: with other ones the trials couldn't be compared.
NOT_SEARCHED = (
    "task", "name", "revision", "data.train", "data.validation", "data.revision", "data.text", "data.label",
    "data.labels", "data.completion", "data.references", "data.empty", "training.seed", "evaluation.metric",
    "evaluation.generate_rows", "evaluation.judge",
)  # fmt: skip

Value = str | float | bool | None
Chosen = dict[str, Any]  # path of a setting -> value


class SearchOptions(Part):
    """What the block says beside the settings themselves."""

    method: Literal["grid", "random", "optuna"] | None = None
    """grid: every combination; random: spread evenly over the space; optuna: each one learns from those before."""
    trials: PositiveInt | None = None
    """How many; a grid has as many as there are combinations."""
    stop_poor: bool = True
    """Stop a trial whose best so far is behind the median of the others at the same epoch."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    """Seeds with which the best three are repeated before one of them is named the best."""


@dataclass(frozen=True)
class Dimension:
    """One setting and what it may be."""

    path: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False  # only whole numbers

    @property
    def is_range(self) -> bool:
        return not self.choices

    def at(self, share: float) -> Any:
        """The value at this share of the way from the first to the last, 0 <= share < 1."""
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        if self.whole and not self.log:
            return int(self.low + math.floor(share * (self.high - self.low + 1)))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        found = low + share * (high - low)
        found = math.exp(found) if self.log else found
        found = round(found) if self.whole else float(f"{found:.{DIGITS}g}")
        return type(found)(min(max(found, self.low), self.high))

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that must be possible, for all to be."""
        return self.choices or tuple(int(end) if self.whole else end for end in (self.low, self.high))


@dataclass(frozen=True)
class SearchPlan:
    """A recipe and what to try with it."""

    recipe: Recipe
    dimensions: tuple[Dimension, ...]
    options: SearchOptions
    method: Literal["grid", "random", "optuna"]
    trials: int

    def recipe_with(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe's given values with these on top, nested."""
        return with_settings(given_values(self.recipe), chosen)

    def label(self, chosen: Mapping[str, Any]) -> str:
        """Values in a few words: the last part of each path, where that is enough."""
        last = [path.rpartition(".")[2] for path in chosen]
        names = last if len(set(last)) == len(last) else list(chosen)
        return ", ".join(f"{name.replace('_', ' ')} {_word(v)}" for name, v in zip(names, chosen.values(), strict=True))


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- reading ----


def load_search(path: Path | str, overrides: Sequence[str] = ()) -> SearchPlan:
    """The recipe of a file and its `search:` block, every end of the space checked. Raises RecipeError."""
    path = Path(path)
    values = read_yaml(path)
    block = values.pop("search", None)
    if not isinstance(block, dict) or not block:
        says = 'has no "search:" block; write one, such as search: {training.learning_rate: [1e-4, 3e-4, 1e-3]}'
        raise RecipeError(says, where=str(path), field="search")
    recipe = build_recipe(values, overrides, where=str(path))
    recipe = anchored(recipe, path.parent, overridden={o.partition("=")[0] for o in overrides})
    return plan_search(recipe, block, where=str(path))


def plan_search(recipe: Recipe, block: Mapping[str, Any], where: str | None = None) -> SearchPlan:
    """The same from a recipe and the block's values."""
    settings = {name: value for name, value in block.items() if name not in SearchOptions.model_fields}
    known = [doc.path for doc in field_docs()]
    for name in settings:
        if name not in known:
            near = did_you_mean(str(name), [*known, *SearchOptions.model_fields])
            raise RecipeError(f'"search.{name}" is neither a setting nor method, trials, stop_poor or seeds.{near}',
                              where=where, field=f"search.{name}")  # fmt: skip
        if name in NOT_SEARCHED:
            says = f'"{name}" decides what the trials are judged by, and must be the same for all; leave it out'
            raise RecipeError(says, where=where, field=f"search.{name}")
    try:
        options = SearchOptions.model_validate({k: v for k, v in block.items() if k not in settings})
    except ValidationError as error:
        raise recipe_error(error, f"{where}, search" if where else "search", list(SearchOptions.model_fields)) from None
    if not settings:
        raise RecipeError("names no setting to search over", where=where, field="search")
    dimensions = tuple(_dimension(str(name), value, where) for name, value in settings.items())
    method = options.method or ("random" if any(d.is_range for d in dimensions) else "grid")
    plan = SearchPlan(recipe, dimensions, options, method, _number(options, dimensions, method, where))
    _check_ends(plan, where)
    return plan


def _dimension(path: str, value: Any, where: str | None) -> Dimension:
    field = f"search.{path}"
    if isinstance(value, list):
        if not value:
            raise RecipeError(f'"{field}" is an empty list', where=where, field=field)
        return Dimension(path, tuple(dict.fromkeys(map(_frozen, value))))
    if not isinstance(value, dict) or not {"low", "high"} <= set(value) <= {"low", "high", "log"}:
        raise RecipeError(f'"{field}" is {value!r:.60}; expected a list of values, or {{low: …, high: …, log: true}}',
                          where=where, field=field)  # fmt: skip
    low, high, log = value["low"], value["high"], value.get("log", False)
    numbers = [isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)]
    if not all(numbers) or not isinstance(log, bool) or not (low < high and (low > 0 or not log)):
        rule = "0 < low < high, as log asks for" if log is True else "low < high, and log true or false"
        raise RecipeError(f'"{field}" is from {low!r:.20} to {high!r:.20}; expected {rule}', where=where, field=field)
    return Dimension(path, (), low, high, log, isinstance(low, int) and isinstance(high, int))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _thawed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _number(options: SearchOptions, dimensions: Sequence[Dimension], method: str, where: str | None) -> int:
    if method != "grid":
        return options.trials or TRIALS
    if ranged := next((d for d in dimensions if d.is_range), None):
        says = f'a grid needs a list of values for "{ranged.path}"; list some, or say method: random'
        raise RecipeError(says, where=where, field=f"search.{ranged.path}")
    size = math.prod(len(d.choices) for d in dimensions)
    if size > MOST_IN_A_GRID or (options.trials is not None and options.trials != size):
        says = f"a grid tries all {size:,} combinations; leave trials out, or say method: random"
        raise RecipeError(says, where=where, field="search.trials")
    return size


def _check_ends(plan: SearchPlan, where: str | None) -> None:
    """A value that can't be shows before the first trial, not in the last one."""
    first = {d.path: _thawed(d.ends[0]) for d in plan.dimensions}
    for dimension in plan.dimensions:
        for end in dimension.ends:
            build_recipe(plan.recipe_with(first | {dimension.path: _thawed(end)}), where=f"{where}, search")


def with_settings(values: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with others put in by their dotted paths. RecipeError for one that lies inside a list."""
    found = dict(values)
    for path, value in chosen.items():
        *parents, last = path.split(".")
        inner = found
        for name in parents:
            below = inner.get(name) or {}
            if not isinstance(below, Mapping):
                raise RecipeError(f'"{path}" stands in a list and can\'t be searched over', field=f"search.{path}")
            inner[name] = dict(below)
            inner = inner[name]
        inner[last] = value
    return found


# ---- what comes next ----


@dataclass(frozen=True)
class Tried:
    """A trial that was proposed."""

    chosen: Chosen
    value: float | None = None  # the metric, or the last one before it was stopped; None: running, or it failed
    ended: bool = False


class Sampler(Protocol):
    """A way to choose values."""

    def propose(self, past: Sequence[Tried]) -> Chosen | None:
        """The next trial's values after those in `past`; None: there are no more."""
        ...


@dataclass(frozen=True)
class Listed:
    """Values that are known from the start."""

    every: tuple[Chosen, ...]

    def propose(self, past: Sequence[Tried]) -> Chosen | None:
        return dict(self.every[len(past)]) if len(past) < len(self.every) else None


def sampler_of(plan: SearchPlan, *, higher_is_better: bool) -> Sampler:
    """Grid, random or Optuna's. MachineError where optuna isn't installed."""
    seed = plan.recipe.training.seed
    if plan.method == "grid":
        return Listed(grid(plan.dimensions))
    if plan.method == "random":
        return Listed(spread(plan.dimensions, plan.trials, seed))
    from tunewright.planning.search_optuna import OptunaSampler

    return OptunaSampler(plan.dimensions, plan.trials, seed, higher_is_better)


def grid(dimensions: Sequence[Dimension]) -> tuple[Chosen, ...]:
    """Every combination, the last setting changing fastest."""
    paths = [d.path for d in dimensions]
    products = itertools.product(*(d.choices for d in dimensions))
    return tuple(dict(zip(paths, map(_thawed, own), strict=True)) for own in products)


def spread(dimensions: Sequence[Dimension], number: int, seed: int) -> tuple[Chosen, ...]:
    """Different points, each setting's range cut into `number` parts of which each is met once (Latin hypercube,
    McKay et al. 1979); fewer where the space has no more."""
    rng = np.random.default_rng(seed)
    found: dict[str, Chosen] = {}
    for _ in range(30):
        places = np.stack([rng.permutation(number) for _ in dimensions], axis=1)
        shares = (places + rng.random(places.shape)) / number
        for row in shares.tolist():
            chosen = {d.path: _thawed(d.at(share)) for d, share in zip(dimensions, row, strict=True)}
            found.setdefault(repr(chosen), chosen)
        if len(found) >= number:
            break
    return tuple(found.values())[:number]


# ---- which are poor ----

Course = Sequence[tuple[float, float]]  # (epoch, metric) of each evaluation


def limits(
    others: Sequence[Course], *, higher_is_better: bool, fewest: int = FEWEST_OTHERS
) -> list[tuple[float, float]]:
    """(epoch, what a trial's best must reach by then): the median of the others' best at each epoch that enough met."""
    best: Callable[..., float] = max if higher_is_better else min
    found: list[tuple[float, float]] = []
    for epoch in sorted({at for course in others for at, _ in course}):
        reached = [course for course in others if course and course[-1][0] >= epoch - 1e-9]
        if len(reached) >= fewest:
            values = [best(v for at, v in course if at <= epoch + 1e-9) for course in reached
                      if course[0][0] <= epoch + 1e-9]  # fmt: skip
            if len(values) >= fewest:
                found.append((epoch, float(np.median(values))))
    return found


def is_poor(course: Course, allowed: Sequence[tuple[float, float]], *, higher_is_better: bool) -> bool:
    """Whether a trial is behind at its latest evaluation."""
    if not course:
        return False
    now = course[-1][0]
    limit = next((value for at, value in reversed(allowed) if at <= now + 1e-9), None)
    if limit is None:
        return False
    best = max(v for _, v in course) if higher_is_better else min(v for _, v in course)
    return best < limit if higher_is_better else best > limit
