"""The records that flow out of reading are plain frozen data."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from tunewright.data import examples
from tunewright.data.examples import LabelledText, Row, Splits
from tunewright.data.objects import from_records

RECORDS = [
    Row({"text": "a"}, "a.jsonl:1", 0),
    LabelledText("a", ("x", "y"), "a.jsonl:1"),
    Splits(from_records([], "t")),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_records_cannot_be_changed(record):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, None)


def test_every_field_has_a_type_and_a_record_its_words():
    for kind in (Row, LabelledText, Splits):
        assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")
        assert all(field.type for field in dataclasses.fields(kind))
    assert examples.__doc__


def test_rows_are_small_and_equal_by_value():
    row = Row({"text": "a"}, "a:1", 0)
    assert row == Row({"text": "a"}, "a:1", 0) != Row({"text": "a"}, "a:2", 1)
    assert not hasattr(row, "__dict__")  # slots: a million of them pass by
    assert pickle.loads(pickle.dumps(row)) == row


def test_a_split_may_be_missing():
    splits = Splits(from_records([{"text": "a"}], "train"))
    assert splits.validation is None and splits.test is None and splits.revision is None


def test_a_source_keeps_its_promise():
    source: examples.Source = from_records([{"text": "a"}, {"text": "b"}], "rows")
    for _ in range(2):  # again and again
        assert [(r.number, r.values["text"]) for r in source.rows()] == [(0, "a"), (1, "b")]
    assert len(source.fingerprint()) == 64 and int(source.fingerprint(), 16) >= 0
