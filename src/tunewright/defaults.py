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
    "preference": ("accuracy", "loss", "margin"),  # of comparisons: reward models, and DPO
    "align": ("reward", "score"),  # not the judge, whose word would no longer be independent
}
WRITTEN_METRICS = ("exact_match", "f1", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf")  # of generated text
LONGEST = {"text": 1024, "preference": 1024, "align": 1024}  # tokens of a prompt with its completion
LONGEST_TEXT = 256  # beyond this a small encoder gains little and pays much
SHARE_KEPT_WHOLE = {"text": 99, "preference": 99, "align": 99}  # percent of the rows
MOST_NEW_TOKENS = 256
ROWS_ANSWERED, SHORT_ANSWER = 32, 64


@dataclass(frozen=True)
class Facts:
    """What the decisions look at."""

    num_examples: int  # training rows
    token_lengths: np.ndarray  # of a sample of texts, before truncation
    context_length: int  # most tokens the model can read
    num_parameters: int
    kind: str  # single, multi, number, text, preference, align
    default_metric: str
    completion_lengths: np.ndarray | None = None  # of a sample of completions, where the model writes them
    learn: str = "auto"  # what the format of the rows is for
    answer_limit: int | None = None  # tokens of an answer as the base was tuned, where it was


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
    writes = facts.kind in ("text", "align") or facts.completion_lengths is not None
    if not writes:
        decisions.settle("evaluation.metric", facts.default_metric, f"labels are {facts.kind}")
        decisions.settle("evaluation.retain", "none", "it writes nothing; say general to measure drift")
        return
    decisions.settle("evaluation.metric", facts.default_metric, "the same for every text")
    decisions.settle("evaluation.retain", "general", "a model that writes can forget how")
    if facts.kind == "text" and facts.completion_lengths is None:
        decisions.settle("evaluation.max_new_tokens", SHORT_ANSWER, "enough to see the style")
        return
    if facts.kind == "text":
        decisions.settle("data.learn", facts.learn, "what rows of this format are for")
    decisions.settle("evaluation.max_new_tokens", *_answer_length(facts))
    tokens = decisions.values["evaluation"]["max_new_tokens"]
    rows = max(8, ROWS_ANSWERED * SHORT_ANSWER // max(SHORT_ANSWER, tokens))
    decisions.settle("evaluation.generate_rows", rows, f"answers of up to {tokens} tokens")


def _answer_length(facts: Facts) -> tuple[int, str]:
    if facts.completion_lengths is None:
        known = facts.answer_limit
        return (known, "as the base was tuned") if known else (SHORT_ANSWER, "nobody said how long an answer is")
    longest = int(np.percentile(facts.completion_lengths, 99)) if len(facts.completion_lengths) else SHORT_ANSWER
    value = min(MOST_NEW_TOKENS, -(-(longest + 1) // 8) * 8)
    return value, f"99 of 100 completions have at most {longest} tokens"


def _trainable(decisions: Decisions) -> None:
    if decisions.values["trainable"]["method"] != "lora":
        return  # there are no adapters; `auto` stays
    decisions.settle("trainable.rank", 8, "enough for a small task; more costs little")
    decisions.settle("trainable.alpha", 2.0 * decisions.values["trainable"]["rank"], "2 x rank")


def _training(decisions: Decisions, facts: Facts) -> None:
    n, method = facts.num_examples, decisions.values["trainable"]["method"]
    if facts.kind == "align":
        decisions.settle("training.batch_size", 32, "completions per iteration")
    decisions.settle("training.batch_size", 8 if n <= 10_000 else 16 if n <= 50_000 else 32, f"{n:,} training rows")
    if decisions.values["training"]["max_steps"] is None:
        decisions.settle("training.epochs", *_epochs(n, facts.kind, decisions.values))
    decisions.settle("training.learning_rate", *_learning_rate(method, facts))
    if method == "full":
        decisions.origins["training.base_dropout"] = "auto: the model's own, every layer is trained"
    else:
        decisions.settle("training.base_dropout", 0.0, "the base is frozen")


PASSES = {  # rows up to which so many passes; beyond them 1
    "labels": ((300, 10), (800, 6), (20_000, 3), (100_000, 2)),
    "text": ((300, 5), (3_000, 3), (20_000, 2)),  # every token teaches
    "preference": ((1_000, 2),),  # a reward model overfits soon (Ouyang et al. 2022, C.2: one pass)
}
ITERATIONS = 40  # of sampling and learning, where nobody says how many


def _epochs(n: int, kind: str, values: Mapping[str, Any]) -> tuple[float, str]:
    """Fewer rows, more passes; about 3,000 to 30,000 rows seen in all."""
    if kind == "align":
        rows = Recipe.model_validate(values).rows_per_iteration
        return max(1.0, ITERATIONS * rows / n), f"about {ITERATIONS} iterations, or every prompt once"
    for rows, epochs in PASSES.get(kind, PASSES["labels"]):
        if n <= rows:
            return float(epochs), f"{n:,} training rows"
    return 1.0, f"{n:,} training rows"


RATES = {  # method -> kind of facts -> rate and reason; "large": beyond 500 million parameters
    "head": {"labels": 1e-3, "text": 2e-4, "preference": 1e-3, "align": 1e-5, "dpo": 1e-5},
    "lora": {"labels": 5e-4, "text": 5e-4, "preference": 2e-4, "align": 3e-4, "dpo": 5e-5},
    "lora, large": {"labels": 2e-4, "text": 2e-4, "preference": 5e-5, "align": 2e-5, "dpo": 1e-5},
    "full": {"labels": 5e-5, "text": 5e-5, "preference": 1e-5, "align": 2e-6, "dpo": 2e-6},
    "full, large": {"labels": 1e-5, "text": 1e-5, "preference": 5e-6, "align": 1e-6, "dpo": 1e-6},
}
RATE_WORDS = {
    "head": "a new head on a frozen model",
    "lora": "LoRA on a small model",
    "lora, large": "LoRA on a large model",
    "full": "every parameter of a small model",
    "full, large": "every parameter of a large model",
}


def _learning_rate(method: str, facts: Facts) -> tuple[float, str]:
    size = method if facts.num_parameters <= 500_000_000 or method == "head" else f"{method}, large"
    kind = facts.kind if facts.kind in RATES[size] else "labels"
    if kind == "preference" and facts.completion_lengths is not None:
        kind = "dpo"
    return RATES[size][kind], RATE_WORDS[size]


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
    if facts.kind == "text" and facts.completion_lengths is not None:
        allowed += WRITTEN_METRICS
    if metric not in allowed:
        labelled = facts.kind in ("single", "multi", "number")
        what = f"these labels are {facts.kind}" if labelled else f"the task is {recipe.task}"
        found = f'"evaluation.metric" is {metric}; {what}, expected one of {", ".join(allowed)}'
        raise RecipeError(found, field="evaluation.metric")
    if facts.kind == "align" and recipe.evaluation.generate_rows == 0:
        found = '"evaluation.generate_rows" is 0, and an aligned model is judged by what it writes for held-out prompts'
        raise RecipeError(f"{found}; expected some", field="evaluation.generate_rows")
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
