"""Labels as given: one spelling for each, and a count of all that a source has.

The survey shows every row's label to `ObservedLabels`; `labels` makes the task of what it counted. Reads no files,
holds no rows, decides nothing but which spellings are the same: 1, 1.0, "1" and "1.0" are all "1", true is "true",
" good " is "good". That spelling is a label's *text*.
"""

from __future__ import annotations

import functools
import json
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from tunewright.data.values import plain
from tunewright.errors import DataError

MAX_INTEGER_CLASSES = 20  # more distinct whole numbers than this are a quantity, not classes
MAX_CLASSES = 10_000  # more distinct texts than this are no labels; also bounds what is remembered
MAX_LABEL_CHARACTERS = 1_000
NUMERIC = {"integer", "fraction"}

# What a person writes as a number; 007 and 1_000 are names.
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class RawLabel(NamedTuple):
    """One row's label: one text, or the distinct texts of a list in sorted order."""

    texts: tuple[str, ...]
    kinds: tuple[str, ...]  # text | integer | fraction | boolean, one per text
    is_list: bool


def read_label(value: Any, where: str | None, column: str = "label") -> RawLabel:
    """The texts of a label as given; DataError where it is empty or no label at all."""
    value = _plain(value)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted({_scalar(item, where, column) for item in value})
        return RawLabel(tuple(text for text, _ in items), tuple(kind for _, kind in items), True)
    text, kind = _scalar(value, where, column)
    return RawLabel((text,), (kind,), False)


def _plain(value: Any) -> Any:
    """Python's own types for NumPy's, and a list for its JSON: CSV has no lists, so '["a", "b"]' is one."""
    if isinstance(value, str):
        return _list_in_text(value) if value.lstrip().startswith("[") else value
    return float(value) if isinstance(value, Decimal) else plain(value)


def _list_in_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # a label that begins with a bracket


def _scalar(value: Any, where: str | None, column: str) -> tuple[str, str]:
    """(text, kind) of one label."""
    if isinstance(value, str) and len(value) > MAX_LABEL_CHARACTERS:
        raise _no_label(f"a text of {len(value):,} characters", where, column)
    if isinstance(value, str) and value.strip():
        return _spelling(value)
    if isinstance(value, bool):
        return str(value).lower(), "boolean"
    if isinstance(value, int) and value.bit_length() <= 64:
        return str(value), "integer"
    if isinstance(value, float) and math.isfinite(value):
        return _number(value)
    if value is None or value != value or isinstance(value, str):
        raise DataError(
            f'"{column}" is empty; expected a label. Fill it in or remove the row.', where=where, field=column
        )
    raise _no_label("an enormous integer" if isinstance(value, int) else f"{value!r:.60}", where, column)


@functools.lru_cache(maxsize=4096)  # a million rows have few distinct labels
def _spelling(value: str) -> tuple[str, str]:
    text = value.strip()
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return _number(number) if math.isfinite(number) else (text, "text")


def _number(number: float) -> tuple[str, str]:
    if number.is_integer() and abs(number) < 2**53:  # pandas turns integers with a gap into floats
        return str(int(number)), "integer"
    return repr(number), "fraction"


def _no_label(found: str, where: str | None, column: str) -> DataError:
    return DataError(
        f'"{column}" is {found}; expected a label: a short text, a number, or a list of these. '
        f"Name the right column with data.label.",
        where=where,
        field=column,
    )


@dataclass
class ObservedLabels:
    """Every label of a source, counted; at most MAX_CLASSES distinct ones are remembered."""

    column: str = "label"
    counts: dict[str, int] = field(default_factory=dict)  # label text -> rows that have it
    first: dict[str, str] = field(default_factory=dict)  # label text -> where it was first seen
    kinds: dict[str, str] = field(default_factory=dict)  # text|integer|fraction|boolean|list|scalar -> where first seen
    keys: dict[tuple[str, ...], int] = field(default_factory=dict)  # a row's label texts -> small number
    smallest: float = math.inf  # of the numbers
    largest: float = -math.inf
    overflowed: bool = False  # more distinct numbers than are remembered

    def add(self, value: Any, where: str) -> int:
        """Count one row's label; its small number, or -1 once there are too many to tell apart."""
        raw = read_label(value, where, self.column)
        for kind in (*raw.kinds, "list" if raw.is_list else "scalar"):
            self.kinds.setdefault(kind, where)
        for text, kind in zip(raw.texts, raw.kinds, strict=True):
            self._count(text, kind, where)
        key = self.keys.get(raw.texts)
        if key is None and len(self.keys) < MAX_CLASSES:
            key = self.keys[raw.texts] = len(self.keys)
        return -1 if key is None else key

    def _count(self, text: str, kind: str, where: str) -> None:
        if kind in NUMERIC:
            self.smallest, self.largest = min(self.smallest, float(text)), max(self.largest, float(text))
        if text in self.counts:
            self.counts[text] += 1
        elif len(self.counts) < MAX_CLASSES:
            self.counts[text] = 1
            self.first[text] = where
        else:
            self.overflowed = True
        if self.overflowed and not self.all_numbers:
            raise DataError(
                f'"{self.column}" has more than {MAX_CLASSES:,} different values up to here; expected classes. '
                f"Name the right column with data.label.",
                where=where,
                field=self.column,
            )

    @property
    def all_numbers(self) -> bool:
        return self.kinds.keys() <= NUMERIC | {"scalar"}

    @property
    def is_quantity(self) -> bool:
        """Whether these are numbers to predict rather than classes: fractions, or many distinct integers."""
        return self.all_numbers and ("fraction" in self.kinds or len(self.counts) > MAX_INTEGER_CLASSES)
