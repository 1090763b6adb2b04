"""The first pass over a source: which rows can be used, which labels there are, which texts are equal.

Comes before splitting and tokenizing, which both count *usable* rows (text not empty) from 0: index i of every array
here is index i of the tokenised dataset, and `rows[i]` its place in the file. Keeps about 30 bytes per row, no text.
"""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewright.data.examples import Row, Source
from tunewright.data.labels import Setting
from tunewright.data.raw_labels import ObservedLabels
from tunewright.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from tunewright.data.columns import Columns

NUM_EMPTY_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over a source found. N usable rows, in the order of the source."""

    name: str
    num_rows: int  # all rows, the empty ones too
    rows: np.ndarray  # int64 [N] position of each usable row in the source
    label_keys: np.ndarray  # int32 [N] equal labels, equal number; -1 for quantities and where there is no label
    text_hashes: np.ndarray  # uint64 [N] equal texts (but for case and spacing), equal number
    labels: ObservedLabels
    empty: tuple[str, ...]  # where the first rows with an empty text are
    fingerprint: str  # of the source

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_empty(self) -> int:
        """Rows left out because their text is empty."""
        return self.num_rows - len(self.rows)


def survey(source: Source, columns: Columns, setting: Setting = "auto") -> Survey:
    """Read every row once. `setting` is the recipe's `data.labels`, which decides whether numbers are quantities."""
    observed = ObservedLabels(column=columns.label or "label")
    rows, keys, hashes = array("q"), array("i"), array("Q")
    empty: list[str] = []
    num_rows = 0
    for row, text in _texts(source, columns):
        num_rows += 1
        if text:
            rows.append(row.number)
            hashes.append(text_hash(text))
            keys.append(-1 if columns.label is None else observed.add(value_of(row, columns.label), row.where))
        elif len(empty) < NUM_EMPTY_SHOWN:
            empty.append(row.where)
    label_keys = np.array(keys, np.int32)
    if setting == "number" or (setting == "auto" and observed.is_quantity):
        label_keys = np.full_like(label_keys, -1)
    return Survey(
        name=source.name,
        num_rows=num_rows,
        rows=np.array(rows, np.int64),
        label_keys=label_keys,
        text_hashes=np.array(hashes, np.uint64),
        labels=observed,
        empty=tuple(empty),
        fingerprint=source.fingerprint(),
    )


def _texts(source: Source, columns: Columns) -> Iterator[tuple[Row, str]]:
    return ((row, text_of(row, columns.text)) for row in source.rows())


def usable_texts(source: Source, columns: Columns) -> Iterator[tuple[Row, str]]:
    """The rows that count, each with its text: every later pass reads these."""
    return ((row, text) for row, text in _texts(source, columns) if text)


def text_of(row: Row, column: str) -> str:
    """The text of a row as given, or "" where nothing of it can be seen."""
    value = value_of(row, column)
    if value is None or value != value:  # null, or the NaN that pandas puts in its place
        return ""
    if not isinstance(value, str):
        found = f"{type(value).__name__} {value!r:.60}"
        raise DataError(
            f'"{column}" is {found}; expected a text. Name the right column with data.text.',
            where=row.where,
            field=column,
        )
    return value if any(c.isprintable() and c != " " for c in value) else ""


def value_of(row: Row, column: str) -> Any:
    """A row's value in a column; DataError where the row has no such column."""
    try:
        return row.values[column]
    except KeyError:
        there = list(row.values)
        message = (
            f'no "{column}" here; the row has {", ".join(map(str, there)) or "nothing"}.{did_you_mean(column, there)}'
        )
        raise DataError(message, where=row.where, field=column) from None


def text_hash(text: str) -> int:
    """64 bits of a text; equal for texts that differ in case, spacing or Unicode composition only."""
    text = text if text.isascii() else unicodedata.normalize("NFC", text)
    return int.from_bytes(hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest(), "little")
