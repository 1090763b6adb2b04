"""The recipe: every setting of a run, declared once, with its default and its one-sentence help.

Reads nothing and decides nothing: `recipe_files` reads YAML and overrides, `defaults` turns `auto` into a value with
a reason. The JSON Schema, the reference page and the command's help come from these classes.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tunewright.recipe_align import BY_REWARD, AlignRecipe, RewardRecipe
from tunewright.recipe_part import Auto, Clash, Fraction, Part, PositiveFloat, PositiveInt

IN_MEMORY = "(in memory)"  # stands in a recipe for a Python object

Metric = Literal[
    "auto",
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "micro_f1",
    "mcc",
    "roc_auc",
    "loss",
    "ece",
    "rmse",
    "mae",
    "pearson",
    "spearman",
    "perplexity",
    "token_accuracy",
    "exact_match",
    "f1",
    "rouge_1",
    "rouge_2",
    "rouge_l",
    "bleu",
    "chrf",
    "margin",
    "score",
    "reward",
]


class DataRecipe(Part):
    """What to learn from."""

    train: str
    """File (JSONL, JSON, CSV, TSV, Parquet; also .gz; .txt), folder with train/validation/test files, or Hub id."""
    validation: str | Annotated[float, Field(gt=0, lt=1)] | Auto = "auto"
    """File to evaluate on, or the fraction of train to hold out; auto: the folder's own file, else 0.1."""
    revision: str | None = None
    """Revision of a Hub dataset; the exact commit is recorded either way."""
    text: str = "auto"
    """Column that holds the text (classify, continue); auto guesses and says so."""
    label: str = "auto"
    """Column that holds the label (classify); auto guesses and says so."""
    labels: dict[str, str] | list[str] | Literal["auto", "number"] = "auto"
    """Names for label values ({0: Negative, 1: Positive}), an order of names, or `number` for regression."""
    template: str | None = None
    """Text with {columns} that makes a prompt and its completion, a file with one, or a built-in's name (generate)."""
    completion: str | None = None
    """Column that holds what must be written; default: the template's last, or what the format says (generate)."""
    references: str | None = None
    """Column that holds the accepted answers, where there are several (generate); default: the completion."""
    learn: Literal["completion", "all", "assistant"] | Auto = "auto"
    """What is learnt: the completion, everything, or each answer of the assistant; auto: what the format is for."""
    empty: Literal["refuse", "drop"] = "refuse"
    """Rows without a completion (generate): refuse names the first one, drop leaves them out and counts them."""
    margin: str | None = None
    """Column that holds by how much the chosen completion is better (reward)."""
    mask: Literal["tokens", "words"] = "tokens"
    """What is hidden when an encoder learns from plain text: single tokens, or whole words (continue)."""
    max_length: PositiveInt | Auto = "auto"
    """Tokens kept of each text; auto: what 95 of 100 texts need, at most 256 (of 100 prompts with completion 99, at
    most 1,024), or what the model can read."""
    truncate: Literal["left", "right"] = "left"
    """Side that is cut when a text is too long; left keeps the end. Of prompt and completion, the prompt is cut."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Whether equal texts stay in train; either way equal texts never fall on both sides of a split."""

    @field_validator("labels", mode="before")
    @classmethod
    def _names_as_text(cls, value: object) -> object:
        return {str(k): v for k, v in value.items()} if isinstance(value, dict) else value


class TrainableRecipe(Part):
    """Which parameters learn."""

    method: Literal["full", "head", "lora"] = "lora"
    """full: every parameter; head: a new head on the frozen model; lora: low-rank adapters and the head."""
    rank: Annotated[int, Field(gt=0, le=4096)] | Auto = "auto"
    """Rank r of the adapters (lora)."""
    alpha: PositiveFloat | Auto = "auto"
    """Adapter scale: the update is multiplied by alpha / rank (lora); auto: 2 x rank."""
    dropout: Fraction = 0.0
    """Dropout on the adapters' input (lora)."""
    targets: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get an adapter, or all of them (lora)."""
    layers: str = "all"
    """`all`, or `last N`: train only the last N layers; what lies below is computed once and cached."""

    @field_validator("layers")
    @classmethod
    def _all_or_last(cls, value: str) -> str:
        words = value.split()
        if value != "all" and not (len(words) == 2 and words[0] == "last" and words[1].isdigit() and int(words[1])):
            raise ValueError('expected "all" or "last N" with N at least 1')
        return value

    @model_validator(mode="after")
    def _adapters_only_for_lora(self) -> TrainableRecipe:
        given = {"rank": "auto", "alpha": "auto", "dropout": 0.0, "targets": "all-linear"}
        for name, untouched in given.items() if self.method != "lora" else ():
            if getattr(self, name) != untouched:
                says = f'"trainable.{name}" is for method lora, and the method is {self.method}; leave it out'
                raise Clash(says, f"trainable.{name}")
        return self

    @property
    def last_layers(self) -> int | None:
        """N of `last N`, or None for all layers."""
        return None if self.layers == "all" else int(self.layers.split()[1])


class TrainingRecipe(Part):
    """How they learn."""

    epochs: Annotated[float, Field(gt=0, lt=1e6)] | Auto = "auto"
    """Times the training data is seen; give epochs or max_steps."""
    max_steps: PositiveInt | None = None
    """Optimizer steps, instead of epochs; iterations where the task is align."""
    batch_size: PositiveInt | Auto = "auto"
    """Examples per optimizer step, over all ranks; completions per iteration where they are sampled (align)."""
    micro_batch_tokens: PositiveInt | Auto = "auto"
    """Most tokens computed at once; a step's examples are split to fit, its gradient stays the same."""
    learning_rate: PositiveFloat | Auto = "auto"
    """Peak learning rate, after warm-up."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after warm-up."""
    warmup_fraction: Fraction = 0.06
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay, without norms and biases."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradient norm above which the gradient is scaled down; 0: never."""
    class_weights: Literal["balanced"] | dict[str, PositiveFloat] | None = None
    """Weight of each class in the loss; balanced: inverse to its frequency."""
    label_smoothing: Fraction = 0.0
    """Probability mass taken from the true class and spread over all (single-label)."""
    centring: Annotated[float, Field(ge=0)] = 0.0
    """Weight of (score of chosen + score of rejected)² in the loss, which keeps scores near 0 (reward)."""
    base_dropout: Fraction | Auto = "auto"
    """Dropout inside the base model; auto: the model's own for full, none where the base is frozen."""
    early_stopping: PositiveInt | None = None
    """Stop after this many evaluations without a better metric."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the computation; auto measures which is fastest here."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    threads: Annotated[int, Field(gt=0, lt=10_000)] | Auto = "auto"
    """CPU threads; auto: one per core."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of splits, order, new parameters and dropout."""
    checkpoint_every: PositiveInt | Literal["evaluation"] = "evaluation"
    """Steps between checkpoints, or one per evaluation."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    """Newest checkpoints kept, beside the best."""

    @field_validator("class_weights", mode="before")
    @classmethod
    def _names_as_text(cls, value: object) -> object:
        return {str(k): v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_length(self) -> TrainingRecipe:
        if self.max_steps is not None and self.epochs != "auto":
            says = "training.epochs and training.max_steps both say how long; give one of them, not both"
            raise Clash(says, "training.max_steps")
        return self


class EvaluationRecipe(Part):
    """How it is judged."""

    every: PositiveInt | Literal["epoch"] = "epoch"
    """Steps between evaluations, or one per epoch; iterations where the task is align."""
    keep: Literal["best", "last"] = "best"
    """Which checkpoint becomes the final model."""
    metric: Metric = "auto"
    """Metric that decides which is best; auto: accuracy, micro_f1 (several labels), rmse (numbers), loss (text) or
    reward (align)."""
    before: bool = True
    """Score the untrained model first (epoch 0)."""
    prompts: list[str] = []  # noqa: RUF012 - pydantic copies it
    """Texts shown before and after; where the model writes, the first validation rows if none are given."""
    generate_rows: Annotated[int, Field(ge=0, lt=2**31)] | Auto = "auto"
    """Validation rows answered in text at each evaluation (generate, align); auto: 32, less where answers are long."""
    max_new_tokens: PositiveInt | Auto = "auto"
    """Tokens an answer may have (generate, continue, align); auto: what the longest completions need, at most 256."""
    retain: str = "auto"
    """Text not to be forgotten: `general` (packaged), a file, or `none`; auto: general where the model writes."""
    judge: RewardRecipe | None = None
    """A reward that training never sees, to judge by (align)."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Resamples behind each 95 % interval."""


ONLY_FOR = {
    "data.text": ("classify", "continue"),
    "data.label": ("classify",),
    "data.labels": ("classify",),
    "data.template": ("generate", "reward", "align"),
    "data.completion": ("generate",),
    "data.empty": ("generate",),
    "data.margin": ("reward",),
    "data.references": ("generate",),
    "data.learn": ("generate",),
    "data.mask": ("continue",),
    "training.class_weights": ("classify",),
    "training.label_smoothing": ("classify",),
    "training.centring": ("reward",),
    "evaluation.generate_rows": ("generate", "align"),
    "evaluation.max_new_tokens": ("generate", "continue", "align"),
    "evaluation.judge": ("align",),
    "align": ("align",),
    "reward": ("align",),
}


class Recipe(Part):
    """Everything a run depends on."""

    task: Literal["classify", "generate", "continue", "reward", "align"] = "classify"
    """What the model learns to do; classify: a label, several labels, or a number for each text; generate: write a
    completion for a prompt; continue: plain text, by its next or its masked words; reward: score completions as people
    ranked them; align: write what scores high, or what people preferred."""
    model: str = "minilm"
    """Base model: `minilm` or `gemma3-270m` (packaged), a folder, a .gguf file, a Hub id, or run:NAME."""
    revision: str | None = None
    """Revision of a Hub model; the exact commit is recorded either way."""
    name: str | None = None
    """Name of the run; default: the data file's name."""
    data: DataRecipe
    trainable: TrainableRecipe = TrainableRecipe()
    training: TrainingRecipe = TrainingRecipe()
    align: AlignRecipe = AlignRecipe()
    reward: list[RewardRecipe] = []  # noqa: RUF012 - pydantic copies it
    """Where the score of a completion comes from (align with ppo or grpo): one source, or several with weights."""
    evaluation: EvaluationRecipe = EvaluationRecipe()

    @field_validator("reward", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return [value] if isinstance(value, (dict, RewardRecipe)) else value

    @model_validator(mode="after")
    def _reward_where_it_is_learnt_from(self) -> Recipe:
        if self.task == "align" and self.align.method in BY_REWARD and not self.reward:
            says = f"align.method {self.align.method} needs a reward: a model, a classifier with a label, or rules"
            raise Clash(says, "reward")
        if self.align.method == "dpo" and self.reward:
            raise Clash("align.method dpo learns from comparisons and takes no reward; leave it out", "reward")
        return self

    @property
    def samples_completions(self) -> bool:
        """Whether training writes completions itself, iteration by iteration."""
        return self.task == "align" and self.align.method in BY_REWARD

    @property
    def updates_per_iteration(self) -> int:
        """Optimizer steps per batch: 1, but where the completions of an iteration are learnt from several times."""
        return self.align.updates_per_iteration if self.samples_completions else 1

    @property
    def rows_per_iteration(self) -> int:
        """Rows of the training data in a batch; with grpo several completions are written for each."""
        assert isinstance(self.training.batch_size, int)
        grouped = self.samples_completions and self.align.method == "grpo"
        return max(1, self.training.batch_size // self.align.group_size) if grouped else self.training.batch_size

    @model_validator(mode="after")
    def _settings_of_this_task(self) -> Recipe:
        """A setting of another task would do nothing, which is worse than an error."""
        for path, tasks in ONLY_FOR.items():
            part, _, name = path.rpartition(".")
            section = getattr(self, part) if part else self
            if self.task not in tasks and getattr(section, name) != type(section).model_fields[name].default:
                says = f'"{path}" is for task {" or ".join(tasks)}, and the task is {self.task}; leave it out'
                raise Clash(says, path)
        return self

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", value):
            raise ValueError("expected letters, digits, '.', '_' or '-', at most 96, starting with a letter or digit")
        return value


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Optimizer steps that show every example once."""
    return math.ceil(num_examples / batch_size)
