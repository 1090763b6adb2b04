"""What the questions of `data check` are put to, and how an answer becomes a finding with its quotes.

`questions` and `alike` ask; this file holds what they share. Texts are read once more at the end, only those few that
are quoted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tunewright.data.columns import Columns
from tunewright.data.examples import Row
from tunewright.data.findings import Finding, LengthReport, Level, Part, excerpt, listed
from tunewright.data.gathering import Gathered
from tunewright.data.labels import LabelSpec, label_counts
from tunewright.data.lenient import LenientSource
from tunewright.data.near_duplicates import Texts, near_groups, sketch
from tunewright.data.preparing import _parts as run_parts
from tunewright.data.splitting import first_of_each
from tunewright.data.survey import text_of
from tunewright.errors import DataError
from tunewright.recipe import DataRecipe

NUM_EXAMPLES = 2


@dataclass(eq=False)
class Asked:
    """What the questions are about."""

    source: LenientSource
    held_out_source: LenientSource | None
    columns: Columns
    labels: LabelSpec | None
    train: Gathered
    validation: Gathered | None
    recipe: DataRecipe
    seed: int
    lengths: dict[Part, LengthReport]
    quote: Callable[[Row], tuple[str, str]] | None = None  # (text, label) of a row to show; None: text and class

    @property
    def whole(self) -> str:
        """What two equal rows share, in words."""
        return "a text" if self.train.exchanges is None else "a prompt and an answer"

    def part(self, part: Part) -> Gathered:
        found = self.train if part == "train" else self.validation
        assert found is not None
        return found

    @cached_property
    def texts(self) -> Texts:
        """Train, each text once."""
        return texts_of(self.train)

    @cached_property
    def groups(self) -> np.ndarray:
        """int64 [N of train] group of near duplicates, exact ones included."""
        near = near_groups(self.texts)
        _, first, index = np.unique(self.train.survey.text_hashes, return_index=True, return_inverse=True)
        return near[first[index]]

    @cached_property
    def split(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows of train that a run would train on and hold out; None where validation is a file, or it can't split."""
        if self.validation is not None or len(self.train.survey) < 2:
            return None
        try:
            survey = replace(self.train.survey, text_hashes=self.train.one_side)
            return run_parts(survey, None, self.recipe, self.seed)
        except DataError:
            return None

    @property
    def num_held_out(self) -> int | None:
        return None if self.split is None else len(self.split[1])

    @property
    def keys(self) -> np.ndarray | None:
        """Label numbers of train, where each row has exactly one class."""
        keys = self.train.survey.label_keys
        single = self.labels is not None and self.labels.kind == "single" and len(keys) and (keys >= 0).all()
        return keys if single else None

    def class_name(self, key: int) -> str:
        """The class behind a label number."""
        observed = self.train.survey.labels
        raw = next(texts[0] for texts, number in observed.keys.items() if number == key)
        assert self.labels is not None
        return self.labels.names[self.labels._index_of(raw, None, observed.column)]


Sentence = str | Callable[[dict[int, str]], str]  # the second is given the quoted texts of train
Quotes = Sequence[Sequence[tuple[Part, int]]]  # (part, index of a usable row), a list per example


@dataclass
class Draft:
    """A finding whose quotes haven't been read yet. `quotes`: lists of (part, index), one per example."""

    code: str
    level: Level
    part: Part
    count: int
    sentence: Sentence
    rows: Any = ()
    repair: str = ""
    quotes: Quotes = ()


def counts(found: Gathered, labels: LabelSpec | None) -> dict[str, int]:
    """Usable rows per class."""
    if labels is None:
        return {}
    try:
        return label_counts(found.survey.labels, labels)
    except DataError:
        return {}


def texts_of(found: Gathered) -> Texts:
    return Texts(found.words, sketch(found.words), first_of_each(found.survey.text_hashes))


# ---- quotes ----


def quoted(asked: Asked, drafts: list[Draft]) -> list[Finding]:
    """The drafts with the texts that they show, read in one more pass that stops at the last of them."""
    wanted = [quote for draft in drafts for example in draft.quotes for quote in example]
    texts: dict[Part, Quoted] = {
        part: _read(asked, part, {index for there, index in wanted if there == part})
        for part in ("train", "validation")
    }
    found: list[Finding] = []
    for draft in drafts:
        seen = {index: text for index, (text, _) in texts["train"].items()}
        sentence = draft.sentence if isinstance(draft.sentence, str) else draft.sentence(seen)
        examples = tuple(
            {"rows": [_shown(asked, quote, texts) for quote in example]} for example in draft.quotes[:NUM_EXAMPLES]
        )
        rows = listed(draft.rows)
        found.append(Finding(draft.code, draft.level, draft.part, draft.count, sentence, rows, draft.repair, examples))
    return found


def _shown(asked: Asked, quote: tuple[Part, int], texts: dict[Part, Quoted]) -> dict[str, Any]:
    part, index = quote
    gathered = asked.part(part)
    text, label = texts[part][index]
    if asked.keys is not None and part == "train":
        label = asked.class_name(int(asked.keys[index]))
    return {
        "where": f"{gathered.survey.name}:{gathered.lines[index]}",
        "label": excerpt(label) or None,
        "text": excerpt(text),
    }


Quoted = dict[int, tuple[str, str]]  # index of a usable row -> its text, and its label where that isn't a class


def _read(asked: Asked, part: Part, indices: set[int]) -> Quoted:
    source = asked.source if part == "train" else asked.held_out_source
    if not indices or source is None:
        return {}
    positions = {int(asked.part(part).survey.rows[index]): index for index in indices}
    quote = asked.quote or (lambda row: (text_of(row, asked.columns.text), ""))
    found: Quoted = {}
    for record in source.records():
        index = positions.get(record.position)
        if index is not None and record.row is not None:
            found[index] = quote(record.row)
            if len(found) == len(positions):
                break
    return found


def num_rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
