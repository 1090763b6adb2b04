"""Task classify: one label, several labels, or a number for each text. One of the two sides of the `task` seam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunewright.data.examples import Splits
from tunewright.data.preparing import ReadData, Tokenized, read, tokenized
from tunewright.data.tokenizing import TokenizedDataset, token_lengths
from tunewright.defaults import Facts
from tunewright.errors import RecipeError, did_you_mean
from tunewright.evaluation.metrics import HIGHER_IS_BETTER, default_metric
from tunewright.learning.classification import Classification, balanced_weights
from tunewright.learning.loop import FitState
from tunewright.models.context import context_length
from tunewright.models.heads import head_modules
from tunewright.models.loading import BaseModel, Loaded, load_base
from tunewright.recipe import Recipe
from tunewright.tasks.classify_scoring import ClassifyScorer
from tunewright.tasks.task import Lesson, ScoringParts, learn_by_fitting


@dataclass(frozen=True)
class Classify:
    """Labelled texts."""

    data: ReadData

    @classmethod
    def of(cls, recipe: Recipe, splits: Splits) -> Classify:
        """Read once. Raises DataError naming file, row and column."""
        return cls(read(splits, recipe.data, recipe.training.seed))

    @property
    def splits(self) -> Splits:
        return self.data.splits

    @property
    def train_rows(self) -> np.ndarray:
        return self.data.train_rows

    @property
    def said(self) -> tuple[str, ...]:
        return self.data.said

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint

    def load(self, source: BaseModel, recipe: Recipe, dropout: float | None) -> Loaded:
        """The base model under a new head for these labels."""
        return load_base(source, self.data.labels, seed=recipe.training.seed, dropout=dropout)

    def head(self, loaded: Loaded) -> tuple[str, ...]:
        return head_modules(loaded.model, loaded.new_parameters)

    def facts(self, recipe: Recipe, loaded: Loaded) -> Facts:
        kind = self.data.labels.kind
        return Facts(
            num_examples=len(self.data.train_rows),
            token_lengths=token_lengths(self.data.splits.train, self.data.columns, loaded.tokenizer),
            context_length=context_length(loaded.model.config),
            num_parameters=sum(p.numel() for p in loaded.model.parameters()),
            kind=kind,
            default_metric=default_metric(kind),
        )

    def tokenize(self, recipe: Recipe, loaded: Loaded, cache: Path) -> Tokenized:
        return tokenized(self.data, recipe.data, loaded.tokenizer, cache)

    def cut_words(self, recipe: Recipe, part: TokenizedDataset) -> str | None:
        if not part.truncated_rows:
            return None
        share = part.truncated_tokens / (part.num_tokens + part.truncated_tokens)
        return (
            f"{part.truncated_rows:,} of {len(part):,} texts cut to {recipe.data.max_length} tokens on the "
            f"{recipe.data.truncate} ({part.truncated_tokens:,} tokens, {share:.1%})"
        )

    def objective(self, recipe: Recipe, tokens: Tokenized, loaded: Loaded) -> Classification:
        weights = self._class_weights(recipe.training.class_weights, tokens)
        return Classification(self.data.labels.kind, weights, recipe.training.label_smoothing)

    def _class_weights(self, wanted: str | Mapping[str, float] | None, tokens: Tokenized) -> torch.Tensor | None:
        labels = self.data.labels
        if wanted is None:
            return None
        if isinstance(wanted, str):
            return balanced_weights(tokens.train.labels, labels.num_outputs)
        unknown = sorted(wanted.keys() - set(labels.names))
        if unknown:
            raise RecipeError(
                f'class_weights names "{unknown[0]}"; classes are {", ".join(labels.names)}.'
                f"{did_you_mean(unknown[0], labels.names)}",
                field="training.class_weights",
            )
        return torch.tensor([wanted.get(name, 1.0) for name in labels.names])

    def scorer(self, parts: ScoringParts) -> ClassifyScorer:
        return ClassifyScorer(self.data, parts)

    def learn(self, lesson: Lesson) -> FitState:
        return learn_by_fitting(lesson)

    def higher_is_better(self, metric: str) -> bool:
        return HIGHER_IS_BETTER[metric]

    def describe(self) -> dict[str, Any]:
        return {
            "labels": list(self.data.labels.names),
            "kind": self.data.labels.kind,
            "text_column": self.data.columns.text,
            "label_column": self.data.columns.label,
            "label_counts": self.data.label_counts,
        }

    def header(self, recipe: Recipe) -> tuple[str, str]:
        labels = ", ".join(self.data.labels.names[:6]) if self.data.labels.names else "numbers"
        return "labels", f"{labels} · at most {recipe.data.max_length} tokens, cut on the {recipe.data.truncate}"

    def put_beside(self, folder: Path, recipe: Recipe) -> None:
        """Nothing: config.json holds the labels, the tokenizer the length."""
