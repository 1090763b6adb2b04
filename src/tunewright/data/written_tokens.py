"""Rows of a recognised format as token ids with a mask of what is to be learnt, made once and memory-mapped.

What `tokenizing` is for labelled texts, this is for texts that are written: `written` reads a row, `conversations`
renders a talk, `segments` cuts and tokenises, `array_folder` stores. Also gives the ids of a prompt, the same in
training and when answering. Decides nothing about batches or loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.data.array_folder import stored_arrays
from tunewright.data.conversations import ChatTemplate, Conversation
from tunewright.data.encoding import Side, chunks
from tunewright.data.examples import Row, Source
from tunewright.data.row_reading import TemplateReading, TextReading
from tunewright.data.segments import SegmentEncoder, Segments
from tunewright.data.tokenizing import TokenizedDataset
from tunewright.data.written import Format
from tunewright.errors import DataError

VERSION = 1  # of the stored arrays; raise it when they change meaning


@dataclass(frozen=True, eq=False)
class WrittenDataset(TokenizedDataset):
    """Token sequences of which some tokens are to be learnt. `labels` is empty, `full_lengths` counts what was cut."""

    targets: np.ndarray  # bool, one per token of input_ids; True = counts

    def is_target(self, index: int) -> np.ndarray:
        """The mask of one sequence, a view."""
        start = int(self.starts[index])
        return self.targets[start : start + int(self.lengths[index])]

    @property
    def num_targets(self) -> int:
        """Tokens to be learnt: all that count, but for a first one, which nothing predicts."""
        return sum(int(self.is_target(i)[1:].sum()) for i in range(len(self)))


@dataclass(frozen=True)
class RowEncoder:
    """A format and a tokenizer: rows become ids."""

    format: Format
    encoder: SegmentEncoder
    chat: ChatTemplate | None  # for conversations

    @classmethod
    def of(cls, form: Format, tokenizer: Any, max_length: int | None = None, truncate: Side = "left") -> RowEncoder:
        """Raises ModelError when the tokenizer's chat template can't be used."""
        encoder = SegmentEncoder.of(tokenizer, max_length, truncate, form.learn)
        return cls(form, encoder, ChatTemplate.of(tokenizer, form.learn) if form.talks else None)

    @property
    def said(self) -> tuple[str, ...]:
        return (*self.format.said, *(self.chat.said if self.chat else ()))

    def segments(self, row: Row) -> Segments:
        """The pieces of a row for training."""
        read = self.format.segments(row)
        if isinstance(read, Conversation):
            assert self.chat is not None
            return self.chat.segments(read)
        return read

    def prompt_ids(self, row: Row, *, room: int = 0) -> list[int]:
        """What the model is given to answer this row; `room` tokens of max_length are kept free for the answer."""
        read = self.format.prompt(row)
        if isinstance(read, Conversation):
            assert self.chat is not None
            read = self.chat.prompt(read)
        return self.encoder.prompt_ids(read, room=room)

    def without_limit(self) -> RowEncoder:
        """The same, cutting nothing."""
        return replace(self, encoder=replace(self.encoder, max_length=None))

    def room_for(self, max_new_tokens: int, context_length: int | None) -> int:
        """Tokens of max_length that an answer needs, where the model's own positions end before it would.

        An answer may go beyond max_length, or a prompt that training saw whole would be cut for an answer that may be
        short. At most a quarter of the positions are kept free.
        """
        longest = self.encoder.max_length
        if longest is None or context_length is None:
            return 0
        return max(0, longest - (context_length - min(max_new_tokens, context_length // 4)))

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends an answer in letters; control tokens, which end it too, are `encoder.ends`."""
        reading = self.format.reading
        end = self.chat.end_of_turn if self.chat else None
        end = reading.template.ending if isinstance(reading, TemplateReading) else end
        return (end,) if end and not self.encoder.controls.search(end) else ()

    def text(self, ids: Sequence[int]) -> str:
        """An answer's ids as text: without what ended it, and but for plain text without white space around it."""
        text: str = self.encoder.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        for end in self.stop:
            text = text.partition(end)[0]
        return text if isinstance(self.format.reading, TextReading) else text.strip()

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the ids and the mask."""
        chat = self.chat.signature() if self.chat else None
        return {"format": self.format.signature, "encoder": self.encoder.fingerprint(), "chat": chat}


def tokenize_written(source: Source, encoder: RowEncoder, cache: Path) -> WrittenDataset:
    """Every row of a source; taken from `cache` where an earlier start left it. Raises DataError naming the row."""
    decided_by = {"version": VERSION, "source": source.fingerprint(), **encoder.fingerprint()}
    fingerprint = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()
    arrays = stored_arrays(Path(cache) / fingerprint[:32], fingerprint, lambda: _parts(source, encoder))
    return WrittenDataset(**arrays, fingerprint=fingerprint)


def _parts(source: Source, encoder: RowEncoder) -> Iterator[dict[str, np.ndarray]]:
    """The stored arrays of one chunk of rows after the other; `starts` counts on through all of them."""
    num_tokens = 0
    read = ((row, encoder.segments(row)) for row in source.rows())
    for chunk in chunks(read, lambda pair: sum(len(segment.text) for segment in pair[1])):
        rows = [row for row, _ in chunk]
        tokens = encoder.encoder.encode_all([segments for _, segments in chunk], [row.where for row in rows])
        lengths = np.array([len(t.ids) for t in tokens], np.int32)
        cut = np.array([t.context_cut + t.target_cut for t in tokens], np.int32)
        yield {
            "input_ids": np.concatenate([np.array(t.ids, np.int32) for t in tokens]),
            "targets": np.concatenate([np.array(t.is_target, np.bool_) for t in tokens]),
            "starts": num_tokens + np.cumsum(lengths, dtype=np.int64) - lengths,
            "lengths": lengths,
            "full_lengths": lengths + cut,
            "rows": np.array([row.number for row in rows], np.int64),
            "labels": np.zeros((len(rows), 0), np.float32),
        }
        num_tokens += int(lengths.sum())
    if not num_tokens:
        raise DataError("no row has anything to learn; expected at least one.", where=source.name)
