"""`compare` on the screen: metrics with intervals, what differs in the recipe, the same prompts, the same rows.

The comparison itself is `evaluation.compare`; this file only lays it out. Each run has a letter, so that long names
don't widen every column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewright.cli.align_tables import tax_lines
from tunewright.cli.output import Marks, percent_sure, table
from tunewright.cli.tables import metric_text, metric_words
from tunewright.cli.written_tables import ANSWER_LINES, PROMPT_LINES, block

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
    shown += _tax(comparison, letters, marks) if comparison.tax else _gains(comparison, letters, marks)
    if comparison.prompts and any(run.kind in ("text", "align") for run in comparison.runs):
        shown += ["", *_texts(comparison, letters, marks, fit)]
    elif comparison.prompts:
        cells = [[row.prompt, *(_answer(answers, marks) for answers in row.answers)] for row in comparison.prompts]
        shown += ["", *table([["prompt", *letters], *cells], columns, fit=fit, cut=marks.cut)]
    return shown + _same_rows(comparison, letters)


def _metric(row: MetricRow, marks: Marks) -> list[str]:
    cells = []
    for i, (value, interval) in enumerate(zip(row.values, row.intervals, strict=True)):
        shown = metric_text(value, row.name, marks.none)
        if interval is not None:
            shown += f" [{', '.join(metric_text(end, row.name, marks.none) for end in interval)}]"
        cells.append(f"{shown} {marks.best}" if i == row.best else shown)
    return cells


def _gains(comparison: Comparison, letters: Sequence[str], marks: Marks) -> list[str]:
    """Gain and forgetting, a line per run: what full, head and lora buy, and what they cost."""
    if not comparison.gains:
        return []
    names = {gain.metric for gain in comparison.gains}
    heading = metric_words(names.pop()) if len(names) == 1 else "gain"
    written = any(gain.f1_after is not None and gain.metric != "f1" for gain in comparison.gains)
    rows = [["", "trained", heading, *(["F1"] if written else []), "general", "change", ""]]
    for gain in comparison.gains:
        run = comparison.runs[gain.run]
        share = "" if gain.trainable_fraction is None else f" {_percent(gain.trainable_fraction)}{marks.percent}"
        own = "" if heading != "gain" else f"{metric_words(gain.metric)} "
        change = "" if gain.change is None else f"{100 * gain.change:+.1f}{marks.percent}"
        rows.append([
            letters[gain.run],
            f"{run.method or marks.none}{share}",
            own + _before_after(gain.before, gain.after, gain.metric, marks),
            *([_before_after(gain.f1_before, gain.f1_after, "f1", marks)] if written else []),
            _before_after(gain.general_before, gain.general_after, "perplexity", marks),
            change if gain.general_before is not None else change.removeprefix("+"),
            gain.verdict or "not measured",
        ])  # fmt: skip
    return ["", *table(rows, "<<<<<><" if written else "<<<<><")]


def _tax(comparison: Comparison, letters: Sequence[str], marks: Marks) -> list[str]:
    """Stages under the runs' letters; what an untuned base was has its name."""
    assert comparison.tax is not None
    known = {run.name: letter for run, letter in zip(comparison.runs, letters, strict=True)}
    return tax_lines(comparison.tax, [known.get(name, name) for name in comparison.tax.stages], marks)


def _percent(share: float) -> str:
    return f"{100 * share:.{3 if share >= 0.01 else 2}g}"


def _before_after(before: float | None, after: float | None, name: str, marks: Marks) -> str:
    if before is None and after is None:
        return marks.none
    return f"{metric_text(before, name, marks.none)} {marks.arrow} {metric_text(after, name, marks.none)}"


def _texts(comparison: Comparison, letters: Sequence[str], marks: Marks, fit: int) -> list[str]:
    """Each prompt with what each run wrote for it."""
    lines: list[str] = []
    for count, row in enumerate(comparison.prompts, 1):
        lines += block(f"{count}", row.prompt, PROMPT_LINES, marks, fit)
        for letter, answers in zip(letters, row.answers, strict=True):
            lines += block(letter, _answer(answers, marks) if answers else marks.none, ANSWER_LINES, marks, fit)
        lines.append("")
    return lines[:-1]


def _answer(answers: Sequence[Answer], marks: Marks) -> str:
    said = [f"{a.text} {percent_sure(a.probability)}" if a.probability is not None else a.text for a in answers]
    return ", ".join(said) or marks.none


def _same_rows(comparison: Comparison, letters: Sequence[str]) -> list[str]:
    rows = []
    for same in comparison.same_rows:
        counts = f"fixed {same.paired.fixed:,}, broke {same.paired.broke:,}"
        if comparison.runs[same.run].kind == "align":
            counts = f"{same.paired.fixed:,} completions scored higher, {same.paired.broke:,} lower"
        if comparison.runs[same.run].kind == "text":
            counts = f"{same.paired.fixed:,} nearer the wanted text, {same.paired.broke:,} farther"
        rows.append(
            f" {letters[same.run]} against {letters[0]} on the same {same.num_rows:,} rows: {counts} "
            f"(p = {same.paired.p_value:.3f})"
        )
    return ["", *rows] if rows else []
