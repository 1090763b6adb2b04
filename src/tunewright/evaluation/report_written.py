"""What the report shows of a model that writes: metrics in pairs, texts before and after, rows to read.

Called by `report`, which lays out the rest of the page. Reads the record and streams the predictions; computes nothing
but how far each stored answer lies from its references, to choose the rows worth reading.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

from tunewright.evaluation import overlap, wording
from tunewright.evaluation.record import Record, number, pair, read_predictions, text

WORST_ROWS = 8
MOST_LETTERS = 6_000  # of a text in the page


@dataclass(frozen=True)
class PairedRow:
    """One metric before and after, as words."""

    name: str
    meaning: str
    before: str
    after: str
    interval: str
    change: str  # with its interval
    rows: str  # `130 better, 13 worse (p < 0.001)`
    decides: bool


@dataclass(frozen=True)
class FarRow:
    """A validation row whose answer is far from every accepted one."""

    where: str
    prompt: str
    references: list[str]
    prediction: str
    before: str | None
    f1: float
    broke: bool  # the untrained model was nearer


def metric_rows(record: Record, deciding: str) -> list[PairedRow]:
    """Every metric that is known, the deciding one first."""
    known = [name for name in wording.metric_order("text") if name in record.metrics or name in record.untrained]
    return [_metric_row(record, name, deciding) for name in sorted(known, key=lambda name: name != deciding)]


def _metric_row(record: Record, name: str, deciding: str) -> PairedRow:
    paired = record.paired(name)
    change, known = wording.metric_change(paired.get("difference"), name), number(paired.get("fixed")) is not None
    if pair(paired.get("interval")) is not None:
        change += f" {wording.metric_between(paired['interval'], name)}"
    counts = f"{wording.count(paired.get('fixed'))} better, {wording.count(paired.get('broke'))} worse"
    return PairedRow(
        name=wording.metric_name(name),
        meaning=wording.metric_meaning(name, "text"),
        before=wording.metric_value(record.untrained.get(name), name),
        after=wording.metric_value(record.metrics.get(name), name),
        interval=wording.metric_between(record.intervals.get(name), name),
        change=change,
        rows=f"{counts} ({wording.chance(paired.get('p_value'))})" if known else "",
        decides=name == deciding,
    )


@dataclass(frozen=True)
class Gain:
    """What the deciding metric gained, as words."""

    name: str
    before: str
    after: str


def gain(record: Record, deciding: str) -> Gain:
    """Of any kind of run: what stands beside what was forgotten."""
    before, after = record.untrained.get(deciding), record.metrics.get(deciding)
    name = wording.metric_name(deciding)
    return Gain(name, wording.metric_value(before, deciding), wording.metric_value(after, deciding))


def far_rows(record: Record) -> list[FarRow]:
    """Rows with references whose answer shares the fewest words with them, worst first."""
    worst: list[tuple[float, int, FarRow]] = []
    for place, row in enumerate(read_predictions(record.folder)):
        found = _far_row(row)
        if found is not None and found.f1 < 1:
            (heapq.heappush if len(worst) < WORST_ROWS else heapq.heappushpop)(worst, (-found.f1, -place, found))
    return [row for *_, row in sorted(worst, key=lambda one: one[:2], reverse=True)]


def _far_row(row: dict[str, Any]) -> FarRow | None:
    references, prediction = references_of(row), row.get("prediction")
    if not references or not isinstance(prediction, str):
        return None
    before = row.get("before") if isinstance(row.get("before"), str) else None
    f1 = best_f1(prediction, references)
    broke = before is not None and best_f1(before, references) > f1
    return FarRow(
        text(row.get("row")), shortened(text(row.get("prompt"))), references, shortened(prediction), before, f1, broke
    )


def references_of(row: dict[str, Any]) -> list[str]:
    """Accepted answers of a stored prediction."""
    stored = row.get("references")
    return [one for one in stored if isinstance(one, str)] if isinstance(stored, list) else []


def best_f1(prediction: str, references: list[str]) -> float:
    """Words in common with the nearest reference, 0 to 1."""
    rules = overlap.rules_for(references)
    own = overlap.read(prediction, rules)
    return max(overlap.token_f1(own, overlap.read(one, rules)) for one in references)


def shortened(words: str) -> str:
    """A text that is no book."""
    return words if len(words) <= MOST_LETTERS else f"{words[: MOST_LETTERS // 2]} … {words[-MOST_LETTERS // 2 :]}"
