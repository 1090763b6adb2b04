"""How one row of a recognised format becomes segments or a conversation: by a template, as a talk, as plain text.

`written` chooses one of these for a file; they are plain data, so that a model can keep the one it has learned with and
answer rows of the same columns where no training data is. Tokens are the business of `segments`, chat templates that of
`conversations`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from tunewright.data.conversations import Conversation, conversation
from tunewright.data.examples import Row
from tunewright.data.segments import Learn, Segment, Segments
from tunewright.data.survey import text_of, value_of
from tunewright.data.templates import Template, value_text
from tunewright.data.values import plain
from tunewright.errors import DataError, UsageError, did_you_mean

SPEAKERS = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model", "bard", "bing", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "system": "system",
}


class Reading(Protocol):
    """What a format does with a row. All fields of an implementation are JSON's."""

    @property
    def kind(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a prompt, in their order."""
        ...

    @property
    def optional(self) -> tuple[str, ...]:
        """Those of them that a row may leave out."""
        ...

    def segments(self, row: Row) -> Segments | Conversation: ...

    def references(self, row: Row) -> tuple[str, ...]: ...

    def prompt(self, row: Row) -> Segments | Conversation: ...

    def values(self, text: str) -> dict[str, Any]:
        """A row of nothing but this text; UsageError where one text isn't enough."""
        ...

    def decides(self, learn: Learn) -> tuple[Any, ...]:
        """All that decides the segments."""
        ...


@dataclass(frozen=True)
class TemplateReading:
    """A prompt template over the columns."""

    template: Template
    answers: str  # column of the accepted answers
    several: bool  # whether the completion's cell holds several answers, of which the first is learned
    kind: Literal["template"] = "template"

    @property
    def columns(self) -> tuple[str, ...]:
        named = (part.text for part in (*self.template.parts, *self.template.shorter) if part.is_column)
        return tuple(dict.fromkeys(named))

    @property
    def optional(self) -> tuple[str, ...]:
        return () if self.template.optional is None else (self.template.optional,)

    def segments(self, row: Row) -> Segments:
        return self.template.segments(_with_first_answer(row, self.template.completion) if self.several else row)

    def references(self, row: Row) -> tuple[str, ...]:
        return answers_of(row, self.answers)

    def prompt(self, row: Row) -> Segments:
        return self.template.prompt_segments(row)

    def values(self, text: str) -> dict[str, Any]:
        needed = self.template.columns
        if len(needed) != 1:
            shown = " and ".join(f"{{{name}}}" for name in needed) or "no column"
            raise UsageError(f"the template reads {shown}, so one text is no row; give rows with these columns")
        return {needed[0]: text}

    def decides(self, learn: Learn) -> tuple[Any, ...]:
        return (self.template.signature(), self.several)


@dataclass(frozen=True)
class TalkReading:
    """A column of messages, in the words of OpenAI or of ShareGPT."""

    column: str
    system: str | None = None  # ShareGPT's column of what the system says
    answers: str | None = None  # column of the accepted answers, where it isn't the last message
    kind: Literal["talk"] = "talk"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def optional(self) -> tuple[str, ...]:
        return ("tools",) if self.system is None else ("tools", self.system)

    def segments(self, row: Row) -> Conversation:
        return self._read(row, needs_answer=True)

    def references(self, row: Row) -> tuple[str, ...]:
        return answers_of(row, self.answers) if self.answers else _last_answer(self.segments(row))

    def prompt(self, row: Row) -> Conversation:
        return _to_answer(self._read(row, needs_answer=False))

    def values(self, text: str) -> dict[str, Any]:
        return {self.column: [{"role": "user", "content": text}]}

    def decides(self, learn: Learn) -> tuple[Any, ...]:
        return (learn, self.column, self.system)

    def _read(self, row: Row, *, needs_answer: bool) -> Conversation:
        messages = plain(value_of(row, self.column))
        if isinstance(messages, list | tuple):
            messages = [as_openai(message, row.where, self.column, n) for n, message in enumerate(messages, 1)]
        system = row.values.get(self.system) if self.system else None
        if str(system or "").strip() and isinstance(messages, list):
            messages = [{"role": "system", "content": system}, *messages]
        tools = row.values.get("tools")
        return conversation(messages, row.where, tools=tools, column=self.column, needs_answer=needs_answer)


@dataclass(frozen=True)
class TalkPairReading:
    """TRL's: prompt and completion are lists of messages; of the prompt nothing is learned."""

    answers: str | None = None
    kind: Literal["talk in pairs"] = "talk in pairs"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("prompt",)

    @property
    def optional(self) -> tuple[str, ...]:
        return ()

    def segments(self, row: Row) -> Conversation:
        return self._read(row, needs_answer=True)

    def references(self, row: Row) -> tuple[str, ...]:
        return answers_of(row, self.answers) if self.answers else _last_answer(self.segments(row))

    def prompt(self, row: Row) -> Conversation:
        return _to_answer(self._read(row, needs_answer=False))

    def values(self, text: str) -> dict[str, Any]:
        return {"prompt": [{"role": "user", "content": text}]}

    def decides(self, learn: Learn) -> tuple[Any, ...]:
        return (learn,)

    def _read(self, row: Row, *, needs_answer: bool) -> Conversation:
        prompt, completion = plain(value_of(row, "prompt")), plain(row.values.get("completion"))
        asked = [{**m, "weight": 0} if m.get("role") == "assistant" else m for m in prompt or () if isinstance(m, dict)]
        return conversation([*asked, *(completion or ())], row.where, column="prompt", needs_answer=needs_answer)


@dataclass(frozen=True)
class TextReading:
    """Plain text, all of which is learned; to be answered, it is what the model goes on from."""

    column: str
    kind: Literal["text"] = "text"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def optional(self) -> tuple[str, ...]:
        return ()

    def segments(self, row: Row) -> Segments:
        return (Segment(self._text(row), is_target=True),)

    def references(self, row: Row) -> tuple[str, ...]:
        return ()

    def prompt(self, row: Row) -> Segments:
        return (Segment(self._text(row), is_target=False),)

    def values(self, text: str) -> dict[str, Any]:
        return {self.column: text}

    def decides(self, learn: Learn) -> tuple[Any, ...]:
        return (self.column,)

    def _text(self, row: Row) -> str:
        text = text_of(row, self.column)
        if not text:
            raise DataError(f'"{self.column}" is empty; remove the row', where=row.where, field=self.column)
        return text


Readings = TemplateReading | TalkReading | TalkPairReading | TextReading


def to_json(reading: Readings) -> dict[str, Any]:
    """As plain data, for `from_json`."""
    values = asdict(reading)
    if isinstance(reading, TemplateReading):
        del values["template"]["said"]
    return values


def from_json(values: Any) -> Readings:
    """What `to_json` gave. Raises ValueError for anything else; a stranger may have written it."""
    from pydantic import TypeAdapter

    kinds = {kind.__dataclass_fields__["kind"].default: kind for kind in Readings.__args__}
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in kinds:
        raise ValueError(f"kind is {kind!r:.40}; expected one of {', '.join(kinds)}")
    # Through JSON: strict in its types, but a list is how JSON spells a tuple.
    return TypeAdapter(kinds[kind]).validate_json(json.dumps(values), strict=True)


def answers_of(row: Row, column: str) -> tuple[str, ...]:
    """The accepted answers in a cell: a text, a list of texts, or SQuAD's {"text": [...]}; none where there is none."""
    value = plain(row.values.get(column))
    value = value.get("text") if isinstance(value, Mapping) else value
    answers = value if isinstance(value, list | tuple) else [value]
    cells = (Row({column: answer}, row.where, row.number) for answer in answers if answer is not None)
    return tuple(dict.fromkeys(text for cell in cells if (text := value_text(cell, column)).strip()))


def _with_first_answer(row: Row, column: str) -> Row:
    answers = answers_of(row, column)
    if not answers:
        found = f'"{column}" holds no answer, so there is nothing to learn in this row; fill it in or remove the row'
        raise DataError(found, where=row.where, field=column)
    return replace(row, values={**row.values, column: answers[0]})


def _to_answer(talk: Conversation) -> Conversation:
    """A talk that ends in a question as it stands, any other up to its last answer."""
    return talk.before_answer() if talk.messages[-1].role == "assistant" else talk


def _last_answer(talk: Conversation) -> tuple[str, ...]:
    """None to a question that nobody has answered yet."""
    return (talk.answer,) if talk.messages[-1].role == "assistant" else ()


def as_openai(message: Any, where: str, column: str, number: int) -> Any:
    """ShareGPT's {"from": "human", "value": …} in OpenAI's words; everything else as it is."""
    if not isinstance(message, Mapping) or "from" not in message or "role" in message:
        return message
    speaker = message["from"]
    if speaker not in SPEAKERS:
        found = f'message {number} is from "{speaker!s:.40}"; expected one of {", ".join(SPEAKERS)}'
        raise DataError(f"{found}.{did_you_mean(str(speaker), SPEAKERS)}", where=where, field=column)
    if "value" not in message:
        raise DataError(f'message {number} has no "value"; expected a text', where=where, field=column)
    kept = {name: value for name, value in message.items() if name not in ("from", "value")}
    if speaker != "function_call":
        return {**kept, "role": SPEAKERS[speaker], "content": message["value"]}
    try:
        calls = json.loads(message["value"]) if isinstance(message["value"], str) else message["value"]
    except (ValueError, RecursionError):
        raise DataError(f"message {number} is a function_call that is not JSON", where=where, field=column) from None
    return {**kept, "role": "assistant", "content": None, "tool_calls": calls if isinstance(calls, list) else [calls]}
