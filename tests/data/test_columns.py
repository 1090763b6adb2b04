"""Columns as named, or guessed by name, then by content; every guess is said."""

from __future__ import annotations

from typing import Any

import pytest

from tunewright.data.columns import Columns, find_columns
from tunewright.data.objects import ObjectSource, from_records
from tunewright.errors import DataError

LONG = ["It was good, better than the first one.", "Not a fan.", "This is not worth watching even once.", "I liked it."]


def source(**columns: list[Any]) -> ObjectSource:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return from_records(rows, "reviews.csv")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text": LONG, "label": [1, 0, 0, 1]}, ("text", "label")),
        ({"Label": [1, 0, 0, 1], "Review": LONG}, ("Review", "Label")),
        ({"id": ["a", "b", "c", "d"], "text": LONG, "note": LONG, "sentiment": list("pnnp")}, ("text", "sentiment")),
        ({"a": ["x", "y", "x", "y"], "b": LONG}, ("b", "a")),
        ({"b": LONG, "a": [0.1, 0.7, 0.2, 0.9]}, ("b", "a")),
        ({"id": [1, 2, 3, 4], "b": LONG, "c": ["x", "y", "y", "x"], "d": ["k"] * 4}, ("b", "c")),
        ({"b": LONG, "c": [["x"], ["y"], ["x", "y"], ["x"]], "e": [{}, {}, {}, {"a": 1}]}, ("b", "c")),
        ({"text": LONG, "c": list("pnnp"), "d": list("abca"), "e": ["z" * 81] * 2 + ["y" * 81] * 2}, ("text", "c")),
        ({"text": [1, 2, 3, 4], "words": LONG, "label": list("pnnp")}, ("words", "label")),
        ({"text": [None, *LONG[1:]], "labels": list("pnnp")}, ("text", "labels")),
    ],
)
def test_guesses(columns: dict[str, list], expected: tuple[str, str]):
    found = find_columns(source(**columns))
    assert (found.text, found.label) == expected
    count = len(columns)
    assert found.said == (
        f"text column: {found.text} (guessed from {count} columns)",
        f"label column: {found.label} (guessed from {count} columns)",
    )


def test_named_columns_are_taken_and_not_said():
    data = source(text=LONG, label=[1, 0, 0, 1], other=LONG, stars=[1, 2, 3, 4])
    assert find_columns(data, "other", "stars") == Columns("other", "stars")
    assert find_columns(data, "auto", "text").text == "other"  # the label is no longer free


def test_a_label_is_not_needed_to_predict():
    assert find_columns(source(text=LONG), need_label=False) == Columns(
        "text", None, ("text column: text (guessed from 1 column)",)
    )
    assert find_columns(source(text=LONG, y=[1, 2, 3, 4]), label="y", need_label=False).label == "y"


@pytest.mark.parametrize(
    ("columns", "text", "label", "words"),
    [
        (
            {"text": LONG, "label": list("pnnp")},
            "txt",
            "auto",
            'no column "txt" for the text; found text, label. Did you mean "text"?',
        ),
        ({"text": LONG, "label": list("pnnp")}, "auto", "LABEL", 'Did you mean "label"?'),
        ({"text": LONG}, "auto", "auto", "no column beside the text looks like a label (found none)"),
        ({"text": LONG, "other": [text * 9 for text in LONG]}, "auto", "auto", "no column beside the text looks like"),
        ({"text": LONG, "a": list("wxyz"), "b": list("stuv")}, "auto", "auto", "no column beside the text looks like"),
        ({"a": [1, 2], "b": [3, 4]}, "auto", "auto", "no column holds text (found a, b)"),
        ({"text": [["a"], ["b"]], "label": [0, 1]}, "text", "label", '"text" holds a list; expected text'),
        ({"text": ["a", 3], "label": [0, 1]}, "text", "label", '"text" holds the number 3; expected text'),
        ({"text": LONG, "label": list("pnnp")}, "text", "text", "named as text and as label"),
        (
            {"Good film": ["Bad film", "A film"], "1": list("xy"), "x": list("zw")},
            "auto",
            "auto",
            "lack a header line?",
        ),
    ],
)
def test_mistakes(columns: dict[str, list], text: str, label: str, words: str):
    with pytest.raises(DataError) as caught:
        find_columns(source(**columns), text, label)
    assert words in caught.value.message
    assert caught.value.field


def test_a_value_that_is_no_text_is_placed():
    with pytest.raises(DataError) as caught:
        find_columns(source(text=["a", {"b": 1}], label=[0, 1]), text="text")
    assert (caught.value.where, caught.value.field) == ("reviews.csv:2", "text")


def test_columns_may_appear_late_and_only_the_first_rows_are_read():
    def values():
        yield from ({"text": "a", "n": i} for i in range(199))
        yield {"text": "b", "label": 1, "n": 3}
        raise AssertionError("read too far")

    assert find_columns(ObjectSource("x", values)).label == "label"
