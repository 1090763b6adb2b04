"""A data file as bytes and as numbered lines of text, opened with care: the first step of reading.

Refuses what isn't a readable regular file, sees through gzip, keeps each line's physical number, and turns bad bytes,
endless lines and damaged archives into one DataError. Doesn't know what a row is: `json_rows`, `tables` and `arrow` do.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import gzip
import os
import stat
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, cast

from tunewright.errors import DataError, MachineError

MAX_LINE_BYTES = 16 * 2**20  # three million words; anything longer is not a row of text
MAX_LOADED_BYTES = 512 * 2**20  # for the two kinds that can't be streamed: JSON arrays, gzipped Parquet
SAMPLE_BYTES = 64 * 2**10

_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)  # no fault of the file's name or kind

BOM = "\ufeff"
_GZIP = b"\x1f\x8b"

Stamp = tuple[int, int, int]  # size, modification time, inode: equal while nobody has touched the file


def stamp(path: Path) -> Stamp:
    """Identity of a regular, non-empty file. DataError for everything else that a path can be."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no such file.{_nearest_file(path)}", where=str(path)) from None
    except PermissionError:
        raise _unreadable(path) from None
    except (OSError, ValueError) as error:
        raise DataError(f"this path can't be opened ({_reason(error)})", where=repr(str(path))[1:-1]) from None
    if stat.S_ISDIR(found.st_mode):
        raise DataError("is a folder; expected a data file", where=str(path))
    if not stat.S_ISREG(found.st_mode):
        raise DataError("is a pipe or a device; expected a regular file, which can be read twice", where=str(path))
    if not found.st_size:
        raise DataError("is empty (0 bytes); expected at least one row", where=str(path))
    return found.st_size, found.st_mtime_ns, found.st_ino


def is_folder(path: Path) -> bool:
    """Whether this is a folder; a path that no system could have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_gzip(path: Path) -> bool:
    """Whether the content is gzip, whatever the name says."""
    with open_binary(path, gzipped=False) as stream:
        return stream.read(len(_GZIP)) == _GZIP


def open_binary(path: Path, *, gzipped: bool) -> IO[bytes]:
    """The bytes of the file, decompressed."""
    try:
        return cast(IO[bytes], gzip.open(path, "rb")) if gzipped else path.open("rb")
    except PermissionError:
        raise _unreadable(path) from None
    except OSError as error:
        kind = MachineError if error.errno in _OF_THE_MACHINE else DataError
        raise kind(f"this file can't be opened ({_reason(error)})", where=str(path)) from None


def read_sample(path: Path, *, gzipped: bool) -> bytes:
    """The first SAMPLE_BYTES of the content, enough to tell what kind of file it is."""
    with read_errors(str(path)), open_binary(path, gzipped=gzipped) as stream:
        return stream.read(SAMPLE_BYTES)


@contextlib.contextmanager
def read_errors(where: str) -> Generator[None]:
    """Turns what gzip and the disk raise while reading into our errors."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError("the gzip data is damaged or cut off; copy or compress the file again", where=where) from None
    except (DataError, MachineError):
        raise
    except OSError as error:
        raise MachineError(f"reading failed ({_reason(error)})", where=where) from None


def numbered_lines(stream: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    """(1-based physical line, its text with the line end). Only \\n ends a line: U+2028 or a form feed is text."""
    offset = 0
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        yield number, _decode(line, f"{name}:{number}", offset)
        offset += len(line)


def load_text(stream: IO[bytes], name: str) -> str:
    """The whole content as text, up to MAX_LOADED_BYTES."""
    content = load_bytes(stream, name, "write one object per line (JSON Lines), which is read as a stream")
    try:
        text = content.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        raise _not_utf8(error, f"{name}:{_line_at(error)}", 0) from None
    if "\0" in text:
        raise _nul(f"{name}:{text.count(chr(10), 0, text.index(chr(0))) + 1}")
    return text


def load_bytes(stream: IO[bytes], name: str, instead: str) -> bytes:
    """The whole content, up to MAX_LOADED_BYTES; `instead` says what to do with a larger file."""
    content = stream.read(MAX_LOADED_BYTES + 1)
    if len(content) > MAX_LOADED_BYTES:
        limit = MAX_LOADED_BYTES // 2**20
        raise DataError(f"holds more than {limit} MB, and this kind of file is read whole; {instead}", where=name)
    return content


def _decode(line: bytes, where: str, offset: int) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise DataError(
            f"this line is longer than {MAX_LINE_BYTES // 2**20} MB; expected one row per line", where=where
        )
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(error, where, offset) from None
    if "\0" in text:
        raise _nul(where)
    return text if offset else text.removeprefix(BOM)


def _not_utf8(error: UnicodeDecodeError, where: str, offset: int) -> DataError:
    found = f"byte 0x{error.object[error.start]:02x} at offset {offset + error.start} is not UTF-8"
    return DataError(f"{found}; save the file as UTF-8 (it may be Latin-1 or Windows-1252)", where=where)


def _nul(where: str) -> DataError:
    return DataError("holds a NUL byte; expected text (is this a binary or damaged file?)", where=where)


def _line_at(error: UnicodeDecodeError) -> int:
    return error.object.count(b"\n", 0, error.start) + 1


def _unreadable(path: Path) -> MachineError:
    return MachineError("may not be read by this user; change its permissions", where=str(path))


def _reason(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def _nearest_file(path: Path) -> str:
    folder = path.parent
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return f' The folder "{folder}" does not exist either.'
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f' Did you mean "{folder / near[0]}"?' if near else ""
