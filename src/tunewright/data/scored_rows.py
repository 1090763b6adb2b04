"""A prompt with a completion as ids: what a reward model reads, the same when it learns and when it scores.

Between `comparisons` or a caller and `segments`. A causal model reads prompt and completion with an EOS, as one that
writes has learnt them. An encoder gets its own separator between the two and at the end, as its tokenizer puts them
around a pair of texts. Conversations go through the model's chat template, or where it has none, as plain text.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunewright.data.comparison_reading import COMPLETION, PROMPT, messages_of
from tunewright.data.encoding import Encoder, Side
from tunewright.data.examples import Row
from tunewright.data.row_reading import TemplateReading
from tunewright.data.segments import Segment, Segments, Tokens
from tunewright.data.survey import value_of
from tunewright.data.templates import Part, Template
from tunewright.data.written import Format
from tunewright.data.written_tokens import RowEncoder

VERSION = 1  # raise it when the same rows give other ids

PLAIN_TALK = Template((Part(PROMPT, is_column=True),), COMPLETION)
NAMES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


@dataclass(frozen=True)
class WrittenRows:
    """Prompt and completion as a model that writes has learnt them (DPO)."""

    rows: RowEncoder

    def encode(self, rows: Sequence[Row]) -> list[Tokens]:
        """DataError naming the row where there is no completion."""
        return self.rows.encoder.encode_all([self.rows.segments(row) for row in rows], [row.where for row in rows])

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the ids and the mask."""
        return self.rows.fingerprint()


@dataclass(frozen=True)
class ScoredRows:
    """Prompt and completion as a reward model reads them."""

    form: Format  # as recognised: of texts, or of conversations
    rows: RowEncoder
    separator: str  # the encoder's, between prompt and completion; "" for a model that reads from left to right
    plain_talk: bool  # conversations are written out, since the tokenizer has no chat template

    @classmethod
    def of(cls, form: Format, tokenizer: Any, max_length: int | None = None, truncate: Side = "left") -> ScoredRows:
        """Raises ModelError when the tokenizer's chat template can't be used, RecipeError for too short a length."""
        plain = form.talks and not getattr(tokenizer, "chat_template", None)
        read = replace(form, reading=TemplateReading(PLAIN_TALK, COMPLETION, False), learn="completion")
        rows = RowEncoder.of(read if plain else form, tokenizer, max_length, truncate)
        if rows.encoder.eos is not None and rows.encoder.eos == tokenizer.pad_token_id:
            # To transformers, an end that is padding too is no part of the text: it would read the token before it.
            rows = replace(rows, encoder=replace(rows.encoder, eos=None))
        suffix = Encoder.of(tokenizer).suffix
        separates = bool(suffix) and tokenizer.sep_token_id in suffix
        if suffix:
            ends = rows.encoder.ends | {suffix[0]}
            rows = replace(rows, encoder=replace(rows.encoder, eos=suffix[0], ends=ends))
        return cls(form, rows, tokenizer.sep_token if separates and not rows.format.talks else "", plain)

    @property
    def said(self) -> tuple[str, ...]:
        """What there is to say of conversations."""
        chat = self.rows.chat.said if self.rows.chat else ()
        names = "the tokenizer has no chat template: conversations are read as plain text (User: …, Assistant: …)"
        return (*chat, *((names,) if self.plain_talk else ()))

    def row(self, prompt: Any, completion: Any, where: str = "", number: int = 0) -> Row:
        """A row of a prompt (its text, its messages, or the columns of a row) with a completion (text or messages).

        UsageError for a text where the template reads several columns.
        """
        if isinstance(prompt, Mapping):
            values = dict(prompt)
        elif isinstance(prompt, str):
            values = self.form.reading.values(prompt)
        else:
            values = {PROMPT: list(prompt)} if self.form.talks else self.form.reading.values(_spoken(list(prompt)))
        return Row({**values, COMPLETION: completion}, where, number)

    def encode(self, rows: Sequence[Row]) -> list[Tokens]:
        """Each row's ids, prompts cut first. A completion without a single character is read as one that ended at once.

        DataError naming the row.
        """
        read = [self._as_read(row) for row in rows]
        blank = [_is_blank(row.values.get(COMPLETION)) for row in read]
        whole = [row for row, empty in zip(read, blank, strict=True) if not empty]
        encoded = iter(self.rows.encoder.encode_all([self._segments(row) for row in whole], [r.where for r in whole]))
        return [self._ended(row) if empty else next(encoded) for row, empty in zip(read, blank, strict=True)]

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the ids and the mask."""
        own = {"scored": VERSION, "separator": self.separator, "plain_talk": self.plain_talk}
        return {**self.rows.fingerprint(), **own, "end": self.rows.encoder.eos}

    # ---- parts ----

    def _as_read(self, row: Row) -> Row:
        """Texts as messages where messages are read, messages as text where the tokenizer has no template for them."""
        if not self.form.talks:
            return row
        prompt = messages_of(value_of(row, PROMPT), PROMPT, row.where, role="user")
        completion = messages_of(value_of(row, COMPLETION), COMPLETION, row.where)
        if not self.plain_talk:
            return replace(row, values={**row.values, PROMPT: prompt, COMPLETION: completion})
        begin = f"{NAMES['assistant']}:"
        values = {PROMPT: f"{_spoken(prompt)}\n\n{begin}", COMPLETION: _spoken(completion).removeprefix(begin)}
        return replace(row, values=values)

    def _segments(self, row: Row) -> Segments:
        """With the separator where the completion begins."""
        segments = self.rows.segments(row)
        prompt = tuple(itertools.takewhile(lambda segment: not segment.is_target, segments))
        between = (Segment(self.separator, is_target=False),) if self.separator else ()
        return (*prompt, *between, *segments[len(prompt) :])

    def _ended(self, row: Row) -> Tokens:
        """The prompt, and the end of nothing."""
        encoder, chat = self.rows.encoder, self.rows.chat
        ends_turn = chat is not None and chat.end_of_turn and encoder.controls.fullmatch(chat.end_of_turn)
        end = encoder.tokenizer.convert_tokens_to_ids(chat.end_of_turn) if chat and ends_turn else encoder.eos
        between = [encoder.tokenizer.sep_token_id] if self.separator else []
        asked = replace(row, values={name: value for name, value in row.values.items() if name != COMPLETION})
        ids = [*self.rows.prompt_ids(asked, room=1 + len(between)), *between]
        ending = [end] if end is not None else []
        return Tokens([*ids, *ending], [False] * len(ids) + [True] * len(ending))


def _is_blank(completion: Any) -> bool:
    if isinstance(completion, str):
        return not completion.strip()
    return all(not str(one.get("content") or "").strip() and not one.get("tool_calls") for one in completion)


def _spoken(messages: Sequence[Any]) -> str:
    """Messages as plain text."""
    return "\n\n".join(f"{NAMES.get(one.get('role'), 'User')}: {one.get('content') or ''}" for one in messages)
