"""What `auto` becomes, and why: one small rule per setting, each with its reason.

`recipe` declares, this file decides, `plan` and recipe.resolved.yaml show both. The rules for small encoders come
from benchmarks/RESULTS.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunewright.errors import RecipeError
from tunewright.recipe import Recipe

METRICS = {  # those that mean something for each kind of label
    "single": ("accuracy", "macro_f1", "weighted_f1", "mcc", "roc_auc", "loss", "ece"),
    "multi": ("micro_f1", "macro_f1", "accuracy", "roc_auc", "loss"),
    "number": ("rmse", "mae", "pearson", "spearman", "loss"),
}
LONGEST = 256  # tokens: beyond this a small encoder gains little and pays much


@dataclass(frozen=True)
class Facts:
    """What the decisions look at."""

    num_examples: int  # training rows
    token_lengths: np.ndarray  # of a sample of texts, before truncation
    context_length: int  # most tokens the model can read
    num_parameters: int
    kind: str  # single, multi, number
    default_metric: str


@dataclass
class Decisions:
    """A recipe without `auto`, and the origin of each value that was decided."""

    values: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)

    def settle(self, path: str, value: Any, reason: str) -> None:
        """Replace `auto` at this path; a given value stays."""
        part, _, name = path.partition(".")
        if self.values[part][name] == "auto":
            self.values[part][name] = value
            self.origins[path] = f"auto: {reason}"


def resolve(recipe: Recipe, facts: Facts, given: Mapping[str, Any] | None = None) -> tuple[Recipe, dict[str, str]]:
    """The recipe with every `auto` decided, and the origin of each value. Raises RecipeError."""
    decisions = Decisions(recipe.model_dump())
    _length(decisions, facts)
    _trainable(decisions)
    _training(decisions, facts)
    decisions.settle("evaluation.metric", facts.default_metric, f"labels are {facts.kind}")
    resolved = Recipe.model_validate(decisions.values)
    _check(resolved, facts)
    return resolved, _given(recipe) | decisions.origins


def _length(decisions: Decisions, facts: Facts) -> None:
    wanted = int(np.percentile(facts.token_lengths, 95)) if len(facts.token_lengths) else LONGEST
    value = min(max(8, -(-wanted // 8) * 8), LONGEST, facts.context_length)
    decisions.settle("data.max_length", value, f"95 of 100 texts need at most {wanted} tokens, capped at {LONGEST}")


def _trainable(decisions: Decisions) -> None:
    if decisions.values["trainable"]["method"] != "lora":
        return  # there are no adapters; `auto` stays
    decisions.settle("trainable.rank", 8, "enough for a small task; more costs little")
    decisions.settle("trainable.alpha", 2.0 * decisions.values["trainable"]["rank"], "2 x rank")


def _training(decisions: Decisions, facts: Facts) -> None:
    n, method = facts.num_examples, decisions.values["trainable"]["method"]
    decisions.settle("training.batch_size", 8 if n <= 10_000 else 16 if n <= 50_000 else 32, f"{n:,} training rows")
    if decisions.values["training"]["max_steps"] is None:
        decisions.settle("training.epochs", _epochs(n), f"{n:,} training rows")
    decisions.settle("training.learning_rate", *_learning_rate(method, facts.num_parameters))
    if method == "full":
        decisions.origins["training.base_dropout"] = "auto: the model's own, every layer is trained"
    else:
        decisions.settle("training.base_dropout", 0.0, "the base is frozen")


def _epochs(num_examples: int) -> float:
    """Fewer rows, more passes; about 3,000 to 30,000 rows seen in all."""
    for rows, epochs in ((300, 10), (800, 6), (20_000, 3), (100_000, 2)):
        if num_examples <= rows:
            return float(epochs)
    return 1.0


def _learning_rate(method: str, num_parameters: int) -> tuple[float, str]:
    large = num_parameters > 500_000_000
    if method == "head":
        return 1e-3, "a new head on a frozen model"
    if method == "lora":
        return (2e-4, "LoRA on a large model") if large else (5e-4, "LoRA on a small encoder")
    return (1e-5, "every parameter of a large model") if large else (5e-5, "every parameter of a small model")


def _check(recipe: Recipe, facts: Facts) -> None:
    """What only shows once everything is known."""
    assert isinstance(recipe.data.max_length, int)
    if recipe.data.max_length > facts.context_length:
        raise RecipeError(
            f'"data.max_length" is {recipe.data.max_length}; the model reads at most {facts.context_length} tokens',
            field="data.max_length",
        )
    if recipe.evaluation.metric not in METRICS[facts.kind]:
        raise RecipeError(
            f'"evaluation.metric" is {recipe.evaluation.metric}; these labels are {facts.kind}, expected one of '
            f"{', '.join(METRICS[facts.kind])}",
            field="evaluation.metric",
        )
    if recipe.training.class_weights is not None and facts.kind != "single":
        raise RecipeError(
            f'"training.class_weights" needs one label per text; these labels are {facts.kind}',
            field="training.class_weights",
        )
    if recipe.training.label_smoothing and facts.kind != "single":
        raise RecipeError(
            f'"training.label_smoothing" needs one label per text; these labels are {facts.kind}',
            field="training.label_smoothing",
        )


def _given(recipe: Recipe) -> dict[str, str]:
    """`given` for what the person wrote, `default` for the rest."""
    origins: dict[str, str] = {}
    for name, value in recipe:
        if hasattr(value, "model_fields_set"):
            for inner in type(value).model_fields:
                origins[f"{name}.{inner}"] = "given" if inner in value.model_fields_set else "default"
        else:
            origins[name] = "given" if name in recipe.model_fields_set else "default"
    return origins
