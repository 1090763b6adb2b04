"""The rows that a model gets wrong, costliest first: those worth reading.

Streams predictions/validation.jsonl and keeps only what the report shows, so a million rows cost no memory.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

from tunewright.evaluation.record import Answer, Record, answers, number, read_predictions, text
from tunewright.evaluation.wording import NOTHING

WORST_ROWS = 12


@dataclass(frozen=True)
class WrongRow:
    """A validation row that the tuned model gets wrong."""

    where: str
    text: str
    truth: str
    said: list[Answer]
    loss: float | None
    broke: bool  # the untrained model had it right


@dataclass(frozen=True)
class Mistakes:
    """What the predictions say about errors."""

    rows: list[WrongRow]  # the costliest
    wrong: int
    total: int


def find_mistakes(record: Record) -> Mistakes:
    """Read the predictions once; numbers have no wrong rows, only more or less costly ones."""
    worst: list[tuple[float, int, dict[str, Any]]] = []
    wrong = total = 0
    for total, row in enumerate(read_predictions(record.folder), 1):
        if record.kind != "number" and _same(row.get("prediction"), row.get("label")):
            continue
        wrong += 1
        loss = number(row.get("loss"))
        entry = (loss if loss is not None else -1.0, -total, row)
        (heapq.heappush if len(worst) < WORST_ROWS else heapq.heappushpop)(worst, entry)
    return Mistakes([_wrong_row(row) for *_, row in sorted(worst, key=lambda e: e[:2], reverse=True)], wrong, total)


def _wrong_row(row: dict[str, Any]) -> WrongRow:
    return WrongRow(
        where=text(row.get("row")),
        text=str(row.get("text", "")),
        truth=", ".join(answer.text for answer in answers(row.get("label"), None)) or NOTHING,
        said=answers(row.get("prediction"), row.get("probabilities")),
        loss=number(row.get("loss")),
        broke=row.get("before") is not None and _same(row.get("before"), row.get("label")),
    )


def _same(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return sorted(map(str, one)) == sorted(map(str, other))
    return one == other
