"""One pass over rows that are to be written, for `data check`: prompts, answers, tokens, and what can't be used.

What `gathering` is for labelled texts. Near duplicates are looked for in what a row brings anew: a passage that many
questions are about, a system message or an instruction that every row repeats make no two rows alike.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tunewright.data import mojibake
from tunewright.data.conversations import Conversation
from tunewright.data.encoding import chunks
from tunewright.data.examples import Row
from tunewright.data.gathering import Exchanges, Gathered
from tunewright.data.lenient import LenientSource, Record
from tunewright.data.raw_labels import ObservedLabels
from tunewright.data.row_reading import TextReading
from tunewright.data.segments import Segments, Tokens
from tunewright.data.survey import Survey, text_hash, text_of
from tunewright.data.words import WordStore
from tunewright.data.written import Format
from tunewright.data.written_tokens import RowEncoder
from tunewright.errors import DataError

KINDS_KEPT = 3  # problems of different kinds
_OWN = re.compile(r'\d+|"[^"]*"')  # what tells two messages of one kind apart


@dataclass(frozen=True)
class Exchange:
    """One row, read."""

    record: Record
    cells: tuple[str, ...]  # what stands before the answer, piece by piece
    prompt: str
    answer: str
    asked: str  # the last thing before the answer that isn't of the template
    segments: Segments | None  # for the tokenizer; None without one

    @property
    def size(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass
class _Pass:
    """What grows while the rows go by."""

    form: Format
    encoder: RowEncoder | None
    seen: set[int]  # hashes of cells of earlier rows
    words: WordStore = field(default_factory=WordStore)
    numbers: dict[str, array[int]] = field(default_factory=dict)  # per usable row, by name
    marked: dict[str, array[int]] = field(default_factory=dict)
    problems: dict[str, DataError] = field(default_factory=dict)  # kind of message -> the first of it
    empty_where: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    num_rows: int = 0
    num_characters: int = 0

    def mark(self, what: str, line: int) -> None:
        self.marked.setdefault(what, array("q")).append(line)

    def add(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self.numbers.setdefault(name, array("Q" if name.endswith("hash") else "q")).append(number)

    def column(self, name: str, kind: type) -> np.ndarray:
        return np.array(self.numbers.get(name, ()), kind)


def gather_written(
    source: LenientSource,
    form: Format,
    encoder: RowEncoder | None = None,
    *,
    seen: set[int] | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Gathered:
    """Read every record once; nothing is cut. `seen`: hashes of what other parts hold, which is added to.

    Raises DataError only where nothing of the source can be read.
    """
    found = _Pass(form, encoder, set() if seen is None else seen)
    for chunk in chunks(_read(found, source, on_rows), lambda exchange: exchange.size):
        for exchange, tokens in zip(chunk, _encoded(found, chunk), strict=True):
            if isinstance(tokens, DataError):
                _refuse(found, exchange.record, tokens)
            else:
                _take(found, exchange, tokens)
    return _closed(found, source)


# ---- rows -> exchanges ----


def _read(found: _Pass, source: LenientSource, on_rows: Callable[[int], None]) -> Iterator[Exchange]:
    for record in source.records():
        found.num_rows += 1
        if found.num_rows % 10_000 == 0:
            on_rows(found.num_rows)
        if record.problem is not None:
            found.mark("recoded" if record.recoded and record.row else "rejected", record.line)
            found.problems.setdefault(_kind(record.problem), record.problem)
        if record.row is None:
            continue
        try:
            yield exchange_of(record, record.row, found.form, found.encoder)
        except DataError as error:
            if lacks_target(record.row, found.form):
                found.mark("empty", record.line)
                found.empty_where.append(record.row.where)
            else:
                _refuse(found, record, error)


def exchange_of(record: Record, row: Row, form: Format, encoder: RowEncoder | None = None) -> Exchange:
    """A row as a run reads it. DataError with row and column for what a run refuses."""
    read = form.segments(row)
    if isinstance(read, Conversation):
        talk = read.before_answer()
        prompt = json.dumps(talk.messages, sort_keys=True, default=str)
        cells, answer = tuple(message.content for message in talk.messages), read.answer
        segments = encoder.chat.segments(read) if encoder and encoder.chat else None
        return Exchange(record, cells, prompt, answer, cells[-1] if cells else "", segments)
    before = [segment for segment in read if not segment.is_target]
    cells = tuple(segment.text for segment in before)
    values = [segment.text for segment in before if segment.is_value] or list(cells)
    answer = "".join(segment.text for segment in read if segment.is_target)
    return Exchange(record, cells, "".join(cells), answer, values[-1] if values else "", read if encoder else None)


def lacks_target(row: Row, form: Format) -> bool:
    """Whether all that is wrong with a row is that there is nothing to learn in it."""
    try:
        if isinstance(form.reading, TextReading):
            return not text_of(row, form.reading.column)
        form.prompt(row)
    except DataError:
        return False
    return True


def _refuse(found: _Pass, record: Record, error: DataError) -> None:
    found.mark("rejected", record.line)
    placed = error if error.where or record.row is None else DataError(error.message, where=record.row.where)
    found.problems.setdefault(_kind(placed), placed)


def _kind(error: DataError) -> str:
    return _OWN.sub("", error.message)


# ---- exchanges -> numbers ----


def _encoded(found: _Pass, chunk: list[Exchange]) -> list[Tokens | DataError | None]:
    """The tokens of each, or why there are none; None without a tokenizer."""
    if found.encoder is None:
        return [None] * len(chunk)
    encoder = found.encoder.encoder
    rows = [exchange.segments or () for exchange in chunk]
    try:
        return list(encoder.encode_all(rows, [""] * len(rows)))
    except DataError as error:
        if len(chunk) == 1:
            return [error]
        return [tokens for exchange in chunk for tokens in _encoded(found, [exchange])]


def _take(found: _Pass, exchange: Exchange, tokens: Tokens | None) -> None:
    record, whole = exchange.record, exchange.prompt + "\0" + exchange.answer
    found.add(position=record.position, line=record.line, whole_hash=text_hash(whole))
    is_text = isinstance(found.form.reading, TextReading)
    found.add(prompt_hash=text_hash(exchange.answer if is_text else exchange.prompt))
    found.add(answer_hash=text_hash(exchange.answer))
    found.words.add(_fresh(found.seen, exchange))
    found.num_characters += exchange.size
    if not is_text:
        found.answers[exchange.answer.strip()[:200]] += 1
    _mark_characters(found, exchange)
    if tokens is not None and found.encoder is not None:
        encoder = found.encoder.encoder
        unknown = encoder.tokenizer.unk_token_id
        count = 0 if unknown == encoder.eos else tokens.ids.count(unknown)  # of some models the two are one
        found.add(tokens=len(tokens.ids), targets=sum(tokens.is_target), unknown=count)


def _fresh(seen: set[int], exchange: Exchange) -> str:
    """The answer, and what no earlier row has said before one."""
    hashes = {text_hash(cell): cell for cell in exchange.cells}
    fresh = [cell for number, cell in hashes.items() if number not in seen]
    seen.update(hashes)
    if not fresh and exchange.cells:  # a known prompt with another answer: others look for these
        return f"{text_hash(exchange.prompt):x} {exchange.answer}"
    return " ".join((*fresh, exchange.answer))


def _mark_characters(found: _Pass, exchange: Exchange) -> None:
    line, text = exchange.record.line, " ".join((*exchange.cells, exchange.answer))
    if not text.isascii():
        if mojibake.REPLACEMENT in text:
            found.mark("replaced", line)
        if mojibake.is_garbled(text):
            found.mark("garbled", line)
    if found.encoder is not None and exchange.record.row is not None:
        given = json.dumps(dict(exchange.record.row.values), ensure_ascii=False, default=str)
        if found.encoder.encoder.controls.search(given):
            found.mark("controls", line)


def _closed(found: _Pass, source: LenientSource) -> Gathered:
    lines_of = {name: np.array(lines, np.int64) for name, lines in found.marked.items()}
    whole = found.column("whole_hash", np.uint64)
    commonest = found.answers.most_common(1)
    return Gathered(
        survey=Survey(
            source.name, found.num_rows, found.column("position", np.int64), np.zeros(len(whole), np.int32), whole,
            ObservedLabels(column=""), tuple(found.empty_where[:20]), fingerprint="",
        ),
        lines=found.column("line", np.int64),
        words=found.words.close(),
        edges=np.zeros((len(whole), 2), np.uint32),
        num_characters=found.num_characters,
        tokens=found.column("tokens", np.int32),
        unknown_tokens=found.column("unknown", np.int32),
        columns={},
        problems=list(found.problems.values())[:KINDS_KEPT],
        lines_of=lines_of,
        encoding=source.encoding,
        has_bom=source.has_bom,
        exchanges=Exchanges(
            found.column("prompt_hash", np.uint64),
            found.column("answer_hash", np.uint64),
            commonest[0][0] if commonest else "",
            found.column("targets", np.int32),
            lines_of.get("controls", np.zeros(0, np.int64)),
        ),
    )  # fmt: skip
