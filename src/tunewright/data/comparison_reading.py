"""How one row of comparisons is read: which columns hold the prompt, the completions, and who is better than whom.

    pairs    prompt, chosen, rejected: texts or messages; the prompt may also be the beginning of both
    ranked   prompt, completions: [...], ranking: [[best, ...], [next, ...], ...] by their places, ties side by side

`comparisons` chooses the reading for a file and puts the rows of one prompt together. Knows no tokens.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.data.conversations import ROLES
from tunewright.data.examples import Row
from tunewright.data.row_reading import as_openai
from tunewright.data.survey import value_of
from tunewright.data.templates import kind_of, value_text
from tunewright.data.values import plain
from tunewright.errors import DataError

PROMPT, COMPLETION = "prompt", "completion"  # columns of a prompt and of one of its completions, once read
TURN = "\n\nAssistant:"  # how conversations in one text, as Anthropic writes them, begin an answer


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions of one prompt, compared."""

    better: int  # their places among the completions
    worse: int
    weight: float = 1.0  # probability that the better one is better: 0.5 (a tie) to 1
    margin: float = 0.0  # by how much, in units of the score
    annotator: str | None = None


@dataclass(frozen=True)
class Judged:
    """One row, read."""

    values: Mapping[str, Any]  # columns of the prompt
    completions: tuple[Any, ...]  # texts, or lists of messages as OpenAI writes them
    pairs: tuple[Pair, ...]  # none where all completions are the same


@dataclass(frozen=True)
class ComparisonReading:
    """The columns, and what they hold."""

    style: Literal["pairs", "ranked"]
    talks: bool  # completions are messages
    prompt: str | None = None  # column of the prompt where they are
    begins_both: bool = False  # the prompt is the text with which both completions begin
    system: str | None = None  # ShareGPT's column of what the system says
    margin: str | None = None
    label: str | None = None
    annotator: str | None = None
    group: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that say how completions compare, and are no part of a prompt."""
        held = ("chosen", "rejected") if self.style == "pairs" else ("completions", "ranking")
        return (*held, *filter(None, (self.margin, self.label, self.annotator, self.group)))

    def read(self, row: Row) -> Judged:
        """DataError naming row and column."""
        names, completions = self._completions(row)
        if self.talks:
            values, completions = self._talk(row, names, completions)
        elif self.begins_both:
            begin = _common_beginning(completions)
            values, completions = {PROMPT: begin}, [text[len(begin) :] for text in completions]
        else:
            values = {name: value for name, value in row.values.items() if name not in self.columns}
        _refuse_empty(completions, names, row)
        annotator = plain(row.values.get(self.annotator)) if self.annotator else None
        known = None if annotator is None or annotator != annotator else str(annotator)
        pairs = self._labelled(row, known) if self.style == "pairs" else self._ranked(row, len(completions), known)
        differ = (pair for pair in pairs if completions[pair.better] != completions[pair.worse])
        return Judged(values, tuple(completions), tuple(differ))

    # ---- prompt and completions ----

    def _completions(self, row: Row) -> tuple[list[str], list[Any]]:
        """The columns, for errors, and what they hold: texts, or lists of messages."""
        if self.style == "pairs":
            names = ["chosen", "rejected"]
            given = [plain(value_of(row, name)) for name in names]
        else:
            found = _listed(plain(value_of(row, "completions")))
            if not isinstance(found, list | tuple) or len(found) < 2:
                says = f'"completions" is {kind_of(found)}; expected a list of two or more'
                raise DataError(says, where=row.where, field="completions")
            given, names = list(found), ["completions"] * len(found)
        if self.talks:
            return names, [messages_of(value, name, row.where) for name, value in zip(names, given, strict=True)]
        cells = (Row({name: value}, row.where, row.number) for name, value in zip(names, given, strict=True))
        return names, [value_text(cell, name) for name, cell in zip(names, cells, strict=True)]

    def _talk(self, row: Row, names: list[str], completions: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        """Where the completions begin with what the user said, the prompt is all that they have in common."""
        given = plain(row.values.get(self.prompt)) if self.prompt else None
        asked = messages_of(given, self.prompt or "", row.where, role="user") if given is not None else []
        if not asked or any(talk and talk[0].get("role") != "assistant" for talk in completions):
            size = _common_turns(completions)
            if not size:
                says = f'"{names[0]}" and "{names[-1]}" do not begin with the same question; add a prompt'
                raise DataError(says, where=row.where, field=names[0])
            asked, completions = completions[0][:size], [talk[size:] for talk in completions]
        system = plain(row.values.get(self.system)) if self.system else None
        if str(system or "").strip() and asked[0].get("role") != "system":
            asked = [{"role": "system", "content": system}, *asked]
        used = (*self.columns, self.prompt, self.system)
        return {**{name: value for name, value in row.values.items() if name not in used}, PROMPT: asked}, completions

    # ---- how they compare ----

    def _labelled(self, row: Row, annotator: str | None) -> list[Pair]:
        chance = _number(row, self.label, 1.0) if self.label else 1.0
        if not 0 <= chance <= 1:
            says = f'"{self.label}" is {chance:g}; expected 1 (chosen is better), 0.5 (a tie), or between 0 and 1'
            raise DataError(says, where=row.where, field=self.label)
        margin = self._margin(_number(row, self.margin, 0.0), row) if self.margin and chance != 0.5 else 0.0
        better, worse = (0, 1) if chance >= 0.5 else (1, 0)
        return [Pair(better, worse, max(chance, 1 - chance), margin, annotator)]

    def _ranked(self, row: Row, size: int, annotator: str | None) -> list[Pair]:
        """All pairs of the ranked ones; what nobody ranked is in none."""
        tiers = _tiers(_listed(plain(value_of(row, "ranking"))), size, row)
        scores = _listed(plain(row.values.get(self.margin))) if self.margin else None
        pairs: list[Pair] = []
        for tier, later in ((tier, tiers[place + 1 :]) for place, tier in enumerate(tiers)):
            pairs += [Pair(a, b, 0.5, 0.0, annotator) for a, b in itertools.combinations(tier, 2)]
            below = itertools.chain.from_iterable(later)
            pairs += [
                Pair(a, b, 1.0, self._distance(scores, a, b, size, row), annotator)
                for a, b in itertools.product(tier, below)
            ]
        return pairs

    def _distance(self, scores: Any, better: int, worse: int, size: int, row: Row) -> float:
        """Of two completions: one number for all pairs, or the difference of their own."""
        if not isinstance(scores, list | tuple):
            return self._margin(_number(row, self.margin, 0.0), row) if self.margin else 0.0
        if len(scores) != size or not all(isinstance(s, int | float) and math.isfinite(s) for s in scores):
            says = f'"{self.margin}" is {kind_of(scores)}; expected a number, or one for each of {size} completions'
            raise DataError(says, where=row.where, field=self.margin)
        return self._margin(float(scores[better] - scores[worse]), row)

    def _margin(self, value: float, row: Row) -> float:
        if value < 0:
            says = f'"{self.margin}" says that the better completion is better by {value:g}; expected 0 or more'
            raise DataError(says, where=row.where, field=self.margin)
        return value


# ---- cells ----


def speaks(value: Any) -> bool:
    """Whether a cell holds a message, or a list of them."""
    first = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(first, Mapping) and ("role" in first or "from" in first)


def messages_of(value: Any, column: str, where: str, role: str = "assistant") -> list[dict[str, Any]]:
    """A text as what `role` says, a message, or a list of messages, all in OpenAI's words; none of a blank text."""
    if isinstance(value, str):
        return [{"role": role, "content": value}] if value.strip() else []
    given = [value] if isinstance(value, Mapping) else value
    if not isinstance(given, list | tuple):
        says = f'"{column}" is {kind_of(value)}; expected messages, or a text'
        raise DataError(says, where=where, field=column)
    found = [as_openai(message, where, column, number) for number, message in enumerate(given, 1)]
    return [dict(one) if isinstance(one, Mapping) else {"role": one} for one in found]  # the second is refused later


def _common_turns(talks: Sequence[list[Any]]) -> int:
    """Messages that all begin with, up to where the assistant speaks in each."""
    size = 0
    for turns in zip(*talks, strict=False):
        if any(turn != turns[0] for turn in turns):
            break
        size += 1
    while size and not all(len(talk) > size and ROLES.get(talk[size].get("role")) == "assistant" for talk in talks):
        size -= 1
    return size


def _common_beginning(texts: Sequence[str]) -> str:
    """What all texts begin with: up to the last turn of a conversation that is one text, else the last whole line."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    common = "".join(letters[0] for letters in same)
    turn = common.rfind(TURN)
    return common[: turn + len(TURN)] if turn >= 0 else common[: common.rfind("\n") + 1]


def _refuse_empty(completions: Sequence[Any], names: Sequence[str], row: Row) -> None:
    for completion, name in zip(completions, names, strict=True):
        if not (completion.strip() if isinstance(completion, str) else completion):
            says = f'"{name}" is empty, so there is nothing to compare; fill it in or remove the row'
            raise DataError(says, where=row.where, field=name)


def _listed(value: Any) -> Any:
    """A list that a CSV file can only hold as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _number(row: Row, column: str | None, absent: float) -> float:
    value = plain(row.values.get(column or ""))
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return absent
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f'"{column}" is {kind_of(value)}; expected a number', where=row.where, field=column)
    return found


def _tiers(given: Any, size: int, row: Row) -> list[list[int]]:
    """The ranking as lists of places, best first."""
    tiers = [tier if isinstance(tier, list | tuple) else [tier] for tier in given] if isinstance(given, list) else []
    places = list(itertools.chain.from_iterable(tiers))
    for place in places:
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < size:
            says = f'"ranking" names {place!r:.40}; expected places of {size} completions, 0 to {size - 1}'
            raise DataError(says, where=row.where, field="ranking")
    if not places or len(set(places)) < len(places):
        says = f'"ranking" is {given!r:.60}; expected each completion once, best first: [[2], [0, 1]]'
        raise DataError(says, where=row.where, field="ranking")
    return [list(tier) for tier in tiers]
