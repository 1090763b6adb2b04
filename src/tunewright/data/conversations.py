"""Conversations: messages checked, rendered by the model's own chat template, cut where the assistant speaks.

`written` finds them in rows, `segments` makes tokens of what comes out. Templates run in transformers' sandbox only
(`apply_chat_template`), after a rehearsal in a process with limits, and are never edited.

An assistant's part of the text is what a template adds when that message follows: render(messages before it, with the
prompt for an answer) must begin render(messages up to it), and that must begin the whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tunewright.data.segments import Learn, Segment, Segments, control_pattern, control_tokens
from tunewright.data.templates import CHATML, kind_of
from tunewright.data.values import plain
from tunewright.errors import DataError, ModelError, did_you_mean
from tunewright.scanning.templates import Renderer

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
MAX_CHARACTERS = 2_000_000  # of one rendered conversation

_KEPT = ("name", "tool_call_id", "reasoning_content", "reasoning", "thinking")
_MARKS = ("\U000f0000", "\U000f0001")  # private characters around what only looks like a control token
_MARK = re.compile(f"[{_MARKS[0]}{_MARKS[1]}]")
_MARKED = re.compile(f"{_MARKS[0]}([^{_MARKS[0]}{_MARKS[1]}]*){_MARKS[1]}")
_PROBE = ({"role": "user", "content": "Tea or water?"}, {"role": "assistant", "content": "Tea, please"})


@dataclass(frozen=True, slots=True)
class Message:
    """One turn, checked."""

    role: str  # system, user, assistant, tool
    content: str
    is_learned: bool  # the assistant's, unless the row gives it weight 0
    extra: Mapping[str, Any] = field(default_factory=dict)  # tool_calls, name, reasoning, as templates want them


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of one row, in an order that makes sense."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    where: str

    @property
    def answer(self) -> str:
        """What the assistant says last, of what counts."""
        return next((m.content for m in reversed(self.messages) if m.is_learned), "")

    def before_answer(self) -> Conversation:
        """What stands before that; all of it, when there is none."""
        size = max((n for n, m in enumerate(self.messages) if m.is_learned), default=len(self.messages))
        return replace(self, messages=self.messages[:size])


# ---- checking ----


def conversation(
    messages: Any, where: str, *, tools: Any = None, column: str = "messages", needs_answer: bool = True
) -> Conversation:
    """Messages as OpenAI writes them. DataError with row and message number for what no model should learn."""
    given = plain(messages)
    if not isinstance(given, list | tuple) or not given:
        raise DataError(f'"{column}" is {kind_of(given)}; expected a list of messages', where=where, field=column)
    checked = tuple(_message(message, _Place(where, column, n)) for n, message in enumerate(given, 1))
    _check_order(checked, where, column)
    if needs_answer and not any(m.role == "assistant" and m.is_learned for m in checked):
        weighted = " with weight 1" if any(m.role == "assistant" for m in checked) else ""
        found = f'"{column}" holds no message of the assistant{weighted}; add the answer or remove the row'
        raise DataError(found, where=where, field=column)
    return Conversation(checked, _tools(tools, where), where)


@dataclass(frozen=True)
class _Place:
    """Where a message stands, for errors."""

    where: str
    column: str
    number: int  # from 1

    def wrong(self, message: str) -> DataError:
        return DataError(f"message {self.number} {message}", where=self.where, field=self.column)


def _message(given: Any, at: _Place) -> Message:
    if not isinstance(given, Mapping):
        raise at.wrong(f'is {kind_of(given)}; expected an object with "role" and "content"')
    role = _role(given, at)
    calls = _tool_calls(given.get("tool_calls"), at)
    if calls and role != "assistant":
        raise at.wrong(f"({role}) has tool_calls; only the assistant calls tools")
    content = _content(given, role, bool(calls), at)
    extra = {name: given[name] for name in _KEPT if given.get(name) is not None}
    return Message(role, content, _weight(given, role, at), {**extra, **({"tool_calls": calls} if calls else {})})


def _role(given: Mapping[str, Any], at: _Place) -> str:
    if "role" not in given:
        raise at.wrong(f'has no "role" (found {", ".join(map(str, given)) or "nothing"})')
    role = given["role"]
    if not isinstance(role, str) or role not in ROLES:
        known = f"{', '.join(ROLES)}.{did_you_mean(str(role), ROLES)}"
        raise at.wrong(f'has the role "{role!s:.40}"; expected one of {known}')
    return ROLES[role]


def _content(given: Mapping[str, Any], role: str, may_be_empty: bool, at: _Place) -> str:
    content = given.get("content")
    if isinstance(content, list | tuple):
        content = "".join(_text_part(part, at) for part in content)
    if content is None and not may_be_empty:
        raise at.wrong(f'({role}) has no "content"; expected a text')
    if content is not None and not isinstance(content, str):
        raise at.wrong(f"({role}) has {kind_of(content)} as content; expected a text")
    if not may_be_empty and not (content or "").strip():
        raise at.wrong(f"({role}) is empty; fill it in or remove the row")
    return content or ""


def _text_part(part: Any, at: _Place) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind != "text" or not isinstance(part.get("text"), str):
        raise at.wrong(f'has a part of type "{kind}" as content; only text is learned')
    return part["text"]


def _weight(given: Mapping[str, Any], role: str, at: _Place) -> bool:
    weight = given.get("weight")
    if weight is None:
        return role == "assistant"
    if role != "assistant":
        raise at.wrong(f"({role}) has a weight; only the assistant's messages are learned")
    if isinstance(weight, bool) or weight not in (0, 1):
        raise at.wrong(f"has the weight {weight!r:.20}; expected 0 (not learned) or 1")
    return bool(weight)


def _tool_calls(given: Any, at: _Place) -> list[dict[str, Any]]:
    if not isinstance(given, list | tuple | None):
        raise at.wrong(f"has {kind_of(given)} as tool_calls; expected a list of calls")
    return [_tool_call(call, at) for call in given or ()]


def _tool_call(call: Any, at: _Place) -> dict[str, Any]:
    """With its arguments as an object: templates write them as JSON themselves."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not function.get("name") or not isinstance(function["name"], str):
        raise at.wrong('has a tool call without a "name"; expected {"function": {"name": ..., "arguments": ...}}')
    name, arguments = function["name"], function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise at.wrong(f'calls "{name:.40}" with arguments that are not JSON ({error!s:.80})') from None
    if not isinstance(arguments, Mapping):
        raise at.wrong(f'calls "{name:.40}" with {kind_of(arguments)} as arguments; expected a JSON object')
    identity = {"id": call["id"]} if isinstance(call, Mapping) and call.get("id") is not None else {}
    return {**identity, "type": "function", "function": {"name": name, "arguments": dict(arguments)}}


def _check_order(messages: Sequence[Message], where: str, column: str) -> None:
    """System first and once, then user and assistant in turns; tools answer calls."""
    for number, (before, message) in enumerate(itertools.pairwise((None, *messages)), 1):
        problem = _misplaced(before, message)  # type: ignore[arg-type]
        if problem:
            raise _Place(where, column, number).wrong(problem)
    called: set[Any] = set()
    for number, message in enumerate(messages, 1):
        called |= {call.get("id") for call in message.extra.get("tool_calls", ())}
        answered = message.extra.get("tool_call_id")
        if message.role == "tool" and answered is not None and called != {None} and answered not in called:
            raise _Place(where, column, number).wrong(f'answers the tool call "{answered!s:.40}", which nobody made')


def _misplaced(before: Message | None, message: Message) -> str:
    last, role = before.role if before else None, message.role
    if role == "system":
        return "" if last is None else "is a system message; expected it first, and only once"
    if role == "tool":
        is_called = before is not None and (last == "tool" or "tool_calls" in before.extra)
        return "" if is_called else "is a tool's answer, and the message before it calls no tool"
    if role == last:
        return f"is from the {role}, like the one before it; join the two, or add what was said between them"
    if role == "assistant" and last in (None, "system"):
        return "is from the assistant, and nobody has said anything; expected a user's message first"
    if role == "user" and before is not None and "tool_calls" in before.extra:
        return "is from the user, and the tool call before it has no answer"
    return ""


def _tools(given: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    try:
        tools = json.loads(given or "[]") if isinstance(given, str) else plain(given)
    except (ValueError, RecursionError):
        tools = given
    if tools is not None and not (isinstance(tools, list | tuple) and all(isinstance(tool, Mapping) for tool in tools)):
        raise DataError(f'"tools" is {kind_of(tools)}; expected a list of objects', where=where, field="tools")
    return tuple(tools or ())


# ---- rendering ----


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template, tried out."""

    tokenizer: Any
    template: str | None  # None: the tokenizer's own, which may be several
    learn: Learn
    end_of_turn: str | None  # what it writes after an answer: where generation stops
    said: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Any, learn: Learn = "assistant") -> ChatTemplate:
        """The tokenizer's own, or ChatML. ModelError when it can't be rendered within limits."""
        own = getattr(tokenizer, "chat_template", None)
        said = [] if own else ["the tokenizer has no chat template: ChatML is used (<|im_start|>role … <|im_end|>)"]
        chat = cls(tokenizer, None if own else CHATML, learn, None, ())
        if own:
            _rehearse(tokenizer)
        if "strftime_now" in str(own):
            said.append("the chat template writes the date of the day, so prompts change from one day to the next")
        if (end := _end_of_turn(chat)) is None:
            said.append("the chat template writes nothing after an answer: only the end of the last one is learned")
        return replace(chat, end_of_turn=end, said=tuple(said))

    def segments(self, talk: Conversation) -> Segments:
        """For training: each answer that counts is a target, and what follows the last one is left out."""
        given = self._given(talk)
        whole = self._render(given, talk)
        spans = self._spans(given, whole, talk)
        return tuple(_cut(whole[: spans[-1][1]], spans, given)) if spans else ()

    def prompt(self, talk: Conversation) -> Segments:
        """For answering: all that was said, and the words after which the assistant speaks; cut as in training."""
        given = self._given(talk)
        whole = self._render(given, talk, answer=True)
        spans = self._spans(given, whole, talk) if self.learn == "assistant" else []
        return tuple(_cut(whole, spans, given))

    def signature(self) -> str:
        """SHA-256 (hex) of the template and of what it may name."""
        decided = [self.template or self.tokenizer.chat_template, self.tokenizer.special_tokens_map, self.learn]
        return hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()

    def _text(self, talk: Conversation) -> str:
        return self.template or self.tokenizer.get_chat_template(None, tools=list(talk.tools) or None)

    @cached_property
    def _controls(self) -> re.Pattern[str]:
        return control_pattern(control_tokens(self.tokenizer))

    def _given(self, talk: Conversation) -> list[dict[str, Any]]:
        """The messages as templates want them, what only looks like a control token marked as text."""
        given = [{"role": m.role, "content": m.content, **m.extra} for m in talk.messages]
        template = self._text(talk)
        needs = {"tools": bool(talk.tools), "tool_calls": any("tool_calls" in message for message in given)}
        for name in (name for name, needed in needs.items() if needed and name not in template):
            raise DataError(f'has "{name}", which the chat template leaves out; choose another', where=talk.where)
        return [_marked(message, self._controls) for message in given]

    def _render(self, given: list[dict[str, Any]], talk: Conversation, *, answer: bool = False) -> str:
        tools = _marked(list(talk.tools), self._controls) or None
        settings = {"chat_template": self.template, "add_generation_prompt": answer, "tokenize": False}
        try:
            text: str = self.tokenizer.apply_chat_template(given, tools=tools, **settings)
        except Exception as error:  # whatever a stranger's program raises
            reason = f"{type(error).__name__}: {error!s:.200}"
            raise DataError(f"the chat template refuses this conversation ({reason})", where=talk.where) from None
        if len(text) > MAX_CHARACTERS:
            raise DataError(f"the chat template writes more than {MAX_CHARACTERS:,} characters", where=talk.where)
        return text

    def _spans(self, given: list[dict[str, Any]], whole: str, talk: Conversation) -> list[tuple[int, int]]:
        """Where in the whole text the answers to learn stand."""
        spans: list[tuple[int, int]] = []
        answers = [index for index, message in enumerate(talk.messages) if message.is_learned]
        for index in answers if self.learn == "assistant" else answers[-1:]:
            before = self._render(given[:index], talk, answer=True)
            upto = self._render(given[: index + 1], talk)
            end = len(before) + self._answer_size(upto[len(before) :], given[index]["content"])
            if not upto.startswith(before) or upto[:end] != whole[:end]:
                return self._tagged(given, whole, talk)
            if end == len(before):
                raise DataError(f"the chat template writes nothing for message {index + 1}", where=talk.where)
            spans += [(len(before), end)]
        return spans

    def _tagged(self, given: list[dict[str, Any]], whole: str, talk: Conversation) -> list[tuple[int, int]]:
        """The same, as the template itself marks it with {% generation %}."""
        from transformers.utils.chat_template_utils import render_jinja_template

        template, tools = self._text(talk), _marked(list(talk.tools), self._controls) or None
        if not re.search(r"\{%-?\s*generation\s*-?%\}", template):
            raise _not_nested(talk.where, self.learn)
        rendered, found = render_jinja_template(
            [given], tools, None, template, return_assistant_tokens_mask=True, **self.tokenizer.special_tokens_map
        )
        places: list[tuple[int, int]] = found[0]  # pyright: ignore[reportAssignmentType]
        answers = [message.is_learned for message in talk.messages if message.role == "assistant"]
        if all(answers):
            answers = [True] * len(places)  # one message may have several
        if not whole.startswith(rendered[0]) or len(places) != len(answers):
            raise _not_nested(talk.where, self.learn)
        learned = itertools.compress(places, answers)
        spans = [(begin, self._with_end_of_turn(whole, end)) for begin, end in learned if begin < end]
        last = max(index for index, message in enumerate(talk.messages) if message.is_learned)
        before = self._render(given[:last], talk, answer=True)
        if not spans or not whole.startswith(before) or len(before) >= spans[-1][1]:
            raise _not_nested(talk.where, self.learn)
        # What the model is asked to answer must be what it has learned to answer.
        spans[-1] = (len(before), spans[-1][1])
        return spans if self.learn == "assistant" else spans[-1:]

    def _answer_size(self, text: str, content: str) -> int:
        """White space behind an end of turn is no part of an answer; where there is no such end, it is the end."""
        body = text.rstrip()
        if self.end_of_turn and self.end_of_turn in body:
            return body.rindex(self.end_of_turn) + len(self.end_of_turn)
        return len(text) if content.strip() and body.endswith(content.rstrip()) else len(body)

    def _with_end_of_turn(self, whole: str, end: int) -> int:
        """A template that leaves the end of the turn outside its tags would teach never to stop."""
        if self.end_of_turn is None or not whole[end:].lstrip().startswith(self.end_of_turn):
            return end
        return whole.index(self.end_of_turn, end) + len(self.end_of_turn)


def _rehearse(tokenizer: Any) -> None:
    """Once in a process with limits on time, memory and text, before a stranger's template runs in this one."""
    own = tokenizer.chat_template
    variables = {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    with Renderer(max_characters=MAX_CHARACTERS) as renderer:
        for template in own.values() if isinstance(own, Mapping) else [own]:
            for said, answer in ((_PROBE, False), (_PROBE[:1], True)):
                renderer.render(template, {**variables, "messages": list(said), "add_generation_prompt": answer})
    try:
        tokenizer.get_chat_template()
    except ValueError as error:
        raise ModelError(f"the chat template can't be used ({error!s:.200})", field="chat_template") from None


def _end_of_turn(chat: ChatTemplate) -> str | None:
    """What stands behind an answer, whether or not somebody speaks after it."""
    nowhere, answer = Conversation((), (), "chat template"), _PROBE[1]["content"]
    behind = chat._render(list(_PROBE), nowhere).rpartition(answer)[2]
    with contextlib.suppress(DataError):
        followed = chat._render([*_PROBE, _PROBE[0]], nowhere).partition(answer)[2]
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(behind, followed, strict=False))
        behind = "".join(character for character, _ in same)
    return behind.strip() or None


def _not_nested(where: str, learn: Learn) -> DataError:
    last = "set data.learn to completion to learn the last answer only, or " if learn == "assistant" else ""
    return DataError(
        "the chat template writes an earlier message differently once another follows, so where the assistant's words "
        f"stand can't be told; {last}choose a model with another chat template",
        where=where,
    )


def _cut(whole: str, spans: list[tuple[int, int]], given: list[dict[str, Any]]) -> Iterator[Segment]:
    """The text as segments; contexts are cut around each message too, so that the longest can be shortened alone."""
    borders, at = {0, len(whole), *(place for span in spans for place in span)}, 0
    for content in (message["content"].strip() for message in given):
        found = whole.find(content, at) if content else -1
        if found >= 0:
            at = found + len(content)
            borders |= {found, at}
    for begin, end in itertools.pairwise(sorted(borders)):
        is_target = any(first <= begin and end <= last for first, last in spans)
        for number, text in enumerate(_MARKED.split(whole[begin:end])):
            if text:
                yield Segment(_MARK.sub("", text), is_target, is_value=number % 2 == 1)


def _marked(given: Any, controls: re.Pattern[str]) -> Any:
    """Names of control tokens between marks, in all texts but roles; marks that stood there before are dropped."""
    if isinstance(given, str):
        clean = _MARK.sub("", given)
        return controls.sub(rf"{_MARKS[0]}\g<0>{_MARKS[1]}", clean)
    if isinstance(given, Mapping):
        return {name: value if name == "role" else _marked(value, controls) for name, value in given.items()}
    return [_marked(value, controls) for value in given] if isinstance(given, list | tuple) else given
