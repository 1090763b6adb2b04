"""The records that flow out of reading: rows as given, then labelled texts. Plain data, no decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file, as given."""

    values: Mapping[str, Any]  # column -> value
    where: str  # "reviews.jsonl:17": file and 1-based physical line (or row, for Parquet and Python objects)
    number: int  # 0-based position among the rows


class Source(Protocol):
    """Rows that can be read again and again without being held in memory."""

    name: str  # file name, or a word for a Python object

    def rows(self) -> Iterator[Row]:
        """Every row, in order. Raises DataError naming file and row."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content."""
        ...


@dataclass(frozen=True)
class Splits:
    """The parts of a dataset, and where they came from."""

    train: Source
    validation: Source | None = None
    test: Source | None = None
    origin: str = ""  # path or Hub id, as given
    revision: str | None = None  # exact commit of a Hub dataset


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One example for classification. `label` is raw: text, number, list of texts, or None where it isn't known."""

    text: str
    label: str | float | tuple[str, ...] | None
    where: str
