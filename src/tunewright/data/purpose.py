"""Which task a file's rows seem to be for: labels to classify, answers to write, or plain text to go on with.

For commands that are given data and no task. `columns` and `written` recognise; this file only weighs the two, and
says what made it decide. Whoever names a task is never second-guessed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from tunewright.data.columns import ROWS_LOOKED_AT, find_columns
from tunewright.data.examples import Source
from tunewright.data.row_reading import TemplateReading
from tunewright.data.values import plain
from tunewright.data.written import Format, recognise
from tunewright.errors import DataError

PLAIN_LABELS = ("label", "labels")  # called so, it is what the file is for
COMPARISONS = {"chosen", "rejected"}
FEW = 4  # a class has this many rows at least, on the whole


@dataclass(frozen=True)
class Purpose:
    """A task, and why."""

    task: Literal["classify", "generate", "continue"]
    said: str  # a sentence; empty where it is what everyone expects


def purpose_of(source: Source) -> Purpose:
    """From the first rows. A source that nothing is known about is for classification, whose errors name columns.

    DataError for comparisons, which are for neither.
    """
    try:
        form = recognise(source)
    except DataError:
        if set(_first_row(source)) >= COMPARISONS:
            raise
        return Purpose("classify", "")
    label = _label(source)
    if form.name == "plain text":
        if label is not None or len(_first_row(source)) > 1:
            return Purpose("classify", "")
        return Purpose("continue", "task: continue, as there is text and no label")
    if label is not None and (label.strip().lower() in PLAIN_LABELS or label == _completion(form)):
        return Purpose("classify", "")
    return Purpose("generate", "task: generate, by the rows' format; for labels give --task classify")


def _label(source: Source) -> str | None:
    """A column of few values, as classification would find it."""
    try:
        label = find_columns(source).label
    except DataError:
        return None
    if label is None or label.strip().lower() in PLAIN_LABELS:
        return label
    cells = [plain(row.values.get(label)) for row in itertools.islice(source.rows(), ROWS_LOOKED_AT)]
    return label if FEW * len({repr(cell) for cell in cells}) <= len(cells) else None


def _completion(form: Format) -> str | None:
    return form.reading.template.completion if isinstance(form.reading, TemplateReading) else None


def _first_row(source: Source) -> tuple[str, ...]:
    return next((tuple(row.values) for row in source.rows()), ())
