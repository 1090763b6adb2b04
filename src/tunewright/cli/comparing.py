"""`compare` on the screen: metrics with intervals, what differs in the recipe, the same prompts, the same rows.

The comparison itself is `evaluation.compare`; this file only lays it out. Each run has a letter, so that long names
don't widen every column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewright.cli.output import Marks, number, percent_sure, table

if TYPE_CHECKING:
    from tunewright.evaluation.compare import Comparison, MetricRow
    from tunewright.evaluation.record import Answer


def to_json(comparison: Comparison) -> dict[str, Any]:
    """For a program: `run`, `state` and `metrics` by run, then everything else."""
    names = [run.name for run in comparison.runs]
    return {
        "run": names,
        "state": {run.name: run.state for run in comparison.runs},
        "metrics": {
            name: {row.name: row.values[i] for row in comparison.metrics if row.values[i] is not None}
            for i, name in enumerate(names)
        },
        "recipe_differences": {row.name: list(row.values) for row in comparison.settings},
        "comparison": comparison.to_json(),
    }


def lines(comparison: Comparison, marks: Marks, fit: int) -> list[str]:
    """The tables, one under the other."""
    letters = [chr(ord("A") + i) if i < 26 else f"#{i + 1}" for i in range(len(comparison.runs))]
    columns = "<" * (len(letters) + 1)
    shown = [f" {letter}  {run.name}" for letter, run in zip(letters, comparison.runs, strict=True)]
    shown += [f" {marks.warning} {note}" for note in comparison.notes]
    metrics = [[row.name, *_metric(row, marks)] for row in comparison.metrics]
    shown += ["", *table([["metric", *letters], *metrics], columns)]
    if comparison.settings:
        cells = [[row.name, *(value or marks.none for value in row.values)] for row in comparison.settings]
        shown += ["", *table([["recipe", *letters], *cells], columns, fit=fit, cut=marks.cut)]
    if comparison.prompts:
        cells = [[row.prompt, *(_answer(answers, marks) for answers in row.answers)] for row in comparison.prompts]
        shown += ["", *table([["prompt", *letters], *cells], columns, fit=fit, cut=marks.cut)]
    return shown + _same_rows(comparison, letters)


def _metric(row: MetricRow, marks: Marks) -> list[str]:
    cells = []
    for i, (value, interval) in enumerate(zip(row.values, row.intervals, strict=True)):
        shown = number(value, marks.none)
        if interval is not None:
            shown += f" [{number(interval[0])}, {number(interval[1])}]"
        cells.append(f"{shown} {marks.best}" if i == row.best else shown)
    return cells


def _answer(answers: Sequence[Answer], marks: Marks) -> str:
    said = [f"{a.text} {percent_sure(a.probability)}" if a.probability is not None else a.text for a in answers]
    return ", ".join(said) or marks.none


def _same_rows(comparison: Comparison, letters: Sequence[str]) -> list[str]:
    rows = [
        f" {letters[same.run]} against {letters[0]} on the same {same.num_rows:,} rows: fixed "
        f"{same.paired.fixed:,}, broke {same.paired.broke:,} (p = {same.paired.p_value:.3f})"
        for same in comparison.same_rows
    ]
    return ["", *rows] if rows else []
