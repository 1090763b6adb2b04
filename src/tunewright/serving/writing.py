"""Answered rows on their way out: JSON Lines or a table, on stdout or in a file that appears whole or not at all.

`predict` hands the rows over one at a time and nothing is held. The target's name says what is written; a column that
JSON or a table can't hold as it is (a date, a list, NaN) is written as the nearest thing that they can.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import io
import json
import math
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, TextIO, cast

from tunewright.data.formats import named_format
from tunewright.errors import DataError, MachineError, UsageError

STANDARD = "-"  # stdin or stdout
_DELIMITERS = {"csv": ",", "tsv": "\t"}

AnsweredRow = Mapping[str, Any]


def check_target(target: Path | str, source: Path | str) -> None:
    """Raises UsageError for a target that can't be written, before any work is done for it."""
    if str(target) == STANDARD:
        return
    path = Path(target)
    if named_format(path) not in ("jsonl", *_DELIMITERS):
        raise UsageError(
            f'"{path.name}" doesn\'t say what to write; expected a name in .jsonl, .csv or .tsv (each also .gz), or -',
            field="-o",
        )
    if path.exists() and not path.is_file():
        raise UsageError("is no regular file; name a file to write", where=str(path), field="-o")
    if str(source) != STANDARD and path.exists() and Path(source).exists() and path.samefile(source):
        raise UsageError("is the input; write the answers to another file", where=str(path), field="-o")


def write_rows(rows: Iterable[AnsweredRow], target: Path | str) -> int:
    """Write every row and return how many. Raises MachineError; whatever stops it, no half file is left."""
    if str(target) == STANDARD:
        # JSON can spell any character in ASCII, so that a terminal of another encoding shows no error.
        ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        return _write(map(_json_line(ascii_only), rows), sys.stdout)
    path = Path(target)
    delimiter = _DELIMITERS.get(named_format(path) or "")
    with _whole_file(path) as stream:
        if delimiter is None:
            return _write(map(_json_line(False), rows), stream)
        return max(0, _write(_table_lines(rows, delimiter), stream) - 1)


def _write(lines: Iterator[str], stream: TextIO) -> int:
    count = 0
    for line in lines:
        stream.write(line)
        count += 1
    return count


@contextlib.contextmanager
def _whole_file(path: Path) -> Generator[TextIO]:
    """A file beside the target that takes its place at the end, and is removed if there is no end."""
    temporary = path.with_name(f".{path.name}.writing")
    open_text: Callable[..., Any] = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_text(temporary, "wt", encoding="utf-8", newline="") as stream:
            yield cast(TextIO, stream)
        temporary.replace(path)
    except MachineError:
        raise
    except OSError as error:
        raise MachineError(f"can't be written ({error.strerror or error})", where=str(path)) from None
    finally:
        with contextlib.suppress(OSError):  # there may be none, nor a folder to hold it
            temporary.unlink()


# ---- rows as text ----


def _json_line(ascii_only: bool) -> Callable[[AnsweredRow], str]:
    return lambda row: _json(row, ascii_only) + "\n"


def _json(value: Any, ascii_only: bool = False) -> str:
    try:
        return json.dumps(value, ensure_ascii=ascii_only, allow_nan=False, default=_plain)
    except ValueError:  # NaN and infinity, which JSON doesn't have
        return json.dumps(_without_nan(value), ensure_ascii=ascii_only, default=_plain)


def _plain(value: Any) -> str:
    """What Parquet holds and JSON doesn't: dates and times as ISO 8601, bytes as base64, the rest as it prints."""
    if isinstance(value, date | time):
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table_lines(rows: Iterable[AnsweredRow], delimiter: str) -> Iterator[str]:
    """A header and one record per row; the first row names the columns, a later one may lack some."""
    columns: list[str] = []
    for number, row in enumerate(rows, 1):
        if not columns:
            columns = list(row)
            yield _record(columns, delimiter)
        if new := [name for name in row if name not in columns]:
            raise DataError(
                f'row {number} has a column "{new[0]}" that the first row lacks, which a table can\'t hold; '
                "write .jsonl instead",
                field=new[0],
            )
        yield _record([_cell(row.get(name)) for name in columns], delimiter)


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    return _json(value) if isinstance(value, Mapping | list | tuple) else _plain(value)


def _record(cells: list[Any], delimiter: str) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return line.getvalue()
