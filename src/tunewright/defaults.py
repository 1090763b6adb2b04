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
    "text": ("loss", "perplexity", "token_accuracy"),
}
WRITTEN_METRICS = ("exact_match", "f1", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf")  # of generated text
LONGEST = {"text": 1024}  # tokens of a prompt with its completion
LONGEST_TEXT = 256  # beyond this a small encoder gains little and pays much
SHARE_KEPT_WHOLE = {"text": 99}  # percent of the rows
MOST_NEW_TOKENS = 256
ROWS_ANSWERED, SHORT_ANSWER = 32, 64


@dataclass(frozen=True)
class Facts:
    """What the decisions look at."""

    num_examples: int  # training rows
    token_lengths: np.ndarray  # of a sample of texts, before truncation
    context_length: int  # most tokens the model can read
    num_parameters: int
    kind: str  # single, multi, number, text
    default_metric: str
    completion_lengths: np.ndarray | None = None  # of a sample of completions, where the task is to generate
    learn: str = "auto"  # what the format of the rows is for


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
    _evaluation(decisions, facts)
    resolved = Recipe.model_validate(decisions.values)
    _check(resolved, facts)
    return resolved, _given(recipe) | decisions.origins


def _length(decisions: Decisions, facts: Facts) -> None:
    share, longest = SHARE_KEPT_WHOLE.get(facts.kind, 95), LONGEST.get(facts.kind, LONGEST_TEXT)
    wanted = int(np.percentile(facts.token_lengths, share)) if len(facts.token_lengths) else longest
    value = min(max(8, -(-wanted // 8) * 8), longest, facts.context_length)
    texts = "rows" if facts.kind == "text" else "texts"
    reason = f"{share} of 100 {texts} need at most {wanted} tokens, capped at {longest}"
    decisions.settle("data.max_length", value, reason)


def _evaluation(decisions: Decisions, facts: Facts) -> None:
    if facts.kind != "text":
        decisions.settle("evaluation.metric", facts.default_metric, f"labels are {facts.kind}")
        decisions.settle("evaluation.retain", "none", "a classifier writes nothing; say general to measure drift")
        return
    decisions.settle("evaluation.metric", facts.default_metric, "the same for every text")
    decisions.settle("evaluation.retain", "general", "a model that writes can forget how")
    lengths = facts.completion_lengths
    if lengths is None:
        decisions.settle("evaluation.max_new_tokens", SHORT_ANSWER, "enough to see the style")
        return
    decisions.settle("data.learn", facts.learn, "what rows of this format are for")
    longest = int(np.percentile(lengths, 99)) if len(lengths) else SHORT_ANSWER
    value = min(MOST_NEW_TOKENS, -(-(longest + 1) // 8) * 8)
    decisions.settle("evaluation.max_new_tokens", value, f"99 of 100 completions have at most {longest} tokens")
    tokens = decisions.values["evaluation"]["max_new_tokens"]
    rows = max(8, ROWS_ANSWERED * SHORT_ANSWER // max(SHORT_ANSWER, tokens))
    decisions.settle("evaluation.generate_rows", rows, f"answers of up to {tokens} tokens")


def _trainable(decisions: Decisions) -> None:
    if decisions.values["trainable"]["method"] != "lora":
        return  # there are no adapters; `auto` stays
    decisions.settle("trainable.rank", 8, "enough for a small task; more costs little")
    decisions.settle("trainable.alpha", 2.0 * decisions.values["trainable"]["rank"], "2 x rank")


def _training(decisions: Decisions, facts: Facts) -> None:
    n, method = facts.num_examples, decisions.values["trainable"]["method"]
    decisions.settle("training.batch_size", 8 if n <= 10_000 else 16 if n <= 50_000 else 32, f"{n:,} training rows")
    if decisions.values["training"]["max_steps"] is None:
        decisions.settle("training.epochs", _epochs(n, facts.kind == "text"), f"{n:,} training rows")
    rate = _learning_rate(method, facts.num_parameters, facts.kind == "text")
    decisions.settle("training.learning_rate", *rate)
    if method == "full":
        decisions.origins["training.base_dropout"] = "auto: the model's own, every layer is trained"
    else:
        decisions.settle("training.base_dropout", 0.0, "the base is frozen")


def _epochs(num_examples: int, writes: bool) -> float:
    """Fewer rows, more passes; about 3,000 to 30,000 rows seen in all, and fewer where every token teaches."""
    passes = ((300, 10), (800, 6), (20_000, 3), (100_000, 2))
    for rows, epochs in ((300, 5), (3_000, 3), (20_000, 2)) if writes else passes:
        if num_examples <= rows:
            return float(epochs)
    return 1.0


def _learning_rate(method: str, num_parameters: int, writes: bool) -> tuple[float, str]:
    large = num_parameters > 500_000_000
    if method == "head":
        return (2e-4, "the head of a language model") if writes else (1e-3, "a new head on a frozen model")
    if method == "lora":
        small = "LoRA on a small model" if writes else "LoRA on a small encoder"
        return (2e-4, "LoRA on a large model") if large else (5e-4, small)
    return (1e-5, "every parameter of a large model") if large else (5e-5, "every parameter of a small model")


def _check(recipe: Recipe, facts: Facts) -> None:
    """What only shows once everything is known."""
    assert isinstance(recipe.data.max_length, int)
    if recipe.data.max_length > facts.context_length:
        raise RecipeError(
            f'"data.max_length" is {recipe.data.max_length}; the model reads at most {facts.context_length} tokens',
            field="data.max_length",
        )
    _check_metric(recipe, facts)
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


def _check_metric(recipe: Recipe, facts: Facts) -> None:
    metric, allowed = recipe.evaluation.metric, METRICS[facts.kind]
    if facts.completion_lengths is not None:
        allowed += WRITTEN_METRICS
    if metric not in allowed:
        what = f"these labels are {facts.kind}" if facts.kind != "text" else f"the task is {recipe.task}"
        found = f'"evaluation.metric" is {metric}; {what}, expected one of {", ".join(allowed)}'
        raise RecipeError(found, field="evaluation.metric")
    if metric in WRITTEN_METRICS and recipe.evaluation.generate_rows == 0:
        found = f'"evaluation.metric" is {metric}, which needs written answers, and evaluation.generate_rows is 0'
        raise RecipeError(f"{found}; expected some rows, or the metric loss.", field="evaluation.generate_rows")


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
