"""Rows that hold nothing to learn, left out by choice (`data.empty: drop`) and counted; otherwise they are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tunewright.data.examples import Row, Source, Splits
from tunewright.data.written import Format
from tunewright.errors import DataError


@dataclass(frozen=True)
class Learnable:
    """The rows of a source that hold something to learn, counted anew; each keeps its place in the file."""

    source: Source
    form: Format

    @property
    def name(self) -> str:
        return self.source.name

    def rows(self) -> Iterator[Row]:
        kept = (row for row in self.source.rows() if _holds_target(row, self.form))
        return (replace(row, number=number) for number, row in enumerate(kept))

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.source.fingerprint()}:learnable:{self.form.signature}".encode()).hexdigest()


def _holds_target(row: Row, form: Format) -> bool:
    try:
        form.segments(row)
    except DataError:
        return False
    return True


def learnable(splits: Splits, form: Format) -> tuple[Splits, list[str]]:
    """The splits without rows that can't be learnt from, and what was left out. DataError where nothing is left."""
    said: list[str] = []
    parts: dict[str, Any] = {"train": splits.train, "validation": splits.validation}
    for name, source in parts.items():
        if source is None:
            continue
        lost = [row.where for row in source.rows() if not _holds_target(row, form)]
        if not lost:
            continue
        parts[name] = Learnable(source, form)
        if next(parts[name].rows(), None) is None:
            raise DataError("no row has a completion, so there is nothing to learn", where=source.name)
        more = f" and {len(lost) - 3:,} more" if len(lost) > 3 else ""
        said.append(f"{len(lost):,} rows of {source.name} left out: nothing to learn in {', '.join(lost[:3])}{more}")
    return replace(splits, train=parts["train"], validation=parts["validation"]), said
