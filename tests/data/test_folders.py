"""A folder's files become splits by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.data.folders import split_files
from tunewright.data.sources import SPLIT_NAMES
from tunewright.errors import DataError


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.csv"], {"train": "train.csv"}),
        (
            ["Train.jsonl.gz", "dev.tsv", "test.json", "README.md", "train.txt", "labels.csv"],
            {"train": "Train.jsonl.gz", "validation": "dev.tsv", "test": "test.json"},
        ),
        (
            ["train-00000-of-00001.parquet", "valid-00000-of-00001.parquet"],
            {"train": "train-00000-of-00001.parquet", "validation": "valid-00000-of-00001.parquet"},
        ),
    ],
)
def test_names_become_splits(tmp_path: Path, names: list[str], expected: dict[str, str]):
    found = split_files(folder_of(tmp_path, *names), SPLIT_NAMES)
    assert {split: path.name for split, path in found.items()} == expected


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "holds no data file"),
        (["a.txt"], "holds no data file"),
        (
            ["trian.csv", "test.csv"],
            "no train file (found test.csv, trian.csv); name one train, or give the file itself.",
        ),
        (["train.csv", "train.jsonl"], "two files for train: train.csv and train.jsonl"),
        (["train.csv", "val.csv", "dev.csv"], "two files for validation: dev.csv and val.csv"),
    ],
)
def test_folders_without_clear_splits(tmp_path: Path, names: list[str], words: str):
    with pytest.raises(DataError) as caught:
        split_files(folder_of(tmp_path, *names), SPLIT_NAMES)
    assert words in caught.value.message
    assert caught.value.where == str(tmp_path)
