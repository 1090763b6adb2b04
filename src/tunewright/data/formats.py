"""What kind of data a file holds, told by its content first and by its name second.

`reading` asks it once per file. Data of a kind we read is accepted under a wrong name; a kind we don't read is refused
in one sentence that says what it is and what to do.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from tunewright.data.files import SAMPLE_BYTES
from tunewright.errors import DataError

Format = Literal["jsonl", "json", "csv", "tsv", "parquet"]

EXTENSIONS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}

# First bytes -> (what it is, what to do instead).
_REFUSED = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Excel workbook or Word document", "save the sheet as CSV"),
    b"PK\x05\x06": ("an empty zip archive", "give the data file itself"),
    b"\x1f\x8b": ("compressed twice with gzip", "unpack it once with gunzip"),
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", "unpack it with unzstd, or use gzip"),
    b"BZh91AY&SY": ("compressed with bzip2", "unpack it with bunzip2, or use gzip"),
    b"\xfd7zXZ\x00": ("compressed with xz", "unpack it with unxz, or use gzip"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it"),
    b"Rar!": ("a RAR archive", "unpack it"),
    b"ARROW1": ("an Arrow file", "save it as Parquet"),
    b"FEA1": ("a Feather file", "save it as Parquet"),
    b"ORC": ("an ORC file", "save it as Parquet"),
    b"Obj\x01": ("an Avro file", "save it as Parquet"),
    b"\x93NUMPY": ("a NumPy array", "save texts and labels as Parquet or CSV"),
    b"\x89HDF\r\n": ("an HDF5 file", "save texts and labels as Parquet or CSV"),
    b"\x89PNG\r\n": ("a PNG image", "give texts as JSON Lines or CSV"),
    b"\xff\xd8\xff": ("a JPEG image", "give texts as JSON Lines or CSV"),
    b"{\\rtf": ("an RTF document", "give texts as JSON Lines or CSV"),
    b"SQLite format 3": ("an SQLite database", "export the table as CSV"),
    b"%PDF-": ("a PDF document", "give texts as JSON Lines or CSV"),
    b"\xff\xfe\0\0": ("UTF-32 text", "save it as UTF-8"),
    b"\xff\xfe": ("UTF-16 text", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "save it as UTF-8"),
    b"version https://git-lfs": ("a Git LFS pointer, not the data", "fetch the data with git lfs pull"),
    b"<!doctype html": ("a web page", "download the data file itself"),
    b"<html": ("a web page", "download the data file itself"),
}


def named_format(path: Path) -> Format | None:
    """The kind that the name promises: reviews.csv and reviews.csv.gz are both csv."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return EXTENSIONS.get(suffixes[-1]) if suffixes else None


def detect_format(sample: bytes, path: Path) -> Format:
    """The kind that the content is; the name decides only between tables and broken JSON."""
    if sample.startswith(b"PAR1"):
        return "parquet"
    refuse_foreign(sample, str(path))
    text = sample.decode("utf-8", errors="replace").removeprefix("\ufeff").lstrip()
    named = named_format(path)
    if not text and len(sample) < SAMPLE_BYTES:
        raise DataError("holds only blank lines; expected at least one row", where=str(path))
    if text.startswith("{"):
        return "jsonl"
    if text.startswith("[") and _is_array(text, named):
        return "json"
    if named in ("csv", "tsv"):
        return named
    return _json_or_refuse(text, named, str(path))


def _json_or_refuse(text: str, named: Format | None, where: str) -> Format:
    """For text that starts like neither JSON records nor a file named as a table."""
    if named == "parquet":
        raise DataError('this is not Parquet data ("PAR1" is missing at its start); write it again', where=where)
    if named is None:
        known = ", ".join(EXTENSIONS)
        raise DataError(f"this is no kind of data file we know; name it by its content: {known} (or .gz)", where=where)
    first, _, rest = text.partition("\n")
    second = rest.split("\n", 1)[0]
    for kind, delimiter in (("csv", ","), ("tsv", "\t"), ("csv", ";")):
        if not _is_json(first) and re.match(r"['\w]", first) and 0 < first.count(delimiter) <= second.count(delimiter):
            raise DataError(f"this is not JSON and looks like a table; rename it to .{kind}", where=where)
    return "jsonl"


def refuse_foreign(sample: bytes, where: str) -> None:
    """DataError for a kind of file that is neither ours nor text."""
    start = sample[:32].lstrip().lower()
    for signature, (what, instead) in _REFUSED.items():
        if sample.startswith(signature) or (signature.startswith(b"<") and start.startswith(signature)):
            raise DataError(f"this is {what}; {instead}", where=where)
    if _is_pickle(sample):
        raise DataError("this is a pickle, which could run code and is never opened; save it as Parquet", where=where)
    if sample[257:262] == b"ustar":
        raise DataError("this is a tar archive; unpack it, and give the data file itself", where=where)
    if b"\0" in sample:
        wide = _is_wide(sample)
        what, instead = ("UTF-16 text", "save it as UTF-8") if wide else ("a binary file", "expected text or Parquet")
        raise DataError(f"this is {what} (it holds NUL bytes); {instead}", where=where)


def _is_pickle(sample: bytes) -> bool:
    """Protocols 2 to 5 begin with their number; no UTF-8 text begins with 0x80."""
    return sample[:1] == b"\x80" and sample[1:2] in (b"\2", b"\3", b"\4", b"\5")


def _is_wide(sample: bytes) -> bool:
    """Whether every other byte is mostly zero and the rest is not: western text in 16 bits per character."""
    zeros = sorted((sample[0::2].count(0), sample[1::2].count(0)))
    return zeros[1] > len(sample) // 4 and zeros[0] < zeros[1] // 10


def _is_array(text: str, named: Format | None) -> bool:
    """Whether "[" opens one array over the file, and not a list on each line or the first field of a table."""
    if named in ("csv", "tsv"):
        return re.match(r"\[\s*\{", text) is not None
    first, _, rest = text.partition("\n")
    return not (_is_json(first) and rest.strip())


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
