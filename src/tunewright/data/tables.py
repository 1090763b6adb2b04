"""Rows out of CSV and TSV, streamed: text as it stands between the delimiters, numbers included.

Stands between `files`, which gives lines, and `reading`. Finds delimiter and quoting from the header and a sample; a
row that doesn't fit the header is an error, never filled up or cut. Types are decided later, by `labels`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from tunewright.data.examples import Row
from tunewright.data.files import MAX_LINE_BYTES, numbered_lines
from tunewright.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How the fields of a table are told apart."""

    delimiter: str
    quoted: bool = True  # whether "..." may enclose a field


def table_layout(sample: str, delimiter: str) -> Layout:
    """Delimiter: whichever makes most columns of the header line, `delimiter` if none is better."""
    lines = [line for line in sample.splitlines() if line.strip()]
    if not lines:
        return Layout(delimiter)
    best = max([delimiter, *_DELIMITERS], key=lambda candidate: _width(lines[0], candidate))
    # Tab-separated files often quote nothing, so that a quote is just a character of the text.
    return Layout(best, quoted=best != "\t" or _quotes_make_sense(lines, best))


def table_rows(stream: IO[bytes], name: str, layout: Layout) -> Iterator[Row]:
    """One row per record; `where` is the physical line on which it starts."""
    header: list[str] = []
    position = 0
    for line, fields in _records(stream, name, layout):
        where = f"{name}:{line}"
        if not header:
            header = _header(fields, where)
            continue
        if len(fields) != len(header):
            raise DataError(_ragged(fields, header, layout), where=where)
        yield Row(dict(zip(header, fields, strict=True)), where, position)
        position += 1


def _records(stream: IO[bytes], name: str, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """(line on which it starts, fields) of each record that isn't blank."""
    csv.field_size_limit(max(MAX_LINE_BYTES, csv.field_size_limit()))
    reader = _reader((text for _, text in numbered_lines(stream, name)), layout)
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(_explain(str(error)), where=f"{name}:{start}") from None
        if len(fields) > 1 or (fields and fields[0].strip()):
            yield start, fields


def _reader(lines: Iterator[str], layout: Layout) -> Reader:
    quoting = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    return csv.reader(lines, delimiter=layout.delimiter, quoting=quoting, strict=True)


def _header(fields: list[str], where: str) -> list[str]:
    names = [field.strip() or f"column {number}" for number, field in enumerate(fields, 1)]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f'the header names "{name}" twice; rename one of the columns', where=where, field=name)
    return names


def _ragged(fields: list[str], header: list[str], layout: Layout) -> str:
    found = f"{len(fields)} field{'s' if len(fields) > 1 else ''} where the header names {len(header)}"
    columns = ", ".join(header[:6]) + (", ..." if len(header) > 6 else "")
    advice = "put text in double quotes" if layout.quoted else "remove the delimiter"
    return f"{found} ({columns}); {advice} where it holds a {_DELIMITERS[layout.delimiter]}"


def _explain(message: str) -> str:
    if message.startswith("unexpected end"):
        return 'a double quote opens a field of this row and is never closed; close it, or double it ("") inside text'
    if "field larger" in message:
        return "a field of this row is longer than 16 MB; is a double quote never closed?"
    if "expected after" in message:
        return 'a double quote stands inside a quoted field; double it ("")'
    if "new-line character" in message:
        return "holds a carriage return outside quotes; save the file with \\n or \\r\\n line ends"
    return f"not valid CSV: {message}"


def _width(line: str, delimiter: str) -> int:
    return len(next(csv.reader([line], delimiter=delimiter), []))


def _quotes_make_sense(lines: list[str], delimiter: str) -> bool:
    try:
        widths = {len(fields) for fields in _reader(iter([f"{line}\n" for line in lines]), Layout(delimiter))}
    except csv.Error:
        return False
    return len(widths) == 1
