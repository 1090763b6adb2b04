"""The content decides what a file is; the name only where the content could be either."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.data.formats import EXTENSIONS, detect_format, named_format


@pytest.mark.parametrize(
    ("start", "name", "expected"),
    [
        ('{"a": 1}\n', "a.csv", "jsonl"),
        ('\n \n{"a": 1}\n', "a.json", "jsonl"),
        ('[\n  {"a": 1}', "a.csv", "json"),
        ('[{"a": "x', "a.jsonl", "json"),  # a sample may end anywhere
        ('["a", 1]\n["b", 2]\n', "a.json", "jsonl"),
        ("[1, 2]", "a.json", "json"),
        ("[text],label\nx,1\n", "a.csv", "csv"),
        ("text,label\nx,1\n", "a.tsv", "tsv"),
        ("hello", "a.jsonl", "jsonl"),
        ("PAR1....", "a.txt", "parquet"),
        ("BZh is how the text begins\tlabel\n", "a.tsv", "tsv"),
    ],
)
def test_what_a_file_is(start: str, name: str, expected: str):
    assert detect_format(start.encode(), Path(name)) == expected


def test_a_sample_may_end_inside_a_character():
    assert detect_format('{"a": "é'.encode()[:-1], Path("a.jsonl")) == "jsonl"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_names(extension: str):
    for name in (f"a{extension}", f"A{extension.upper()}", f"a.b{extension}.gz"):
        assert named_format(Path(name)) == EXTENSIONS[extension]
    assert named_format(Path("gz")) is named_format(Path("a.gz")) is named_format(Path("a")) is None
