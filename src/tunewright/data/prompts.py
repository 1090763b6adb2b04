"""Prompts without completions: what a model that is aligned by a reward is asked, and `rank sample` too.

The format is the one that the base model was tuned with, where it kept one; a template; or the rows' own prompts.
Gives ids through the same `RowEncoder` as training and answering. Knows nothing of rewards.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tunewright.data.columns import ROWS_LOOKED_AT
from tunewright.data.examples import Row, Source
from tunewright.data.row_reading import TalkReading, TemplateReading, TextReading
from tunewright.data.templates import Template
from tunewright.data.values import plain
from tunewright.data.written import CHATS, PROMPTS, TEXTS, Format
from tunewright.data.written_tokens import RowEncoder, WrittenDataset
from tunewright.errors import DataError


def prompt_format(source: Source, template: str | None = None, kept: Format | None = None) -> Format:
    """How the rows of a source become prompts. RecipeError for a template that can't be, DataError where none fits.

    `template` counts first, then `kept`, the format that the base was tuned with, then the rows' own column.
    """
    columns = _columns(source)
    if template is not None:
        made = Template.asking(template, columns)
        said = f"prompts: a template over {', '.join(made.columns)}"
        return Format("template", (said,), TemplateReading(made, made.completion, several=False), "completion")
    if kept is not None:
        return _kept(kept, columns, source.name)
    return _own(columns, source.name)


def _columns(source: Source) -> dict[str, Any]:
    """Columns of the first rows, with a value of each."""
    found: dict[str, Any] = {}
    for row in itertools.islice(source.rows(), ROWS_LOOKED_AT):
        for name, value in row.values.items():
            if found.get(name) is None:
                found[name] = plain(value)
    return found


def _kept(kept: Format, columns: dict[str, Any], name: str) -> Format:
    """The format of the base, where the rows have its columns."""
    reading = kept.reading
    missing = [column for column in reading.columns if column not in columns and column not in reading.optional]
    if missing:
        needed, there = ", ".join(reading.columns), ", ".join(columns) or "no column"
        raise DataError(
            f'the base was tuned on prompts made of {needed}, and "{missing[0]}" is no column here (found {there}); '
            "add it, or say with data.template how a prompt is made",
            where=name,
        )
    return kept


def _own(columns: dict[str, Any], name: str) -> Format:
    """A column of messages or of texts that are the prompts as they stand."""
    talks = next((column for column in ("prompt", *CHATS) if _speaks(columns.get(column))), None)
    if talks is not None:
        return Format("messages", (f"prompts: the messages in {talks}",), TalkReading(talks), "assistant")
    for template, told in (("alpaca", "instruction"), ("question-answer", "question")):
        if isinstance(columns.get(told), str):
            made = Template.asking(template, columns)
            said = f"prompts: {told}, template {template}"
            return Format("template", (said,), TemplateReading(made, made.completion, several=False), "completion")
    column = next((column for column in (*PROMPTS, *TEXTS) if isinstance(columns.get(column), str)), None)
    if column is None:
        raise DataError(
            f"the columns ({', '.join(columns) or 'none'}) hold no prompt; expected one called prompt, or say with "
            'data.template how a prompt is made, such as "Q: {question} A:"',
            where=name,
        )
    return Format("plain text", (f"prompts: {column} as it is",), TextReading(column), "all")


def _speaks(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first)


@dataclass(frozen=True, eq=False)
class PromptDataset(WrittenDataset):
    """N prompts, each with room for a completion of full length: what a text will be like before it is written.

    Memory and time are planned with these texts, whose completions (the targets) repeat the prompt. `prompt(i)` is what
    the model is given.
    """

    prompt_lengths: np.ndarray  # int32 [N]

    def prompt(self, index: int) -> list[int]:
        """The ids of one prompt."""
        return self.tokens(index)[: int(self.prompt_lengths[index])].tolist()

    def subset(self, indices: np.ndarray | Sequence[int]) -> PromptDataset:
        """These prompts, in this order."""
        chosen = np.arange(len(self))[indices]
        return replace(super().subset(indices), prompt_lengths=self.prompt_lengths[chosen])  # type: ignore[return-value]

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompts."""
        return int(self.prompt_lengths.sum(dtype=np.int64))

    @property
    def num_targets(self) -> int:
        """None: what is learnt is yet to be written."""
        return 0

    @property
    def truncated_rows(self) -> int:
        """Prompts that were cut."""
        return int(np.count_nonzero(self.full_lengths > self.prompt_lengths))


def tokenize_prompts(rows: Iterable[Row], encoder: RowEncoder, max_new_tokens: int, positions: int) -> PromptDataset:
    """The ids of each row's prompt, which leaves room for its completion in the model's positions.

    DataError naming a row that can't be read.
    """
    there = list(rows)
    room = encoder.room_for(max_new_tokens, positions)
    ids = [encoder.prompt_ids(row, room=room) for row in there]
    prompts = np.array([len(one) for one in ids], np.int32)
    lengths = prompts + max_new_tokens
    return PromptDataset(
        input_ids=np.concatenate([np.resize(np.array(one, np.int32), n) for one, n in zip(ids, lengths, strict=True)]),
        targets=np.concatenate([np.arange(n) >= len(one) for one, n in zip(ids, lengths, strict=True)]),
        starts=np.cumsum(lengths, dtype=np.int64) - lengths,
        lengths=lengths,
        full_lengths=_whole_lengths(there, ids, encoder, room),
        rows=np.array([row.number for row in there], np.int64),
        labels=np.zeros((len(there), 0), np.float32),
        fingerprint="",
        prompt_lengths=prompts,
    )


def _whole_lengths(rows: Sequence[Row], ids: Sequence[list[int]], encoder: RowEncoder, room: int) -> np.ndarray:
    """int32 [N], tokens of each prompt before it was cut."""
    longest, whole = encoder.encoder.max_length, encoder.without_limit()
    may_be_cut = [longest is not None and len(one) >= longest - room for one in ids]
    pairs = zip(rows, ids, may_be_cut, strict=True)
    return np.array([len(whole.prompt_ids(row)) if cut else len(one) for row, one, cut in pairs], np.int32)


def prompt_text(form: Format, row: Row) -> str:
    """A prompt as a person and a reward read it: what the template gives, or the talk, a line for each message."""
    read = form.prompt(row)
    if isinstance(read, tuple):
        return "".join(segment.text for segment in read)
    said = [message for message in read.messages if message.content]
    return said[0].content if len(said) == 1 else "\n".join(f"{one.role}: {one.content}" for one in said)
