"""Runs side by side: metrics with intervals, the settings that differ, the same prompts, the same rows.

Behind `tunewright compare`. Reads run folders through `record`, runs no model and prints nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.errors import UsageError
from tunewright.evaluation import alignment, wording
from tunewright.evaluation.alignment_tax import Tax, alignment_tax
from tunewright.evaluation.record import (
    Answer,
    Record,
    before_and_after,
    mapping,
    number,
    read_predictions,
    read_record,
    text,
)
from tunewright.evaluation.report_written import best_f1, references_of
from tunewright.evaluation.statistics import Interval, Paired, mcnemar, paired_errors

# Settings that name a run instead of shaping it.
NAMING = ("name",)
_ABSENT = object()


@dataclass(frozen=True)
class RunColumn:
    """One run, a column of every table."""

    name: str
    folder: str
    state: str
    model: str
    method: str
    trainable: int | None
    seconds: float | None
    kind: str  # single, multi, number, text, preference, or align


@dataclass(frozen=True)
class Gain:
    """What one run gained on its task, beside what it forgot of general text."""

    run: int
    trainable_fraction: float | None
    metric: str
    before: float | None
    after: float | None
    f1_before: float | None  # of written answers, where there are any
    f1_after: float | None
    general_before: float | None  # perplexity; None for drift, which has no before
    general_after: float | None
    change: float | None  # of the perplexity, or the share of the way to an unrelated token
    verdict: str  # empty where nothing was measured


@dataclass(frozen=True)
class MetricRow:
    """One metric over the runs; None where a run hasn't it."""

    name: str
    values: tuple[float | None, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    best: int | None  # index of the best run; None with fewer than two values or a tie


@dataclass(frozen=True)
class SettingRow:
    """One setting on which the runs differ, as text; None where a recipe hasn't it."""

    name: str
    values: tuple[str | None, ...]


@dataclass(frozen=True)
class PromptRow:
    """One prompt, and what each final model answers."""

    prompt: str
    answers: tuple[tuple[Answer, ...], ...]  # empty where a run wasn't asked


@dataclass(frozen=True)
class SameRows:
    """A run against the first one, on the validation rows that both answered; texts by token F1."""

    run: int
    num_rows: int
    paired: Paired


@dataclass(frozen=True)
class Comparison:
    """What tells the runs apart."""

    runs: tuple[RunColumn, ...]
    metrics: tuple[MetricRow, ...]
    settings: tuple[SettingRow, ...]
    prompts: tuple[PromptRow, ...]
    same_rows: tuple[SameRows, ...]
    gains: tuple[Gain, ...]  # of every run, where any of them measured what it forgot
    tax: Tax | None  # where one of the runs was aligned
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return asdict(self)


def compare_runs(folders: list[Path]) -> Comparison:
    """Read at least two run folders and set them side by side, in the order given."""
    if len(folders) < 2:
        raise UsageError("compare needs at least two runs.", field="runs")
    records = [read_record(folder) for folder in folders]
    same_rows, notes = _same_rows(records)
    return Comparison(
        runs=tuple(map(_column, records)),
        metrics=tuple(_metric_rows(records)),
        settings=tuple(_setting_rows(records)),
        prompts=tuple(_prompt_rows(records)),
        same_rows=tuple(same_rows),
        gains=tuple(_gains(records)),
        tax=alignment_tax(records),
        notes=(*notes, *(f"{record.name}: {problem}" for record in records for problem in record.problems)),
    )


def _column(record: Record) -> RunColumn:
    model = mapping(record.run.get("model"))
    trainable = number(model.get("trainable"))
    return RunColumn(
        name=record.name,
        folder=str(record.folder),
        state=text(record.run.get("state")),
        model=text(model.get("name")),
        method=text(model.get("method")),
        trainable=None if trainable is None else int(trainable),
        seconds=number(record.run.get("seconds")),
        kind=record.kind,
    )


def _gains(records: list[Record]) -> list[Gain]:
    if not any(record.forgetting for record in records):
        return []
    return [_gain(i, record) for i, record in enumerate(records)]


def _gain(run: int, record: Record) -> Gain:
    metric, found = wording.deciding_metric(record), record.forgetting
    return Gain(
        run=run,
        trainable_fraction=number(mapping(record.run.get("model")).get("trainable_fraction")),
        metric=metric,
        before=record.untrained.get(metric),
        after=record.metrics.get(metric),
        f1_before=record.untrained.get("f1"),
        f1_after=record.metrics.get("f1"),
        general_before=number(found.get("before")),
        general_after=number(found.get("after")),
        change=number(found.get("change")),
        verdict=text(found.get("verdict")),
    )


def _metric_rows(records: list[Record]) -> list[MetricRow]:
    rows = []
    for name in dict.fromkeys(name for record in records for name in wording.metric_order(record.kind)):
        values = tuple(record.metrics.get(name) for record in records)
        if any(value is not None for value in values):
            intervals = tuple(record.intervals.get(name) for record in records)
            best = _best(name, values) if _alike(name, [r for r in records if name in r.metrics]) else None
            rows.append(MetricRow(name, values, intervals, best))
    return rows


def _alike(name: str, records: list[Record]) -> bool:
    """Whether a metric means the same in these runs: of one kind, and scored by the same reward or judge."""
    source = "judge" if name.startswith("judge") else "reward" if name in alignment.BY_REWARD else None
    scored = [mapping(record.run.get("alignment")).get(source) for record in records] if source else [None]
    return len({record.kind for record in records}) == 1 and all(one == scored[0] for one in scored)


def _best(name: str, values: tuple[float | None, ...]) -> int | None:
    known = [value for value in values if value is not None]
    if name not in wording.HIGHER_IS_BETTER:
        return None
    top = max(known) if wording.HIGHER_IS_BETTER[name] else min(known)
    return values.index(top) if len(known) > 1 and known.count(top) == 1 else None


def _setting_rows(records: list[Record]) -> list[SettingRow]:
    flat = [_flat(record.recipe) for record in records]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = []
    for name in names:
        values = [settings.get(name, _ABSENT) for settings in flat]
        if name not in NAMING and any(value != values[0] for value in values) and not _unset(name, values):
            rows.append(SettingRow(name, tuple(None if value is _ABSENT else _said(value) for value in values)))
    return rows


def _unset(name: str, values: list[object]) -> bool:
    """Whether it is a setting of a part that one recipe has and another hasn't, and nobody gave it."""
    return name.count(".") > 1 and all(value is None or value is _ABSENT for value in values)


def _said(value: object) -> str:
    """A setting as text; of a list of parts (`reward`) only what was given."""
    if isinstance(value, list):
        return ", ".join(map(_said, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{name}={_said(one)}" for name, one in mapping(value).items() if one is not None)
    return str(value)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(mapping(value), f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _prompt_rows(records: list[Record]) -> list[PromptRow]:
    asked = [before_and_after(record.samples) for record in records]
    prompts = dict.fromkeys(prompt for answered in asked for prompt in answered)
    return [PromptRow(p, tuple(tuple(answered.get(p, ([], []))[1]) for answered in asked)) for p in prompts]


def _same_rows(records: list[Record]) -> tuple[list[SameRows], list[str]]:
    """Paired tests against the first run. Rows count as the same when place, text and label are equal."""
    first, found, notes = _outcomes(records[0]), [], []
    for index, record in enumerate(records[1:], 1):
        other = _outcomes(record)
        shared = [key for key in first if key in other] if record.kind == records[0].kind else []
        if record.kind == records[0].kind == "align" and not _same_reward(record, records[0]):
            notes.append(f"{record.name} and {records[0].name} had other rewards and judges: no paired test.")
            continue
        if not shared:
            notes.append(
                f"{record.name} was not judged on the rows of {records[0].name}: intervals only, no paired test."
            )
            continue
        if len(shared) < max(len(first), len(other)):
            notes.append(f"{record.name} and {records[0].name} share {len(shared):,} of their validation rows.")
        before, after = (np.array([outcomes[key] for key in shared]) for outcomes in (first, other))
        found.append(SameRows(index, len(shared), _paired(record.kind, before, after)))
    return found, notes


def _paired(kind: str, before: np.ndarray, after: np.ndarray) -> Paired:
    if kind not in ("text", "align"):
        return paired_errors(before, after) if kind == "number" else mcnemar(before, after)
    found = paired_errors(1 - before, 1 - after)  # the same test, of what is missing
    low, high = found.interval.low, found.interval.high
    return replace(found, difference=-found.difference, interval=Interval(-high, -low))


def _outcomes(record: Record) -> dict[tuple[str, int], float]:
    """Each predicted row: right or wrong, a number's squared error, a text's token F1, an aligned model's score."""
    found: dict[tuple[str, int], float] = {}
    for row in read_predictions(record.folder):
        if record.kind == "align":
            found |= _outcome_of_aligned(row)
            continue
        if record.writes:
            found |= _outcome_of_text(row)
            continue
        label, prediction = row.get("label"), row.get("prediction")
        key = (str(row.get("row")), hash((str(row.get("text")), _plain(label))))
        if record.kind != "number":
            found[key] = float(_plain(prediction) == _plain(label))
        elif (error := number(row.get("loss"))) is not None:
            found[key] = error
    return found


def _outcome_of_text(row: dict[str, Any]) -> dict[tuple[str, int], float]:
    """Nothing where there is no reference to compare with."""
    references, prediction = references_of(row), row.get("prediction")
    if not references or not isinstance(prediction, str):
        return {}
    key = (str(row.get("row")), hash((str(row.get("prompt")), tuple(references))))
    return {key: best_f1(prediction, references)}


def _outcome_of_aligned(row: dict[str, Any]) -> dict[tuple[str, int], float]:
    """The judge's score where there is one, else the reward's."""
    score = number(row.get("judge", row.get("score")))
    return {} if score is None else {(str(row.get("row")), hash(str(row.get("prompt")))): score}


def _same_reward(one: Record, other: Record) -> bool:
    """Whether completions of two aligned runs were scored alike: by the same judge, or without one by one reward."""
    found = [mapping(record.run.get("alignment")) for record in (one, other)]
    judges = [text(body.get("judge")) for body in found]
    return judges[0] == judges[1] and (judges[0] != "" or found[0].get("reward") == found[1].get("reward"))


def _plain(value: object) -> str:
    return str(sorted(map(str, value))) if isinstance(value, list) else str(value)
