"""The recipe's classes: defaults that need nothing but data, what makes no sense refused, nothing changed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tunewright.recipe import Recipe, steps_per_epoch


def recipe(**parts):
    return Recipe.model_validate({"data": {"train": "a.jsonl"}, **parts})


def test_data_is_all_that_is_needed():
    made = recipe()
    assert (made.task, made.model, made.trainable.method, made.training.seed) == ("classify", "minilm", "lora", 42)
    with pytest.raises(ValidationError):
        Recipe.model_validate({})


def test_it_cannot_be_changed_by_accident():
    with pytest.raises(ValidationError, match="frozen"):
        recipe().training.seed = 1  # pyright: ignore


@pytest.mark.parametrize("layers, last", [("all", None), ("last 1", 1), ("last 12", 12)])
def test_layers(layers, last):
    assert recipe(trainable={"layers": layers}).trainable.last_layers == last


@pytest.mark.parametrize(
    "parts",
    [
        {"trainable": {"layers": layers}}
        for layers in ("last", "last 0", "last -1", "last two", "first 2", "last 1 2", "", "last 1.5")
    ]
    + [{"training": {"epochs": 2, "max_steps": 5}}]
    + [{"training": {name: value}} for name, value in (
        ("epochs", 0), ("epochs", float("nan")), ("epochs", float("inf")), ("batch_size", 0), ("batch_size", 1.5),
        ("learning_rate", -1), ("warmup_fraction", 1.0), ("seed", -1), ("seed", 2**32), ("keep_checkpoints", 1),
        ("max_grad_norm", -1), ("weight_decay", float("nan")), ("label_smoothing", 1), ("precision", "fp16"),
        ("class_weights", {"a": 0}), ("early_stopping", 0),
    )]
    + [{"data": {"train": "a", name: value}} for name, value in (
        ("validation", 0.0), ("validation", 1.0), ("max_length", 0), ("truncate", "middle"), ("duplicates", "merge"),
    )]
    + [{"name": name} for name in ("../up", "a b", "", "-x", "a" * 97, ".hidden", "a/b", "a\n")]
    + [{"evaluation": {"metric": "f2"}}, {"evaluation": {"bootstrap_samples": 1}}, {"task": "translate"}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(parts):
    with pytest.raises(ValidationError):
        recipe(**parts)


def test_names_of_labels_become_text():
    assert recipe(data={"train": "a", "labels": {0: "No", 1: "Yes"}}).data.labels == {"0": "No", "1": "Yes"}
    assert recipe(training={"class_weights": {0: 1, 1: 3}}).training.class_weights == {"0": 1.0, "1": 3.0}
    assert recipe(data={"train": "a", "labels": ["No", "Yes"]}).data.labels == ["No", "Yes"]
    assert recipe(data={"train": "a", "labels": "number"}).data.labels == "number"


def test_epochs_and_steps_one_of_them():
    assert recipe(training={"max_steps": 5}).training.epochs == "auto"
    assert recipe(training={"epochs": 0.5}).training.max_steps is None


@pytest.mark.parametrize("n, batch, steps", [(16, 8, 2), (17, 8, 3), (1, 8, 1), (8, 8, 1)])
def test_steps_per_epoch(n, batch, steps):
    assert steps_per_epoch(n, batch) == steps
