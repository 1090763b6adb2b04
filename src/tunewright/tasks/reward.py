"""Task reward: a model that scores completions as people ranked them. One of the sides of the `task` seam.

Any base gets a head with one output. It learns from comparisons (`data/comparisons`), is judged by how often it agrees
with held-out ones, and is kept with what it takes to score anybody's text later (`serving/reward_model`).
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.data.comparison_tokens import ComparisonDataset, tokenize_comparisons
from tunewright.data.comparisons import Comparisons
from tunewright.data.examples import Splits
from tunewright.data.labels import LabelSpec
from tunewright.data.preparing import HELD_OUT, Tokenized
from tunewright.data.scored_rows import ScoredRows
from tunewright.data.splitting import first_of_each, leaks, split
from tunewright.data.tokenizing import TokenizedDataset
from tunewright.data.written import PROMPT_FORMAT, Format
from tunewright.defaults import Facts
from tunewright.errors import ModelError, RecipeError
from tunewright.evaluation.preferences import HIGHER_IS_BETTER
from tunewright.learning.loop import FitState
from tunewright.learning.preference import Preference
from tunewright.models.context import context_length
from tunewright.models.heads import head_modules
from tunewright.models.loading import BaseModel, Loaded, load_base
from tunewright.models.opened import named_pads
from tunewright.recipe import Recipe
from tunewright.serving.reward_model import REWARD, Normalisation
from tunewright.tasks.reward_scoring import RewardScorer
from tunewright.tasks.task import Lesson, ScoringParts, learn_by_fitting

SAMPLED = 500  # prompts whose lengths decide


@dataclass(frozen=True)
class ComparedParts:
    """Comparisons to learn from and to judge by; DPO splits them the same way."""

    train: Comparisons
    validation: Comparisons  # the same as train where rows of it are held out
    train_rows: np.ndarray  # int64 [N], which prompts of train
    validation_rows: np.ndarray  # int64 [N], which of validation
    said: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, recipe: Recipe, splits: Splits, form: Format | None = None) -> ComparedParts:
        """Read (prompts as `form` says, if given), and hold out validation prompts; equal ones stay on one side.

        Raises DataError, RecipeError.
        """
        data, held_out = recipe.data, splits.validation
        train = Comparisons.of(splits.train, template=data.template, margin=data.margin, form=form)
        if isinstance(data.validation, float) or held_out is None:
            fraction = data.validation if isinstance(data.validation, float) else HELD_OUT
            validation, strata = train, np.zeros(len(train), np.int32)
            prompts = _groups_to_keep_together(train)
            rows, judged = split(strata, prompts, fraction, recipe.training.seed, splits.train.name)
            decided: Any = fraction
            said: tuple[str, ...] = ()
        else:
            validation = Comparisons.of(held_out, template=data.template, margin=data.margin, form=train.format)
            rows, judged = np.arange(len(train)), np.arange(len(validation))
            known = len(leaks(train.prompt_hashes, validation.prompt_hashes))
            share = f"{known:,} of {len(judged):,} validation prompts are in train too: the score flatters"
            decided, said = held_out.fingerprint(), ((share,) if known else ())
        if data.duplicates == "drop":
            rows = rows[first_of_each(train.hashes[rows])]
        fingerprint = f"{splits.train.fingerprint()}:{decided}:{train.signature}"
        return cls(train, validation, rows, judged, (*train.said, *said), fingerprint)

    @property
    def annotators(self) -> tuple[str, ...]:
        """Of the validation part, as its dataset numbers them."""
        return self.validation.annotators

    def tokenize(self, encoder: Any, cache: Path) -> Tokenized:
        """Both parts; `encoder` is a `CompletionEncoder`."""
        train = tokenize_comparisons(self.train, encoder, cache)
        validation = train if self.validation is self.train else tokenize_comparisons(self.validation, encoder, cache)
        return Tokenized(train.subset(self.train_rows), validation.subset(self.validation_rows))


def _groups_to_keep_together(comparisons: Comparisons) -> np.ndarray:
    """Equal prompts, equal number; where one prompt serves all, nothing but the completions parts them."""
    prompts = comparisons.prompt_hashes
    return prompts if len(np.unique(prompts)) > 1 else comparisons.hashes


@dataclass(frozen=True)
class RewardTask:
    """Comparisons to agree with."""

    splits: Splits
    parts: ComparedParts

    @classmethod
    def of(cls, recipe: Recipe, splits: Splits, runs: Path) -> RewardTask:
        """Read once. Raises DataError naming file, row and column, RecipeError."""
        if recipe.evaluation.prompts:
            says = "a reward model scores completions, and evaluation.prompts holds none; leave it out"
            raise RecipeError(says, field="evaluation.prompts")
        return cls(splits, ComparedParts.of(recipe, splits))

    @property
    def train_rows(self) -> np.ndarray:
        return self.parts.train_rows

    @property
    def said(self) -> tuple[str, ...]:
        return self.parts.said

    @property
    def fingerprint(self) -> str:
        return self.parts.fingerprint

    def load(self, source: BaseModel, recipe: Recipe, dropout: float | None) -> Loaded:
        """The base model under a new head with one output: a score."""
        loaded = load_base(source, LabelSpec("number"), seed=recipe.training.seed, dropout=dropout)
        if loaded.model.config.is_encoder_decoder:
            named = loaded.model.config.model_type
            says = f"a {named} model reads one text and writes another; a reward model needs an encoder or a causal one"
            raise ModelError(says, field="model")
        apart = _padding_apart_from_the_end(loaded)
        return replace(loaded, said=(*(apart or loaded.said), *self._rows(loaded).said))

    def head(self, loaded: Loaded) -> tuple[str, ...]:
        return head_modules(loaded.model, loaded.new_parameters)

    def facts(self, recipe: Recipe, loaded: Loaded) -> Facts:
        rows = self._rows(loaded)
        groups = itertools.islice(self.parts.train.groups(), SAMPLED)
        encoded = rows.encode([row for group in groups for row in group.rows])
        return Facts(
            num_examples=len(self.parts.train_rows),
            token_lengths=np.array([len(tokens.ids) for tokens in encoded]),
            context_length=context_length(loaded.model.config),
            num_parameters=sum(p.numel() for p in loaded.model.parameters()),
            kind="preference",
            default_metric="loss",  # of few comparisons, accuracy can't tell which of two steps is better
        )

    def tokenize(self, recipe: Recipe, loaded: Loaded, cache: Path) -> Tokenized:
        assert isinstance(recipe.data.max_length, int)
        return self.parts.tokenize(self._rows(loaded, recipe.data.max_length, recipe.data.truncate), cache)

    def cut_words(self, recipe: Recipe, part: TokenizedDataset) -> str | None:
        return cut_words(recipe, part)

    def objective(self, recipe: Recipe, tokens: Tokenized, loaded: Loaded) -> Preference:
        assert isinstance(tokens.train, ComparisonDataset)
        return Preference(tokens.train, recipe.training.centring)

    def scorer(self, parts: ScoringParts) -> RewardScorer:
        return RewardScorer(self.parts.validation, self.parts.validation_rows, parts)

    def learn(self, lesson: Lesson) -> FitState:
        return learn_by_fitting(lesson)

    def higher_is_better(self, metric: str) -> bool:
        return HIGHER_IS_BETTER[metric]

    def describe(self) -> dict[str, Any]:
        return describe(self.parts)

    def header(self, recipe: Recipe) -> tuple[str, str]:
        read, side = self.parts.train.format.name, recipe.data.truncate
        return "format", f"{read} · prompts cut on the {side} at {recipe.data.max_length} tokens with a completion"

    def put_beside(self, folder: Path, recipe: Recipe) -> None:
        """How prompt and completion are read; what is taken off a score is known once the model was judged."""
        body = json.dumps(self.parts.train.format.to_json(), indent=2, ensure_ascii=False)
        (folder / PROMPT_FORMAT).write_text(body + "\n", encoding="utf-8")
        (folder / REWARD).write_text(Normalisation().written(), encoding="utf-8")

    def _rows(self, loaded: Loaded, max_length: int | None = None, truncate: Any = "left") -> ScoredRows:
        return ScoredRows.of(self.parts.train.format, loaded.tokenizer, max_length, truncate)


def _padding_apart_from_the_end(loaded: Loaded) -> tuple[str, ...]:
    """Other programs read a score at the last token that isn't padding, so the EOS must not be it; gives what to say.

    Where no other token can serve, `ScoredRows` leaves the EOS out.
    """
    tokenizer, config = loaded.tokenizer, loaded.model.config
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return ()
    choices = (*named_pads(loaded.model, tokenizer), tokenizer.unk_token, tokenizer.bos_token)
    token = next((one for one in choices if one not in (None, tokenizer.eos_token)), None)
    if token is None:
        return ()
    tokenizer.pad_token = token
    config.pad_token_id = tokenizer.pad_token_id
    others = tuple(sentence for sentence in loaded.said if not sentence.startswith("no pad token"))
    return (*others, f"padding is {token!r}, so that the end of a completion can be told from it")


def cut_words(recipe: Recipe, part: TokenizedDataset) -> str | None:
    """What was cut from prompts with their completions."""
    if not part.truncated_rows:
        return None
    assert isinstance(part, ComparisonDataset)
    texts = part.each_text()
    share = texts.truncated_tokens / (texts.num_tokens + texts.truncated_tokens)
    return (
        f"{texts.truncated_rows:,} of {len(texts):,} completions with their prompts cut to {recipe.data.max_length} "
        f"tokens, prompts first, on the {recipe.data.truncate} ({texts.truncated_tokens:,} tokens, {share:.1%})"
    )


def describe(parts: ComparedParts) -> dict[str, Any]:
    """What run.json says of comparisons."""
    return {
        "kind": "preference",
        "labels": [],
        "format": parts.train.format.name,
        "comparisons": parts.train.num_comparisons,
        "ties": parts.train.num_ties,
        "annotators": list(parts.train.annotators),
    }
