"""The labelled rows of a classifier's recipe, held in memory: for questions that train on parts of them often.

Used by `out_of_fold` (which labels are doubtful) and `growing` (would more rows help). Small data is what they are for:
everything is read once, and each part goes to `pipeline.fine_tune` as Python objects.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tunewright import __version__, stages
from tunewright.data.examples import Source
from tunewright.data.preparing import ReadData
from tunewright.data.survey import survey, usable_texts
from tunewright.data.tokenizing import tokenize
from tunewright.errors import UsageError
from tunewright.evaluation.folds import strata_of_lists, strata_of_numbers
from tunewright.models.features import kept_features, text_features
from tunewright.models.forward import Forward
from tunewright.recipe import IN_MEMORY, Recipe
from tunewright.recording import Recorder
from tunewright.runtime import started
from tunewright.tasks.classify import Classify

Status = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Part:
    """Usable rows of one source, in its order; N of them."""

    rows: list[dict[str, Any]]  # as given, text and label columns only
    where: list[str]  # file:row
    labels: np.ndarray  # int64 [N] | float32 [N, C] | float32 [N]
    hashes: np.ndarray  # uint64 [N], equal texts by equal numbers

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """A classify recipe's data."""

    recipe: Recipe
    data: ReadData
    train: Part  # every usable row of the train source, those a run would hold out too
    validation: Part | None  # of a source of its own
    fingerprint: str  # of the rows, the recipe and the versions: of all that decides what is learnt from them

    @property
    def kind(self) -> Any:
        return self.data.labels.kind

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Numbers to keep in proportion, from labels of this data's kind."""
        if self.kind == "multi":
            return strata_of_lists(labels)
        return strata_of_numbers(labels) if self.kind == "number" else labels

    def texts(self, part: Part) -> list[str]:
        return [row[self.data.columns.text] for row in part.rows]


def read_rows(recipe: Recipe, runs: Path = Path("runs"), status: Status = lambda words: None) -> LabelledRows:
    """Everything the recipe learns from. Raises UsageError for another task, DataError naming file and row."""
    if recipe.task != "classify":
        raise UsageError(f"is for labels, and the task is {recipe.task}; give a recipe of task classify", field="task")
    status("reading the data")
    task = stages.read_data(recipe, None, None, runs, _silent())
    assert isinstance(task, Classify)
    data = task.data
    held_out = data.splits.validation
    return LabelledRows(
        recipe,
        data,
        _part(data.splits.train, data),
        _part(held_out, data) if held_out is not None else None,
        _fingerprint(recipe, data),
    )


def part_recipe(rows: LabelledRows, name: str, seed: int) -> Recipe:
    """The recipe for a part of the rows in memory: same model and settings, same labels, judged once at the end."""
    data, labels = rows.recipe.data, rows.data.labels
    named: Any = "number" if labels.kind == "number" else dict(zip(labels.raw, labels.names, strict=True))
    columns = {"text": rows.data.columns.text, "label": rows.data.columns.label, "labels": named}
    own = data.model_copy(update={**columns, "train": IN_MEMORY, "validation": IN_MEMORY, "revision": None})
    judged = {"keep": "last", "before": False, "prompts": [], "retain": "none", "bootstrap_samples": 100}
    return rows.recipe.model_copy(
        update={
            "name": name,
            "data": own,
            "training": rows.recipe.training.model_copy(update={"seed": seed, "early_stopping": None}),
            "evaluation": rows.recipe.evaluation.model_copy(update=judged),
        }
    )


def features_of(rows: LabelledRows, runs: Path, status: Status) -> tuple[np.ndarray, np.ndarray | None]:
    """What the recipe's base model, frozen, makes of every row of train and validation; kept from call to call."""
    recipe, t = rows.recipe, rows.recipe.training
    recorder = _silent()
    with started(t.device, t.precision, t.threads) as runtime:
        status("loading the model")
        task = Classify(rows.data)
        base = stages.load_base(recipe, task, runs, recorder)
        resolved, _ = stages.resolve(recipe, task, base)
        forward = Forward.checked(base.loaded.model.to(runtime.device))
        forward.compute_in(runtime.precision)

        def made(source: Source, name: str) -> np.ndarray:
            assert isinstance(resolved.data.max_length, int)
            dataset = tokenize(
                source, rows.data.columns, rows.data.labels, base.loaded.tokenizer, max_length=resolved.data.max_length,
                truncate=resolved.data.truncate, cache=stages.cache_folder() / "tokens",
            )  # fmt: skip
            key = hashlib.sha256(f"{dataset.fingerprint}{base.fingerprint}{runtime.precision}".encode()).hexdigest()
            path = stages.cache_folder() / "features" / f"{key[:32]}.safetensors"
            return kept_features(
                path,
                lambda: text_features(
                    forward, dataset, dataset.lengths,
                    lambda done, total: status(f"{name}: {done:,} of {total:,} texts through {recipe.model}"),
                ),
            )  # fmt: skip

        held_out = rows.data.splits.validation
        return made(rows.data.splits.train, "train"), made(held_out, "validation") if held_out is not None else None


# ---- parts ----


def _silent() -> Recorder:
    """Keeps what is said, writes nothing."""
    return Recorder(Path("no-folder"), lambda event: None, writes=False)


def _part(source: Source, data: ReadData) -> Part:
    from tunewright.serving.scoring import as_array

    text, label = data.columns.text, data.columns.label
    assert label is not None
    given, where, labels = [], [], []
    for row, _ in usable_texts(source, data.columns):
        given.append({text: row.values[text], label: row.values[label]})
        where.append(row.where)
        labels.append(data.labels.encode(row.values[label], row.where, label))
    hashes = survey(source, data.columns, data.labels.kind if data.labels.kind == "number" else "auto").text_hashes
    return Part(given, where, as_array(labels, data.labels), hashes)


def _fingerprint(recipe: Recipe, data: ReadData) -> str:
    libraries = {name: version(name) for name in ("torch", "transformers", "peft")}
    body = recipe.model_dump(mode="json", exclude={"name": True})
    said = json.dumps([body, data.fingerprint, __version__, libraries], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()
