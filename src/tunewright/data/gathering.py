"""One pass over a source for `data check`: everything that the examination needs, in some 400 bytes per row.

The survey of a run with more beside it: words, token counts, other columns, odd characters, and what is wrong with the
records that a run would refuse. Judges nothing; `examining` does.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from tunewright.data import mojibake
from tunewright.data.columns import Columns
from tunewright.data.encoding import CHUNK_CHARACTERS, CHUNK_TEXTS
from tunewright.data.examples import Row
from tunewright.data.labels import LabelSpec, Setting
from tunewright.data.lenient import LenientSource, Record
from tunewright.data.raw_labels import ObservedLabels
from tunewright.data.survey import NUM_EMPTY_SHOWN, Survey, text_hash, text_of, value_of
from tunewright.data.words import Words, WordStore
from tunewright.errors import DataError

MAX_COLUMNS = 12  # other columns that are looked at
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
CountTokens = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]  # texts -> tokens and unknown tokens of each


@dataclass(frozen=True, eq=False)
class OtherColumn:
    """A column beside text and label, as numbers. N usable rows."""

    values: np.ndarray  # uint32 [N] equal values, equal number
    patterns: np.ndarray  # uint32 [N] the same without digits: neg/17.txt and neg/18.txt are equal
    numbers: np.ndarray  # float64 [N] the value, or the first number in it; NaN without one


@dataclass(frozen=True, eq=False)
class Exchanges:
    """What is known of rows that are to be written, beside their text. N usable rows; empty arrays without a tokenizer.

    The survey's hashes are of prompt and answer together, the words those that no earlier row has brought.
    """

    prompts: np.ndarray  # uint64 [N] equal prompts, equal number; of plain text, the text
    answers: np.ndarray  # uint64 [N]
    commonest: str  # the answer that most rows have
    targets: np.ndarray  # int32 [N] tokens to be learnt
    lines_with_controls: np.ndarray  # int64, rows with the name of a control token in a value


@dataclass(frozen=True, eq=False)
class Gathered:
    """What one pass found. N usable rows: text and label can be read, and the text isn't empty."""

    survey: Survey
    lines: np.ndarray  # int64 [N] where a person finds each usable row
    words: Words
    edges: np.ndarray  # uint32 [N, 2] code of the sign that the text begins and ends with; 0 for letters and digits
    num_characters: int
    tokens: np.ndarray  # int32 [N] special tokens included; empty without a tokenizer
    unknown_tokens: np.ndarray  # int32 [N]
    columns: Mapping[str, OtherColumn]
    problems: list[DataError]  # the first few
    lines_of: Mapping[str, np.ndarray]  # rejected, recoded, garbled, replaced, padded_label, empty -> lines
    encoding: str
    has_bom: bool
    exchanges: Exchanges | None = None  # of a task that writes

    @property
    def one_side(self) -> np.ndarray:
        """uint64 [N]: what mustn't stand in train and in validation; the text, or the prompt."""
        return self.survey.text_hashes if self.exchanges is None else self.exchanges.prompts

    def at(self, what: str) -> np.ndarray:
        """Lines that were marked so: int64."""
        return self.lines_of.get(what, np.zeros(0, np.int64))


@dataclass
class _Pass:
    """What grows while the rows go by."""

    observed: ObservedLabels
    columns: Columns
    spec: LabelSpec | None
    count_tokens: CountTokens | None
    words: WordStore = field(default_factory=WordStore)
    rows: array[int] = field(default_factory=lambda: array("q"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("i"))
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    edges: array[int] = field(default_factory=lambda: array("I"))
    waiting: list[str] = field(default_factory=list)
    waiting_characters: int = 0
    num_characters: int = 0
    tokens: list[np.ndarray] = field(default_factory=list)
    unknown: list[np.ndarray] = field(default_factory=list)
    others: dict[str, tuple[array[int], array[int], array[float]]] = field(default_factory=dict)
    problems: list[DataError] = field(default_factory=list)
    empty_where: list[str] = field(default_factory=list)
    marked: dict[str, array[int]] = field(default_factory=dict)
    num_rows: int = 0

    def mark(self, what: str, line: int) -> None:
        self.marked.setdefault(what, array("q")).append(line)


def gather(
    source: LenientSource,
    columns: Columns,
    setting: Setting,
    *,
    spec: LabelSpec | None = None,
    count_tokens: CountTokens | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Gathered:
    """Read every record once. `spec`: labels that are known already, so that others are refused.

    Raises DataError only where nothing of the source can be used. `on_rows` hears now and then how many rows were read.
    """
    found = _Pass(ObservedLabels(column=columns.label or "label"), columns, spec, count_tokens)
    for record in source.records():
        found.num_rows += 1
        _take(found, record)
        if found.num_rows % 10_000 == 0:
            on_rows(found.num_rows)
    _count_waiting(found)
    return _closed(found, source, setting)


def _take(found: _Pass, record: Record) -> None:
    if record.problem is not None:
        found.mark("recoded" if record.recoded and record.row else "rejected", record.line)
        _remember(found, record.problem)
    if record.row is None:
        return
    try:
        text = text_of(record.row, found.columns.text)
        if not text:
            _take_empty(found, record.row, record.line)
            return
        key = _label_key(found, record.row, record.line)
    except DataError as error:
        if found.observed.overflowed and not found.observed.all_numbers:
            raise  # too many different labels: this is the wrong column, not a bad row
        found.mark("rejected", record.line)
        _remember(found, error)
        return
    found.rows.append(record.position)
    found.lines.append(record.line)
    found.keys.append(key)
    _take_text(found, text, record.line)
    _take_others(found, record.row)


def _remember(found: _Pass, problem: DataError) -> None:
    if len(found.problems) < NUM_EMPTY_SHOWN:
        found.problems.append(problem)


def _take_empty(found: _Pass, row: Row, line: int) -> None:
    found.mark("empty", line)
    if len(found.empty_where) < NUM_EMPTY_SHOWN:
        found.empty_where.append(row.where)


def _label_key(found: _Pass, row: Row, line: int) -> int:
    column = found.columns.label
    if column is None:
        return -1
    value = value_of(row, column)
    if found.spec is not None:
        found.spec.encode(value, row.where, column)
    key = found.observed.add(value, row.where)
    if isinstance(value, str) and value != value.strip():
        found.mark("padded_label", line)
    return key


def _take_text(found: _Pass, text: str, line: int) -> None:
    found.hashes.append(text_hash(text))
    found.words.add(text)
    seen = text.strip() or text
    for sign in (seen[0], seen[-1]):
        found.edges.append(0 if sign.isalnum() else ord(sign))
    if not text.isascii():
        if mojibake.REPLACEMENT in text:
            found.mark("replaced", line)
        if mojibake.is_garbled(text):
            found.mark("garbled", line)
    found.num_characters += len(text)
    if found.count_tokens is not None:
        found.waiting.append(text)
        found.waiting_characters += len(text)
        if len(found.waiting) >= CHUNK_TEXTS or found.waiting_characters >= CHUNK_CHARACTERS:
            _count_waiting(found)


def _count_waiting(found: _Pass) -> None:
    if found.count_tokens is not None and found.waiting:
        tokens, unknown = found.count_tokens(found.waiting)
        found.tokens.append(tokens)
        found.unknown.append(unknown)
    found.waiting, found.waiting_characters = [], 0


def _take_others(found: _Pass, row: Row) -> None:
    before = len(found.rows) - 1
    for name, value in row.values.items():
        if name in (found.columns.text, found.columns.label) or isinstance(value, list | dict):
            continue
        if name not in found.others:
            if len(found.others) == MAX_COLUMNS:
                continue
            found.others[name] = (array("I"), array("I"), array("d"))
        _append_other(found.others[name], value, before)
    for column in found.others.values():
        if len(column[0]) == before:
            _append_other(column, None, before)


def _append_other(column: tuple[array[int], array[int], array[float]], value: Any, before: int) -> None:
    values, patterns, numbers = column
    while len(values) < before:  # the column begins late
        values.append(0)
        patterns.append(0)
        numbers.append(np.nan)
    text = "" if value is None else str(value)[:200]
    match = _NUMBER.search(text)
    values.append(crc32(text.encode("utf-8", "replace")))
    patterns.append(crc32(_DIGITS.sub("#", text).encode("utf-8", "replace")))
    numbers.append(float(match[0]) if match else np.nan)


def _closed(found: _Pass, source: LenientSource, setting: Setting) -> Gathered:
    keys = np.array(found.keys, np.int32)
    if setting == "number" or (setting == "auto" and found.observed.is_quantity):
        keys = np.full_like(keys, -1)
    none = np.zeros(0, np.int32)
    return Gathered(
        survey=Survey(
            source.name, found.num_rows, np.array(found.rows, np.int64), keys, np.array(found.hashes, np.uint64),
            found.observed, tuple(found.empty_where), fingerprint="",
        ),
        lines=np.array(found.lines, np.int64),
        words=found.words.close(),
        edges=np.array(found.edges, np.uint32).reshape(-1, 2),
        num_characters=found.num_characters,
        tokens=np.concatenate(found.tokens) if found.tokens else none,
        unknown_tokens=np.concatenate(found.unknown) if found.unknown else none,
        columns={
            name: OtherColumn(np.array(v, np.uint32), np.array(p, np.uint32), np.array(n, np.float64))
            for name, (v, p, n) in found.others.items()
        },
        problems=found.problems,
        lines_of={name: np.array(lines, np.int64) for name, lines in found.marked.items()},
        encoding=source.encoding,
        has_bom=source.has_bom,
    )  # fmt: skip
