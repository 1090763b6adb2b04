"""Progress as plain lines, for pipes, logs and CI: one per evaluation and at every tenth of the steps.

The other listener is `screen`. Writes whole lines only, never a carriage return or an escape code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from tunewright.cli.output import clock, marks, size, spelt, terminal_columns, wrapped
from tunewright.cli.tables import ALIGNED, WRITTEN
from tunewright.progress import Evaluated, Event, Finished, Header, Phase, Said, Stepped

MARKS_PER_RUN = 10


class PlainLines:
    """A listener that prints lines. `folder` is the run's, once it is known."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.folder: Path | None = None
        self._marks = marks(stream)
        self._phases: set[str] = set()
        self._tenth = 0
        self._total_steps = 0
        self._seconds_left: float | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Said():
                self._line(f"{'warning' if event.level == 'warning' else 'note'}: {event.message}")
            case Phase():
                if event.name not in self._phases:  # "evaluating" again after every epoch says nothing new
                    self._line(f"{event.name} ...")
                self._phases.add(event.name)
            case Header():
                self.folder = event.folder
                self._line(event.title)
                for name, sentence in event.rows:
                    self._line(f"{name}: {sentence}")
            case Stepped():
                self._step(event)
            case Evaluated():
                self._evaluation(event)
            case Finished():
                self.folder = event.folder

    def close(self) -> None:
        """Nothing is left open."""

    def _step(self, event: Stepped) -> None:
        self._total_steps, self._seconds_left = event.total_steps, event.seconds_left
        tenth = MARKS_PER_RUN * event.step // max(event.total_steps, 1)
        if tenth > self._tenth:
            self._tenth = tenth
            self._line(
                f"step {event.step}/{event.total_steps} epoch {event.epoch:.2f} train/loss {event.loss:.3f} "
                f"tokens/s {event.tokens_per_second:.0f} memory {size(event.memory_bytes)} "
                f"eta {event.seconds_left:.0f}s"
            )

    def _evaluation(self, event: Evaluated) -> None:
        of = f"/{self._total_steps}" if self._total_steps else ""
        shown = [name for name in _shown_metrics(event) if name in event.metrics]
        values = " ".join(f"{name} {event.metrics[name]:.3f}" for name in shown)
        eta = f" eta {self._seconds_left:.0f}s" if self._seconds_left is not None else ""
        best = " best" if event.best else ""
        self._line(f"step {event.step}{of} epoch {event.epoch:.2f} {values} time {clock(event.seconds)}{eta}{best}")

    def _line(self, text: str) -> None:
        line = spelt(" ".join(text.split()), self._marks)
        # A plain terminal (TERM=dumb, or a CI that shows one) has an edge; a file has none.
        lines = wrapped(line, terminal_columns(self.stream)) if self.stream.isatty() else [line]
        self.stream.write("".join(f"{each}\n" for each in lines))
        self.stream.flush()


def _shown_metrics(event: Evaluated) -> list[str]:
    decides = f"validation/{event.metric.removeprefix('validation/')}"
    written = [f"validation/{name}" for name in WRITTEN + ALIGNED]  # of a model that writes; no other has them
    return list(dict.fromkeys(["train/loss", "validation/loss", decides, *written]))
