"""Segments as pairs for an encoder–decoder model: what is read and what is written, as ids of one text.

Takes the place of `segments.SegmentEncoder` in a `RowEncoder`, so that rows, stored arrays, prompts and answers go the
same way as for causal models. A text is its source, with the special tokens that the encoder expects, and behind it its
targets, which alone count. Each of the two is cut to max_length, and what was cut is counted. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunewright.data.conversations import ChatTemplate
from tunewright.data.encoding import Encoder, Side
from tunewright.data.segments import SegmentEncoder, Segments, Tokens
from tunewright.data.written import Format
from tunewright.data.written_tokens import RowEncoder
from tunewright.errors import RecipeError

VERSION = 1  # raise it when the same segments give other ids


@dataclass(frozen=True)
class PairEncoder(SegmentEncoder):
    """A segment encoder that puts a source and its targets apart."""

    suffix: tuple[int, ...] = ()  # what the encoder expects behind a source

    def encode_all(self, rows: Sequence[Segments], wheres: Sequence[str]) -> list[Tokens]:
        """Each row's source, then its last target with the EOS. DataError where there is nothing to write."""
        written = super().encode_all([_alone(segments) for segments in rows], wheres)
        return [self._pair(segments, tokens) for segments, tokens in zip(rows, written, strict=True)]

    def prompt_ids(self, segments: Segments, *, room: int = 0) -> list[int]:
        """What the encoder reads. An answer takes no room of it, so `room` changes nothing."""
        return [*super().prompt_ids(segments, room=len(self.suffix)), *self.suffix]

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the ids and the mask, as JSON."""
        return {**super().fingerprint(), "pairs": VERSION, "suffix": self.suffix}

    def _pair(self, segments: Segments, written: Tokens) -> Tokens:
        source = self.prompt_ids(segments)
        mask = [False] * len(source) + [True] * len(written.ids)
        return Tokens([*source, *written.ids], mask, self._lost(segments, source), written.target_cut)

    def _lost(self, segments: Segments, source: list[int]) -> int:
        """Tokens of the source that max_length has cost."""
        if self.max_length is None or len(source) < self.max_length:
            return 0
        return len(replace(self, max_length=None).prompt_ids(segments)) - len(source)


def pair_rows(form: Format, tokenizer: Any, max_length: int | None = None, truncate: Side = "left") -> RowEncoder:
    """Rows for an encoder–decoder model. RecipeError when a prompt is to be learnt, which such a model only reads."""
    if form.learn == "all":
        found = "an encoder-decoder model learns to write an answer, and only reads the prompt"
        raise RecipeError(f"{found}; expected data.learn: completion.", field="data.learn")
    suffix = Encoder.of(tokenizer).suffix
    encoder = replace(PairEncoder.of(tokenizer, max_length, truncate, "completion"), suffix=suffix)
    return RowEncoder(form, encoder, ChatTemplate.of(tokenizer, "completion") if form.talks else None)


def _alone(segments: Segments) -> Segments:
    """The last target as a row of its own, without the spaces that part it from what is before it."""
    end = len(segments)
    while end and not segments[end - 1].is_target:
        end -= 1
    begin = end
    while begin and segments[begin - 1].is_target:
        begin -= 1
    first = segments[begin : begin + 1]
    return (*(replace(segment, text=segment.text.lstrip(" \t")) for segment in first), *segments[begin + 1 : end])
