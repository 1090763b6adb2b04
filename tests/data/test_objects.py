"""Lists, DataFrames and Datasets give the rows a file would, again and again."""

from __future__ import annotations

import datasets
import numpy as np
import pandas
import pytest

from tunewright.data.objects import ObjectSource, from_dataset, from_frame, from_records
from tunewright.errors import DataError

RECORDS = [{"text": "a", "label": 1}, {"text": "ü", "label": 0}]
SOURCES = {
    "records": from_records(RECORDS, "train"),
    "numpy": from_records([{"text": np.str_(r["text"]), "label": np.int64(r["label"])} for r in RECORDS], "train"),
    "frame": from_frame(pandas.DataFrame(RECORDS), "train"),
    "frame with another index": from_frame(pandas.DataFrame(RECORDS, index=[7, 7]), "train"),
    "dataset": from_dataset(datasets.Dataset.from_list(RECORDS), "train"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_object_gives_the_same_rows(kind: str):
    source = SOURCES[kind]
    for _ in range(2):
        rows = list(source.rows())
        assert [dict(row.values) for row in rows] == RECORDS
        assert [type(row.values["label"]) for row in rows] == [int, int]
        assert [(row.where, row.number) for row in rows] == [("train:1", 0), ("train:2", 1)]
    assert source.fingerprint() == SOURCES["records"].fingerprint()


def test_fingerprint_follows_content_and_order():
    prints = {from_records(r, "x").fingerprint() for r in (RECORDS, RECORDS[::-1], [*RECORDS, {}], [{"text": "aü"}])}
    assert len(prints) == 4


def test_what_pandas_calls_missing_is_none():
    frame = pandas.DataFrame(
        {
            "float": [1.5, np.nan],
            "text": ["a", None],
            "nullable": pandas.array([3, None], dtype="Int64"),
            "when": [pandas.Timestamp("2026-01-02"), pandas.NaT],
            "kind": pandas.Categorical(["x", None]),
            "list": [["a"], None],
        }
    )
    first, second = (row.values for row in from_frame(frame, "x").rows())
    assert set(second.values()) == {None}
    assert [first[c] for c in ("float", "text", "nullable", "kind", "list")] == [1.5, "a", 3, "x", ["a"]]


def test_a_long_frame_keeps_its_order():
    frame = pandas.DataFrame({"a": range(2500)})
    assert [row.values["a"] for row in from_frame(frame, "x").rows()] == list(range(2500))


@pytest.mark.parametrize(
    ("records", "where", "words"),
    [
        ([], "x", "no rows"),
        ([{"a": 1}, ("b", 2)], "x:2", "found tuple; expected a dict"),
        ([{"a": "\ud800"}], "x:1", "half of a character"),
    ],
)
def test_bad_records(records: list, where: str, words: str):
    with pytest.raises(DataError, match=words) as caught:
        list(from_records(records, "x").rows())
    assert caught.value.where == where


def test_frames_with_bad_columns():
    with pytest.raises(DataError, match='two columns are called "1"'):
        from_frame(pandas.DataFrame([[1, 2]], columns=pandas.Index([1, "1"])), "x")
    with pytest.raises(DataError, match="no rows"):
        list(from_frame(pandas.DataFrame({"a": []}), "x").rows())


def test_a_source_reads_lazily():
    def values():
        yield {"a": 1}
        raise AssertionError("read too far")

    assert next(ObjectSource("x", values).rows()).values == {"a": 1}
