"""Rows that are to be written as the pieces that a model reads: what is only read, what is learnt, what is cut off.

For `data check --show`; what `showing` is for labelled texts. A row is encoded twice, whole and as a run cuts it, and
the difference is what was cut.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tunewright.data.lenient import LenientSource
from tunewright.data.segments import Segments, Tokens
from tunewright.data.showing import Kind, Piece, ShownRow
from tunewright.data.written_gathering import exchange_of
from tunewright.data.written_tokens import RowEncoder
from tunewright.errors import DataError

_BEFORE = 4  # tokens decoded before one to see what it adds: some are parts of a character


def shown_written(source: LenientSource, encoder: RowEncoder, count: int) -> list[ShownRow]:
    """The first rows that a run can use, cut as the encoder cuts."""
    return list(itertools.islice(_rows(source, encoder), count))


def _rows(source: LenientSource, encoder: RowEncoder) -> Iterator[ShownRow]:
    for record in source.records():
        if record.row is None:
            continue
        try:
            segments = exchange_of(record, record.row, encoder.format, encoder).segments or ()
            yield ShownRow(record.row.where, "", tuple(written_pieces(segments, encoder)), writes=True)
        except DataError:
            continue  # the report says what is wrong with it


def written_pieces(segments: Segments, encoder: RowEncoder) -> Iterator[Piece]:
    """Every token of the row, those that are cut off too."""
    cutting = encoder.encoder
    whole = replace(cutting, max_length=None).encode(segments)
    kept = cutting.encode(segments)
    words = cutting.tokenizer
    texts = _texts(whole.ids, words)
    learnt, apart = iter(kept.is_target), True  # nothing is glued to a special token
    for token, text, stays in zip(whole.ids, texts, kept_of(whole, kept), strict=True):
        special = token in cutting.control_ids or token == cutting.eos
        unknown = token == words.unk_token_id and not special  # of some models the two are one
        kind: Kind = "cut" if not stays else "special" if special else "unknown" if unknown else "kept"
        shown = words.convert_ids_to_tokens(token) if special else text
        apart = apart or special or text.startswith(" ")
        yield Piece(_visible(shown), kind, glued=not apart, learnt=stays and next(learnt))
        apart = special


def kept_of(whole: Tokens, kept: Tokens) -> np.ndarray:
    """bool, one per token of the whole row: whether it is still there. What is left is always in the old order."""
    stays = np.ones(len(whole.ids), bool)
    if len(kept.ids) == len(whole.ids):
        return stays
    begin = _common(whole.ids, kept.ids)
    end = min(_common(whole.ids[::-1], kept.ids[::-1]), len(kept.ids) - begin)
    stays[begin : len(whole.ids) - end] = False
    middle, rest = whole.ids[begin : len(whole.ids) - end], kept.ids[begin : len(kept.ids) - end]
    if rest:  # cut in several places
        matcher = difflib.SequenceMatcher(None, middle, rest, autojunk=False)
        found = [begin + at + i for at, _, size in matcher.get_matching_blocks() for i in range(size)]
        stays[found if len(found) == len(rest) else _first_places(middle, rest, begin)] = True
    return stays


def _first_places(middle: list[int], rest: list[int], begin: int) -> list[int]:
    """Where the rest can be found in the middle, in order: not always where it came from, and always there."""
    places = iter(range(len(middle)))
    return [begin + next(place for place in places if middle[place] == token) for token in rest]


def _common(one: list[int], other: list[int]) -> int:
    """How many ids both begin with."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _texts(ids: list[int], tokenizer: Any) -> list[str]:
    """What each token adds to the text, leading spaces included."""

    def decoded(part: list[int]) -> str:
        text: str = tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    texts: list[str] = []
    for place in range(len(ids)):
        first = max(0, place - _BEFORE)
        before, upto = decoded(ids[first:place]), decoded(ids[first : place + 1])
        before = before.rstrip("\ufffd")  # of a character that this token completes
        texts.append(upto.removeprefix(before) if upto.startswith(before) else decoded([ids[place]]))
    return texts


def _visible(text: str) -> str:
    """A token as it can be printed: line ends and lone spaces as signs."""
    inner = text.strip(" ") if text.strip(" ") else "␣" * len(text)
    inner = inner.replace("\r", "").replace("\n", "↵").replace("\t", "→")
    return "".join(c if c.isprintable() else "?" for c in inner)
