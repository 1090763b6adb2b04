"""Parquet and Dataset rows equal what was written; ClassLabel integers come out as names."""

from __future__ import annotations

import datetime
import io
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from tunewright.data.arrow import class_names, dataset_values, parquet_rows
from tunewright.errors import DataError

FEATURES = datasets.Features(
    {
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["neg", "pos"]),
        "topics": datasets.List(datasets.ClassLabel(names=["x", "y"])),
    }
)
STORED = {"text": ["a", "b", "c"], "label": [1, 0, -1], "topics": [[0, 1], [], None]}
NAMED = [
    {"text": "a", "label": "pos", "topics": ["x", "y"]},
    {"text": "b", "label": "neg", "topics": []},
    {"text": "c", "label": None, "topics": None},
]


def parquet(table: pyarrow.Table, **options: Any) -> io.BytesIO:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream, **options)
    return io.BytesIO(stream.getvalue())


def test_dataset_labels_become_names():
    dataset = datasets.Dataset.from_dict(STORED, features=FEATURES)
    assert list(dataset_values(dataset, "x")) == NAMED
    assert [row["text"] for row in dataset_values(dataset.select([2, 0]), "x")] == ["c", "a"]


def test_parquet_written_by_datasets_keeps_the_names(tmp_path: Path):
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict(STORED, features=FEATURES).to_parquet(path)
    with path.open("rb") as stream:
        assert [row.values for row in parquet_rows(stream, "x")] == NAMED


def test_older_descriptions_of_lists():
    label = {"names": ["x", "y"], "_type": "ClassLabel"}
    features = {
        "a": {"feature": label, "_type": "Sequence"},
        "b": [label],
        "c": label,
        "d": {"dtype": "string"},
        "e": [],
    }
    assert dict(class_names(features)) == {"a": ["x", "y"], "b": ["x", "y"], "c": ["x", "y"]}


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": {"label": {"names": 3}}}}'])
def test_a_description_that_makes_no_sense_is_passed_over(metadata: bytes):
    table = pyarrow.table({"label": [1]}).replace_schema_metadata({b"huggingface": metadata})
    assert [row.values for row in parquet_rows(parquet(table), "x")] == [{"label": 1}]


def test_a_class_without_a_name():
    described = b'{"info": {"features": {"label": {"names": ["a"], "_type": "ClassLabel"}}}}'
    table = pyarrow.table({"label": [0, 7]}).replace_schema_metadata({b"huggingface": described})
    with pytest.raises(DataError, match='x:2: column "label" holds class 7, but its schema names 1'):
        list(parquet_rows(parquet(table), "x"))


def test_rows_of_several_groups_and_types():
    day = datetime.date(2026, 1, 2)
    records = [{"i": i, "f": i / 2, "d": day, "n": None, "l": [i], "s": {"a": "b"}, "b": b"x"} for i in range(2500)]
    rows = list(parquet_rows(parquet(pyarrow.Table.from_pylist(records), row_group_size=700), "x"))
    assert [row.values for row in rows] == records
    assert (rows[2400].where, rows[2400].number) == ("x:2401", 2400)


def test_damaged_pages():
    table = pyarrow.table({"text": [f"row {i}" for i in range(5000)]})
    content = parquet(table, write_page_checksum=True, compression="none", use_dictionary=False).getvalue()
    damaged = content.replace(b"row 777", b"row 888")  # it still decodes; only the checksum knows
    with pytest.raises(DataError, match="x: the Parquet data is damaged"):
        list(parquet_rows(io.BytesIO(damaged), "x"))


def test_two_columns_of_one_name():
    table = pyarrow.table([[1], [2]], names=["a", "a"])
    with pytest.raises(DataError, match='two columns are called "a"'):
        list(parquet_rows(parquet(table), "x"))
