"""Every kind of file reads the same rows; every bad file gives one sentence that names file and row."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tunewright.data import files
from tunewright.data.reading import is_data_file, open_file
from tunewright.errors import DataError, MachineError

RECORDS = [{"text": "Größe, gut", "label": 1}, {"text": 'say "no"\u2028\ftwice', "label": 0}]


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet_bytes(records: list[dict]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), sink)
    return sink.getvalue().to_pybytes()


JSONL = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS)
CSV = 'text,label\n"Größe, gut",1\n"say ""no""\u2028\ftwice",0\n'
TSV = 'text\tlabel\nGröße, gut\t1\nsay "no"\u2028\ftwice\t0\n'
KINDS = {
    "a.jsonl": JSONL,
    "a.json": json.dumps(RECORDS),
    "pretty.json": json.dumps(RECORDS, indent=2),
    "a.csv": CSV,
    "a.tsv": TSV,
    "a.parquet": parquet_bytes(RECORDS),
}


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_reads_the_same_rows(tmp_path: Path, name: str, gzipped: bool):
    content = KINDS[name]
    content = content if isinstance(content, bytes) else content.encode()
    path = write(tmp_path, name + ".gz" * gzipped, gzip.compress(content) if gzipped else content)
    source = open_file(path)
    numbers = [str(r["label"]) if ".csv" in name or ".tsv" in name else r["label"] for r in RECORDS]
    for _ in range(2):  # a source can be read again
        rows = list(source.rows())
        assert [row.values for row in rows] == [
            {"text": r["text"], "label": n} for r, n in zip(RECORDS, numbers, strict=True)
        ]
        assert [row.number for row in rows] == [0, 1]
    assert source.name == path.name


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("a.jsonl", '\n{"a": 1}\r\n\n  \n{"a": 2}', [2, 5]),
        ("a.csv", 'a,b\n\n"x\ny",1\r\nz,2\n', [3, 5]),
        ("a.json", '[\n {"a": 1},\n\n {"a":\n2}\n]', [2, 4]),
        ("a.json", '[{"a": 1}, {"a": 2},\n{"a": 3}]', [1, "1 (item 2)", 2]),
        ("a.parquet", parquet_bytes([{"a": 1}, {"a": 2}]), [1, 2]),
    ],
)
def test_rows_are_physical_lines(tmp_path: Path, name: str, content: bytes | str, places: list[int | str]):
    rows = open_file(write(tmp_path, name, content)).rows()
    assert [row.where for row in rows] == [f"{name}:{place}" for place in places]


ROW = b'{"text": "fine", "label": 1}\n'
LATIN = "caf\xe9".encode("latin-1")

# name, content, where (after the folder's or the file's name), words of the message
BAD: dict[str, tuple[str, bytes | str, str, str]] = {
    "empty": ("a.jsonl", b"", "", "is empty (0 bytes)"),
    "empty in gzip": ("a.jsonl.gz", gzip.compress(b""), "", "empty once unpacked"),
    "blank lines": ("a.jsonl", b"\n \r\n\n", "", "only blank lines"),
    "blank lines, long": ("a.jsonl", b"\n" * 100_000, "", "holds no rows; expected"),
    "empty array": ("a.json", b"[ ]", "", "holds no rows"),
    "header only": ("a.csv", b"text,label\n\n", "", "no rows but a header"),
    "BOM only": ("a.csv", b"\xef\xbb\xbf", "", "only blank lines"),
    "UTF-16": ("a.csv", "text,label\n".encode("utf-16"), "", "UTF-16 text; save it as UTF-8"),
    "UTF-16 without BOM": ("a.jsonl", '{"a": "b"}'.encode("utf-16-le"), "", "UTF-16 text"),
    "Latin-1": ("a.jsonl", ROW + b'{"text": "' + LATIN + b'"}\n', ":2", "byte 0xe9 at offset 42 is not UTF-8"),
    "Latin-1, CSV": ("a.csv", b"text,label\n" + LATIN + b",1\n", ":2", "byte 0xe9 at offset 14 is not UTF-8"),
    "Latin-1, array": ("a.json", b'[{"a": 1},\n{"b": "' + LATIN + b'"}]', ":2", "byte 0xe9 at offset 21"),
    "NUL": ("a.jsonl", ROW * 3000 + b'{"text": "a\0b"}\n', ":3001", "NUL byte"),
    "NUL, array": ("a.json", b"[" + ROW.strip() + b",\n" * 1 + b" " * 70_000 + b'{"text": "a\0b"}]', ":2", "NUL byte"),
    "binary": ("a.jsonl", bytes(range(256)) * 8, "", "binary file"),
    "trailing comma": ("a.jsonl", b'{"text": "x", "label": 1,}\n', ":1", "a comma or colon with nothing after it"),
    "single quotes": ("a.jsonl", ROW + b"{'text': 'x'}\n", ":2", "single quotes"),
    "NaN": ("a.jsonl", b'{"text": "x", "label": NaN}\n', ":1", "NaN is not JSON"),
    "bare word": ("a.jsonl", b'{"text": good}\n', ":1", 'expecting value, found "good}"'),
    "truncated": ("a.jsonl", ROW + b'{"text": "x", "lab', ":2", "the file was cut off"),
    "truncated literal": ("a.jsonl", ROW + b'{"text": tr', ":2", "the file was cut off"),
    "truncated array": ("a.json", b'[{"a": 1},\n{"a": ', ":2", "the file was cut off"),
    "truncated after item": ("a.json", b'[{"a": 1},\n{"a": 2}\n', ":3", '"]" is missing'),
    "trailing comma, array": ("a.json", b'[{"a": 1},\n]', ":2", "a comma or colon with nothing after it"),
    "missing comma, array": ("a.json", b'[{"a": 1}\n{"a": 2}]', ":2", 'expected "," or "]"'),
    "rest after array": ("a.json", b'[{"a": 1}]\n[{"a": 2}]x', ":1", "found a list"),
    "word after array": ("a.json", b'[{"a": 1},\n{"a": 2}]\nend', ":3", 'found "end" after the end of the JSON array'),
    "two objects": ("a.jsonl", b'{"a": 1} {"a": 2}\n', ":1", "second starts at column 10"),
    "comma after": ("a.jsonl", b'{"a": 1},\n{"a": 2}\n', ":1", 'found "," after a complete value'),
    "pretty-printed": ("a.jsonl", b'{\n  "text": "x"\n}\n', ":1", "expected each object on one line of its own"),
    "list line": ("a.jsonl", b'["x", 1]\n["y", 0]\n', ":1", "found a list; expected an object"),
    "text line": ("a.jsonl", ROW + b'"x"\n', ":2", "found text; expected an object"),
    "number line": ("a.jsonl", b"7\n", ":1", "found a number; expected an object"),
    "null item": ("a.json", b"[null]", ":1", "found null; expected an object"),
    "duplicate key": ("a.jsonl", b'{"text": "x", "text": "y"}\n', ":1", '"text" stands twice'),
    "CSV as jsonl": ("a.jsonl", b"text,label\nfine,1\n", "", "looks like a table; rename it to .csv"),
    "TSV as json": ("a.json", b"text\tlabel\nfine\t1\n", "", "looks like a table; rename it to .tsv"),
    "CSV as parquet": ("a.parquet", b"text,label\nfine,1\n", "", "not Parquet data"),
    "CSV as txt": ("a.txt", b"text,label\nfine,1\n", "", "name it by its content"),
    "zip": ("a.jsonl", b"PK\x03\x04rest", "", "zip archive or an Excel workbook"),
    "zstd": ("a.jsonl", b"\x28\xb5\x2f\xfdrest", "", "Zstandard"),
    "gzip twice": ("a.jsonl.gz", gzip.compress(gzip.compress(ROW)), "", "compressed twice"),
    "gzip cut off": ("a.jsonl.gz", gzip.compress(os.urandom(200).hex().encode())[:-20], "", "damaged or cut off"),
    "web page": ("a.csv", b"<!DOCTYPE html><html></html>", "", "a web page"),
    "LFS pointer": ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", "", "git lfs pull"),
    "ragged, long": ("a.csv", b"text,label\nfine,1\nYes, but,0\n", ":3", "3 fields where the header names 2"),
    "ragged, short": ("a.csv", b"text,label\nfine\n", ":2", "1 field where the header names 2 (text, label)"),
    "unclosed quote": ("a.csv", b'text,label\nfine,1\n"open,0\nmore,1\n', ":3", "never closed"),
    "quote in quotes": ("a.csv", b'text,label\n"say "no" now",0\n', ":2", 'double it ("")'),
    "duplicate header": ("a.csv", b"text,label,text\nx,1,y\n", ":1", 'the header names "text" twice'),
    "old Mac lines": ("a.csv", b"text,label\rx,1\ry,2\r", ":1", "carriage return"),
    "corrupt footer": ("a.parquet", b"PAR1" + b"x" * 100 + b"PAR1", "", "Parquet data is damaged"),
    "cut Parquet": ("a.parquet", parquet_bytes(RECORDS)[:-9], "", "Parquet data is damaged"),
    "deep": ("a.jsonl", ROW + b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}\n", ":2", "nested more than 100 deep"),
    "deep enough": ("a.jsonl", b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}\n", ":1", "nested more than 100 deep"),
    "huge integer": ("a.jsonl", b'{"a": ' + b"9" * 10_000 + b"}\n", ":1", "a number has 10000 digits"),
    "lone surrogate": ("a.jsonl", ROW + b'{"text": "a \\ud83d b"}\n', ":2", "\\ud83d, half of a character"),
    "lone surrogate, key": ("a.jsonl", b'{"\\udc00": "a"}\n', ":1", "\\udc00, half of a character"),
    "lone surrogate, list": ("a.json", b'[{"text": ["a", {"b": "\\ud800"}]}]', ":1", "\\ud800, half of a character"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_gives_one_sentence(tmp_path: Path, case: str):
    name, content, place, words = BAD[case]
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        list(open_file(path).rows())
    assert words in caught.value.message
    assert "\n" not in caught.value.line()
    assert caught.value.where in (f"{name}{place}", f"{tmp_path}/{name}{place}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + ROW),
        ("bom.json", b"\xef\xbb\xbf[" + ROW + b"]"),
        ("bom.csv", b"\xef\xbb\xbftext,label\nfine,1\n"),
        ("array.jsonl", b"[" + ROW + b"]"),
        ("array.csv", b"[\n" + ROW + b"]"),
        ("lines.json", ROW),
        ("lines.csv", ROW),
        ("lines.txt", ROW),
        ("no extension", ROW),
        ("gzip.jsonl", gzip.compress(ROW, mtime=0)),  # with the time in it, its id would differ between workers
        ("plain.jsonl.gz", ROW),
        ("parquet.csv", parquet_bytes([{"text": "fine", "label": 1}])),
        ("cut.jsonl", ROW.rstrip()),
        ("semicolon.csv", b"text;label\r\nfine;1\r\n"),
        ("tabs.csv", b"text\tlabel\nfine\t1\n"),
        ("commas.tsv", b"text,label\nfine,1\n"),
        ("quoted.tsv", b'"text"\t"label"\n"fine"\t"1"\n'),
    ],
)
def test_content_wins_over_the_name(tmp_path: Path, name: str, content: bytes):
    (row,) = open_file(write(tmp_path, name, content)).rows()
    assert {column: str(value) for column, value in row.values.items()} == {"text": "fine", "label": "1"}


def test_values_stay_as_they_are(tmp_path: Path):
    path = write(
        tmp_path, "a.jsonl", '{"i": 3, "f": 3.0, "s": "3", "n": null, "b": true, "l": ["a"], "e": "\\ud83d\\ude00"}'
    )
    (row,) = open_file(path).rows()
    assert row.values == {"i": 3, "f": 3.0, "s": "3", "n": None, "b": True, "l": ["a"], "e": "😀"}
    assert [type(row.values[c]) for c in "ifb"] == [int, float, bool]


def test_paths_that_are_no_file(tmp_path: Path):
    write(tmp_path, "reviews.jsonl", ROW)
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path, words in {
        tmp_path / "review.jsonl": f'no such file. Did you mean "{tmp_path}/reviews.jsonl"?',
        tmp_path / "no" / "reviews.jsonl": "does not exist either",
        tmp_path / "reviews.jsonl" / "x": "no such file",
        tmp_path: "is a folder",
        tmp_path / "pipe.jsonl": "is a pipe or a device",
        Path("/dev/zero"): "is a pipe or a device",
        tmp_path / ("x" * 300): "can't be opened",
        tmp_path / "nul\0.jsonl": "can't be opened",
    }.items():
        with pytest.raises(DataError) as caught:
            open_file(path)
        assert words in str(caught.value)
        assert "\0" not in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path, "a.jsonl", ROW)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Path, "open", refuse)  # chmod stops nobody where tests run as root
    with pytest.raises(MachineError, match="may not be read by this user"):
        open_file(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_without_end_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 2**20)
    path = write(tmp_path, name, b'text,label\n"' + b"x" * 2**21 if name == "a.csv" else b'{"text": "' + b"x" * 2**21)
    with pytest.raises(DataError, match=f"{name}:.: this line is longer than 1 MB"):
        list(open_file(path).rows())


@pytest.mark.parametrize("name", ["a.json", "a.parquet.gz", "a.json.gz"])
def test_what_must_be_loaded_is_capped(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "MAX_LOADED_BYTES", 2**20)
    content = b"PAR1" + bytes(2**22) if "parquet" in name else b"[" + b" " * 2**22 + b"]"
    path = write(tmp_path, name, gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(DataError, match="holds more than 1 MB"):
        list(open_file(path).rows())


def many(kind: str, count: int) -> bytes:
    if kind == "parquet":
        return parquet_bytes([{"text": f"row {i} " + "x" * 100, "label": i % 2} for i in range(count)])
    line = '{"text": "' + "x" * 100 + '", "label": 1}\n' if kind == "jsonl" else "x" * 100 + ",1\n"
    return (("text,label\n" if kind == "csv" else "") + line * count).encode()


@pytest.mark.parametrize(
    ("kind", "gzipped"), [("jsonl", False), ("jsonl", True), ("csv", False), ("csv", True), ("parquet", False)]
)
def test_rows_are_not_held_in_memory(tmp_path: Path, kind: str, gzipped: bool):
    content = many(kind, 30_000)
    source = open_file(write(tmp_path, f"a.{kind}", gzip.compress(content, 1) if gzipped else content))
    list(itertools.islice(source.rows(), 10))  # imports done
    tracemalloc.start()
    count = sum(1 for _ in source.rows())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 30_000
    assert peak < 2_000_000  # 30,000 rows as dicts take 10 MB


def test_fingerprint_follows_the_bytes(tmp_path: Path):
    one, same, other = (write(tmp_path, n, c) for n, c in [("1.jsonl", ROW), ("2.jsonl", ROW), ("3.jsonl", ROW + b" ")])
    assert open_file(one).fingerprint() == open_file(same).fingerprint() != open_file(other).fingerprint()
    assert len(open_file(one).fingerprint()) == 64


@pytest.mark.parametrize("use", [lambda s: next(s.rows()), lambda s: s.fingerprint()])
def test_a_file_that_changes_is_noticed(tmp_path: Path, use: Callable):
    path = write(tmp_path, "a.jsonl", ROW * 3)
    source = open_file(path)
    path.write_bytes(ROW * 4)
    with pytest.raises(DataError, match="changed while it was being used"):
        use(source)


def test_a_file_that_grows_while_it_is_read_is_noticed(tmp_path: Path):
    path = write(tmp_path, "a.jsonl", ROW * 3)
    rows = open_file(path).rows()
    next(rows)
    with path.open("ab") as stream:
        stream.write(ROW)
    with pytest.raises(DataError, match="changed while it was being used"):
        list(rows)


def test_any_bytes_give_rows_or_one_data_error(tmp_path: Path):
    import random

    generator = random.Random(0)
    seeds = [c if isinstance(c, bytes) else c.encode() for c in KINDS.values()]
    for _ in range(400):
        content = bytearray(generator.choice(seeds))
        for _ in range(generator.randint(1, 4)):
            place = generator.randrange(len(content))
            content[place : place + generator.randint(0, 3)] = generator.randbytes(generator.randint(0, 3))
            del content[generator.randint(1, len(content) + 20) :]
        path = write(tmp_path, generator.choice(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet"]), bytes(content))
        try:
            list(open_file(path).rows())
        except DataError as error:
            assert error.where


def test_names_of_data_files():
    names = ["a.jsonl", "b.JSON", "c.csv.gz", "d.tsv", "e.parquet", "f.ndjson", "x.y.csv"]
    assert all(is_data_file(Path(name)) for name in names)
    assert not any(is_data_file(Path(name)) for name in ["recipe.yaml", "a.txt", "a.gz", "csv", "notes", "a.zip"])
