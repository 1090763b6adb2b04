"""What `auto` becomes: given values stay, every decision has a reason, and nothing is left undecided."""

from __future__ import annotations

import numpy as np
import pytest

from tunewright.defaults import Facts, resolve
from tunewright.errors import RecipeError
from tunewright.recipe_files import build_recipe


def facts(**changes):
    return Facts(**{
        "num_examples": 1000, "token_lengths": np.arange(1, 101), "context_length": 512, "num_parameters": 22_000_000,
        "kind": "single", "default_metric": "accuracy", **changes,
    })  # fmt: skip


def decided(*overrides, **changes):
    return resolve(build_recipe({"data": {"train": "a"}}, overrides), facts(**changes))


@pytest.mark.parametrize("method", ["full", "head", "lora"])
@pytest.mark.parametrize("n", [1, 300, 301, 10_001, 60_000, 10**6])
def test_nothing_that_the_loop_needs_is_left_open(method, n):
    recipe, origins = decided(f"trainable.method={method}", num_examples=n)
    t = recipe.training
    assert isinstance(recipe.data.max_length, int) and isinstance(t.batch_size, int)
    rank, alpha = recipe.trainable.rank, recipe.trainable.alpha
    assert (rank, alpha) == ((8, 16.0) if method == "lora" else ("auto", "auto"))  # without adapters there is no rank
    assert isinstance(t.epochs, float) and isinstance(t.learning_rate, float) and recipe.evaluation.metric == "accuracy"
    assert t.base_dropout == ("auto" if method == "full" else 0.0)
    for path in ("data.max_length", "training.batch_size", "training.learning_rate", "evaluation.metric"):
        assert origins[path].startswith("auto: ") and len(origins[path]) > 10


@pytest.mark.parametrize("n, epochs, batch", [(300, 10, 8), (301, 6, 8), (801, 3, 8), (10_001, 3, 16),
                                              (20_001, 2, 16), (50_001, 2, 32), (100_001, 1, 32)])  # fmt: skip
def test_more_rows_fewer_passes(n, epochs, batch):
    recipe, _ = decided(num_examples=n)
    assert (recipe.training.epochs, recipe.training.batch_size) == (epochs, batch)


@pytest.mark.parametrize(
    "lengths, context, expected",
    [([10] * 100, 512, 16), ([1], 512, 8), ([1000] * 50, 512, 256), ([1000] * 50, 128, 128),
     ([30] * 95 + [900] * 5, 512, 80), ([], 512, 256)],
)  # fmt: skip
def test_length_covers_95_of_100_texts(lengths, context, expected):
    recipe, _ = decided(token_lengths=np.array(lengths), context_length=context)
    value = recipe.data.max_length
    if expected == 80:  # interpolated between 30 and 900, never more than the cap
        assert 30 <= value <= 256
    else:
        assert value == expected


def test_given_values_stay_and_say_so():
    recipe, origins = decided(
        "training.learning_rate=0.1", "training.epochs=7", "trainable.rank=3", "data.max_length=9", "training.seed=1"
    )
    assert (recipe.training.learning_rate, recipe.training.epochs, recipe.data.max_length) == (0.1, 7.0, 9)
    assert recipe.trainable.alpha == 6.0 and origins["trainable.alpha"] == "auto: 2 x rank"
    for path in ("training.learning_rate", "training.epochs", "trainable.rank", "data.max_length", "training.seed"):
        assert origins[path] == "given"
    assert origins["training.schedule"] == "default" and origins["model"] == "default"


def test_steps_take_the_place_of_epochs():
    recipe, _ = decided("training.max_steps=5")
    assert (recipe.training.epochs, recipe.training.max_steps) == ("auto", 5)


def test_learning_rate_falls_with_what_is_trained_and_with_size():
    def rate(method, size):
        return decided(f"trainable.method={method}", num_parameters=size)[0].training.learning_rate

    for size in (10**7, 10**9):
        assert rate("head", size) > rate("lora", size) > rate("full", size)
    assert rate("lora", 10**7) > rate("lora", 10**9) and rate("full", 10**7) > rate("full", 10**9)


@pytest.mark.parametrize("override, changes, field", [
    ("data.max_length=600", {}, "data.max_length"),
    ("training.class_weights=balanced", {"kind": "multi", "default_metric": "micro_f1"}, "training.class_weights"),
    ("training.label_smoothing=0.1", {"kind": "number", "default_metric": "rmse"}, "training.label_smoothing"),
    ("evaluation.metric=rmse", {}, "evaluation.metric"),
    ("evaluation.metric=micro_f1", {}, "evaluation.metric"),
    ("evaluation.metric=accuracy", {"kind": "number", "default_metric": "rmse"}, "evaluation.metric"),
    ("evaluation.metric=ece", {"kind": "multi", "default_metric": "micro_f1"}, "evaluation.metric"),
])  # fmt: skip
def test_what_does_not_fit_the_labels_is_refused_by_name(override, changes, field):
    with pytest.raises(RecipeError, match=f'"{field}"') as caught:
        decided(override, **changes)
    assert caught.value.field == field


@pytest.mark.parametrize("kind, metric", [("single", "mcc"), ("single", "loss"), ("multi", "macro_f1"),
                                          ("multi", "roc_auc"), ("number", "pearson"), ("number", "loss")])  # fmt: skip
def test_metrics_that_fit_are_taken(kind, metric):
    assert decided(f"evaluation.metric={metric}", kind=kind)[0].evaluation.metric == metric


def test_resolving_again_changes_nothing():
    recipe, _ = decided()
    assert resolve(recipe, facts())[0] == recipe
