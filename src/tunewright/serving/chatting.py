"""A talk with a model that writes: what was said so far, the next answer piece by piece, once more, from the start.

Prompts are those of training: a chat template sees the whole talk, any other template a question that stands alone.
Knows no terminal; `cli.chat` asks and shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunewright.data.examples import Row
from tunewright.data.row_reading import TextReading
from tunewright.errors import UsageError
from tunewright.models.sampling import Sampling
from tunewright.models.stopping import TextStream
from tunewright.serving.writer import Writer

Question = str | Mapping[str, Any]  # a line, or a row of the template's columns
OTHERWISE = 0.8  # the temperature of another try, where the first one left nothing to chance


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    was_stopped: bool = False  # by the person, in the middle
    forgotten: int = 0  # earlier exchanges that this answer couldn't see any more


class Stopped(Exception):
    """Ends an answer from within."""


@dataclass
class Chat:
    """One model and what it and the person said."""

    writer: Writer
    sampling: Sampling
    system: str | None = None
    exchanges: list[tuple[str, str]] = field(default_factory=list)  # of a talk; empty where questions stand alone
    last: Question | None = None
    tries: int = 0  # of the last question

    def __post_init__(self) -> None:
        if self.system is not None and not self.writer.format.talks:
            raise UsageError("there is no place for a system message: this model reads no conversation", field="system")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a question needs by name; one alone is the question itself, and needs none."""
        reading = self.writer.format.reading
        return () if self.writer.format.talks or len(reading.columns) == 1 else reading.columns

    @property
    def optional(self) -> tuple[str, ...]:
        """Those of them that may stay empty."""
        return self.writer.format.reading.optional

    def answer(
        self, question: Question, show: Callable[[str], None], wants_stop: Callable[[], bool] = lambda: False
    ) -> Answer:
        """The model's answer, shown in pieces as it comes; asked after each token whether to stop.

        DataError for a question that the template can't take.
        """
        self.last, self.tries = question, 0
        return self._answer(question, self.sampling, show, wants_stop)

    def retry(self, show: Callable[[str], None], wants_stop: Callable[[], bool] = lambda: False) -> Answer:
        """Another answer to the last question. UsageError when nothing was asked."""
        if self.last is None:
            raise UsageError("nothing was asked yet, so there is nothing to try again")
        if self.exchanges and self.exchanges[-1][0] == self.last:
            self.exchanges.pop()
        self.tries += 1
        warmth = self.sampling.temperature or OTHERWISE
        again = replace(self.sampling, temperature=warmth, seed=self.sampling.seed + self.tries)
        return self._answer(self.last, again, show, wants_stop)

    def clear(self) -> None:
        """Forget what was said."""
        self.exchanges.clear()
        self.last = None

    # ---- parts ----

    def _answer(
        self, question: Question, sampling: Sampling, show: Callable[[str], None], wants_stop: Callable[[], bool]
    ) -> Answer:
        ids, forgotten = self._prompt(question, sampling)
        shown, found = _Shown(self.writer, sampling, show), list[int]()

        def on_token(_row: int, token: int) -> None:
            found.append(token)
            shown.push(token)
            if wants_stop():
                raise Stopped

        was_stopped = False
        try:
            self.writer.write([ids], sampling, on_token=on_token)
        except (Stopped, KeyboardInterrupt):
            was_stopped = True
        shown.end()
        if isinstance(question, str) and self.writer.format.talks and shown.text:
            self.exchanges.append((question, shown.text))
        return Answer(shown.text, was_stopped, forgotten)

    def _prompt(self, question: Question, sampling: Sampling) -> tuple[list[int], int]:
        """Ids, and how many exchanges were left out because the model has no positions for them."""
        if not self.writer.format.talks:
            row = self.writer.format.row(question, "chat") if isinstance(question, str) else Row(question, "chat", 0)
            return self.writer.prompt(row, sampling).ids, 0
        longer, first = self.writer.with_whole_context(), 0
        prompt = longer.prompt(self._talk(str(question), first), sampling)
        while prompt.cut and first < len(self.exchanges):
            first += 1
            prompt = longer.prompt(self._talk(str(question), first), sampling)
        return prompt.ids, first

    def _talk(self, question: str, first: int) -> Row:
        """The talk from an exchange on, as a row."""
        said = [message for pair in self.exchanges[first:] for message in zip(("user", "assistant"), pair, strict=True)]
        before = [("system", self.system)] if self.system else []
        messages = [{"role": role, "content": content} for role, content in (*before, *said, ("user", question))]
        return Row({self.writer.format.reading.columns[0]: messages}, "chat", 0)


class _Shown:
    """Tokens as text that is shown piece by piece; laid end to end, the pieces are the prediction."""

    def __init__(self, writer: Writer, sampling: Sampling, show: Callable[[str], None]) -> None:
        self.stream = TextStream(writer.tokenizer, (*sampling.stop, *writer.encoder.stop))
        self.show = show
        self.trims = not isinstance(writer.format.reading, TextReading)
        self.text = ""
        self._held = ""  # white space that is shown only when more comes

    def push(self, token: int) -> None:
        self._add(self.stream.push(token))

    def end(self) -> None:
        self._add(self.stream.end())

    def _add(self, piece: str) -> None:
        piece = self._held + piece
        if self.trims:
            piece = piece if self.text else piece.lstrip()
            kept = piece.rstrip()
            piece, self._held = kept, piece[len(kept) :]
        if piece:
            self.text += piece
            self.show(piece)
