"""From opened splits to two tokenised datasets: columns found, labels read, the split made, nothing lost unseen.

Joins the stages of this folder in order, for the pipeline. `read` needs no tokenizer (the labels decide the model's
head); `tokenized` comes after the base model is loaded. Decides nothing about learning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.data.checking import quick_check
from tunewright.data.columns import Columns, find_columns
from tunewright.data.examples import Source, Splits
from tunewright.data.labels import LabelSpec, infer_labels, label_counts, label_words
from tunewright.data.splitting import first_of_each, split
from tunewright.data.survey import Survey, survey
from tunewright.data.tokenizing import TokenizedDataset, tokenize
from tunewright.recipe import DataRecipe

HELD_OUT = 0.1  # fraction of train that becomes validation when nobody names one


@dataclass(frozen=True)
class ReadData:
    """The data before tokenising: what it is, and which rows train and which judge."""

    splits: Splits
    columns: Columns
    labels: LabelSpec
    train_rows: np.ndarray  # int64 indices among the usable rows of the train source
    validation_rows: np.ndarray  # the same, of the validation source (the train source where it is held out)
    label_counts: dict[str, int]
    said: tuple[str, ...]  # guesses and warnings, a sentence each
    fingerprint: str

    @property
    def validation_source(self) -> Source:
        return self.splits.validation or self.splits.train


@dataclass(frozen=True)
class Tokenized:
    """Both parts as token arrays."""

    train: TokenizedDataset
    validation: TokenizedDataset


def read(splits: Splits, recipe: DataRecipe, seed: int) -> ReadData:
    """One pass over each source. Raises DataError naming file, row and column."""
    columns = find_columns(splits.train, recipe.text, recipe.label)
    train = survey(splits.train, columns, recipe.labels)
    labels = infer_labels(train.labels, recipe.labels)
    held_out = None
    if isinstance(recipe.validation, float):  # asked for by the recipe: the folder's own file is left alone
        splits = replace(splits, validation=None)
    if splits.validation is not None:
        columns_there = find_columns(splits.validation, columns.text, columns.label or "auto")
        held_out = survey(splits.validation, columns_there, recipe.labels)
    report = quick_check(train, held_out, labels)
    train_rows, validation_rows = _parts(train, held_out, recipe, seed)
    return ReadData(
        splits,
        columns,
        labels,
        train_rows,
        validation_rows,
        label_counts(train.labels, labels),
        (*columns.said, f"labels: {label_words(train.labels, labels)}", *report.said),
        f"{train.fingerprint}:{held_out.fingerprint if held_out else _fraction(recipe)}",
    )


def _parts(train: Survey, held_out: Survey | None, recipe: DataRecipe, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if held_out is not None:
        rows, validation = np.arange(len(train)), np.arange(len(held_out))
    else:
        rows, validation = split(train.label_keys, train.text_hashes, _fraction(recipe), seed, train.name)
    if recipe.duplicates == "drop":
        rows = rows[first_of_each(train.text_hashes[rows])]
    return rows, validation


def _fraction(recipe: DataRecipe) -> float:
    return recipe.validation if isinstance(recipe.validation, float) else HELD_OUT


def tokenized(data: ReadData, recipe: DataRecipe, tokenizer: Any, cache: Path) -> Tokenized:
    """Token arrays of both parts; `recipe.max_length` must be decided by now."""
    assert isinstance(recipe.max_length, int)

    def arrays(source: Source) -> TokenizedDataset:
        return tokenize(
            source,
            data.columns,
            data.labels,
            tokenizer,
            max_length=recipe.max_length,  # type: ignore[arg-type]
            truncate=recipe.truncate,
            cache=cache,
        )

    train = arrays(data.splits.train)
    validation = train if data.splits.validation is None else arrays(data.splits.validation)
    return Tokenized(train.subset(data.train_rows), validation.subset(data.validation_rows))
