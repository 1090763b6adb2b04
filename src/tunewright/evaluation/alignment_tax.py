"""The alignment tax: what each stage gained and what it cost, from the base through the tuned to the aligned model.

    base ──generate──▶ supervised ──align──▶ aligned        each run measured its own before and after

Nothing is measured anew: a run's before is the stage it started from, so two runs tell of three stages. Behind
`compare` and the report of an aligned run. A cell is empty where nobody measured that stage on those rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunewright.errors import ModelError
from tunewright.evaluation import wording
from tunewright.evaluation.record import Record, mapping, number, pair, read_record, text

GENERAL = "general text"  # the row of what must not be forgotten
# Of an aligned run, in the table's order: what is left of the task, what it was trained for, what shows collapse.
OF_ALIGNED = (
    *("perplexity", "score", "probability", "judge", "judge_probability", "accuracy", "win_rate", "judge_win_rate"),
    *("kl", "distinct_2", "repetition", "length"),
)
OF_TUNED = ("perplexity", "exact_match", "f1", "rouge_l", "accuracy")
SAME_TEXT = 0.01  # of the perplexity: a run's before and the after of the one it started from are the same model
MOST_STAGES = 8


@dataclass(frozen=True)
class Row:
    """One measure over the stages; None where nobody took it."""

    metric: str  # as `wording` knows it
    rows: str  # on which rows: a run's name, or `general text`
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Stage:
    """What one aligned run changed, in words."""

    run: str
    tone: wording.Tone
    gained: str  # the verdict's headline
    paid: str  # general text, with its interval


@dataclass(frozen=True)
class Tax:
    """The stages side by side."""

    stages: tuple[str, ...]  # names of the columns
    rows: tuple[Row, ...]
    words: tuple[Stage, ...]  # one for each aligned run
    notes: tuple[str, ...]


def alignment_tax(records: Sequence[Record]) -> Tax | None:
    """Of runs of which one at least was aligned; None otherwise. Stages stand in the order in which they were made."""
    if not any(is_aligned(record) for record in records):
        return None
    line = _Line.of(records)
    return Tax(
        stages=tuple(line.names),
        rows=tuple(line.rows()),
        words=tuple(map(_stage, filter(is_aligned, line.records))),
        notes=tuple(line.notes()),
    )


def line_of(record: Record) -> list[Record]:
    """A run and those it was made from, oldest first, as far as their folders are still beside it."""
    found = [record]
    while (before := _started_from(found[0])) is not None and len(found) < MOST_STAGES:
        if before.folder in [one.folder for one in found]:
            break
        found.insert(0, before)
    return found


def is_aligned(record: Record) -> bool:
    """Whether the run aligned a model: by PPO, GRPO or DPO."""
    return record.run.get("task") == "align" or record.recipe.get("task") == "align"


# --- who started from whom --------------------------------------------------------------------------------------


def _started_from(record: Record) -> Record | None:
    """The run whose model this one began with, where its folder is at hand."""
    path = text(mapping(record.run.get("model")).get("path"))
    folder = Path(path).parent if path else None
    if folder is None or Path(path).name != "model" or not (folder / "run.json").is_file():
        return None
    try:
        return read_record(folder)
    except (ModelError, OSError):
        return None


def _begins_with(record: Record, other: Record) -> bool:
    """Whether `record` was trained from the model of `other`: by its path, or by its name where folders were moved."""
    path = text(mapping(record.run.get("model")).get("path"))
    if path and Path(path).parent == other.folder.resolve():
        return True
    named = re.fullmatch(r"run:([\w.-]+)", text(record.recipe.get("model")))
    return named is not None and other is not record and other.folder.name.startswith(named[1])


@dataclass(frozen=True)
class _Line:
    """Runs in the order in which they were made, and the column of each and of what it began with."""

    records: list[Record]
    names: list[str]  # of the columns
    after: list[int]  # column of each run
    before: list[int]  # column of what it began with

    @classmethod
    def of(cls, records: Sequence[Record]) -> _Line:
        parents = [next((i for i, other in enumerate(records) if _begins_with(one, other)), None) for one in records]
        order = sorted(range(len(records)), key=lambda i: _depth(i, parents))
        names, columns, before = list[str](), dict[int, int](), list[int]()
        for i in order:
            parent = parents[i]
            if parent is None or parent not in columns:
                base = text(mapping(records[i].run.get("model")).get("name")) or "base"
                if base not in names:
                    names.append(base)
                before.append(names.index(base))
            else:
                before.append(columns[parent])
            columns[i] = len(names)
            names.append(records[i].name)
        return cls([records[i] for i in order], names, [columns[i] for i in order], before)

    def rows(self) -> Iterator[Row]:
        """General text first, then the tasks in the order of the runs."""
        yield from self._general()
        for wanted, names in ((False, OF_TUNED), (True, OF_ALIGNED)):
            for place, record in enumerate(self.records):
                if is_aligned(record) is wanted:
                    yield from (self._row(name, place) for name in names if self._has(name, record, place))

    def _has(self, name: str, record: Record, place: int) -> bool:
        """Once for each measure: a run with the same reward and judge as an earlier one stands in the earlier row."""
        return name in record.metrics and not any(_same_measure(record, one) for one in self.records[:place])

    def _row(self, name: str, place: int) -> Row:
        values: list[float | None] = [None] * len(self.names)
        for i, record in enumerate(self.records):
            if i == place or (i > place and _same_measure(record, self.records[place])):
                if values[self.before[i]] is None:
                    values[self.before[i]] = record.untrained.get(name)
                values[self.after[i]] = record.metrics.get(name)
        return Row(name, self.records[place].name, tuple(values))

    def _general(self) -> Iterator[Row]:
        values: list[float | None] = [None] * len(self.names)
        for i, record in enumerate(self.records):
            if values[self.before[i]] is None:
                values[self.before[i]] = number(record.forgetting.get("before"))
            values[self.after[i]] = number(record.forgetting.get("after"))
        if any(value is not None for value in values):
            yield Row("perplexity", GENERAL, tuple(values))

    def notes(self) -> Iterator[str]:
        """Where the stages can't be compared as they stand."""
        for i, record in enumerate(self.records):
            if is_aligned(record) and not record.forgetting:
                yield f"{record.name} didn't measure general text: set evaluation.retain to see what it cost."
            began, earlier = number(record.forgetting.get("before")), self._measured_before(i)
            if began and earlier and abs(began / earlier - 1) > SAME_TEXT:
                yield (
                    f"{record.name} measured general text as {wording.metric_value(began, 'perplexity')} before it "
                    f"began, and {self.names[self.before[i]]} as {wording.metric_value(earlier, 'perplexity')}: not "
                    "the same text, so read each run's own before and after."
                )

    def _measured_before(self, i: int) -> float | None:
        """General text as the run that this one began with left it."""
        ends = (
            number(one.forgetting.get("after")) for k, one in enumerate(self.records) if self.after[k] == self.before[i]
        )
        return next(ends, None)


def _depth(i: int, parents: Sequence[int | None]) -> int:
    """Stages before this one; a ring of names ends somewhere."""
    depth, at = 0, parents[i]
    while at is not None and depth <= len(parents):
        depth, at = depth + 1, parents[at]
    return depth


def _same_measure(one: Record, other: Record) -> bool:
    """Whether two aligned runs were scored by the same reward and judge, on the same number of prompts."""
    if not (is_aligned(one) and is_aligned(other)):
        return False
    keys: tuple[Callable[[Record], object], ...] = (
        lambda record: record.recipe.get("reward"),
        lambda record: mapping(record.recipe.get("evaluation")).get("judge"),
        lambda record: record.kind,
        lambda record: record.judgement.get("num_rows"),
    )
    return all(key(one) == key(other) for key in keys)


# --- words ------------------------------------------------------------------------------------------------------


def _stage(record: Record) -> Stage:
    found = wording.verdict(record)
    return Stage(record.name, found.tone, found.headline, _paid(record))


def _paid(record: Record) -> str:
    """`general text 24.4 → 25.1 (+2.9 %, +2.1 % to +3.8 %): forgot a little`."""
    found = record.forgetting
    before, after, change = (number(found.get(name)) for name in ("before", "after", "change"))
    if before is None or after is None or change is None:
        return text(found.get("words")) or "what it cost was not measured"
    ends = pair(found.get("interval"))
    sure = f", {100 * ends[0]:+.1f} % to {100 * ends[1]:+.1f} %" if ends else ""
    came = " → ".join(wording.metric_value(value, "perplexity") for value in (before, after))
    return f"general text {came} ({100 * change:+.1f} %{sure}): {text(found.get('verdict'))}"
