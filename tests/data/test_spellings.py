"""Labels that look like a slip."""

from __future__ import annotations

import pytest

from tunewright.data.raw_labels import ObservedLabels
from tunewright.data.spellings import misspelt_labels, stray_labels


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"positive": 100, "postive": 2}, [("postive", "positive")]),
        ({"Positive": 60, "positive": 50}, [("positive", "Positive")]),
        ({"card-arrival": 50, "card_arrival": 40}, [("card_arrival", "card-arrival")]),
        ({"positive": 100, "postive": 50}, []),  # too many for a slip
        ({"joy": 100, "boy": 1}, []),
        ({"label_1": 100, "label_2": 1}, []),
        ({"1": 100, "-1": 1, "10": 1, "1.0": 1}, []),
        ({"anger": 100, "danger": 9}, [("danger", "anger")]),  # a suggestion, nothing more
    ],
)
def test_misspelt(counts, expected):
    assert misspelt_labels(counts) == expected


def test_stray_words_among_numbers():
    observed = ObservedLabels()
    for i in range(200):
        observed.add(i / 4, f"x:{i}")
    assert stray_labels(observed) == []
    observed.add("n/a", "x:201")
    assert stray_labels(observed) == ["n/a"]
    few = ObservedLabels()
    for label in ["1", "2", "3", "none"]:
        few.add(label, "x:1")
    assert stray_labels(few) == []
