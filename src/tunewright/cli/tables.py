"""The per-epoch table and the table of prompts before and after, as lines of text.

`screen` prints the first a row at a time, `results` prints both at the end. Numbers are aligned, in three decimals.
Texts of a model that writes are in `written_tables`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunewright.cli.output import Marks, clock, number, percent_sure, table
from tunewright.evaluation.digits import metric_digits


@dataclass(frozen=True)
class EpochRow:
    """One evaluation. `value` is the deciding metric, None where that is the loss itself."""

    epoch: float
    train_loss: float | None
    validation_loss: float | None
    value: float | None
    seconds: float | None
    best: bool
    written: tuple[tuple[str, float | None], ...] = ()  # of a model that writes: its columns, by the metric's name
    step: int | None = None  # where steps are counted and no loss is evaluated: of a model that is aligned


# Columns of a model that writes, as far as it has them and they fit.
WRITTEN = ("perplexity", "exact_match", "f1", "rouge_l")
ALIGNED = (
    "accuracy",
    "score",
    "kl",
    "win_rate",
    "judge",
    "judge_probability",
    "distinct_2",
    "ended",
)  # of one that is aligned
MOST_COLUMNS = 80


def epoch_row(
    epoch: float, metrics: Mapping[str, Any], metric: str, *, seconds: float | None = None, best: bool = False
) -> EpochRow:
    """The row of one evaluation's flat metrics."""
    name = metric.removeprefix("validation/")
    value = None if name == "loss" else metrics.get(f"validation/{name}")
    row = EpochRow(epoch, metrics.get("train/loss"), metrics.get("validation/loss"), value, seconds, best)
    if "validation/kl" in metrics:
        return replace(row, written=_there((name, *ALIGNED), metrics), step=int(metrics.get("step", 0)))
    if "validation/perplexity" not in metrics:
        return row
    names = (WRITTEN[0], *([] if name in ("loss", *WRITTEN) else [name]), *WRITTEN[1:])
    return replace(row, written=_there(names, metrics))


def _there(names: Sequence[str], metrics: Mapping[str, Any]) -> tuple[tuple[str, float | None], ...]:
    """Columns that an evaluation has; the untrained model has won nothing yet, and its column stays."""
    known = {name: metrics.get(f"validation/{name}") for name in dict.fromkeys(names)}
    won = "win_rate" if "validation/score" in metrics else None
    return tuple((name, value) for name, value in known.items() if value is not None or name == won)


def epoch_heading(metric: str, row: EpochRow | None = None) -> str:
    """The line above the rows; `row`: any of them, which knows its columns."""
    if row is not None and row.step is not None:
        shown = "".join(f"{metric_words(name):>{width}}" for name, width in _columns(row))
        return f"{'step':>7}{shown}{'time':>9}"
    if row is not None and row.written:
        shown = "".join(f"{metric_words(name):>{width}}" for name, width in _columns(row))
        return f"{'epoch':>6}{'train loss':>11}{'validation loss':>16}{shown}{'time':>9}"
    name = metric.removeprefix("validation/").replace("_", " ")
    return f"{'epoch':>6}{'train loss':>13}{'validation loss':>19}{'' if name == 'loss' else name:>14}{'time':>11}"


def epoch_line(row: EpochRow, previous: EpochRow | None, marks: Marks) -> str:
    """Losses with the direction they moved in, the deciding metric, a star while it is the best."""
    if row.step is not None:
        return f"{row.step:>7,}{_written_end(row, marks)}".rstrip()
    train = f"{number(row.train_loss, marks.none)} {_moved(row, previous, 'train_loss', marks)}"
    validation = f"{number(row.validation_loss, marks.none)} {_moved(row, previous, 'validation_loss', marks)}"
    if row.written:
        return _written_line(row, train, validation, marks)
    value = "" if row.value is None else number(row.value)
    star = marks.best if row.best else " "
    took = "" if row.seconds is None else clock(row.seconds)
    return f"{row.epoch:>6.4g}{train:>13}{validation:>19}{value:>12} {star}{took:>11}".rstrip()


def _written_line(row: EpochRow, train: str, validation: str, marks: Marks) -> str:
    return f"{row.epoch:>6.4g}{train:>11}{validation:>16}{_written_end(row, marks)}".rstrip()


def _written_end(row: EpochRow, marks: Marks) -> str:
    """The columns of what was written, a star while it is the best, the time."""
    values = dict(row.written)
    shown = "".join(f"{metric_text(values[name], name, marks.none):>{width}}" for name, width in _columns(row))
    star, took = marks.best if row.best else " ", "" if row.seconds is None else clock(row.seconds)
    return f"{shown} {star}{took:>7}"


def _columns(row: EpochRow) -> list[tuple[str, int]]:
    """Names and widths of the metrics that fit beside epoch, losses and time."""
    left, found = MOST_COLUMNS - (42 if row.step is None else 16), list[tuple[str, int]]()
    for name, _ in row.written:
        width = max(len(metric_words(name)), 5 if row.step is None else 6) + (1 if row.step is None else 2)
        if width <= left:
            left -= width
            found.append((name, width))
    return found


def metric_text(value: float | None, name: str, none: str) -> str:
    """As many digits as the metric needs."""
    return none if value is None or not math.isfinite(value) else metric_digits(value, name)


_SPELLINGS = {
    "f1": "F1",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "kl": "KL",
    "distinct_1": "distinct words",
    "distinct_2": "distinct pairs",
    "judge_probability": "judge's prob.",
}


def metric_words(name: str) -> str:
    return _SPELLINGS.get(name, name.replace("_", " "))


def _moved(row: EpochRow, previous: EpochRow | None, name: str, marks: Marks) -> str:
    now, before = getattr(row, name), getattr(previous, name) if previous else None
    if now is None or before is None or round(now, 3) == round(before, 3):
        return " "
    return marks.down if now < before else marks.up


def epoch_lines(rows: Sequence[EpochRow], metric: str, marks: Marks) -> list[str]:
    """The whole table."""
    befores = [None, *rows]
    heading = epoch_heading(metric, rows[0] if rows else None)
    return [heading, *(epoch_line(row, befores[i], marks) for i, row in enumerate(rows))]


@dataclass(frozen=True)
class PromptRow:
    """One prompt's answer before and after; `wanted` is its true label where that is known."""

    prompt: str
    before: Mapping[str, Any] | None  # {"prediction", "probabilities"}
    after: Mapping[str, Any]
    wanted: str | None = None


def prompt_lines(rows: Sequence[PromptRow], marks: Marks, fit: int) -> list[str]:
    """The same prompts before and after: label, its probability, and what became of it."""
    knows = any(row.wanted is not None for row in rows)
    heading = ["prompt", *(["wanted"] if knows else []), "before", "after", ""]
    cells = [
        [
            row.prompt,
            *([row.wanted or ""] if knows else []),
            _answer(row.before, marks),
            _answer(row.after, marks),
            _became(row),
        ]
        for row in rows
    ]
    return table([heading, *cells], "<" * len(heading), fit=fit, cut=marks.cut)


def _answer(answer: Mapping[str, Any] | None, marks: Marks) -> str:
    """`positive 0.98`, a number, or a list of labels."""
    if not answer:
        return marks.none
    prediction = answer.get("prediction")
    if isinstance(prediction, (int, float)) and not isinstance(prediction, bool):
        return number(prediction)
    if isinstance(prediction, (list, tuple)):
        return ", ".join(map(str, prediction)) or "(none)"
    sure = (answer.get("probabilities") or {}).get(str(prediction))
    return f"{prediction}" if sure is None else f"{prediction} {percent_sure(sure)}"


def _became(row: PromptRow) -> str:
    if row.before is None:
        return ""
    before, after = row.before.get("prediction"), row.after.get("prediction")
    if row.wanted is not None and (before == row.wanted) != (after == row.wanted):
        return "fixed" if after == row.wanted else "broke"
    return "" if before == after or isinstance(after, float) else "changed"
