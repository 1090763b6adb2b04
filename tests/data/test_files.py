"""Lines keep their physical number whatever they hold; bytes that aren't text are placed exactly."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tunewright.data.files import is_gzip, load_text, numbered_lines, read_errors, stamp
from tunewright.errors import DataError, MachineError


def test_only_a_newline_ends_a_line():
    content = "\ufeffa\u2028b\fc\x85d\r\n\ne\rf".encode()
    assert list(numbered_lines(io.BytesIO(content), "x")) == [(1, "a\u2028b\fc\x85d\r\n"), (2, "\n"), (3, "e\rf")]


def test_a_bom_is_removed_at_the_start_only():
    assert [text for _, text in numbered_lines(io.BytesIO(b"\xef\xbb\xbfa\n\xef\xbb\xbfb"), "x")] == ["a\n", "\ufeffb"]
    assert load_text(io.BytesIO(b"\xef\xbb\xbf[]"), "x") == "[]"


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_offset_of_a_bad_byte_is_the_same_streamed_or_loaded(bom: bytes):
    content = bom + b"ab\ncd\xff\n"
    expected = f"x:2: byte 0xff at offset {content.index(255)} is not UTF-8"
    for read in (lambda: list(numbered_lines(io.BytesIO(content), "x")), lambda: load_text(io.BytesIO(content), "x")):
        with pytest.raises(DataError) as caught:
            read()
        assert str(caught.value).startswith(expected)


def test_a_bad_byte_in_a_first_line_with_a_bom():
    with pytest.raises(DataError, match="x:1: byte 0xff at offset 5 "):
        list(numbered_lines(io.BytesIO(b"\xef\xbb\xbfab\xff\n"), "x"))


def test_a_stamp_changes_with_the_file(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\x1f\x8b")
    before = stamp(path)
    assert stamp(path) == before
    assert is_gzip(path)
    path.write_bytes(b"\x1f\x8b\x08")
    assert stamp(path) != before


def test_a_failing_disk_is_the_machines_fault():
    with pytest.raises(MachineError, match="a: reading failed"), read_errors("a"):
        raise OSError(5, "Input/output error")
