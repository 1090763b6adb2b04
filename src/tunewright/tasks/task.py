"""The seam between tasks: all that depends on what is learnt, asked by the pipeline through two protocols.

A `Task` is a recipe's task on its data, from reading to the words in run.json; its `Scorer` judges the model of one
run. `stages`, `judging` and `describing` know these protocols only; `classify` and `write` implement them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tunewright.data.examples import Splits
from tunewright.data.preparing import Tokenized
from tunewright.data.tokenizing import TokenizedDataset
from tunewright.defaults import Facts
from tunewright.learning.checkpoints import Checkpoint, CheckpointStore
from tunewright.learning.gradients import Objective, Training
from tunewright.learning.loop import FitPlan, FitState, Hooks, fit
from tunewright.models.boundary import BoundaryCache
from tunewright.models.finding import BaseModel
from tunewright.models.forward import Forward
from tunewright.models.opened import Loaded
from tunewright.recipe import Recipe
from tunewright.recording import Recorder
from tunewright.runtime import Runtime

FIRST_ROWS = 5  # validation rows shown before and after by a model that writes, where the recipe names no prompts


@dataclass(frozen=True)
class ScoringParts:
    """What a scorer works with."""

    recipe: Recipe  # nothing left to decide
    tokens: Tokenized
    tokenizer: Any
    forward: Forward
    cache: BoundaryCache | None  # of the validation rows
    runtime: Runtime
    recorder: Recorder
    stop_if_asked: Callable[[], None]  # called before each batch; raises to stop


@dataclass(frozen=True)
class Lesson:
    """What is learnt with: all that a loop needs, in the order of the flow."""

    recipe: Recipe  # nothing left to decide
    tokens: Tokenized
    tokenizer: Any
    forward: Forward
    objective: Objective
    scorer: Scorer
    cache: BoundaryCache | None  # of the training rows
    plan: FitPlan
    checkpoints: CheckpointStore
    hooks: Hooks
    runtime: Runtime
    recorder: Recorder
    resume: Checkpoint | None = None

    @property
    def training(self) -> Training:
        """Rows, lengths and cache, as the loop takes them."""
        return Training(self.tokens.train, self.tokens.train.lengths, self.cache)


def learn_by_fitting(lesson: Lesson) -> FitState:
    """The loop for every objective that a dataset's rows are enough for."""
    return fit(
        lesson.forward,
        lesson.objective,
        lesson.training,
        lesson.plan,
        lesson.checkpoints,
        lesson.hooks,
        lesson.runtime,
        lesson.resume,
    )


class Scorer(Protocol):
    """Judges the model of one run, again and again."""

    def score(self, first: bool) -> dict[str, float]:
        """Metrics of the validation rows now, by plain names; `first`: of the untrained model."""
        ...

    def keep(self, name: str) -> None:
        """Put the answers behind the latest score on disk, as `before` (untrained) or `validation` (best so far)."""
        ...

    def samples(self) -> list[dict[str, Any]]:
        """The recipe's prompts answered now: prompt_id, prompt, prediction and what belongs to it."""
        ...

    def finish(self) -> dict[str, Any]:
        """Judge what was kept of the final model: files of the folder, and fields of run.json."""
        ...


class Task(Protocol):
    """A recipe's task on its data."""

    @property
    def splits(self) -> Splits:
        """The sources."""
        ...

    @property
    def train_rows(self) -> np.ndarray:
        """int64 [N], the usable rows of the train source that are learnt from."""
        ...

    @property
    def said(self) -> tuple[str, ...]:
        """Guesses and warnings of reading, a sentence each."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of the data."""
        ...

    def load(self, source: BaseModel, recipe: Recipe, dropout: float | None) -> Loaded:
        """The base model, ready to learn this task; `dropout` replaces its own."""
        ...

    def head(self, loaded: Loaded) -> tuple[str, ...]:
        """Dotted names of the modules that learn whole, beside adapters or alone."""
        ...

    def facts(self, recipe: Recipe, loaded: Loaded) -> Facts:
        """What the decisions look at."""
        ...

    def tokenize(self, recipe: Recipe, loaded: Loaded, cache: Path) -> Tokenized:
        """Token arrays of both parts."""
        ...

    def cut_words(self, recipe: Recipe, part: TokenizedDataset) -> str | None:
        """What was cut from this part, if anything was."""
        ...

    def objective(self, recipe: Recipe, tokens: Tokenized, loaded: Loaded) -> Objective:
        """What is minimised."""
        ...

    def scorer(self, parts: ScoringParts) -> Scorer:
        """The judge of this run's model."""
        ...

    def learn(self, lesson: Lesson) -> FitState:
        """Run the loop of this task until its plan is done."""
        ...

    def higher_is_better(self, metric: str) -> bool:
        """Which way a metric of this task points."""
        ...

    def describe(self) -> dict[str, Any]:
        """What run.json says of the data, beside counts."""
        ...

    def header(self, recipe: Recipe) -> tuple[str, str]:
        """A row of the header: its name and its words."""
        ...

    def put_beside(self, folder: Path, recipe: Recipe) -> None:
        """Files that the saved model needs to be used as it was trained."""
        ...
