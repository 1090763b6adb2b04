"""Everything that can be called data opens as splits, and what can't says why."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from tunewright.data.sources import open_data
from tunewright.errors import DataError, UsageError

RECORDS = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


def write(path: Path, records: list[dict] = RECORDS) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def values(source: Any) -> list[dict]:
    return [dict(row.values) for row in source.rows()]


@pytest.mark.parametrize(
    "data",
    [
        RECORDS,
        pandas.DataFrame(RECORDS),
        datasets.Dataset.from_list(RECORDS),
        datasets.DatasetDict({"train": datasets.Dataset.from_list(RECORDS)}),
        {"train": RECORDS},
        {"train": pandas.DataFrame(RECORDS)},
    ],
    ids=["list", "frame", "dataset", "datasets", "dict", "dict of frames"],
)
def test_python_objects(data: Any):
    splits = open_data(data)
    assert values(splits.train) == RECORDS
    assert next(splits.train.rows()).where == "train:1"
    assert (splits.validation, splits.test, splits.origin, splits.revision) == (None, None, "", None)


def test_a_file(tmp_path: Path):
    path = write(tmp_path / "reviews.jsonl")
    for data in (path, str(path)):
        splits = open_data(data)
        assert values(splits.train) == RECORDS
        assert splits.origin == str(path)


def test_a_folder(tmp_path: Path):
    for split in ("train", "dev", "test"):
        write(tmp_path / f"{split}.jsonl", [{"text": split}])
    splits = open_data(tmp_path)
    assert [values(s) for s in (splits.train, splits.validation, splits.test)] == [
        [{"text": "train"}],
        [{"text": "dev"}],
        [{"text": "test"}],
    ]


def test_validation_given_beside_the_data(tmp_path: Path):
    write(tmp_path / "train.jsonl")
    write(tmp_path / "validation.jsonl")
    held_out = write(tmp_path / "held_out.jsonl", [{"text": "h"}])
    for validation in (held_out, [{"text": "h"}], {"train": RECORDS, "val": [{"text": "h"}]}):
        splits = open_data(tmp_path, validation=validation)
        assert values(splits.train) == RECORDS
        assert values(splits.validation) == [{"text": "h"}]
    assert open_data(RECORDS, validation=[{"text": "h"}]).validation.name == "validation"  # type: ignore[union-attr]


def test_a_dict_of_paths_and_other_words(tmp_path: Path):
    splits = open_data(
        {"training": write(tmp_path / "a.jsonl"), "Dev": str(write(tmp_path / "b.jsonl")), "test": RECORDS}
    )
    assert [source.name for source in (splits.train, splits.validation, splits.test) if source] == [
        "a.jsonl",
        "b.jsonl",
        "test",
    ]


def test_a_path_that_exists_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "stanfordnlp" / "imdb")
    assert values(open_data("stanfordnlp/imdb").train) == RECORDS
    for name in ("stanfordnlp/imbd", "data/reviews.jsonl", "reviews"):  # never asks a hub
        with pytest.raises(DataError, match="no such file"):
            open_data(name)


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "reviews.jsonl")
    assert values(open_data("~/reviews.jsonl").train) == RECORDS


def test_the_nearest_file_is_named(tmp_path: Path):
    write(tmp_path / "reviews.jsonl")
    with pytest.raises(DataError, match=r'Did you mean ".*/reviews\.jsonl"\?'):
        open_data(str(tmp_path / "reveiws.jsonl"))


def test_other_splits_of_a_dataset_are_left_alone():
    both = {name: datasets.Dataset.from_list(RECORDS) for name in ("train", "test", "unsupervised")}
    assert open_data(datasets.DatasetDict(both)).test is not None


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ({"trian": RECORDS}, DataError, 'expected train, validation, test. Did you mean "train"?'),
        ({"text": ["a"], "label": [1]}, DataError, "For columns give a list of dicts"),
        ({"train": RECORDS, "val": RECORDS, "dev": RECORDS}, DataError, '"dev" is a second validation split'),
        ({"test": RECORDS}, DataError, "there is no train split (found: test)"),
        ({}, DataError, "there is no train split (found: none)"),
        (7, UsageError, "data of type int can't be read"),
        (None, UsageError, "data of type NoneType can't be read"),
        (datasets.Dataset.from_list(RECORDS).to_iterable_dataset(), UsageError, "with all its rows"),
    ],
)
def test_what_is_no_data(data: Any, kind: type[Exception], words: str):
    with pytest.raises(kind) as caught:
        open_data(data)
    assert words in str(caught.value)


def test_opening_a_file_imports_no_heavy_library(tmp_path: Path):
    path = write(tmp_path / "reviews.jsonl")
    script = (
        "import sys; from tunewright.data.sources import open_data; from tunewright.data.columns import find_columns;"
        f"find_columns(open_data({str(path)!r}).train);"
        "print({'torch', 'datasets', 'pandas', 'pyarrow', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "set()", done.stderr


# ---- text files ----


def test_a_text_file_is_its_paragraphs(tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text("One\ntwo.\n\nThree.\n")
    for data in (path, str(path), {"train": path}):
        assert values(open_data(data).train) == [{"text": "One\ntwo."}, {"text": "Three."}]
    assert values(open_data(RECORDS, validation=path).validation) == [{"text": "One\ntwo."}, {"text": "Three."}]


def test_a_folder_of_text_files_is_a_document_each(tmp_path: Path):
    for name in ("b.txt", "a.TXT", "validation.txt"):
        (tmp_path / name).write_text(f"{name}\n\nmore\n")
    splits = open_data(tmp_path)
    assert values(splits.train) == [{"text": f"{name}\n\nmore"} for name in ("a.TXT", "b.txt", "validation.txt")]
    assert splits.validation is None and splits.origin == str(tmp_path)


def test_a_folder_with_train_txt_has_its_splits(tmp_path: Path):
    for name in ("train", "Valid", "other"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n\nmore\n")
    splits = open_data(tmp_path)
    assert splits.validation is not None and splits.test is None
    assert [values(splits.train)[0], values(splits.validation)[0]] == [{"text": "train"}, {"text": "Valid"}]
    (tmp_path / "dev.txt").write_text("second")
    with pytest.raises(DataError, match=r"two files for validation: Valid\.txt and dev\.txt"):
        open_data(tmp_path)


def test_data_files_win_over_text_files_beside_them(tmp_path: Path):
    write(tmp_path / "train.jsonl")
    (tmp_path / "README.txt").write_text("What this is.\n")
    assert values(open_data(tmp_path).train) == RECORDS


@pytest.mark.parametrize("content", ['{"text": "a"}\n', '[\n {"text": "a"}]', '\ufeff\n{ "text": "a"}\n'])
def test_records_under_the_name_of_a_text_stay_records(tmp_path: Path, content: str):
    path = tmp_path / "rows.txt"
    path.write_text(content, encoding="utf-8")
    assert values(open_data(path).train) == [{"text": "a"}]


@pytest.mark.parametrize("text", ["[Illustration]", "{{Infobox}}", "[1] A note.", "'Well', she said, and left."])
def test_a_text_may_begin_with_a_bracket(tmp_path: Path, text: str):
    path = tmp_path / "book.txt"
    path.write_text(f"{text}\n\nThe end.\n")
    assert values(open_data(path).train) == [{"text": text}, {"text": "The end."}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%PDF-1.7\n", "a PDF document"),
        ("hello\n".encode("utf-16"), "UTF-16"),
        (b"a\0b", "binary file"),
        (b"PAR1 and no more", "Parquet"),
        (b"", "empty"),
    ],
)
def test_what_is_no_text_is_refused_under_that_name(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "book.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        values(open_data(path).train)


def test_a_missing_text_file_never_asks_a_hub():
    with pytest.raises(DataError, match="no such file"):
        open_data("texts/book.txt")


def test_compressed_records_under_the_name_of_a_text_stay_records(tmp_path: Path):
    path = tmp_path / "rows.txt"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n'))
    assert values(open_data(path).train) == [{"text": "a"}]
