"""Progress on a person's terminal: a panel of what will happen, epoch rows that stay, one live line below them.

The other listener is `plain`. The time left is the loop's; this file only shows it.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.cli.output import Marks, clock, number, size, spelt, wrapped
from tunewright.cli.tables import EpochRow, epoch_heading, epoch_line, epoch_row
from tunewright.progress import Evaluated, Event, Finished, Header, Phase, Said, Stepped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

_BAR = (8, 30)  # fewest and most characters
_SPINNER = "|/-\\"


class Screen:
    """A listener that draws. `folder` is the run's, once it is known."""

    def __init__(self, console: Console, marks: Marks) -> None:
        self.console = console
        self.marks = marks
        self.folder: Path | None = None
        self._previous: EpochRow | None = None
        self._step: Stepped | None = None
        self._phase = ("starting", time.monotonic())
        self._live: Live | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Said():
                self._said(event)
            case Phase():
                self._phase, self._step = (event.name, time.monotonic()), None
                self._draw()
            case Header():
                self.folder = event.folder
                self._header(event)
            case Stepped():
                self._step = event
                self._draw()
            case Evaluated():
                self._evaluated(event)
            case Finished():
                self.folder = event.folder
                self.close()

    def close(self) -> None:
        """Take the live line away; what was printed stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich__(self) -> Text:
        """The live line as it is now."""
        from rich.text import Text

        return Text(self.live_line(self.console.width - 1), no_wrap=True, overflow="crop")

    def live_line(self, columns: int) -> str:
        """Epoch, bar, steps, loss, real tokens per second, memory, time left; what doesn't fit goes, least first."""
        if self._step is None:
            return self._phase_line()[:columns]
        step, between = self._step, f" {self.marks.dot} "
        lead = f" epoch {max(1, math.ceil(step.epoch - 1e-9))} "
        count = f" {step.step}/{step.total_steps}"
        parts = [
            f"loss {number(step.loss)}",
            f"{step.tokens_per_second:,.0f} tok/s",
            size(step.memory_bytes),
            f"{clock(step.seconds_left)} left",
        ]
        for droppable in (None, 2, 1, 0):
            if droppable is not None:
                del parts[droppable]
            tail = between.join([count, *parts])
            room = columns - len(lead) - len(tail)
            if room >= _BAR[0]:
                break
        return (lead + self._bar(min(room, _BAR[1]), step.step / max(step.total_steps, 1)) + tail)[:columns]

    def _bar(self, length: int, share: float) -> str:
        full = round(max(length, 0) * min(max(share, 0.0), 1.0))
        return self.marks.done * full + self.marks.todo * (length - full)

    def _phase_line(self) -> str:
        name, began = self._phase
        elapsed = time.monotonic() - began
        return f" {_SPINNER[int(elapsed * 4) % len(_SPINNER)]} {name} {self.marks.dot} {clock(elapsed)}"

    def _draw(self) -> None:
        """Start the live line if it isn't there; it redraws itself four times a second."""
        if self._live is None:
            from rich.live import Live

            live = self._live = Live(
                get_renderable=self.__rich__,
                console=self.console,
                transient=True,
                refresh_per_second=4,
                redirect_stdout=False,  # stdout carries results, possibly into a file
            )
            live.start()

    def _said(self, event: Said) -> None:
        message, warns = spelt(event.message, self.marks), event.level == "warning"
        line = f" {self.marks.warning} {message}" if warns else f" {message}"
        for part in wrapped(line, self.console.width):
            self.console.print(part, style="yellow" if warns else "dim", markup=False)

    def _header(self, event: Header) -> None:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, sentence in event.rows:
            grid.add_row(Text(name), Text(spelt(sentence, self.marks)))
        self.console.print(Panel(grid, title=Text(spelt(event.title, self.marks)), title_align="left", expand=False))

    def _evaluated(self, event: Evaluated) -> None:
        row = epoch_row(event.epoch, event.metrics, event.metric, seconds=event.seconds, best=event.best)
        if self._previous is None:
            self.console.print(epoch_heading(event.metric, row), style="bold", markup=False)
        self.console.print(epoch_line(row, self._previous, self.marks), markup=False)
        self._previous = row
