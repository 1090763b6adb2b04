"""`tunewright chat`: ask a model that writes, in the terminal or through a pipe.

In a terminal answers appear as they are written, and commands begin with `/`. Through a pipe each line is a question
and each answer a line of output; nothing else is printed there.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewright.cli.options import DEFAULT_RUNS, MaxNewTokens, RunsFolder, Seed, Temperature, TopP
from tunewright.errors import DataError, TunewrightError, UsageError

if TYPE_CHECKING:
    from tunewright.serving.chatting import Answer, Chat, Question
    from tunewright.serving.writer import Writer

COMMANDS = {
    "/retry": "another answer to the last question",
    "/clear": "forget what was said",
    "/help": "this list",
    "/exit": "end the chat (or Ctrl-D)",
}


def chat(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Name, unique prefix, `latest`, path, Hub id, RUN:best, or a base model (gemma3-270m)."
        ),
    ],
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Answer each question twice: before tuning and after.")
    ] = False,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the model is told before the talk begins.")
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    runs: RunsFolder = DEFAULT_RUNS,
) -> None:
    """Talk with a model that writes: questions in, answers as they are written."""
    from tunewright.library import load
    from tunewright.serving.answering import needs_writer
    from tunewright.serving.chatting import Chat

    tuned = needs_writer(load(run, runs), "chat")
    writers = {"before": _base(run, runs, tuned), "after": tuned} if side_by_side else {"": tuned}
    given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    settings = {name: value for name, value in given.items() if value is not None}
    chats = {name: Chat(writer, writer.sampling(**settings), system) for name, writer in writers.items()}
    if sys.stdin.isatty():
        _Terminal(chats).run(run)
    else:
        _through_a_pipe(chats)


def _base(run: str, runs: Any, tuned: Writer) -> Writer:
    """The model before it was tuned, in the memory of the tuned one where it is an adapter's base."""
    from tunewright.runs import find_run
    from tunewright.serving.writer import Writer

    inside = tuned.without_adapter()
    if inside is not None:
        return inside
    try:
        ref = find_run(run, runs)
    except UsageError:
        raise UsageError("there is no other side: this model has no run that says what it was before") from None
    return Writer.untrained(ref.folder)


def printable(text: str) -> str:
    """What a model writes can't steer a terminal: control characters become question marks."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "?" for c in text)


def is_command(question: Question) -> bool:
    """Whether a line is for us and not for the model."""
    return isinstance(question, str) and question in COMMANDS


def _show(piece: str) -> None:
    sys.stdout.write(printable(piece))
    sys.stdout.flush()


# ---- a pipe ----


def _through_a_pipe(chats: Mapping[str, Chat]) -> None:
    """One line in, one answer out."""
    first = next(iter(chats.values()))
    for number, line in enumerate(sys.stdin, 1):
        if line.strip():
            question = _question(line.rstrip("\r\n"), first, f"stdin:{number}")
            for name, chat in chats.items():
                answer = chat.answer(question, lambda piece: None)
                _show(f"{name}: {answer.text}\n" if name else f"{answer.text}\n")


def _question(line: str, chat: Chat, where: str) -> Question:
    """A line as it is, or a JSON object where the template reads several columns."""
    needed = [name for name in chat.columns if name not in chat.optional]
    if not chat.columns or (len(needed) == 1 and not line.lstrip().startswith("{")):
        return line
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise DataError(f"the template reads {', '.join(chat.columns)}; expected a JSON object with these", where=where)
    return values


# ---- a terminal ----


class _Terminal:
    """Asks, shows, and obeys commands until the person leaves."""

    def __init__(self, chats: Mapping[str, Chat]) -> None:
        self.chats = chats
        self.first = next(iter(chats.values()))

    def run(self, name: str) -> None:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # arrow keys in input()
        print(f" chat with {name}: {', '.join(COMMANDS)}; Ctrl-C stops an answer", file=sys.stderr)
        for question in self._questions():
            try:
                self._obey(question) if is_command(question) else self._all_answer(question)
            except TunewrightError as error:  # a question that can't be read ends no chat
                print(error.line(), file=sys.stderr)

    def _questions(self) -> Iterator[Question]:
        """Until Ctrl-D or /exit."""
        while True:
            try:
                question = self._asked()
            except EOFError:
                print(file=sys.stderr)
                return
            except KeyboardInterrupt:
                print("\n (Ctrl-D or /exit ends the chat)", file=sys.stderr)
                continue
            if question == "/exit":
                return
            if any(question.values()) if isinstance(question, dict) else question:
                yield question

    def _asked(self) -> Question:
        columns = self.first.columns
        if not columns:
            return self._line("> ")
        values: dict[str, str] = {}
        for name in columns:
            answer = self._line(f"{name}{' (may stay empty)' if name in self.first.optional else ''}: ")
            if answer in COMMANDS:
                return answer
            values[name] = answer
        return values

    def _line(self, prompt: str) -> str:
        line = input(prompt if sys.stdout.isatty() else "").strip()
        if line.startswith("/") and " " not in line and line not in COMMANDS:
            print(f" no command {printable(line)}; there are {', '.join(COMMANDS)}", file=sys.stderr)
            return self._line(prompt)
        return line

    def _obey(self, command: Question) -> None:
        if command == "/retry":
            self._all(lambda chat, wants_stop: chat.retry(_show, wants_stop))
        elif command == "/clear":
            for chat in self.chats.values():
                chat.clear()
            print(" forgotten", file=sys.stderr)
        else:
            print("\n".join(f" {name:8}{meaning}" for name, meaning in COMMANDS.items()), file=sys.stderr)

    def _all_answer(self, question: Question) -> None:
        self._all(lambda chat, wants_stop: chat.answer(question, _show, wants_stop))

    def _all(self, ask: Callable[[Chat, Callable[[], bool]], Answer]) -> None:
        for name, chat in self.chats.items():
            if name:
                _show(f"{name}: ")
            with _interrupts() as wants_stop:
                answer = ask(chat, wants_stop)
            _show("\n" if answer.text or name else "(nothing)\n")
            if answer.forgotten:
                print(f" (the first {answer.forgotten} exchanges no longer fit the model)", file=sys.stderr)


@contextlib.contextmanager
def _interrupts() -> Generator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed inside; pressed again it interrupts at once."""
    pressed: list[int] = []

    def note(_number: int, _frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(1)

    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield lambda: False
        return
    own = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, own)
