"""Every record of a source, the bad ones too: a row, or what is wrong with it, and the text that it was read from.

`reading` stops at the first bad record, as a run must; `gathering` and `repairing` go on from here. It runs the same
readers, starting them again behind the record that they refused, so both agree on what is bad. JSON arrays, Parquet
and Python objects can't be entered in the middle: there the first bad record is the last.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from tunewright.data import files
from tunewright.data.examples import Row, Source
from tunewright.data.formats import detect_format
from tunewright.data.json_rows import json_line_rows
from tunewright.data.reading import FileSource, open_file
from tunewright.data.tables import Layout, table_layout, table_rows
from tunewright.data.text_files import holds_text, text_documents
from tunewright.errors import DataError

WIDE = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # byte-order marks
_LINE_OF = re.compile(r":(\d+)(?: \(item (\d+)\))?$")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a source. `row` is None where it can't be read; then `problem` says why."""

    position: int  # 0-based among all records
    line: int  # 1-based physical line, or the row's number where there are no lines
    row: Row | None
    problem: DataError | None = None
    raw: str = ""  # the lines it stands on, where it has lines
    recoded: bool = False  # it is not UTF-8 and was read as Windows-1252


@dataclass(eq=False)
class LenientSource:
    """A source whose bad records are told, not raised."""

    source: Source
    encoding: str = "utf-8"
    name: str = ""  # of the source
    header: str = ""  # of a table, once records() has begun
    has_bom: bool = False  # known once records() has begun

    def __post_init__(self) -> None:
        self.name = self.source.name

    @property
    def has_lines(self) -> bool:
        """Whether a bad record can be stepped over."""
        return isinstance(self.source, FileSource) and self.source.format in ("jsonl", "csv", "tsv")

    def rows(self) -> Iterator[Row]:
        """The records that can be read, so that this is a Source as well."""
        return (record.row for record in self.records() if record.row is not None)

    def fingerprint(self) -> str:
        """Of the source."""
        return self.source.fingerprint()

    def records(self) -> Iterator[Record]:
        """Every record, in order. DataError where there is none at all, or a table's header can't be used."""
        records = self._lines() if self.has_lines else _until_bad(self.source)
        empty = True
        for record in records:
            empty = False
            yield record
        if empty:
            raise DataError("holds no rows; expected at least one", where=self.name)

    def _lines(self) -> Iterator[Record]:
        source = cast(FileSource, self.source)
        where = str(source.path)
        with files.read_errors(where), files.open_binary(source.path, gzipped=source.gzipped) as stream:
            lines = _Lines(stream, self.encoding)
            header = _header(lines, source) if source.layout else []
            self.header = b"".join(header).decode("utf-8", "replace").removeprefix(files.BOM)
            for record in _records(lines, header, source):
                self.has_bom = lines.has_bom
                yield record


def open_leniently(path: Path | str) -> LenientSource:
    """A data file or a text; UTF-16 is read too, which `reading` refuses. Raises DataError."""
    path = Path(path)
    if holds_text(path):
        return LenientSource(text_documents(path))
    try:
        return LenientSource(open_file(path))
    except DataError:
        source = _open_wide(path)
        if source is None:
            raise
        return LenientSource(source, "utf-16")


def _open_wide(path: Path) -> FileSource | None:
    """The file as UTF-16, if it starts as such and holds lines."""
    try:
        opened, gzipped = files.stamp(path), files.is_gzip(path)
        sample = files.read_sample(path, gzipped=gzipped)
    except DataError:
        return None
    if sample[:2] not in WIDE:
        return None
    text = sample[: len(sample) // 2 * 2].decode("utf-16", "replace")
    kind = detect_format(text.encode(), path)
    if kind not in ("jsonl", "csv", "tsv"):
        return None
    layout = table_layout(text, "\t" if kind == "tsv" else ",") if kind != "jsonl" else None
    return FileSource(path, path.name, kind, gzipped, layout, opened)


def line_of(where: str, position: int) -> int:
    """The number that a person finds the row by: its line, or its item where the line holds several."""
    match = _LINE_OF.search(where)
    return int(match[2] or match[1]) if match else position + 1


def _until_bad(source: Source) -> Iterator[Record]:
    position = 0
    try:
        for row in source.rows():
            yield Record(position, line_of(row.where, position), row)
            position += 1
    except DataError as error:
        if not position:
            raise
        rest = f"{error.message}{'' if error.message.endswith('.') else ';'} nothing after this was read"
        problem = DataError(rest, where=error.where, field=error.field)
        yield Record(position, line_of(error.where or "", position), None, problem)


# ---- files made of lines ----


def _records(lines: _Lines, header: list[bytes], source: FileSource) -> Iterator[Record]:
    position = 0
    while True:
        lines.put_before(header)
        rows = _reader(cast(IO[bytes], lines), source)
        try:
            for row in rows:
                yield _record(position, lines.taken(), row, source.name)
                position += 1
            return
        except DataError as error:
            taken = lines.taken()
            if not taken:
                raise
            first = next((i for i, line in enumerate(taken) if line.content.strip()), 0)
            lines.put_back(taken[first + 1 :])  # a quote that is never closed swallows what follows
            yield _refused(position, taken[first], error, source.name)
            position += 1


def _reader(stream: IO[bytes], source: FileSource) -> Iterator[Row]:
    return table_rows(stream, source.name, source.layout) if source.layout else json_line_rows(stream, source.name)


def _header(lines: _Lines, source: FileSource) -> list[bytes]:
    from tunewright.data.tables import _records as table_records

    next(table_records(cast(IO[bytes], lines), source.name, cast(Layout, source.layout)), None)
    return [line.content for line in lines.taken()]


def _record(position: int, taken: list[_Line], row: Row, name: str) -> Record:
    while len(taken) > 1 and not taken[0].content.strip():
        taken = taken[1:]
    line = taken[0].number
    raw = (taken[0].content if len(taken) == 1 else b"".join(part.content for part in taken)).decode("utf-8", "replace")
    recoded = any(part.recoded for part in taken)
    where = f"{name}:{line}"
    return Record(position, line, Row(row.values, where, position), _not_utf8(where) if recoded else None, raw, recoded)


def _refused(position: int, line: _Line, error: DataError, name: str) -> Record:
    problem = DataError(error.message, where=f"{name}:{line.number}", field=error.field)
    return Record(position, line.number, None, problem, line.content.decode("utf-8", "replace"), line.recoded)


def _not_utf8(where: str) -> DataError:
    return DataError("is not UTF-8; save the file as UTF-8 (read here as Windows-1252)", where=where)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    content: bytes  # UTF-8
    recoded: bool


class _Lines:
    """A stream of lines that remembers what was taken from it, and takes lines back. Always gives UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._given = iter(_decoded(stream) if encoding == "utf-8" else _transcoded(stream, encoding))
        self._before: deque[bytes] = deque()
        self._back: deque[_Line] = deque()
        self._taken: list[_Line] = []
        self.has_bom = False

    def readline(self, _limit: int = -1) -> bytes:
        """The next line, b"" at the end."""
        if self._before:
            return self._before.popleft()
        line = self._back.popleft() if self._back else next(self._given, None)
        if line is None:
            return b""
        self.has_bom |= line.number == 1 and line.content.startswith(files.BOM.encode())
        self._taken.append(line)
        return line.content

    def taken(self) -> list[_Line]:
        """What was read since the last call."""
        taken, self._taken = self._taken, []
        return taken

    def put_before(self, header: list[bytes]) -> None:
        """Lines that are read next and belong to no record."""
        self._before.extend(header)

    def put_back(self, lines: list[_Line]) -> None:
        """Lines to be read again."""
        self._back.extendleft(reversed(lines))


def _decoded(stream: IO[bytes]) -> Iterator[_Line]:
    number = 0
    while line := stream.readline(files.MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > files.MAX_LINE_BYTES:
            _skip_rest(stream, line)
        try:
            line.decode("utf-8")
            yield _Line(number, line, False)
        except UnicodeDecodeError:
            yield _Line(number, _as_western(line), len(line) <= files.MAX_LINE_BYTES)


def _skip_rest(stream: IO[bytes], line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(files.MAX_LINE_BYTES)


def _as_western(line: bytes) -> bytes:
    try:
        return line.decode("cp1252").encode()
    except UnicodeDecodeError:
        return line.decode("latin-1").encode()


def _transcoded(stream: IO[bytes], encoding: str) -> Iterator[_Line]:
    text: Any = io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="\n")
    try:
        for number, line in enumerate(iter(text.readline, ""), 1):
            yield _Line(number, line.encode("utf-8", "replace"), False)
    finally:
        with contextlib.suppress(ValueError):  # closed already
            text.detach()
