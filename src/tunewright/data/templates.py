"""Prompt templates: literal text with {column} placeholders, the last of which is what the model must write.

    Please answer the following question.\\n\\nQ: {question}\\n\\nA: {answer}

A text, a file, or the name of a built-in, made into segments row by row. `written` chooses one by the columns,
`segments` turns its work into tokens. Chat templates, which are programs, belong to `conversations`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tunewright.data.examples import Row
from tunewright.data.segments import Segment, Segments
from tunewright.data.survey import value_of
from tunewright.data.values import plain
from tunewright.errors import DataError, RecipeError, did_you_mean

MAX_FILE_BYTES = 256 * 2**10
_FIELD = "data.template"
COMPLETION = "completion"  # the column of what is written, where the rows of prompts have none
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Part:
    """Literal text, or the name of a column."""

    text: str
    is_column: bool = False


@dataclass(frozen=True)
class Template:
    """What stands before the completion, the column that holds it, and what ends it."""

    parts: tuple[Part, ...]
    completion: str  # column
    ending: str = ""  # literal text that the model must write after the completion
    optional: str | None = None  # where this column is absent or empty, `shorter` stands for `parts`
    shorter: tuple[Part, ...] = ()
    as_given: bool = False  # True: names of control tokens in the row's values count as such
    said: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def parse(cls, text: str, columns: Collection[str], completion: str | None = None) -> Template:
        """From a text, a file's path, or a built-in's name. RecipeError, in one line, for what can't work.

        Without `completion`, the last placeholder is what must be written.
        """
        if text.strip() in BUILT_IN:
            return BUILT_IN[text.strip()].on(columns, completion)
        return _parse(_text_of(text), columns, completion)

    @classmethod
    def asking(cls, text: str, columns: Collection[str]) -> Template:
        """For rows without completions: a last placeholder that is no column of theirs stands for the completion.

        Otherwise the whole text is the prompt. RecipeError, in one line, for what can't work.
        """
        if text.strip() in BUILT_IN:
            return BUILT_IN[text.strip()].on([*columns, COMPLETION], COMPLETION)
        parts = _parts(_text_of(text))
        ends_in_completion = bool(parts) and parts[-1].is_column and parts[-1].text not in columns
        asked = parts[:-1] if ends_in_completion else parts
        for part in asked:
            if part.is_column:
                _check_known(part.text, columns)
        if not any(part.is_column for part in asked):
            raise _wrong("the template has no {column} of the prompts, so every prompt would be the same")
        return cls(tuple(asked), parts[-1].text if ends_in_completion else COMPLETION)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a prompt needs."""
        named = (part.text for part in (*self.parts, *self.shorter) if part.is_column)
        return tuple(dict.fromkeys(name for name in named if name != self.optional))

    def segments(self, row: Row) -> Segments:
        """The row for training. DataError with row and column, when a value is missing or there is no completion."""
        target = value_text(row, self.completion)
        if not target.strip():
            raise DataError(
                f'"{self.completion}" is empty, so there is nothing to learn in this row; fill it in or remove the row',
                where=row.where,
                field=self.completion,
            )
        ending = (Segment(self.ending, is_target=True),) if self.ending else ()
        return (*self.prompt_segments(row), Segment(target, is_target=True, is_value=not self.as_given), *ending)

    def prompt_segments(self, row: Row) -> Segments:
        """What stands before the completion, which the row needn't have."""
        made = (
            Segment(value_text(row, part.text), is_target=False, is_value=not self.as_given)
            if part.is_column
            else Segment(part.text, is_target=False)
            for part in self._parts_for(row)
        )
        return tuple(segment for segment in made if segment.text)

    def prompt(self, row: Row) -> str:
        """The prompt as one text."""
        return "".join(segment.text for segment in self.prompt_segments(row))

    def signature(self) -> str:
        """SHA-256 (hex) of all that decides the segments."""
        decided = {name: value for name, value in asdict(self).items() if name != "said"}
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    def written(self) -> str:
        """The template as a person writes it; parsing it gives the same (a built-in's other variant aside)."""
        literal = (part.text.replace("{", "{{").replace("}", "}}") for part in self.parts)
        texts = (f"{{{p.text}}}" if p.is_column else text for p, text in zip(self.parts, literal, strict=True))
        return "".join(texts) + f"{{{self.completion}}}" + self.ending

    def _parts_for(self, row: Row) -> tuple[Part, ...]:
        if self.optional is None:
            return self.parts
        given = plain(row.values.get(self.optional))
        return self.shorter if _is_missing(given) or not str(given).strip() else self.parts


def value_text(row: Row, column: str) -> str:
    """A text as it is, a number as Python writes it. DataError for everything else that a cell can hold."""
    value = plain(value_of(row, column))
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        found = kind_of(value)
        raise DataError(f'"{column}" is {found}; expected a text or a number', where=row.where, field=column)
    return str(value)


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # null, or the NaN that pandas puts in its place


def kind_of(value: Any) -> str:
    """What a cell holds, in words."""
    if _is_missing(value):
        return "null"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "an object"
    return f"{type(value).__name__} {value!s:.40}"


# ---- parsing ----


def _text_of(given: str) -> str:
    """The template itself, or what the named file holds. Only a text without placeholders can be a file's name."""
    if "{" in given or "\n" in given:
        return given
    if not given.strip():
        raise _wrong(f"the template is empty; expected text such as {_EXAMPLE}")
    path = Path(given).expanduser()
    try:
        if not path.exists():
            near = did_you_mean(given, BUILT_IN)
            known = ", ".join(BUILT_IN)
            found = f'"{given:.80}" is no file, holds no {{column}}, and is none of the built-in templates ({known})'
            raise _wrong(f"{found}; expected text such as {_EXAMPLE}.{near}")
        return _read(path)
    except (OSError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        raise _wrong(f'"{given:.80}" holds no {{column}}; expected text such as {_EXAMPLE}') from None


def _read(path: Path) -> str:
    if not path.is_file():
        raise _wrong("is a folder or a device; expected a text file with a template", where=str(path))
    if path.stat().st_size > MAX_FILE_BYTES:
        raise _wrong(f"is larger than {MAX_FILE_BYTES // 2**10} kB; expected a template", where=str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _wrong("is not UTF-8 text; save the template as UTF-8", where=str(path)) from None
    if not text.strip():
        raise _wrong(f"is empty; expected a template such as {_EXAMPLE}", where=str(path))
    return text


def _parse(text: str, columns: Collection[str], completion: str | None) -> Template:
    parts = _parts(text)
    named = [part.text for part in parts if part.is_column]
    for name in named:
        _check_known(name, columns)
    if completion is not None and completion not in columns:
        raise _unknown(f'the completion "{completion}" is no column', completion, columns)
    if not named:
        raise _wrong(f"the template has no {{column}}, so every row would be the same; {_TARGET}")
    target = completion or named[-1]
    if target not in named:
        raise _wrong(f'the template has no {{{target}}}, so there is nothing to learn; end it with "{{{target}}}"')
    if named.count(target) > 1:
        raise _wrong(
            f"{{{target}}} stands {named.count(target)} times in the template, which gives the answer away; {_TARGET}"
        )
    return _ending_in(target, parts)


def _ending_in(target: str, parts: list[Part]) -> Template:
    place = parts.index(Part(target, is_column=True))
    behind = parts[place + 1 :]
    if any(part.is_column or part.text.strip() for part in behind):
        rest = "".join(f"{{{part.text}}}" if part.is_column else part.text for part in behind).strip()
        raise _wrong(f'"{rest:.40}" stands after {{{target}}} in the template; what the model must write comes last')
    said = f"the template ends in white space after {{{target}}}: it is left out"
    return Template(tuple(parts[:place]), target, said=(said,) if behind else ())


def _parts(text: str) -> list[Part]:
    """Literals and placeholders in order; neighbouring literals joined."""
    parts: list[Part] = []
    literal, end = "", 0
    for match in _BRACES.finditer(text):
        literal, end = literal + text[end : match.start()], match.end()
        found = match.group()
        if found in ("{{", "}}"):
            literal += found[0]
        elif match.group(1) is None:
            column = match.start() + 1
            raise _wrong(
                f'a lone "{found}" at character {column} of the template; write "{found * 2}" for the sign itself'
            )
        elif not match.group(1).strip():
            raise _wrong(
                f'an empty placeholder "{found}" at character {match.start() + 1}; name a column, or write "{{{{}}}}"'
            )
        else:
            parts += [Part(literal)] if literal else []
            parts.append(Part(match.group(1), is_column=True))
            literal = ""
    literal += text[end:]
    return [*parts, Part(literal)] if literal else parts


def _check_known(name: str, columns: Collection[str]) -> None:
    if name not in columns:
        raise _unknown(f"the template names {{{name}}}, which is no column", name, columns)


def _unknown(says: str, name: str, columns: Collection[str]) -> RecipeError:
    there = list(columns)
    shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
    return _wrong(f"{says}; found {shown or 'none'}.{did_you_mean(name.strip(), there)}")


def _wrong(message: str, where: str | None = None) -> RecipeError:
    return RecipeError(message, where=where, field=_FIELD)


# ---- built-in templates ----


@dataclass(frozen=True)
class BuiltIn:
    """A template by name, whose placeholders take the columns that a file has for them."""

    text: str
    completion: str  # its placeholder
    shorter: str = ""  # without the optional one
    optional: str | None = None
    ending: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # placeholder -> what people call its column

    def on(self, columns: Collection[str], completion: str | None = None) -> Template:
        """Bound to these columns."""
        placeholders = [part.text for part in _parts(self.text) if part.is_column]
        bound = {name: self.find(name, columns) for name in placeholders}
        bound[self.completion] = completion or bound[self.completion]
        if self.optional and bound[self.optional] is None:
            return replace(self._bind(self.shorter, bound, columns), ending=self.ending)
        whole = self._bind(self.text, bound, columns)
        if self.optional is None:
            return replace(whole, ending=self.ending)
        shorter = self._bind(self.shorter, bound, columns)
        return replace(whole, ending=self.ending, optional=bound[self.optional], shorter=shorter.parts)

    def find(self, placeholder: str, columns: Collection[str]) -> str | None:
        """The column for a placeholder: called so, or as people also call it."""
        by_name = {name.strip().lower(): name for name in reversed(list(columns))}
        usual = (placeholder, *self.names.get(placeholder, ()))
        return next((by_name[name] for name in usual if name in by_name), None)

    def _bind(self, text: str, bound: Mapping[str, str | None], columns: Collection[str]) -> Template:
        parts = _parts(text)
        for part in parts:
            column = bound[part.text] if part.is_column else ""
            if column is None or (column and column not in columns):
                raise _unknown(f'this template needs a column "{column or part.text}"', column or part.text, columns)
        renamed = [Part(bound[part.text] or "", True) if part.is_column else part for part in parts]
        return _ending_in(bound[self.completion] or "", renamed)


QUESTION = ("query", "q", "prompt", "instruction", "input")
ANSWER = ("answers", "response", "reply", "a", "completion", "output", "target")

BUILT_IN: Mapping[str, BuiltIn] = {
    "question-answer": BuiltIn(
        "Please answer the following question.\n\n{context}\n\nQ: {question}\n\nA: {answer}",
        completion="answer",
        shorter="Please answer the following question.\n\nQ: {question}\n\nA: {answer}",
        optional="context",
        names={"question": QUESTION, "answer": ANSWER, "context": ("passage", "paragraph")},
    ),
    "alpaca": BuiltIn(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n{output}",
        completion="output",
        shorter="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:\n{output}",
        optional="input",
        names={
            "instruction": ("prompt", "question"),
            "input": ("context",),
            "output": ("response", "completion", "answer"),
        },
    ),
    "summary": BuiltIn(
        "Summarize the following text.\n\n{document}\n\nSummary: {summary}",
        completion="summary",
        names={
            "document": ("article", "text", "dialogue", "source", "body", "report", "content"),
            "summary": ("highlights", "abstract", "tldr"),
        },
    ),
    "chatml": BuiltIn(
        "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{completion}",
        completion="completion",
        ending="<|im_end|>",
        names={
            "prompt": ("question", "instruction", "query", "input", "document"),
            "completion": (*ANSWER, "answer", "summary"),
        },
    ),
}

# For conversations, where a tokenizer brings no chat template.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_EXAMPLE = '"Q: {question} A: {answer}"'
_TARGET = "expected it to end in the {column} that the model must write"
