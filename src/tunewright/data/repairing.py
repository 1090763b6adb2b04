"""`data check --fix`: a repaired copy of a data file. Never in place, whole or not at all, every repair counted.

Takes what `examining` found and writes the file again in its own format: untouched records as the bytes they were,
repaired ones anew, hopeless ones left out. It repairs what can be repaired without knowing what a person meant: a
label is never changed but for the spaces around it.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from tunewright.data import mojibake
from tunewright.data.checking import conflicting
from tunewright.data.examining import Examined
from tunewright.data.findings import MAX_LISTED
from tunewright.data.formats import named_format
from tunewright.data.lenient import LenientSource, Record
from tunewright.data.reading import FileSource
from tunewright.data.splitting import first_of_each, leaks
from tunewright.data.text_files import holds_text
from tunewright.errors import DataError, MachineError, UsageError


@dataclass(frozen=True)
class Repair:
    """One kind of repair: what was done, to how many rows, and which (at most MAX_LISTED)."""

    what: str
    count: int
    rows: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {"repair": self.what, "count": self.count, "rows": list(self.rows)}


@dataclass(frozen=True)
class Repaired:
    """The copy, and how it differs."""

    path: Path
    rows_read: int
    rows_written: int
    repairs: tuple[Repair, ...]

    def to_json(self) -> dict[str, Any]:
        repairs = [repair.to_json() for repair in self.repairs]
        return {
            "output": str(self.path),
            "rows_read": self.rows_read,
            "rows_written": self.rows_written,
            "repairs": repairs,
        }


def check_output(source: Path, target: Path) -> None:
    """UsageError for a target that can't be the repaired copy, before any work is done for it."""
    if not source.is_file():
        raise UsageError("--fix repairs one data file; give it the file", where=str(source), field="--fix")
    if holds_text(source):
        says = "is plain text, which --fix leaves to you; it repairs JSON Lines, JSON, tables and Parquet"
        raise UsageError(says, where=str(source), field="--fix")
    if target.exists() and (not target.is_file() or target.samefile(source)):
        why = "is the data itself, which is never changed" if target.is_file() else "is no regular file"
        raise UsageError(f"{why}; name another file", where=str(target), field="-o")
    given, wanted = named_format(target), named_format(source)
    if (given, _is_gzip_name(target)) != (wanted, _is_gzip_name(source)):
        name = f"{source.name.split('.', 1)[0]}.fixed.{source.name.split('.', 1)[-1]}"
        raise UsageError(f"the copy has the format of the data; name it like {name}", where=str(target), field="-o")


def _is_gzip_name(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def repair(examined: Examined, target: Path) -> Repaired:
    """Write the repaired copy. Raises MachineError, and DataError where nothing would be left."""
    source = examined.train_source
    assert isinstance(source.source, FileSource)
    check_output(source.source.path, target)
    work = _Work(examined, _left_out(examined))
    writers = {"parquet": _write_parquet, "json": _write_array}
    with _whole_file(target) as stream:
        writers.get(source.source.format, _write_lines)(source, work, stream)
        if not work.written:
            raise DataError("no row would be left; nothing was written", where=source.name)
    return Repaired(target, examined.train.survey.num_rows, work.written, work.repairs())


# ---- what to do with each record ----


def _left_out(examined: Examined) -> dict[int, str]:
    """Position of each usable row that is left out, and why; the first reason counts."""
    survey = examined.train.survey
    reasons: dict[int, str] = {}

    def leave_out(rows: np.ndarray, why: str) -> None:
        for position in survey.rows[rows].tolist():
            reasons.setdefault(position, why)

    writes = examined.train.exchanges is not None  # then equal prompts may well have several answers
    for rows in conflicting(survey.text_hashes, survey.label_keys) if not writes else ():
        leave_out(rows, "left out: equal texts with different labels")
    if examined.validation is not None:
        in_both = leaks(examined.validation.one_side, examined.train.one_side)
        what = "prompt" if writes else "text"
        leave_out(in_both, f"left out: the {what} is in {examined.validation.survey.name} as well")
    later = np.ones(len(survey), bool)
    later[first_of_each(survey.text_hashes)] = False
    leave_out(np.flatnonzero(later), f"left out: a {'row' if writes else 'text'} seen before")
    return reasons


class _Work:
    """Decides on each record, and keeps count."""

    def __init__(self, examined: Examined, left_out: dict[int, str]) -> None:
        self._texts, self._label = examined.texts, examined.columns.label
        self._nothing = "there is nothing to learn" if examined.train.exchanges else "the text is empty"
        self._left_out = left_out
        self._usable = set(examined.train.survey.rows.tolist())
        self._empty = set(examined.train.at("empty").tolist())
        self._done: dict[str, tuple[int, list[int]]] = {}
        self.written = 0
        if examined.train.encoding != "utf-8":
            self._note(f"written as UTF-8 instead of {examined.train.encoding.upper()}", 0)
        if examined.train.has_bom and examined.train.encoding == "utf-8":
            self._note("byte-order mark removed", 0)

    def mended(self, record: Record) -> tuple[bool, dict[str, Any]]:
        """Whether the record stays, and the values in it that are to be changed."""
        reason = self._reason(record)
        if reason:
            self._note(reason, record.line)
            return False, {}
        self.written += 1
        if record.recoded:
            self._note("written as UTF-8 instead of Windows-1252", record.line)
        assert record.row is not None
        return True, self._changes(record)

    def _reason(self, record: Record) -> str | None:
        if record.position in self._usable:
            return self._left_out.get(record.position)
        if record.row is not None and record.line in self._empty:
            return f"left out: {self._nothing}"
        return "left out: can't be used"

    def _changes(self, record: Record) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        assert record.row is not None
        for column in self._texts:
            text = record.row.values.get(column)
            if isinstance(text, str) and mojibake.is_garbled(text):
                changes[column] = mojibake.undone(text)
        if changes:
            self._note("text put right that was decoded wrongly once", record.line)
        label = record.row.values.get(self._label) if self._label else None
        if self._label and isinstance(label, str) and label != label.strip():
            changes[self._label] = label.strip()
            self._note("spaces around the label removed", record.line)
        return changes

    def _note(self, what: str, line: int) -> None:
        count, lines = self._done.setdefault(what, (0, []))
        if line and len(lines) < MAX_LISTED:
            lines.append(line)
        self._done[what] = (count + 1, lines)

    def repairs(self) -> tuple[Repair, ...]:
        return tuple(Repair(what, count, tuple(lines)) for what, (count, lines) in self._done.items())


# ---- a format each ----


def _write_lines(source: LenientSource, work: _Work, stream: IO[bytes]) -> None:
    """JSON Lines and tables: the lines of untouched records as they were."""
    columns: list[str] = []
    for record in source.records():
        if not columns and source.header:
            stream.write(_ended(source.header).encode())
        stays, changes = work.mended(record)
        if record.row is not None:
            columns = columns or list(record.row.values)
        if stays and record.row is not None:
            anew = _line(source, {**record.row.values, **changes}) if changes else record.raw
            stream.write(_ended(anew.removeprefix("\ufeff")).encode())


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n"


def _line(source: LenientSource, values: dict[str, Any]) -> str:
    layout = cast(FileSource, source.source).layout
    if layout is None:
        return json.dumps(values, ensure_ascii=False) + "\n"
    text = io.StringIO()
    if layout.quoted:
        csv.writer(text, delimiter=layout.delimiter, lineterminator="\n").writerow(values.values())
    else:  # nothing is quoted, and a field can't hold the delimiter or a line end
        text.write(layout.delimiter.join(values.values()) + "\n")
    return text.getvalue()


def _write_array(source: LenientSource, work: _Work, stream: IO[bytes]) -> None:
    before = b"[\n"
    for record in source.records():
        stays, changes = work.mended(record)
        if stays and record.row is not None:
            stream.write(before + json.dumps({**record.row.values, **changes}, ensure_ascii=False).encode())
            before = b",\n"
    stream.write(b"\n]\n")


def _write_parquet(source: LenientSource, work: _Work, stream: IO[bytes]) -> None:
    """Row group by row group, with the schema and its metadata."""
    import pyarrow
    import pyarrow.parquet

    path = cast(FileSource, source.source).path
    opened: Callable[..., Any] = gzip.open if cast(FileSource, source.source).gzipped else open
    with opened(path, "rb") as given:
        file = pyarrow.parquet.ParquetFile(given)
        schema = file.schema_arrow
        records = source.records()
        with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
            for batch in file.iter_batches(batch_size=1000):
                table = pyarrow.Table.from_batches([batch], schema=schema)
                writer.write_table(_mended_table(table, records, work))


def _mended_table(table: Any, records: Iterator[Record], work: _Work) -> Any:
    import pyarrow

    stays: list[bool] = []
    changed: dict[str, dict[int, Any]] = {}
    for place, record in zip(range(table.num_rows), records, strict=False):
        stay, changes = work.mended(record)
        stays.append(stay)
        for column, value in changes.items():
            changed.setdefault(column, {})[place] = value
    stays += [False] * (table.num_rows - len(stays))  # nothing is known of what stands behind a bad record
    for column, values in changed.items():
        field = table.schema.field(column)
        if not (pyarrow.types.is_string(field.type) or pyarrow.types.is_large_string(field.type)):
            continue  # the name of a ClassLabel or of a dictionary, not a cell
        cells = table.column(column).to_pylist()
        for place, value in values.items():
            cells[place] = value
        table = table.set_column(table.schema.get_field_index(column), field, [cells])
    return table.filter(pyarrow.array(stays, pyarrow.bool_()))


@contextlib.contextmanager
def _whole_file(path: Path) -> Generator[IO[bytes]]:
    """A file beside the target that takes its place at the end, and is removed if there is no end."""
    temporary = path.with_name(f".{path.name}.writing")
    opened: Callable[..., Any] = gzip.open if _is_gzip_name(path) else open
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened(temporary, "wb") as stream:
            yield cast(IO[bytes], stream)
        temporary.replace(path)
    except (MachineError, DataError):
        raise
    except OSError as error:
        raise MachineError(f"can't be written ({error.strerror or error})", where=str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
