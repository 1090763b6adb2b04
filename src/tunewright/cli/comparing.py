"""Runs side by side, out of their folders: metrics with intervals, what differs in the recipe, the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.cli.output import Marks, number, percent_sure, table
from tunewright.cli.results import prompt_rows
from tunewright.cli.tables import PromptRow
from tunewright.errors import ModelError
from tunewright.runs import read_summary


@dataclass(frozen=True)
class Side:
    """One of the runs."""

    run: str
    state: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Sequence[float]]
    settings: Mapping[str, Any]  # dotted name -> resolved value
    prompts: Mapping[str, PromptRow]
    validation: str  # what it was judged on


def read_side(folder: Path) -> Side:
    """A run's part in the comparison. Raises ModelError for one that has no scores."""
    from tunewright.recipe_files import read_yaml

    summary = read_summary(folder)
    if not summary.get("metrics"):
        raise ModelError(f"has no scores: its state is {summary.get('state', 'unknown')}", where=folder.name)
    resolved = folder / "recipe.resolved.yaml"
    data = summary.get("data") or {}
    return Side(
        run=summary.get("id", folder.name),
        state=summary.get("state", ""),
        metrics=summary["metrics"],
        intervals=summary.get("intervals") or {},
        settings=_flat(read_yaml(resolved)) if resolved.is_file() else {},
        prompts={row.prompt: row for row in prompt_rows(folder)},
        validation=f"{data.get('validation')} ({data.get('validation_rows')} rows)",
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(sides: Sequence[Side]) -> dict[str, list[Any]]:
    """Settings that aren't the same everywhere, with each side's value."""
    names = dict.fromkeys(name for side in sides for name in side.settings)
    values = {name: [side.settings.get(name) for side in sides] for name in names}
    return {name: row for name, row in values.items() if any(value != row[0] for value in row[1:])}


def shared_prompts(sides: Sequence[Side]) -> list[str]:
    """Prompts that every side answered."""
    return [prompt for prompt in sides[0].prompts if all(prompt in side.prompts for side in sides)]


def to_json(sides: Sequence[Side]) -> dict[str, Any]:
    """The same for a program; `run`, `state` and `metrics` are by run."""
    return {
        "run": [side.run for side in sides],
        "state": {side.run: side.state for side in sides},
        "metrics": {side.run: dict(side.metrics) for side in sides},
        "intervals": {side.run: dict(side.intervals) for side in sides},
        "recipe_differences": differences(sides),
        "prompts": {p: {side.run: side.prompts[p].after for side in sides} for p in shared_prompts(sides)},
    }


def lines(sides: Sequence[Side], marks: Marks, fit: int) -> list[str]:
    """Three tables; each run has a letter, so that long names don't widen every column."""
    letters = [chr(ord("A") + i) if i < 26 else f"#{i + 1}" for i in range(len(sides))]
    shown = [f" {letter}  {side.run}" for letter, side in zip(letters, sides, strict=True)]
    if len({side.validation for side in sides}) > 1:
        shown.append(f" {marks.warning} judged on different rows: " + "; ".join(side.validation for side in sides))
    shown += ["", *_metric_table(sides, letters, marks)]
    if rows := differences(sides):
        cells = [[name, *(_setting(value) for value in values)] for name, values in rows.items()]
        shown += ["", *table([["recipe", *letters], *cells], "<" * (len(sides) + 1), fit=fit, cut=marks.cut)]
    if prompts := shared_prompts(sides):
        cells = [[prompt, *(_answer(side.prompts[prompt]) for side in sides)] for prompt in prompts]
        shown += ["", *table([["prompt", *letters], *cells], "<" * (len(sides) + 1), fit=fit, cut=marks.cut)]
    return shown


def _metric_table(sides: Sequence[Side], letters: Sequence[str], marks: Marks) -> list[str]:
    names = dict.fromkeys(name for side in sides for name in side.metrics)
    cells = [[name, *(_with_interval(side, name, marks) for side in sides)] for name in names]
    return table([["metric", *letters], *cells], "<" * (len(sides) + 1))


def _with_interval(side: Side, name: str, marks: Marks) -> str:
    interval = side.intervals.get(name)
    value = number(side.metrics.get(name), marks.none)
    return f"{value} [{number(interval[0])}, {number(interval[1])}]" if interval else value


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _answer(row: PromptRow) -> str:
    prediction = row.after.get("prediction")
    if isinstance(prediction, float):
        return number(prediction)
    sure = (row.after.get("probabilities") or {}).get(str(prediction))
    return str(prediction) if sure is None else f"{prediction} {percent_sure(sure)}"
