"""The first pass: usable rows, labels, equal texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from tunewright.data.columns import Columns
from tunewright.data.examples import Row
from tunewright.data.survey import survey, text_hash, text_of
from tunewright.errors import DataError

COLUMNS = Columns("text", "label")


class ListSource:
    name = "reviews.jsonl"

    def __init__(self, rows: Sequence[dict[str, Any]]):
        self._rows = rows

    def rows(self) -> Iterator[Row]:
        for number, values in enumerate(self._rows):
            yield Row(values, f"{self.name}:{number + 1}", number)

    def fingerprint(self) -> str:
        return "f" * 64


def rows(*pairs: tuple[Any, Any]) -> ListSource:
    return ListSource([{"text": text, "label": label} for text, label in pairs])


def test_usable_rows_labels_and_equal_texts() -> None:
    found = survey(
        rows(("Good.", "p"), ("", "n"), ("Bad", "n"), (" good. ", "p"), (None, "p"), ("\u200b \t", "n")), COLUMNS
    )
    assert (len(found), found.num_rows, found.num_empty) == (3, 6, 3)
    assert found.rows.tolist() == [0, 2, 3]
    assert found.label_keys.tolist() == [0, 1, 0]
    assert found.text_hashes[0] == found.text_hashes[2] != found.text_hashes[1]
    assert found.empty == ("reviews.jsonl:2", "reviews.jsonl:5", "reviews.jsonl:6")
    assert found.labels.counts == {"p": 2, "n": 1}  # of usable rows only
    assert found.fingerprint == "f" * 64
    assert [a.dtype for a in (found.rows, found.label_keys, found.text_hashes)] == [np.int64, np.int32, np.uint64]


def test_quantities_have_no_keys_and_several_labels_have_one() -> None:
    assert survey(rows(("a", 0.5), ("b", 1.5)), COLUMNS).label_keys.tolist() == [-1, -1]
    assert survey(rows(("a", 1), ("b", 2)), COLUMNS).label_keys.tolist() == [0, 1]
    assert survey(rows(("a", 1), ("b", 2)), COLUMNS, "number").label_keys.tolist() == [-1, -1]
    many = rows(*((f"text {i}", i) for i in range(30)))
    assert set(survey(many, COLUMNS).label_keys.tolist()) == {-1}
    assert len(set(survey(many, COLUMNS, {str(i): f"n{i}" for i in range(30)}).label_keys.tolist())) == 30
    assert survey(rows(("a", ["x", "y"]), ("b", ["y", "x"]), ("c", [])), COLUMNS).label_keys.tolist() == [0, 0, 1]


def test_no_label_column_and_no_rows() -> None:
    assert survey(rows(("a", None)), Columns("text", None)).label_keys.tolist() == [-1]
    nothing = survey(rows(), COLUMNS)
    assert (len(nothing), nothing.num_rows, nothing.label_keys.dtype) == (0, 0, np.int32)


def test_errors_name_the_row() -> None:
    with pytest.raises(DataError, match=r'reviews.jsonl:2: "label" is empty'):
        survey(rows(("a", "x"), ("b", None)), COLUMNS)
    with pytest.raises(DataError, match=r'reviews.jsonl:1: "text" is int 5; expected a text'):
        survey(rows((5, "x")), COLUMNS)
    with pytest.raises(DataError, match=r'reviews.jsonl:1: no "text" here; the row has texts. Did you mean "texts"\?'):
        survey(ListSource([{"texts": "a"}]), COLUMNS)


def test_text_is_kept_as_given() -> None:
    assert text_of(Row({"text": "  Two\n lines "}, "x:1", 0), "text") == "  Two\n lines "
    assert text_of(Row({"text": float("nan")}, "x:1", 0), "text") == ""
    assert text_of(Row({"text": "🙂"}, "x:1", 0), "text") == "🙂"


def test_text_hash() -> None:
    assert text_hash("Caf\u00e9  au lait\n") == text_hash("cafe\u0301 AU lait")
    assert text_hash("a b") != text_hash("ab")
    assert text_hash("It was good.") == 0x6FDC8B1A188D2B6F  # decides splits, so it must stay
