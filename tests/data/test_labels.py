"""Labels: which task a column makes, in which order, and one number per label."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tunewright.data.labels import LabelSpec, Setting, infer_labels, label_counts, label_words
from tunewright.data.raw_labels import MAX_CLASSES, ObservedLabels
from tunewright.errors import DataError, RecipeError


def seen(*values: Any) -> ObservedLabels:
    observed = ObservedLabels()
    for row, value in enumerate(values, start=1):
        observed.add(value, f"reviews.jsonl:{row}")
    return observed


def spec(*values: Any, setting: Setting = "auto") -> LabelSpec:
    return infer_labels(seen(*values), setting)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["b", "a", "b"], ("a", "b")),
        ([" good ", "bad", "good"], ("bad", "good")),
        ([1, 0, 1], ("0", "1")),
        ([10, 9, -1], ("-1", "9", "10")),
        (["10", "9", "2"], ("2", "9", "10")),
        ([1.0, 2.0], ("1", "2")),
        (["1.0", 2, "1"], ("1", "2")),
        ([True, False], ("false", "true")),
        (["007", "012"], ("007", "012")),
        ([1, "b", 2], ("1", "2", "b")),
        (["[other]", "[OTHER"], ("[OTHER", "[other]")),
        (["nan", "inf", "9" * 400], ("9" * 400, "inf", "nan")),
        ([Decimal(3), Decimal("4.0")], ("3", "4")),
        (list(np.array([3, 1])), ("1", "3")),
        (list(range(20)), tuple(map(str, range(20)))),
    ],
)
def test_classes(values: list[Any], names: tuple[str, ...]) -> None:
    assert spec(*values) == LabelSpec("single", names, names)
    assert spec(*reversed(values)) == spec(*values)


@pytest.mark.parametrize(
    "values", [[0.5, 1], ["3.5", "1"], ["1e-3", "2"], [1, 2.5, "3"], list(range(21)), [str(i) for i in range(21)]]
)
def test_quantities(values: list[Any]) -> None:
    assert spec(*values) == LabelSpec("number")


def test_integers_are_numbers_when_told() -> None:
    assert spec(1, 2, 3, setting="number").kind == "number"
    with pytest.raises(DataError, match=r'reviews.jsonl:2: "label" is a text; expected a number'):
        spec(1, "good", setting="number")


def test_lists_are_several_labels() -> None:
    several = spec(["b", "a"], [], ("a", "c", "a"), np.array(["b"]), '["a", "d"]')
    assert several == LabelSpec("multi", ("a", "b", "c", "d"), ("a", "b", "c", "d"))
    assert several.encode(["c", "a", "c"]) == (0, 2)
    assert several.encode([]) == ()
    assert spec([10, 2], [1]).names == ("1", "2", "10")
    assert spec([0.5], [1]).kind == "multi"


def test_lists_beside_single_labels_are_refused() -> None:
    with pytest.raises(
        DataError, match=r'reviews.jsonl:3: "label" is a list here but a single value at reviews.jsonl:1'
    ):
        spec("a", "b", ["a"])


@pytest.mark.parametrize("setting", [{"0": "Negative", "1": "Positive"}, ["Negative", "Positive"]])
def test_integers_get_names(setting: Setting) -> None:
    named = spec(1, 0, "1", setting=setting)
    assert named == LabelSpec("single", ("Negative", "Positive"), ("0", "1"))
    assert named.encode(1) == named.encode("1") == named.encode(1.0) == named.encode("Positive") == 1
    assert named.id2label == {0: "Negative", 1: "Positive"}
    assert named.label2id == {"Negative": 0, "Positive": 1}
    assert named.problem_type == "single_label_classification"
    assert named.num_outputs == 2


def test_names_keep_the_recipes_order() -> None:
    assert spec("good", "bad", setting=["good", "bad"]).names == ("good", "bad")
    assert spec("p", "n", setting={"p": "Positive", "n": "Negative"}) == LabelSpec(
        "single", ("Positive", "Negative"), ("p", "n")
    )
    assert spec(True, False, setting={"True": "yes", "False": "no"}).encode(False) == 1
    assert spec("True", "False", setting={"True": "yes", "False": "no"}).raw == ("True", "False")  # words of a CSV
    assert spec(*range(30), setting={str(i): f"page {i}" for i in range(30)}).num_outputs == 30
    assert spec(["b"], ["a"], setting=["b", "a"]).encode(["a"]) == (1,)
    # The data's own spelling wins over a name that looks the same.
    assert spec(0, 1, setting={"0": "1", "1": "0"}).encode("0") == 0


def test_names_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r'reviews.jsonl:2: "label" is "2"; expected one of 0, 1'):
        spec(0, 2, setting={"0": "Negative", "1": "Positive"})
    with pytest.raises(RecipeError, match=r'data.labels has "no" twice'):
        spec(0, 1, setting={"0": "no", "1": "no"})
    with pytest.raises(RecipeError, match=r"expected auto, number"):
        spec(0, 1, setting="numbers")


def test_unknown_label_names_the_nearest() -> None:
    two = spec("negative", "positive")
    with pytest.raises(DataError) as error:
        two.encode("postive", "data/train.jsonl:17")
    assert str(error.value) == (
        'data/train.jsonl:17: "label" is "postive"; expected one of negative, positive. Did you mean "positive"?'
    )
    assert error.value.field == "label"
    with pytest.raises(DataError, match=r"is a list; expected one label"):
        two.encode(["positive"])
    with pytest.raises(DataError, match=r'"label" is "a"; expected a list of labels'):
        spec(["a"]).encode("a")
    with pytest.raises(DataError, match=r'"label" is "high"; expected a number'):
        spec(0.5).encode("high")
    with pytest.raises(DataError, match=r'"label" is "1e\+300"; expected a number between'):
        spec(0.5).encode(1e300)
    assert spec(0.5).encode("3") == 3.0


@pytest.mark.parametrize("value", [None, "", "  ", float("nan"), np.float64("nan"), ["a", None]])
def test_empty_labels_are_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r'reviews.jsonl:1: "label" is empty; expected a label'):
        seen(value)


@pytest.mark.parametrize(
    "value", [{"a": 1}, [["a"]], float("inf"), 10**5000, "x" * 2000, b"a"], ids=lambda v: type(v).__name__
)
def test_what_is_no_label(value: Any) -> None:
    with pytest.raises(DataError, match=r'reviews.jsonl:1: "label" is .*expected a label: a short text'):
        seen(value)


def test_too_many_classes_is_another_column() -> None:
    with pytest.raises(DataError, match=r":10001: .*more than 10,000 different values"):
        seen(*(f"text {i}" for i in range(MAX_CLASSES + 5)))
    numbers = seen(*range(MAX_CLASSES + 5))
    assert numbers.overflowed
    assert infer_labels(numbers).kind == "number"
    with pytest.raises(DataError, match="more than 10,000 different values"):
        numbers.add("a word", "reviews.jsonl:1")


def test_words_and_counts() -> None:
    observed = seen("good", "bad", "good")
    assert label_words(observed, infer_labels(observed)) == "2 classes: bad 1, good 2"
    assert label_counts(observed, infer_labels(observed, ["good", "bad", "odd"])) == {"good": 2, "bad": 1, "odd": 0}
    observed = seen(*range(30))
    assert (
        label_words(observed, infer_labels(observed))
        == "numbers from 0 to 29 (30 different whole numbers; 20 or fewer would be classes)"
    )
    observed = seen(["a", "b"], ["a"])
    assert label_words(observed, infer_labels(observed)) == "2 labels, any number of them per text: a 2, b 1"


def config(id2label: dict[Any, str], problem_type: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(id2label=id2label, problem_type=problem_type)


def test_from_a_saved_model() -> None:
    names = {1: "Positive", 0: "Negative"}
    assert LabelSpec.from_config(config(names)) == LabelSpec(
        "single", ("Negative", "Positive"), ("Negative", "Positive")
    )
    assert LabelSpec.from_config(config({"0": "a", "1": "b"}, "multi_label_classification")).kind == "multi"
    assert LabelSpec.from_config(config({0: "LABEL_0"})) == LabelSpec("number")
    assert LabelSpec.from_config(config({0: "LABEL_0", 1: "LABEL_1"})).encode(1) == 1
    named = spec(0, 1, setting=["Negative", "Positive"])
    saved = SimpleNamespace(id2label=named.id2label, problem_type=named.problem_type, label_values=list(named.raw))
    assert LabelSpec.from_config(saved) == named
    number = spec(0.5)
    assert LabelSpec.from_config(config(number.id2label, number.problem_type)) == number
