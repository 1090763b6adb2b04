"""Which of several completions people found better: recognised in rows, the rows of one prompt put together.

Between a source and `comparison_tokens`. Prompt with chosen and rejected (texts or messages, TRL's, ShareGPT's or
Anthropic's way) or with completions and a ranking; a `group` column says which rows are of one prompt. Prompts are read
as `written` reads them, so that they have the same text here, where a model writes, and where its text is scored.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from tunewright.data.columns import ROWS_LOOKED_AT
from tunewright.data.comparison_reading import COMPLETION, PROMPT, ComparisonReading, Judged, Pair, speaks
from tunewright.data.conversations import Conversation
from tunewright.data.examples import Row, Source
from tunewright.data.row_reading import TemplateReading
from tunewright.data.survey import text_hash
from tunewright.data.templates import Part, Template
from tunewright.data.values import plain
from tunewright.data.written import CHATS, PROMPTS, Format, recognise
from tunewright.errors import DataError, RecipeError, did_you_mean

BEGINS_BOTH = "completions with their prompt"  # name of the format where no column holds the prompts


@dataclass(frozen=True)
class Group:
    """One prompt with its K completions."""

    rows: tuple[Row, ...]  # K rows: the prompt's columns, and the completion
    pairs: tuple[Pair, ...]
    where: str  # the first of the rows it was read from
    number: int


@dataclass(frozen=True)
class Comparisons:
    """The comparisons of a source, looked through once. `groups` gives them, N prompts in order of their last rows."""

    source: Source
    reading: ComparisonReading
    format: Format  # how a prompt with one completion is read
    said: tuple[str, ...]  # what was recognised and left out, a sentence each
    prompt_hashes: np.ndarray = field(repr=False)  # uint64 [N], equal prompts, equal number
    hashes: np.ndarray = field(repr=False)  # uint64 [N], of prompt, completions and how they compare
    annotators: tuple[str, ...]  # names, sorted
    num_comparisons: int
    num_ties: int
    num_same: int  # rows that compare a text with itself, left out

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def of(
        cls, source: Source, *, template: str | None = None, margin: str | None = None, form: Format | None = None
    ) -> Comparisons:
        """Recognise and look through. `form`: how prompts must be read, where that is decided already.

        Raises RecipeError for a column or template that can't be, DataError naming row and column.
        """
        reading, form, said = recognised(source, template=template, margin=margin, form=form)
        found = _Survey()
        for group in _groups(source, reading, form, found):
            found.add(group, form)
        if not found.hashes:
            raise DataError("no row compares two different completions; expected at least one", where=source.name)
        return cls(
            source,
            reading,
            form,
            (*said, *form.said, found.words()),
            np.array(found.prompts, np.uint64),
            np.array(found.hashes, np.uint64),
            tuple(sorted(found.annotators)),
            found.comparisons,
            found.ties,
            found.same,
        )

    def groups(self) -> Iterator[Group]:
        """Every prompt that has a comparison, its rows put together."""
        return _groups(self.source, self.reading, self.format, _Survey())

    @property
    def signature(self) -> str:
        """All that decides the groups, as JSON."""
        return json.dumps([self.format.signature, repr(self.reading)])

    @cached_property
    def annotator_numbers(self) -> Mapping[str | None, int]:
        """Number of each name; -1 for None."""
        return {None: -1, **{name: number for number, name in enumerate(self.annotators)}}


# ---- which columns ----


def is_comparison(columns: Mapping[str, Any]) -> bool:
    """Whether rows with these columns hold comparisons."""
    return {"chosen", "rejected"} <= columns.keys() or {"completions", "ranking"} <= columns.keys()


def recognised(
    source: Source, *, template: str | None = None, margin: str | None = None, form: Format | None = None
) -> tuple[ComparisonReading, Format, tuple[str, ...]]:
    """How rows and their prompts are read, and what there is to say, from the first rows; see `Comparisons.of`."""
    columns = _first_values(source)
    if not is_comparison(columns):
        there = ", ".join(columns) or "none"
        says = f"the columns ({there}) hold no comparisons; expected prompt, chosen and rejected, or prompt, "
        raise DataError(f"{says}completions and ranking", where=source.name)
    if margin is not None and margin not in columns:
        there = f'there is no column "{margin}"; found {", ".join(columns)}.{did_you_mean(margin, columns)}'
        raise RecipeError(there, field="data.margin")
    reading = _columns(columns, margin, template)
    held = f"comparisons: {' and '.join(reading.columns[:2])}{_extra_words(reading)}"
    if form is not None:
        return _as_decided(source, reading, columns, form), form, (held,)
    reading, form, said = _with_format(source, reading, columns, template)
    return reading, form, (held, *said)


def _as_decided(
    source: Source, reading: ComparisonReading, columns: Mapping[str, Any], form: Format
) -> ComparisonReading:
    """The same, if its prompts can be read like others before."""
    if reading.talks != form.talks:
        kinds = ("texts", "conversations")
        says = f"holds {kinds[reading.talks]}, and the prompts were read as {kinds[form.talks]} before"
        raise DataError(f"{says}; give both the same columns", where=source.name)
    needed = [name for name in form.reading.columns if name not in form.reading.optional]
    missing = [] if form.talks else [name for name in needed if name not in columns]
    if missing == [PROMPT] and form.name == BEGINS_BOTH:
        return replace(reading, begins_both=True)
    if missing:
        says = f'there is no column "{missing[0]}", which the prompts were read from before; '
        raise DataError(f"{says}found {', '.join(columns)}.{did_you_mean(missing[0], columns)}", where=source.name)
    return reading


def _columns(columns: Mapping[str, Any], margin: str | None, template: str | None) -> ComparisonReading:
    style = "pairs" if {"chosen", "rejected"} <= columns.keys() else "ranked"
    first = columns["chosen" if style == "pairs" else "completions"]
    inside = first[0] if style == "ranked" and isinstance(first, list | tuple) and first else first
    prompts = [name for name in (PROMPT, *CHATS) if speaks(columns.get(name))]
    talks = speaks(inside) or bool(prompts and template is None)
    if talks and template is not None:
        raise RecipeError(
            "a template is for texts, and the rows are conversations; leave it out", field="data.template"
        )
    asked = [*prompts, *(name for name in PROMPTS if isinstance(columns.get(name), str))]
    return ComparisonReading(
        style,
        talks,
        prompt=next(iter(asked), None) if talks else None,
        system="system" if talks and isinstance(columns.get("system"), str) else None,
        margin=margin,
        label="label" if style == "pairs" and _is_chance(columns.get("label")) else None,
        annotator="annotator" if "annotator" in columns else None,
        group="group" if "group" in columns else None,
    )


def _is_chance(value: Any) -> bool:
    """Whether a first value can be a probability; a word there is a label of something else."""
    try:
        return value is not None and 0 <= float(value) <= 1
    except (TypeError, ValueError):
        return False


def _extra_words(reading: ComparisonReading) -> str:
    named = {"label": reading.label, "margin": reading.margin, "annotator": reading.annotator, "group": reading.group}
    found = [role if role == name else f"{role} {name}" for role, name in named.items() if name]
    return f", with {', '.join(found)}" if found else ""


def _first_values(source: Source) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for row in itertools.islice(source.rows(), ROWS_LOOKED_AT):
        for name, value in row.values.items():
            if columns.get(name) is None:
                columns[name] = plain(value)
    return columns


# ---- how a prompt is read ----


@dataclass
class _Written:
    """The first comparisons, as rows of a prompt with one completion."""

    name: str
    first: tuple[Row, ...]

    def rows(self) -> Iterator[Row]:
        return iter(self.first)

    def fingerprint(self) -> str:
        return ""


def _with_format(
    source: Source, reading: ComparisonReading, columns: Mapping[str, Any], template: str | None
) -> tuple[ComparisonReading, Format, tuple[str, ...]]:
    """As `generate` would read the same prompts; where no column holds them, the completions begin with them."""
    first = _first_written(source, reading)
    if reading.talks:
        form = recognise(first)
        return reading, replace(form, said=tuple(one for one in form.said if not one.startswith("learned:"))), ()
    wanted = template.replace("{chosen}", f"{{{COMPLETION}}}") if template else None
    try:
        form = recognise(first, template=wanted, completion=COMPLETION)
    except DataError:
        form = None
    if form is not None and isinstance(form.reading, TemplateReading):
        return reading, form, ()
    whole = Template((Part(PROMPT, is_column=True),), COMPLETION, as_given=True)
    form = Format(BEGINS_BOTH, (), TemplateReading(whole, COMPLETION, False), "completion")
    says = "no column of prompts: what both completions begin with is the prompt"
    return replace(reading, begins_both=True), form, (says,)


def _first_written(source: Source, reading: ComparisonReading) -> _Written:
    read = (_as_written(reading.read(row), row)[0] for row in itertools.islice(source.rows(), ROWS_LOOKED_AT))
    return _Written(source.name, tuple(read))


def _as_written(judged: Judged, row: Row) -> tuple[Row, ...]:
    return tuple(Row({**judged.values, COMPLETION: text}, row.where, row.number) for text in judged.completions)


# ---- rows -> prompts ----


class _Survey:
    """What one pass found."""

    def __init__(self) -> None:
        self.prompts: list[int] = []
        self.hashes: list[int] = []
        self.annotators: set[str] = set()
        self.completions: Counter[int] = Counter()
        self.rows = self.comparisons = self.ties = self.same = 0

    def add(self, group: Group, form: Format) -> None:
        self.prompts.append(text_hash(_prompt_text(form, group.rows[0])))
        said = [json.dumps(row.values[COMPLETION], sort_keys=True, default=str) for row in group.rows]
        order = [(said[pair.better], said[pair.worse], pair.weight) for pair in group.pairs]
        self.hashes.append(text_hash(json.dumps([self.prompts[-1], order])))
        self.annotators |= {pair.annotator for pair in group.pairs if pair.annotator is not None}
        self.completions[len(group.rows)] += 1
        self.comparisons += len(group.pairs)
        self.ties += sum(pair.weight == 0.5 for pair in group.pairs)

    def words(self) -> str:
        least, most = min(self.completions), max(self.completions)
        each = f"{least}" if least == most else f"{least} to {most}"
        said = [f"{self.comparisons:,} comparisons of {len(self.hashes):,} prompts with {each} completions"]
        said += [f"{self.ties:,} of them ties"] if self.ties else []
        said += [f"{self.same:,} rows that compare a text with itself left out"] if self.same else []
        said += [f"{len(self.annotators)} annotators"] if self.annotators else []
        return ", ".join(said)


class _Gathered:
    """A prompt whose rows are being put together."""

    def __init__(self, row: Row, judged: Judged) -> None:
        self.first = Row(judged.values, row.where, row.number)
        self.completions: dict[str, Any] = {}  # by what they say: equal ones are one
        self.pairs: list[Pair] = []
        self.add(judged)

    def add(self, judged: Judged) -> None:
        if not judged.pairs:
            return
        keys = [json.dumps(text, sort_keys=True, default=str) for text in judged.completions]
        for key, text in zip(keys, judged.completions, strict=True):
            self.completions.setdefault(key, text)
        place = {key: number for number, key in enumerate(self.completions)}
        at = [place[key] for key in keys]
        self.pairs += [replace(pair, better=at[pair.better], worse=at[pair.worse]) for pair in judged.pairs]

    def group(self) -> Group:
        where, number = self.first.where, self.first.number
        rows = (Row({**self.first.values, COMPLETION: text}, where, number) for text in self.completions.values())
        return Group(tuple(rows), tuple(self.pairs), where, number)


def _groups(source: Source, reading: ComparisonReading, form: Format, found: _Survey) -> Iterator[Group]:
    """Rows of one group wait for the last of them; every other row is a prompt of its own."""
    waiting: dict[int, _Gathered] = {}
    left = _group_sizes(source, reading.group)
    for row in source.rows():
        judged, key = reading.read(row), _group_key(row, reading.group)
        found.rows, found.same = found.rows + 1, found.same + (not judged.pairs)
        gathered = waiting.pop(key, None) if key is not None else None
        if gathered is None:
            gathered = _Gathered(row, judged)
        else:
            _check_same_prompt(gathered.first, Row(judged.values, row.where, row.number), form, reading.group)
            gathered.add(judged)
        if key is not None and left[key] > 1:
            left[key] -= 1
            waiting[key] = gathered
        elif gathered.pairs:
            yield gathered.group()


def _check_same_prompt(first: Row, row: Row, form: Format, column: str | None) -> None:
    if _prompt_text(form, first) != _prompt_text(form, row):
        says = f"has another prompt than {first.where}, which is of the same group; expected one prompt a group"
        raise DataError(says, where=row.where, field=column)


def _group_sizes(source: Source, column: str | None) -> Counter[int]:
    keys = (_group_key(row, column) for row in source.rows()) if column else ()
    return Counter(key for key in keys if key is not None)


def _group_key(row: Row, column: str | None) -> int | None:
    value = plain(row.values.get(column)) if column else None
    return None if value is None or value != value or value == "" else text_hash(str(value))


def _prompt_text(form: Format, row: Row) -> str:
    read = form.prompt(replace(row, values={name: value for name, value in row.values.items() if name != COMPLETION}))
    if isinstance(read, Conversation):
        return json.dumps(read.messages, sort_keys=True, default=str)
    return "".join(segment.text for segment in read)
