"""Which format the rows of a file are in, recognised by columns and content, and how each becomes segments.

Prompt and completion, Alpaca, ShareGPT, OpenAI messages, questions with answers, documents with summaries, plain text:
`recognise` looks at the first rows, says what it found, and gives functions that work row by row. Tokens are the
business of `segments`, chat templates that of `conversations`, .txt files that of `text_files`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunewright.data.columns import ROWS_LOOKED_AT
from tunewright.data.conversations import Conversation, conversation
from tunewright.data.examples import Row, Source
from tunewright.data.segments import Learn, Segment, Segments
from tunewright.data.survey import text_of
from tunewright.data.templates import BUILT_IN, Part, Template, value_text
from tunewright.data.values import plain
from tunewright.errors import DataError, RecipeError, did_you_mean

CHATS = ("messages", "conversations", "conversation", "chat", "dialog", "dialogue", "turns")
PROMPTS, COMPLETIONS = ("prompt", "input", "source", "query"), ("completion", "response", "output", "target", "reply")
TEXTS = ("text", "content", "document", "body", "passage", "paragraph", "story", "article")
SPEAKERS = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model", "bard", "bing", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "system": "system",
}


@dataclass(frozen=True)
class Format:
    """How rows are read."""

    name: str  # "Alpaca", "OpenAI messages", …
    said: tuple[str, ...]  # what was recognised and chosen, a sentence each
    segments: Callable[[Row], Segments | Conversation]  # a row for training
    references: Callable[[Row], tuple[str, ...]]  # the accepted answers of a row; none where it holds none
    prompt: Callable[[Row], Segments | Conversation]  # a row to answer, which needn't hold its completion
    learn: Learn  # as asked, or what this format is for
    signature: str  # of all that decides the segments
    talks: bool = False  # rows are conversations


@dataclass(frozen=True)
class _Seen:
    """The first rows, and what was asked for."""

    name: str
    columns: dict[str, Any]  # column -> the first value that isn't null
    template: str | None
    completion: str | None
    references: str | None
    learn: Learn | None

    def column(self, names: tuple[str, ...], kind: type | tuple[type, ...] = (str, int, float)) -> str | None:
        """The first of the names that is a column with such values (or with none at all)."""
        by_name = {name.strip().lower(): name for name in reversed(list(self.columns))}
        there = (by_name[name] for name in names if name in by_name)
        return next((name for name in there if isinstance(self.columns[name], (kind, type(None)))), None)


def recognise(
    source: Source,
    *,
    template: str | None = None,
    completion: str | None = None,
    references: str | None = None,
    learn: Learn | None = None,
) -> Format:
    """The format of a source. Without `learn`: the completion of a pair, each answer of a conversation, all of a text.

    RecipeError for a column or template that can't be; DataError when no format fits.
    """
    columns: dict[str, Any] = {}
    for row in itertools.islice(source.rows(), ROWS_LOOKED_AT):
        for name, value in row.values.items():
            if columns.get(name) is None:
                columns[name] = plain(value)
    for role, name in (("completion", completion), ("references", references)):
        if name is not None and name not in columns:
            there = f'there is no column "{name}" for the {role}; found {", ".join(columns) or "none"}'
            raise RecipeError(f"{there}.{did_you_mean(name, columns)}", field=f"data.{role}")
    seen = _Seen(source.name, columns, template, completion, references, learn)
    found = next(filter(None, (finder(seen) for finder in _FINDERS)), None)
    if found is None:
        raise DataError(
            f"the columns ({', '.join(columns) or 'none'}) are of no format we know; say how a row is to be read with "
            'data.template, such as "Q: {question} A: {answer}"',
            where=source.name,
        )
    return found


# ---- with a template ----


def _templated(seen: _Seen) -> Format | None:
    if seen.template is None:
        return None
    template = Template.parse(seen.template, seen.columns, seen.completion)
    name = seen.template.strip()
    shown = f'"{name}", built in' if name in BUILT_IN else json.dumps(template.written(), ensure_ascii=False)
    return _with_template("template", f"template: {shown}", template, seen)


def _with_template(name: str, says: str, template: Template, seen: _Seen) -> Format:
    """Where the completion is a list of accepted answers, the first is learned."""
    answers = seen.references or template.completion
    several = isinstance(seen.columns.get(template.completion), list | dict)
    said = [says, *template.said]
    if several:
        said.append(f"{template.completion} holds several answers: the first is learned")
    if answers != template.completion:
        said.append(f"accepted answers: {answers}")
    used = {*template.columns, template.optional, template.completion, answers}

    def segments(row: Row) -> Segments:
        return template.segments(_with_first_answer(row, template.completion) if several else row)

    return Format(
        name,
        (*said, *_unused(seen, used)),
        segments,
        lambda row: answers_of(row, answers),
        template.prompt_segments,
        seen.learn or "completion",
        _signature(name, template.signature(), several),
    )


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


# ---- conversations ----


def _comparisons(seen: _Seen) -> Format | None:
    if seen.completion is None and {"chosen", "rejected"} <= set(seen.columns):
        raise DataError(
            'the rows are comparisons ("chosen" and "rejected"), which a reward model learns from; to learn the chosen '
            "answers alone, give data.template and data.completion",
            where=seen.name,
        )
    return None


def _conversations(seen: _Seen) -> Format | None:
    there = [name for name in CHATS if name in seen.columns] or list(seen.columns)
    column = next((name for name in there if _speaks(seen.columns[name])), None)
    if column is None or seen.completion is not None:
        return None
    share = "from" in seen.columns[column][0]
    name = "ShareGPT" if share else "OpenAI messages"
    system = "system" if share and isinstance(seen.columns.get("system"), str) else None

    def read(row: Row, needs_answer: bool) -> Conversation:
        if column not in row.values:
            found = f'no "{column}" here; the row has {", ".join(map(str, row.values)) or "nothing"}'
            raise DataError(found, where=row.where, field=column)
        messages = plain(row.values[column])
        if isinstance(messages, list | tuple):
            messages = [_as_openai(message, row.where, column, n) for n, message in enumerate(messages, 1)]
        if system and str(row.values.get(system) or "").strip() and isinstance(messages, list):
            messages = [{"role": "system", "content": row.values[system]}, *messages]
        tools = row.values.get("tools")
        return conversation(messages, row.where, tools=tools, column=column, needs_answer=needs_answer)

    return _talks(name, f"format: {name} ({column})", read, seen, {column, "tools", system})


def _conversational_pairs(seen: _Seen) -> Format | None:
    """TRL's: prompt and completion are lists of messages; of the prompt nothing is learned."""
    if not _speaks(seen.columns.get("prompt")) or not _speaks(seen.columns.get("completion")):
        return None

    def read(row: Row, needs_answer: bool) -> Conversation:
        prompt, completion = (plain(row.values.get(name)) for name in ("prompt", "completion"))
        asked = [{**m, "weight": 0} if m.get("role") == "assistant" else m for m in prompt or () if isinstance(m, dict)]
        return conversation([*asked, *(completion or ())], row.where, column="prompt", needs_answer=needs_answer)

    says = "format: prompt and completion as messages (prompt, completion)"
    return _talks("messages in pairs", says, read, seen, {"prompt", "completion"})


def _talks(
    name: str, says: str, read: Callable[[Row, bool], Conversation], seen: _Seen, used: set[str | None]
) -> Format:
    learn = seen.learn or "assistant"
    learned = {"assistant": "each answer of the assistant", "completion": "the assistant's last answer", "all": "all"}
    return Format(
        name,
        (says, f"learned: {learned[learn]}", *_unused(seen, {*used, seen.references})),
        lambda row: read(row, True),
        lambda row: answers_of(row, seen.references) if seen.references else (read(row, True).answer,),
        lambda row: read(row, False).before_answer(),
        learn,
        _signature(name, learn, sorted(map(str, used))),
        talks=True,
    )


def _speaks(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first)


def _as_openai(message: Any, where: str, column: str, number: int) -> Any:
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


# ---- pairs and texts ----


def _pairs(seen: _Seen) -> Format | None:
    prompt = seen.column(PROMPTS)
    answers = (list, dict) if seen.column(("prompt",)) else ()
    completion = seen.completion or seen.column(COMPLETIONS, (str, int, float, *answers))
    if prompt is None or completion in (None, prompt):
        return None
    # As people wrote them, control tokens included; nothing is put between the two.
    template = Template((Part(prompt, is_column=True),), completion or "", as_given=True)
    found = _with_template(
        "prompt and completion", f"format: prompt and completion ({prompt}, {completion})", template, seen
    )
    ends = (str(seen.columns[prompt])[-1:], str(seen.columns[completion or ""])[:1])
    says = f"nothing stands between {prompt} and {completion}: a data.template can put something there"
    glued = all(ends) and not any(end.isspace() for end in ends)
    return replace(found, said=(*found.said, says)) if glued else found


def _alpaca(seen: _Seen) -> Format | None:
    answered = seen.column(("output", "response", "completion", "answer")) is not None
    return _built_in("Alpaca", "alpaca", seen) if answered and "instruction" in seen.columns else None


def _questions(seen: _Seen) -> Format | None:
    question = seen.column(("question", "query"))
    answer = seen.completion or seen.column(("answer", "answers", *COMPLETIONS), (str, int, float, list, dict))
    if question is None or answer is None:
        return None
    asked = seen
    if seen.references is None and seen.column(("answers",), (list, dict)) not in (None, answer):
        asked = replace(seen, references=seen.column(("answers",), (list, dict)))
    return _built_in("questions and answers", "question-answer", replace(asked, completion=answer))


def _summaries(seen: _Seen) -> Format | None:
    spec = BUILT_IN["summary"]
    document, summary = spec.find("document", seen.columns), seen.completion or spec.find("summary", seen.columns)
    return (
        _built_in("documents and summaries", "summary", seen) if document and summary not in (None, document) else None
    )


def _built_in(name: str, called: str, seen: _Seen) -> Format:
    template = BUILT_IN[called].on(seen.columns, seen.completion)
    columns = [*template.columns, *filter(None, [template.optional]), template.completion]
    return _with_template(name, f"format: {name} ({', '.join(columns)}), template {called}", template, seen)


def _documents(seen: _Seen) -> Format | None:
    column = seen.completion or seen.column(TEXTS, str)
    if column is None or not isinstance(seen.columns[column], str):
        return None

    def segments(row: Row) -> Segments:
        text = text_of(row, column)
        if not text:
            raise DataError(f'"{column}" is empty; remove the row', where=row.where, field=column)
        return (Segment(text, is_target=True),)

    said = (f"format: plain text ({column})", *_unused(seen, {column}))
    signature = _signature("plain text", column)
    return Format("plain text", said, segments, lambda row: (), lambda row: (), seen.learn or "all", signature)


_FINDERS: tuple[Callable[[_Seen], Format | None], ...] = (
    *(_templated, _comparisons, _conversational_pairs, _conversations),
    *(_alpaca, _pairs, _questions, _summaries, _documents),
)


def _unused(seen: _Seen, used: set[str | None]) -> list[str]:
    left = [name for name in seen.columns if name not in used]
    return [f"not used: {', '.join(left[:8])}{', ...' if len(left) > 8 else ''}"] if left else []


def _signature(*decided: Any) -> str:
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()
