"""Reads data files: JSON Lines, JSON arrays, CSV, TSV and Parquet, each also gzipped, as rows with their place.

The first arrow of the flow (rows --read--> examples). A FileSource can be read any number of times and holds no rows;
a JSON array is the exception: it is loaded, up to a limit. Knows nothing of columns, labels or splits.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from tunewright.data import files
from tunewright.data.arrow import parquet_rows
from tunewright.data.examples import Row
from tunewright.data.formats import Format, detect_format, named_format
from tunewright.data.json_rows import json_array_rows, json_line_rows
from tunewright.data.tables import Layout, table_layout, table_rows
from tunewright.errors import DataError


@dataclass(eq=False)
class FileSource:
    """The rows of one data file, read from disk each time."""

    path: Path
    name: str  # file name, the first half of every row's `where`
    format: Format
    gzipped: bool
    layout: Layout | None  # of a table
    opened: files.Stamp  # what the file was like when it was opened

    def rows(self) -> Iterator[Row]:
        """Every row, in order. DataError names file and row."""
        self._check_unchanged()
        count = 0
        with files.read_errors(str(self.path)), files.open_binary(self.path, gzipped=self.gzipped) as stream:
            for row in self._parse(stream):
                count += 1
                yield row
        self._check_unchanged()
        if not count:
            header = " but a header" if self.layout else ""
            raise DataError(f"holds no rows{header}; expected at least one", where=str(self.path))

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the file's bytes."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        with files.read_errors(str(self.path)), files.open_binary(self.path, gzipped=False) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        self._check_unchanged()
        return digest

    def _parse(self, stream: IO[bytes]) -> Iterator[Row]:
        if self.layout:
            return table_rows(stream, self.name, self.layout)
        if self.format == "parquet":
            return parquet_rows(_seekable(stream, self.name) if self.gzipped else stream, self.name)
        return (json_array_rows if self.format == "json" else json_line_rows)(stream, self.name)

    def _check_unchanged(self) -> None:
        if files.stamp(self.path) != self.opened:
            raise DataError("changed while it was being used; start again when it is complete", where=str(self.path))


def open_file(path: Path | str) -> FileSource:
    """The file's rows, after a look at its start. DataError when it can't be data of ours."""
    path = Path(path)
    opened = files.stamp(path)
    gzipped = files.is_gzip(path)
    sample = files.read_sample(path, gzipped=gzipped)
    if not sample:
        raise DataError("is empty once unpacked; expected at least one row", where=str(path))
    kind = detect_format(sample, path)
    return FileSource(path, path.name, kind, gzipped, _layout(kind, sample), opened)


def is_data_file(path: Path | str) -> bool:
    """Whether the name is that of a data file; the file need not exist."""
    return named_format(Path(path)) is not None


def _layout(kind: Format, sample: bytes) -> Layout | None:
    if kind not in ("csv", "tsv"):
        return None
    # The sample may end inside a line, or inside a character.
    whole = sample if len(sample) < files.SAMPLE_BYTES else sample[: sample.rfind(b"\n") + 1]
    return table_layout(whole.decode("utf-8", "replace").removeprefix(files.BOM), "\t" if kind == "tsv" else ",")


def _seekable(stream: IO[bytes], name: str) -> IO[bytes]:
    """Parquet is read from its end, which gzip can't do without unpacking all."""
    return io.BytesIO(files.load_bytes(stream, name, "unpack it with gunzip, then it is read as a stream"))
