"""What counts as one JSON row, checked against `json` itself on everything both accept."""

from __future__ import annotations

import io
import json

import pytest

from tunewright.data.json_rows import json_array_rows, json_line_rows
from tunewright.errors import DataError

RECORDS = [{"text": 'a]},{[\\"\n', "n": [1, -2.5e3, {"b": None}]}, {}, {"text": "ü\u2028"}, {"a": {"a": 1}, "b": [{}]}]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_lines_agree_with_json(ascii_only: bool):
    content = "\n".join(json.dumps(record, ensure_ascii=ascii_only) for record in RECORDS).encode()
    assert [row.values for row in json_line_rows(io.BytesIO(content), "x")] == RECORDS


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_arrays_agree_with_json(indent: int | None):
    content = json.dumps(RECORDS, indent=indent).encode()
    rows = list(json_array_rows(io.BytesIO(b" \r\n" + content + b"\n"), "x"))
    assert [row.values for row in rows] == RECORDS
    assert [row.number for row in rows] == [0, 1, 2, 3]
    assert len({row.where for row in rows}) == 4


def test_the_same_key_in_two_objects_is_no_repetition():
    (row,) = json_line_rows(io.BytesIO(b'{"a": {"a": 1}, "b": {"a": 2}}'), "x")
    assert row.values == {"a": {"a": 1}, "b": {"a": 2}}


def test_an_error_names_the_key_concerned():
    with pytest.raises(DataError) as caught:
        list(json_line_rows(io.BytesIO(b'{"a": 1}\n{"b": {"a": 1, "a": 2}}'), "x"))
    assert (caught.value.where, caught.value.field) == ("x:2", "a")


@pytest.mark.parametrize(("digits", "fits"), [(100, True), (101, False)])
def test_integers_have_a_limit(digits: int, fits: bool):
    rows = json_line_rows(io.BytesIO(b'{"a": ' + b"7" * digits + b"}"), "x")
    if fits:
        assert next(rows).values == {"a": int("7" * digits)}
        return
    with pytest.raises(DataError, match="101 digits"):
        next(rows)


def test_rows_before_the_bad_one_are_given():
    rows = json_line_rows(io.BytesIO(b'{"a": 1}\n{"a": \n'), "x")
    assert next(rows).values == {"a": 1}
    with pytest.raises(DataError, match="x:2: holds only a part of a JSON object"):
        next(rows)
