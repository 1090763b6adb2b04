"""Tasks generate and continue: text in, text out. The other side of the `task` seam.

generate: rows of a recognised format become prompt and completion. continue: plain text teaches by its next words,
documents longer than the model reads cut into windows.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunewright.data.conversations import Conversation
from tunewright.data.examples import Row, Source, Splits
from tunewright.data.preparing import HELD_OUT, Tokenized
from tunewright.data.splitting import first_of_each, leaks, split
from tunewright.data.survey import text_hash, text_of
from tunewright.data.tokenizing import TokenizedDataset
from tunewright.data.written import PROMPT_FORMAT, Format, recognise
from tunewright.data.written_tokens import WrittenDataset, tokenize_written
from tunewright.defaults import Facts
from tunewright.errors import DataError, ModelError, RecipeError
from tunewright.evaluation.texts import HIGHER_IS_BETTER
from tunewright.learning.gradients import Objective
from tunewright.learning.loop import FitState
from tunewright.models.context import context_length
from tunewright.models.finding import BaseModel
from tunewright.models.opened import Loaded
from tunewright.models.writers import load_writer, new_modules
from tunewright.recipe import DataRecipe, Recipe
from tunewright.tasks.learnable import learnable
from tunewright.tasks.task import Lesson, ScoringParts, learn_by_fitting
from tunewright.tasks.ways import check_way, way_of
from tunewright.tasks.write_scoring import WriteScorer

SAMPLED = 1000  # rows whose lengths decide


@dataclass(frozen=True)
class Write:
    """Rows to be written."""

    purpose: Literal["generate", "continue"]
    splits: Splits
    format: Format
    train_rows: np.ndarray  # int64 [N]
    validation_rows: np.ndarray  # int64 [N], of the validation source, or of train where it is held out
    said: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, recipe: Recipe, splits: Splits) -> Write:
        """Recognise the format and hold out validation rows. Raises DataError, RecipeError."""
        data = recipe.data
        if recipe.task == "continue":
            splits = _plain_text(splits, data)
        if isinstance(data.validation, float):
            splits = replace(splits, validation=None)
        form = _format(splits.train, recipe)
        splits, dropped = learnable(splits, form) if data.empty == "drop" else (splits, [])
        train, validation, said = _parts(splits, form, recipe)
        fraction = data.validation if isinstance(data.validation, float) else HELD_OUT
        held_out = splits.validation.fingerprint() if splits.validation else fraction
        return cls(
            "continue" if recipe.task == "continue" else "generate",
            splits,
            form,
            train,
            validation,
            (*form.said, *dropped, *said),
            f"{splits.train.fingerprint()}:{held_out}:{form.signature}",
        )

    @property
    def validation_source(self) -> Source:
        return self.splits.validation or self.splits.train

    def load(self, source: BaseModel, recipe: Recipe, dropout: float | None) -> Loaded:
        """The base model with its head for words. ModelError where the model can't do what the task asks."""
        loaded = load_writer(source, None, seed=recipe.training.seed, dropout=dropout)
        _refuse_unfit(loaded, recipe)
        return loaded

    def head(self, loaded: Loaded) -> tuple[str, ...]:
        """Only what loading had to make."""
        return new_modules(loaded.model, loaded.new_parameters)

    def facts(self, recipe: Recipe, loaded: Loaded) -> Facts:
        encoder = way_of(loaded.model, loaded.tokenizer, recipe).rows(self.format, loaded.tokenizer, None, "left")
        rows = list(itertools.islice(self.splits.train.rows(), SAMPLED))
        encoded = encoder.encoder.encode_all([encoder.segments(row) for row in rows], [row.where for row in rows])
        completions = np.array([sum(tokens.is_target) for tokens in encoded])
        return Facts(
            num_examples=len(self.train_rows),
            token_lengths=np.array([len(tokens.ids) for tokens in encoded]),
            context_length=context_length(loaded.model.config),
            num_parameters=sum(p.numel() for p in loaded.model.parameters()),
            kind="text",
            default_metric="loss",
            completion_lengths=completions if self.purpose == "generate" else None,
            learn=self.format.learn,
        )

    def tokenize(self, recipe: Recipe, loaded: Loaded, cache: Path) -> Tokenized:
        assert isinstance(recipe.data.max_length, int)
        whole = self.purpose == "continue"  # nothing of a document is lost: it becomes windows
        length = None if whole else recipe.data.max_length
        way = way_of(loaded.model, loaded.tokenizer, recipe)
        encoder = way.rows(self.format, loaded.tokenizer, length, recipe.data.truncate)
        train = tokenize_written(self.splits.train, encoder, cache)
        validation = (
            train if self.splits.validation is None else tokenize_written(self.splits.validation, encoder, cache)
        )
        parts = [train.subset(self.train_rows), validation.subset(self.validation_rows)]
        if whole:
            parts = [way.windows(_written(part), recipe.data.max_length, encoder) for part in parts]
        return Tokenized(*parts)

    def cut_words(self, recipe: Recipe, part: TokenizedDataset) -> str | None:
        if not part.truncated_rows:
            return None
        share = part.truncated_tokens / (part.num_tokens + part.truncated_tokens)
        return (
            f"{part.truncated_rows:,} of {len(part):,} rows cut to {recipe.data.max_length} tokens, prompts first, on "
            f"the {recipe.data.truncate} ({part.truncated_tokens:,} tokens, {share:.1%})"
        )

    def objective(self, recipe: Recipe, tokens: Tokenized, loaded: Loaded) -> Objective:
        return way_of(loaded.model, loaded.tokenizer, recipe).objective()

    def scorer(self, parts: ScoringParts) -> WriteScorer:
        data = parts.recipe.data
        assert isinstance(data.max_length, int)
        check_way(parts.forward)
        way = way_of(parts.forward.model, parts.tokenizer, parts.recipe)
        encoder = way.rows(self.format, parts.tokenizer, data.max_length, data.truncate)
        return WriteScorer(self.validation_source, self.validation_rows, encoder, way, parts)

    def learn(self, lesson: Lesson) -> FitState:
        return learn_by_fitting(lesson)

    def higher_is_better(self, metric: str) -> bool:
        return HIGHER_IS_BETTER[metric]

    def describe(self) -> dict[str, Any]:
        return {"kind": "text", "labels": [], "format": self.format.name, "learn": self.format.learn}

    def header(self, recipe: Recipe) -> tuple[str, str]:
        learnt = {"completion": "the completion", "assistant": "each answer", "all": "every token"}[self.format.learn]
        return "format", f"{self.format.name} · {learnt} is learnt · at most {recipe.data.max_length} tokens"

    def put_beside(self, folder: Path, recipe: Recipe) -> None:
        """How a prompt was made, so that it is made the same way when the model is used."""
        body = self.format.to_json() | {"max_new_tokens": recipe.evaluation.max_new_tokens}
        (folder / PROMPT_FORMAT).write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _refuse_unfit(loaded: Loaded, recipe: Recipe) -> None:
    kind, task, named = loaded.kind, recipe.task, loaded.model.config.model_type
    if kind == "masked" and task == "generate":
        found = f"a {named} model fills gaps and can't write"
        raise ModelError(f"{found}; choose one that writes, such as gemma3-270m", field="model")
    if kind == "encoder-decoder" and task == "continue":
        found = f"a {named} model reads one text and writes another"
        raise ModelError(f"{found}; task continue needs a causal model or an encoder", field="model")
    if kind != "masked" and recipe.data.mask != "tokens":
        raise RecipeError(f"data.mask hides words from an encoder, and a {named} model is none", field="data.mask")
    if kind == "masked" and recipe.evaluation.prompts:
        found = f"a {named} model can't answer evaluation.prompts, since it fills gaps"
        raise RecipeError(f"{found}; leave them out", field="evaluation.prompts")


def _written(part: TokenizedDataset) -> WrittenDataset:
    assert isinstance(part, WrittenDataset)
    return part


# ---- which rows ----


def _parts(splits: Splits, form: Format, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows that train, rows that judge, and what there is to say. Equal prompts never fall on both sides."""
    data = recipe.data
    asked = _prompt_hashes(splits.train, form)
    if splits.validation is None:
        fraction = data.validation if isinstance(data.validation, float) else HELD_OUT
        strata = np.zeros(len(asked), np.int32)
        train, validation = split(strata, asked, fraction, recipe.training.seed, splits.train.name)
        said: list[str] = []
    else:
        judged = _prompt_hashes(splits.validation, form)
        train, validation = np.arange(len(asked)), np.arange(len(judged))
        known = len(leaks(asked, judged))
        share = f"{known:,} of {len(judged):,} validation rows have a prompt that is in train too: the score flatters"
        said = [share] if known else []
    if data.duplicates == "drop":
        train = train[first_of_each(_row_hashes(splits.train, form)[train])]
    return train, validation, said


def _prompt_hashes(source: Source, form: Format) -> np.ndarray:
    """uint64 [N]: equal prompts, equal number; of plain text, and where one prompt serves all, the whole row."""
    if form.name == "plain text":
        return _row_hashes(source, form)
    hashes = np.array([text_hash(_as_text(form.prompt(row))) for row in source.rows()], np.uint64)
    return hashes if len(np.unique(hashes)) > 1 else _row_hashes(source, form)


def _row_hashes(source: Source, form: Format) -> np.ndarray:
    return np.array([text_hash(_as_text(form.segments(row))) for row in source.rows()], np.uint64)


def _as_text(read: Any) -> str:
    if isinstance(read, Conversation):
        return json.dumps(read.messages, sort_keys=True, default=str)
    return "".join(segment.text for segment in read)


def _format(source: Source, recipe: Recipe) -> Format:
    data = recipe.data
    learn = None if data.learn == "auto" else data.learn
    named = {"template": data.template, "completion": data.completion, "references": data.references}
    try:
        form = recognise(source, learn=learn, **named)
    except DataError:
        if recipe.task != "continue":
            raise
        form = None
    if recipe.task == "continue" and (form is None or form.name != "plain text"):
        these = form.name if form else "of no format we know"
        says = f"task continue learns from plain text, and these rows are {these}"
        raise RecipeError(f"{says}; name the column of the text, or use task generate.", field="data.text")
    assert form is not None
    return form


# ---- plain text ----


@dataclass(frozen=True)
class TextColumn:
    """One column of a source, as documents."""

    source: Source
    column: str

    @property
    def name(self) -> str:
        return self.source.name

    def rows(self) -> Iterator[Row]:
        for row in self.source.rows():
            yield Row({"text": text_of(row, self.column)}, row.where, row.number)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.source.fingerprint()}:{self.column}".encode()).hexdigest()


def _plain_text(splits: Splits, data: DataRecipe) -> Splits:
    """The splits with nothing but the column that was named."""
    if data.text == "auto":
        return splits
    held_out = TextColumn(splits.validation, data.text) if splits.validation else None
    return replace(splits, train=TextColumn(splits.train, data.text), validation=held_out)
