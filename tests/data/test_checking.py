"""The quick check: what stops a run, and what is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunewright.data.checking import FEW_EXAMPLES, CheckReport, conflicting, quick_check, small_classes
from tunewright.data.columns import Columns
from tunewright.data.examples import Row
from tunewright.data.labels import infer_labels
from tunewright.data.survey import Survey, survey
from tunewright.errors import DataError


class Rows:
    def __init__(self, name: str, pairs: list[tuple[Any, Any]]):
        self.name, self._pairs = name, pairs

    def rows(self) -> Any:
        for i, (text, label) in enumerate(self._pairs):
            yield Row({"text": text, "label": label}, f"{self.name}:{i + 1}", i)

    def fingerprint(self) -> str:
        return self.name


def look(name: str, pairs: list[tuple[Any, Any]], setting: Any = "auto") -> Survey:
    return survey(Rows(name, pairs), Columns("text", "label"), setting)


def check(train: list[tuple[Any, Any]], validation: Any = None, setting: Any = "auto") -> CheckReport:
    surveyed = look("train.csv", train, setting)
    held_out = None if validation is None else look("test.csv", validation, setting)
    return quick_check(surveyed, held_out, infer_labels(surveyed.labels, setting))


def balanced(count: int = 10) -> list[tuple[str, str]]:
    return [(f"text {label} {i}", label) for i in range(count) for label in ("bad", "good")]


def test_good_data_says_nothing() -> None:
    report = check(balanced(), [("another", "good")])
    assert report.said == ()
    assert report.train_counts == {"bad": 10, "good": 10}
    assert report.validation_counts == {"bad": 0, "good": 1}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([("", "good")], "train.csv: 1 row of 21 left out, as the text is empty (train.csv:21)"),
        ([("TEXT bad 0 ", "bad")], "train.csv: 1 row (4.8 %) with a text seen before"),
        (
            [("text bad 1", "good")],
            "train.csv: 1 text has more than one label (for example rows 3 and 21); one of them is wrong",
        ),
        ([("odd", "odd")], "train.csv: 1 class has fewer than 8 examples (odd 1)"),
    ],
)
def test_warnings_on_train(more: list[tuple[str, str]], said: str) -> None:
    report = check(balanced() + more)
    assert any(sentence.startswith(said) for sentence in report.said), report.said


def test_conflicts_are_counted_once_per_text() -> None:
    report = check([*balanced(), ("a", "bad"), ("a", "good"), ("a", "good"), ("b", "good"), ("b", "bad")])
    assert any("2 texts have more than one label" in sentence for sentence in report.said)
    assert not any("more than one label" in s for s in check([*balanced(), ("a", "bad"), ("a", "bad")]).said)


def test_warnings_on_validation() -> None:
    setting = ["bad", "good", "odd"]
    report = check(balanced(), [("x", "odd"), ("text bad 3", "bad"), ("", "bad")], setting)
    assert report.said[-3:] == (
        "test.csv: 1 row of 3 left out, as the text is empty (test.csv:3)",
        "test.csv: 1 row (50.0 %) with a text that is in train.csv as well (the first is row 2); "
        "this makes the model look better than it is",
        "test.csv: odd occurs here but never in train, so it can't be learned",
    )
    assert check(balanced(), [("x", "good")], setting).said == (
        "train.csv: 1 class has fewer than 8 examples (odd 0); too few to learn or judge them well",
    )


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([], "train.csv: 0 rows, 0 with a text; expected at least 2"),
        ([("a", "x")], "1 row, 1 with a text"),
        ([("a", "x"), ("", "y"), ("", "y")], "3 rows, 1 with a text"),
        ([("a", "x"), ("b", "x")], 'every "label" is "x"; expected two classes'),
        ([("a", 0.5), ("b", 0.5)], 'every "label" is 0.5; expected different numbers'),
        ([("a", []), ("b", [])], 'no row has a label in "label"'),
        ([("a", "x"), ("b", "y"), ("c", "z")], 'each of 3 rows has a "label" of its own'),
    ],
)
def test_what_cannot_work(train: list[tuple[Any, Any]], message: str) -> None:
    with pytest.raises(DataError) as error:
        check(train)
    assert message in str(error.value)


def test_validation_that_cannot_work() -> None:
    with pytest.raises(DataError, match=r'test.csv:2: "label" is "godo"; .*Did you mean "good"\?'):
        check(balanced(), [("x", "good"), ("y", "godo")])
    with pytest.raises(DataError, match=r"test.csv: no row of 1 row has a text"):
        check(balanced(), [("", "good")])


def test_numbers_and_several_labels_pass() -> None:
    assert check([("a", 0.5), ("b", 1.5), ("c", 2)]).said == ()
    assert check([(f"t{i}", ["x"] if i % 2 else ["x", "y"]) for i in range(20)]).said == ()


@pytest.mark.parametrize(
    ("groups", "keys", "expected"),
    [
        ([], [], []),
        ([4], [0], []),
        ([7, 3, 7, 3, 5], [0, 1, 1, 1, 0], [[0, 2]]),  # the group with the largest number
        ([0, 0, 1], [0, 1, 0], [[0, 1]]),  # and the smallest
        ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 0], [[0, 1], [2, 3]]),  # each with its own rows
        ([9, 1, 1, 9], [0, 0, 1, 1], [[0, 3], [1, 2]]),  # the one that begins first comes first
    ],
)
def test_groups_with_more_than_one_label(groups: list[int], keys: list[int], expected: list[list[int]]) -> None:
    found = conflicting(np.array(groups, np.uint64), np.array(keys, np.int32))
    assert [rows.tolist() for rows in found] == expected


def test_rows_of_a_group_keep_their_order() -> None:
    """Many ties: the first row named must not depend on how the processor sorts."""
    rng = np.random.default_rng(0)
    groups, keys = rng.integers(0, 3, 300), rng.integers(0, 2, 300)
    assert sorted(rows.tolist() for rows in conflicting(groups, keys)) == sorted(
        np.flatnonzero(groups == number).tolist() for number in range(3)
    )


def test_what_counts_as_few() -> None:
    assert small_classes({"a": FEW_EXAMPLES, "b": FEW_EXAMPLES - 1, "c": 0}) == {"b": 7, "c": 0}


@pytest.mark.parametrize(
    ("count", "shown"), [(3, "train.csv:21, train.csv:22, train.csv:23)"), (4, "train.csv:22, train.csv:23, …)")]
)
def test_at_most_three_empty_rows_are_named(count: int, shown: str) -> None:
    (said,) = check(balanced() + [("", "good")] * count).said
    assert said.endswith(shown)


@pytest.mark.parametrize(("count", "shown"), [(6, "(c0 2, c1 2, c2 2, c3 2, c4 2, c5 2)"), (7, "c4 2, c5 2, …)")])
def test_at_most_six_small_classes_are_named(count: int, shown: str) -> None:
    few = [(f"{i} {j}", f"c{i}") for i in range(count) for j in range(2)]
    assert shown in check(balanced() + few).said[-1]
