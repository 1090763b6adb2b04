"""Rows as the pieces that a model reads: which are kept, which are cut off, which are special, which it doesn't know.

For `data check --show`. The pieces are slices of the text itself where the tokenizer knows where its tokens come from.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.data.columns import Columns
from tunewright.data.encoding import Encoder, Side
from tunewright.data.lenient import LenientSource
from tunewright.data.survey import text_of
from tunewright.errors import DataError

Kind = Literal["kept", "cut", "special", "unknown"]


@dataclass(frozen=True)
class Piece:
    """One token."""

    text: str
    kind: Kind
    glued: bool = False  # nothing stands between it and the piece before
    learnt: bool = False  # the model must write it


@dataclass(frozen=True)
class ShownRow:
    """A row as tokens, in the order of the text; special tokens where the model gets them."""

    where: str
    label: str
    pieces: tuple[Piece, ...]
    writes: bool = False  # whether some of it is learnt and the rest only read

    def num(self, kind: Kind) -> int:
        return sum(piece.kind == kind for piece in self.pieces)

    def to_json(self) -> dict[str, Any]:
        pieces = [[p.text, p.kind, *([p.learnt] if self.writes else [])] for p in self.pieces]
        return {"where": self.where, "label": self.label, "pieces": pieces}


def shown_rows(
    source: LenientSource, columns: Columns, tokenizer: Any, count: int, max_length: int, truncate: Side
) -> list[ShownRow]:
    """The first usable rows."""
    encoder = Encoder.of(tokenizer, max_length, truncate)
    rows = itertools.islice(_texts(source, columns), count)
    return [ShownRow(where, label, tuple(pieces(text, encoder))) for where, label, text in rows]


def _texts(source: LenientSource, columns: Columns) -> Iterator[tuple[str, str, str]]:
    for record in source.records():
        try:
            text = text_of(record.row, columns.text) if record.row is not None else ""
        except DataError:
            continue
        if text and record.row is not None:
            label = record.row.values.get(columns.label) if columns.label else None
            yield record.row.where, "" if label is None else str(label), text


def pieces(text: str, encoder: Encoder) -> Iterator[Piece]:
    """The tokens of a text, special ones around what is kept of it."""
    words = encoder.tokenizer
    found = words(text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = found["input_ids"], found["offset_mapping"]
    kept = len(ids)
    if encoder.max_length is not None:
        kept = min(kept, encoder.max_length - len(encoder.prefix) - len(encoder.suffix))
    begin = len(ids) - kept if encoder.truncate == "left" else 0
    body = list(_body(text, ids, offsets, words.unk_token_id, begin, begin + kept))
    yield from body[:begin]
    yield from _special(words, encoder.prefix)
    yield from body[begin : begin + kept]
    yield from _special(words, encoder.suffix)
    yield from body[begin + kept :]


def _body(text: str, ids: list[int], offsets: list[Any], unknown: int | None, begin: int, end: int) -> Iterator[Piece]:
    behind = -1
    for place, (token, (first, last)) in enumerate(zip(ids, offsets, strict=True)):
        there = text[first:last]
        kind: Kind = "cut" if not begin <= place < end else "unknown" if token == unknown else "kept"
        yield Piece(_printable(there.strip() or there), kind, glued=first == behind and there[:1].strip() != "")
        behind = last


def _special(tokenizer: Any, ids: tuple[int, ...]) -> Iterator[Piece]:
    return (Piece(_printable(token), "special") for token in tokenizer.convert_ids_to_tokens(list(ids)))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
