"""What every screen shares: which stream gets what, marks that the stream can show, tables, numbers, the JSON object.

Results go to stdout, progress and errors to stderr; nothing here knows about runs. A stream that isn't a terminal gets
plain lines: no colour, no box, no redrawing.
"""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from tunewright.errors import TunewrightError

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 10_000  # a pipe has no edge, so nothing is cut
_INFINITE_SECONDS = 360_000


class Reported(Exception):
    """Carries an error whose JSON object is already on stdout, so that there is exactly one."""

    def __init__(self, error: TunewrightError) -> None:
        self.error = error
        super().__init__(str(error))


@dataclass(frozen=True)
class Marks:
    """The few signs that aren't letters."""

    dot: str = "·"
    arrow: str = "→"
    up: str = "▲"
    down: str = "▼"
    best: str = "★"
    warning: str = "⚠"
    done: str = "━"
    todo: str = "─"
    none: str = "–"
    cut: str = "…"
    percent: str = " %"


ASCII_MARKS = Marks("|", "->", "^", "v", "*", "!", "#", "-", "-", "...", " %")


def marks(stream: TextIO | None = None) -> Marks:
    """Signs that the stream can encode."""
    encoding = (getattr(stream or sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    return Marks() if encoding.startswith("utf") else ASCII_MARKS


_SPELT = str.maketrans({"·": "|", "→": "->", "…": "...", "–": "-", "×": "x", "±": "+-", "≥": ">=", "≤": "<="})


def spelt(text: str, signs: Marks) -> str:
    """A sentence of the library in signs that the stream can encode."""
    return text.translate(_SPELT) if signs is ASCII_MARKS else text


def is_live(stream: TextIO) -> bool:
    """Whether lines on the stream may be redrawn and coloured: a person's terminal."""
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return stream.isatty() and not in_ci and os.environ.get("TERM") != "dumb"


def console(stream: TextIO) -> Console:
    """A rich console for the stream; NO_COLOR is honoured by rich itself."""
    from rich.console import Console

    live = is_live(stream)
    return Console(file=stream, force_terminal=live, width=None if live else PLAIN_WIDTH, highlight=False)


_STYLES = {"fixed": "green", "broke": "red", "★": "bold yellow", "⚠": "yellow", "error": "red"}


def show(lines: Sequence[str], stream: TextIO | None = None) -> None:
    """Print result lines, with a little colour on a terminal."""
    target = stream or sys.stdout
    if not is_live(target):
        target.write("".join(f"{line.rstrip()}\n" for line in lines))
        return
    from rich.text import Text

    screen = console(target)
    for line in (part for whole in lines for part in wrapped(whole.rstrip(), screen.width)):
        text = Text(line)
        for word, style in _STYLES.items():
            text.highlight_words([f" {word}"], style)
        screen.print(text, soft_wrap=True)


def wrapped(line: str, columns: int) -> list[str]:
    """A line as several that fit, broken between words; what follows the first stands under its text."""
    from rich.cells import cell_len

    if cell_len(line) <= columns:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    mark = indent + "  "
    return textwrap.wrap(line, columns, subsequent_indent=mark, break_long_words=False, break_on_hyphens=False)


def terminal_columns(stream: TextIO) -> int:
    """Columns of the terminal that the stream is, 80 where it doesn't say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def width(stream: TextIO | None = None) -> int:
    """Columns to fit tables in."""
    return console(stream or sys.stdout).width


def table(rows: Sequence[Sequence[str]], aligns: str, *, fit: int = PLAIN_WIDTH, cut: str = "…") -> list[str]:
    """Lines of aligned columns; `aligns` has `<` or `>` per column. Too wide: the first column is cut to fit."""
    from rich.cells import cell_len, set_cell_size

    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(aligns))]
    spare = fit - sum(widths[1:]) - 2 * (len(widths) - 1) - 1
    widths[0] = min(widths[0], max(spare, 12))
    lines = []
    for row in rows:
        cells = []
        for text, size, align in zip(row, widths, aligns, strict=True):
            if cell_len(text) > size:
                text = set_cell_size(text, size - len(cut)).rstrip() + cut
            padding = " " * (size - cell_len(text))
            cells.append(padding + text if align == ">" else text + padding)
        lines.append((" " + "  ".join(cells)).rstrip())
    return lines


def number(value: float | None, none: str = "–") -> str:
    """Three decimals; large numbers as they are."""
    if value is None or math.isnan(value):
        return none
    return f"{value:,.3f}" if abs(value) < 1e6 else f"{value:.3g}"


def clock(seconds: float) -> str:
    """1:22, or 1:02:03."""
    if not 0 <= seconds < _INFINITE_SECONDS:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(num_bytes: float) -> str:
    """1.9 GB, 31 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}" if num_bytes < 10 * scale else f"{num_bytes / scale:,.0f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"


def percent_sure(value: float) -> str:
    """A probability in two digits, never rounded up to certainty."""
    return f"{min(value, 0.99) if value < 1 else 1:.2f}"


def print_json(value: Mapping[str, Any]) -> None:
    """The one JSON object of a command; a number that isn't one becomes null."""
    ascii_only = marks() is ASCII_MARKS
    print(json.dumps(_finite(value), ensure_ascii=ascii_only, allow_nan=False, default=str))


def failure(error: TunewrightError, *, run: str | None = None, state: str = "failed") -> dict[str, Any]:
    """The JSON object of a command that failed."""
    problem = {"code": error.code, "message": str(error), "where": error.where, "param": error.field}
    return {"run": run, "state": state, "metrics": {}, "error": problem}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
