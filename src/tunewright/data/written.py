"""Which format the rows of a file are in, recognised by columns and content, and how each becomes segments.

Prompt and completion, Alpaca, ShareGPT, OpenAI messages, questions with answers, documents with summaries, plain text:
`recognise` looks at the first rows, says what it found, and gives functions that work row by row. Tokens are the
business of `segments`, chat templates that of `conversations`, .txt files that of `text_files`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from tunewright.data.columns import ROWS_LOOKED_AT
from tunewright.data.conversations import Conversation
from tunewright.data.examples import Row, Source
from tunewright.data.row_reading import (
    Readings,
    TalkPairReading,
    TalkReading,
    TemplateReading,
    TextReading,
    from_json,
    to_json,
)
from tunewright.data.segments import Learn, Segments
from tunewright.data.templates import BUILT_IN, Part, Template
from tunewright.data.values import plain
from tunewright.errors import DataError, ModelError, RecipeError, did_you_mean

CHATS = ("messages", "conversations", "conversation", "chat", "dialog", "dialogue", "turns")
PROMPTS, COMPLETIONS = ("prompt", "input", "source", "query"), ("completion", "response", "output", "target", "reply")
TEXTS = ("text", "content", "document", "body", "passage", "paragraph", "story", "article")
PROMPT_FORMAT = "prompt_format.json"  # in a saved model's folder: the format it was trained with
VERSION = 1  # of what to_json gives
MAX_FILE_BYTES = 2**20


@dataclass(frozen=True)
class Format:
    """How rows are read."""

    name: str  # "Alpaca", "OpenAI messages", …
    said: tuple[str, ...]  # what was recognised and chosen, a sentence each
    reading: Readings
    learn: Learn  # as asked, or what this format is for

    def segments(self, row: Row) -> Segments | Conversation:
        """A row for training. DataError naming row and column."""
        return self.reading.segments(row)

    def references(self, row: Row) -> tuple[str, ...]:
        """The accepted answers of a row; none where it holds none."""
        return self.reading.references(row)

    def prompt(self, row: Row) -> Segments | Conversation:
        """A row to answer, which needn't hold its completion. A plain text is what the model goes on from."""
        return self.reading.prompt(row)

    def row(self, text: str, where: str = "", number: int = 0) -> Row:
        """A text as a row to answer. UsageError where the template reads several columns."""
        return Row(self.reading.values(text), where, number)

    @property
    def talks(self) -> bool:
        """Whether rows are conversations."""
        return isinstance(self.reading, TalkReading | TalkPairReading)

    @property
    def signature(self) -> str:
        """SHA-256 (hex) of all that decides the segments."""
        decided = [self.name, *self.reading.decides(self.learn)]
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data; `kept` gives the same format again."""
        values = {"version": VERSION, "name": self.name, "said": list(self.said), "learn": self.learn}
        return {**values, "reading": to_json(self.reading)}


def kept(values: Any, where: str | None = None) -> Format:
    """The format that `to_json` gave, other keys ignored. ModelError, naming `where`, for anything else."""
    try:
        if not isinstance(values, dict) or values.get("version") != VERSION:
            version = values.get("version") if isinstance(values, dict) else None
            raise ValueError(f"version is {version!r:.40}; expected {VERSION}")
        name, said, learn = values.get("name"), values.get("said"), values.get("learn")
        if not isinstance(name, str) or learn not in get_args(Learn):
            raise ValueError(f"name is {name!r:.40} and learn {learn!r:.40}; expected texts that we wrote")
        sentences = tuple(map(str, said)) if isinstance(said, list) else ()
        return Format(name, sentences, from_json(values.get("reading")), cast(Learn, learn))
    except (ValueError, TypeError, RecursionError) as error:  # pydantic's own is a ValueError
        reason = " ".join(str(error).split())
        raise ModelError(f"the prompt format can't be used ({reason:.200})", where=where) from None


def kept_in(folder: Path) -> tuple[Format | None, dict[str, Any]]:
    """The format in a saved model's folder, None where there is none, and all that stands beside it. ModelError."""
    path = folder / PROMPT_FORMAT
    if not path.is_file():
        return None, {}
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("it is larger than 1 MB")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"the prompt format can't be read ({error!s:.200})", where=str(path)) from None
    return kept(values, str(path)), values


def as_it_is(column: str = "text") -> Format:
    """Of a model that nobody gave a format: its prompt is the text, and nothing else."""
    return Format("plain text", (f"no prompt format: {column} as it is",), TextReading(column), "all")


def as_messages(column: str = "messages") -> Format:
    """The same, for a model with a chat template: the text is what the user says."""
    return Format("OpenAI messages", ("no prompt format: the chat template is used",), TalkReading(column), "assistant")


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

    reading = TemplateReading(template, answers, several)
    return Format(name, (*said, *_unused(seen, used)), reading, seen.learn or "completion")


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

    reading = TalkReading(column, system, seen.references)
    return _talks(name, f"format: {name} ({column})", reading, seen, {column, "tools", system})


def _conversational_pairs(seen: _Seen) -> Format | None:
    if not _speaks(seen.columns.get("prompt")) or not _speaks(seen.columns.get("completion")):
        return None

    says = "format: prompt and completion as messages (prompt, completion)"
    reading = TalkPairReading(seen.references)
    return _talks("messages in pairs", says, reading, seen, {"prompt", "completion"})


def _talks(name: str, says: str, reading: Readings, seen: _Seen, used: set[str | None]) -> Format:
    learn = seen.learn or "assistant"
    learned = {"assistant": "each answer of the assistant", "completion": "the assistant's last answer", "all": "all"}
    said = (says, f"learned: {learned[learn]}", *_unused(seen, {*used, seen.references}))
    return Format(name, said, reading, learn)


def _speaks(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first)


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

    said = (f"format: plain text ({column})", *_unused(seen, {column}))
    return Format("plain text", said, TextReading(column), seen.learn or "all")


_FINDERS: tuple[Callable[[_Seen], Format | None], ...] = (
    *(_templated, _comparisons, _conversational_pairs, _conversations),
    *(_alpaca, _pairs, _questions, _summaries, _documents),
)


def _unused(seen: _Seen, used: set[str | None]) -> list[str]:
    left = [name for name in seen.columns if name not in used]
    return [f"not used: {', '.join(left[:8])}{', ...' if len(left) > 8 else ''}"] if left else []
