"""Rows out of Python objects: lists of dicts, pandas DataFrames and `datasets.Dataset`.

The in-memory counterpart of `reading`; `sources` chooses between the two. A row's place is the object's name and the
1-based row, e.g. `train:17`. Never changes or copies the object as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tunewright.data.arrow import dataset_values
from tunewright.data.examples import Row
from tunewright.data.values import plain, refuse_deep_nesting, refuse_half_characters
from tunewright.errors import DataError

if TYPE_CHECKING:
    import datasets
    import pandas

_ROWS_AT_ONCE = 1000


@dataclass(eq=False)
class ObjectSource:
    """The rows of a Python object, read again each time."""

    name: str  # a word: train, validation, test
    values: Callable[[], Iterator[Mapping[str, Any]]]

    def rows(self) -> Iterator[Row]:
        """Every row, in order."""
        position = -1
        for position, values in enumerate(self.values()):
            where = f"{self.name}:{position + 1}"
            refuse_deep_nesting(values, where)
            refuse_half_characters(values, where)
            yield Row(values, where, position)
        if position < 0:
            raise DataError("holds no rows; expected at least one", where=self.name)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the rows, written as JSON."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for row in self.rows():
            digest.update(json.dumps(row.values, ensure_ascii=False, default=str).encode() + b"\n")
        return digest.hexdigest()


def from_records(records: Sequence[Mapping[str, Any]], name: str) -> ObjectSource:
    """Rows of a list of dicts."""

    def values() -> Iterator[dict[str, Any]]:
        for number, record in enumerate(records, 1):
            if not isinstance(record, Mapping):
                found = f'found {type(record).__name__}; expected a dict such as {{"text": "...", "label": "..."}}'
                raise DataError(found, where=f"{name}:{number}")
            yield {str(column): plain(value) for column, value in record.items()}

    return ObjectSource(name, values)


def from_dataset(dataset: datasets.Dataset, name: str) -> ObjectSource:
    """Rows of a `datasets.Dataset`; ClassLabel integers become their names."""
    return ObjectSource(name, lambda: dataset_values(dataset, name))


def from_frame(frame: pandas.DataFrame, name: str) -> ObjectSource:
    """Rows of a DataFrame; what pandas holds for "missing" becomes None."""
    columns = [str(column) for column in frame.columns]
    for column in columns:
        if columns.count(column) > 1:
            raise DataError(f'two columns are called "{column}"; rename one of them', where=name, field=column)

    def values() -> Iterator[dict[str, Any]]:
        for start in range(0, len(frame), _ROWS_AT_ONCE):
            part = frame.iloc[start : start + _ROWS_AT_ONCE]
            for fields in zip(*(part.iloc[:, i].tolist() for i in range(len(columns))), strict=True):
                yield {column: _present(value) for column, value in zip(columns, fields, strict=True)}

    return ObjectSource(name, values)


def _present(value: Any) -> Any:
    """None for NaN, NaT and NA, each of which differs from itself or can't be compared."""
    if isinstance(value, str | int | list | dict):
        return value
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):
        return None
    return plain(value)
