"""Bad records are stepped over, and good ones are those that a run reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tunewright.data.lenient import open_leniently
from tunewright.data.reading import open_file
from tunewright.errors import DataError


def read(path: Path) -> list[tuple[int, dict | None, str]]:
    return [
        (record.line, dict(record.row.values) if record.row else None, record.problem.message if record.problem else "")
        for record in open_leniently(path).records()
    ]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_json_lines(tmp_path):
    content = b'{"a": 1}\n\n{"a": \n[1]\n{"a": 2} x\n{"a": 3}\n{"a": 1, "a": 2}\n{"a": 4}'
    found = read(write(tmp_path / "x.jsonl", content))
    assert [(line, row) for line, row, _ in found] == [
        (1, {"a": 1}), (3, None), (4, None), (5, None), (6, {"a": 3}), (7, None), (8, {"a": 4}),
    ]  # fmt: skip
    assert all(problem for _, row, problem in found if row is None)


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path):
    content = b'a,b\n1,x\n2,"open\n3,y\n4,"two\nlines"\n5,z,too many\n6,w\n'
    found = read(write(tmp_path / "x.csv", content))
    assert [(line, row and row["a"]) for line, row, _ in found] == [
        (2, "1"), (3, None), (4, "3"), (5, "4"), (7, None), (8, "6"),
    ]  # fmt: skip


def test_raw_is_what_stands_in_the_file(tmp_path):
    content = 'a,b\r\n1,"x\r\ny"\r\n\r\n2,é\r\n'.encode()
    records = list(open_leniently(write(tmp_path / "x.csv", content)).records())
    assert [record.raw for record in records] == ['1,"x\r\ny"\r\n', "2,é\r\n"]


def test_windows_1252_is_read_and_told(tmp_path):
    path = write(tmp_path / "x.jsonl", b'{"a": "caf\xe9"}\n{"a": "caf\xc3\xa9"}\n')
    first, second = open_leniently(path).records()
    assert (first.row.values["a"], first.recoded, second.row.values["a"], second.recoded) == (
        "café",
        True,
        "café",
        False,
    )
    assert first.problem.where == "x.jsonl:1"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_with_its_mark(tmp_path, encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"
    path = write(tmp_path / "x.csv", f"{mark}a,b\n1,é\n2,ü\n".encode(encoding))
    with pytest.raises(DataError, match="UTF-16"):
        open_file(path)
    source = open_leniently(path)
    assert source.encoding == "utf-16"
    assert [row.values for row in source.rows()] == [{"a": "1", "b": "é"}, {"a": "2", "b": "ü"}]


def test_good_files_are_read_as_a_run_reads_them(tmp_path):
    rows = [{"text": f"t{i}\u2028 é", "label": "x"} for i in range(50)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    table = b"\xef\xbb\xbftext;label\n" + b"".join(b"a;%d\n\n" % i for i in range(50))
    files = [
        write(tmp_path / "x.jsonl", lines),
        write(tmp_path / "x.jsonl.gz", gzip.compress(lines)),
        write(tmp_path / "x.json", json.dumps(rows).encode()),
        write(tmp_path / "x.csv", table),
    ]
    for path in files:
        expected = [(row.where, row.number, dict(row.values)) for row in open_file(path).rows()]
        source = open_leniently(path)
        records = list(source.records())
        assert [(r.row.where, r.row.number, dict(r.row.values)) for r in records] == expected, path
        assert all(record.problem is None for record in records)
        assert source.has_bom == (path.suffix == ".csv")


def test_an_array_ends_at_the_first_bad_item(tmp_path):
    found = read(write(tmp_path / "x.json", b'[{"a": 1},\n{"a": 2},\n7,\n{"a": 3}]'))
    assert [line for line, _, _ in found] == [1, 2, 3]
    assert "nothing after this was read" in found[-1][2]


def test_nothing_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no rows"):
        read(write(tmp_path / "x.csv", b"a,b\n"))
    with pytest.raises(DataError, match="twice"):
        read(write(tmp_path / "x.csv", b"a,a\n1,2\n"))


def test_an_endless_line_is_one_bad_record(tmp_path, monkeypatch):
    from tunewright.data import files

    monkeypatch.setattr(files, "MAX_LINE_BYTES", 100)
    found = read(write(tmp_path / "x.jsonl", b'{"a": 1}\n{"a": "' + b"x" * 500 + b'"}\n{"a": 3}\n'))
    assert [(line, row) for line, row, _ in found] == [(1, {"a": 1}), (2, None), (3, {"a": 3})]
