"""Prompts without completions: what a model that is aligned by a reward is asked, and `rank sample` too.

The format is the one that the base model was tuned with, where it kept one; a template; or the rows' own prompts.
Gives ids through the same `RowEncoder` as training and answering. Knows nothing of rewards.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
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


def tokenize_prompts(rows: Iterable[Row], encoder: RowEncoder, room: int) -> WrittenDataset:
    """The ids of each row's prompt, `room` tokens of the model's positions left free; nothing of it is a target.

    DataError naming a row that can't be read.
    """
    there = list(rows)
    ids = [encoder.prompt_ids(row, room=room) for row in there]
    whole = encoder.without_limit()
    limit = None if encoder.encoder.max_length is None else encoder.encoder.max_length - room
    full = [
        len(whole.prompt_ids(row)) if limit is not None and len(one) >= limit else len(one)
        for row, one in zip(there, ids, strict=True)
    ]
    lengths = np.array([len(one) for one in ids], np.int32)
    return WrittenDataset(
        input_ids=np.concatenate([np.array(one, np.int32) for one in ids]),
        targets=np.zeros(int(lengths.sum()), np.bool_),
        starts=np.cumsum(lengths, dtype=np.int64) - lengths,
        lengths=lengths,
        full_lengths=np.array(full, np.int32),
        rows=np.array([row.number for row in there], np.int64),
        labels=np.zeros((len(there), 0), np.float32),
        fingerprint="",
    )
