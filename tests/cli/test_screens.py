"""Progress, from hand-made events: on a terminal, in plain lines, and the live bar itself."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.finished_run import EVENTS
from tunewright.cli import output
from tunewright.cli.output import ASCII_MARKS, Marks
from tunewright.cli.plain import PlainLines
from tunewright.cli.screen import Screen
from tunewright.progress import Header, Phase, Said, Stepped

PLAIN = """\
reading the data ...
note: text column: text (guessed from 3 columns)
warning: 2 texts appear twice
train · 20261124-0900-reviews
model: minilm · 22,713,216 parameters
plan: 2 epochs · 250 steps · batch 16
scoring the untrained model ...
step 0 epoch 0.00 validation/loss 0.702 validation/accuracy 0.523 time 0:02
step 25/250 epoch 0.20 train/loss 0.675 tokens/s 3404 memory 1.9 GB eta 738s
step 50/250 epoch 0.40 train/loss 0.650 tokens/s 3404 memory 1.9 GB eta 738s
step 75/250 epoch 0.60 train/loss 0.625 tokens/s 3404 memory 1.9 GB eta 738s
step 100/250 epoch 0.80 train/loss 0.600 tokens/s 3404 memory 1.9 GB eta 738s
step 125/250 epoch 1.00 train/loss 0.575 tokens/s 3404 memory 1.9 GB eta 738s
evaluating ...
step 125/250 epoch 1.00 train/loss 0.412 validation/loss 0.331 validation/accuracy 0.873 time 1:22 eta 738s best
step 150/250 epoch 1.20 train/loss 0.300 tokens/s 3404 memory 1.9 GB eta 60s
step 175/250 epoch 1.40 train/loss 0.300 tokens/s 3404 memory 1.9 GB eta 60s
step 200/250 epoch 1.60 train/loss 0.300 tokens/s 3404 memory 1.9 GB eta 60s
step 225/250 epoch 1.80 train/loss 0.300 tokens/s 3404 memory 1.9 GB eta 60s
step 250/250 epoch 2.00 train/loss 0.300 tokens/s 3404 memory 1.9 GB eta 60s
step 250/250 epoch 2.00 train/loss 0.224 validation/loss 0.402 validation/accuracy 0.865 time 1:21 eta 60s
"""

SCREEN = """\
 text column: text (guessed from 3 columns)
 ⚠ 2 texts appear twice
╭─ train · 20261124-0900-reviews ────────╮
│ model  minilm · 22,713,216 parameters  │
│ plan   2 epochs · 250 steps · batch 16 │
╰────────────────────────────────────────╯
 epoch   train loss    validation loss      accuracy       time
     0          –              0.702         0.523         0:02
     1      0.412              0.331 ▼       0.873 ★       1:22
     2      0.224 ▼            0.402 ▲       0.865         1:21
"""


class Utf8(io.StringIO):
    encoding = "utf-8"


class OldCodePage(io.StringIO):
    encoding = "cp1252"


def test_plain_lines():
    stream = Utf8()
    listener = PlainLines(stream)
    for event in EVENTS:
        listener(event)
    assert stream.getvalue() == PLAIN
    assert not re.search(r"[\r\x1b]", stream.getvalue())
    assert listener.folder == Path("runs/20261124-0900-reviews")


def test_plain_lines_on_an_old_code_page_are_ascii():
    stream = OldCodePage()
    listener = PlainLines(stream)
    for event in EVENTS:
        listener(event)
    assert stream.getvalue().isascii()


def drawn(width: int, marks: Marks, encoding: type[io.StringIO] = Utf8) -> str:
    """What stays on a terminal without colour."""
    stream = encoding()
    screen = Screen(Console(file=stream, width=width, color_system=None, force_terminal=False), marks)
    for event in EVENTS:
        screen(event)
    screen.close()
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines() if line.strip())


@pytest.mark.parametrize("width", [80, 120])
def test_screen_leaves_panel_and_epoch_rows(width):
    assert drawn(width, Marks()) == SCREEN


def test_screen_fits_a_narrow_terminal():
    assert all(len(line) <= 66 for line in drawn(66, Marks()).splitlines())


def test_screen_in_ascii():
    text = drawn(80, ASCII_MARKS, OldCodePage)
    assert text.isascii()
    assert "0.873 *" in text


def screen_at(step: Stepped | None, width: int) -> str:
    screen = Screen(Console(file=Utf8(), width=width), Marks())
    screen._draw = lambda: None  # no live display
    if step:
        screen(step)
    return screen.live_line(width)


def test_live_line_has_everything_at_80_columns():
    step = Stepped(612, 2500, 2.448, 0.118, 3404.4, 1_930_000_000, 631.0)
    line = screen_at(step, 80)
    assert len(line) <= 80
    for part in ("epoch 3", "612/2500", "loss 0.118", "3,404 tok/s", "1.9 GB", "10:31 left", "━"):
        assert part in line


@pytest.mark.parametrize("width", range(20, 101, 8))
def test_live_line_never_exceeds_the_terminal(width):
    line = screen_at(Stepped(99_999, 100_000, 12.5, 1234.5, 123_456, 123_400_000_000, 359_999.0), width)
    assert len(line) <= width


def test_time_left_outlives_memory_and_speed_when_space_is_short():
    line = screen_at(Stepped(612, 2500, 2.448, 0.118, 3404.4, 1_930_000_000, 631.0), 50)
    assert "10:31 left" in line
    assert "GB" not in line


def test_bar_grows_with_the_steps():
    def full(step: int) -> int:
        return screen_at(Stepped(step, 100, 0.5, 0.1, 10.0, 10**9, 60.0), 100).count("━")

    assert [full(0), full(50), full(100)] == [0, 15, 30]


@pytest.mark.parametrize(("epoch", "shown"), [(0.008, 1), (1.0, 1), (1.008, 2), (3.0, 3)])
def test_epoch_in_progress(epoch, shown):
    assert f"epoch {shown} " in screen_at(Stepped(1, 10, epoch, 0.1, 1.0, 10**9, 1.0), 80)


def test_phase_without_steps_says_what_is_happening():
    screen = Screen(Console(file=Utf8()), Marks())
    screen._draw = lambda: None
    screen(Phase("loading the model"))
    assert "loading the model · 0:00" in screen.live_line(80)


def test_markup_in_names_is_not_markup():
    stream = Utf8()
    screen = Screen(Console(file=stream, width=80, color_system=None), Marks())
    screen(Header("train · [bold]x[/]", (("data", "[red]a.jsonl"),), None))
    assert "[bold]x[/]" in stream.getvalue() and "[red]a.jsonl" in stream.getvalue()


LIVE = """
import sys, time
sys.path.insert(0, {tests!r})
from finished_run import EVENTS
from tunewright.cli.train import watching
from tunewright.progress import Stepped
with watching(quiet=False) as listener:
    for event in EVENTS:
        listener(event)
        if isinstance(event, Stepped) and event.step % 50 == 0:
            time.sleep(0.3)  # the bar redraws itself four times a second
print("RESULT")
"""


def on_a_terminal(**environment: str) -> str:
    """What the events look like on a pseudo-terminal of 80 columns."""
    keeper, end = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "FORCE_COLOR")}
    variables = {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", "PYTHONIOENCODING": "utf-8", **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE.format(tests=str(Path(__file__).parent))],
        stdin=end, stdout=end, stderr=end, env={**clean, **variables},
    )  # fmt: skip
    os.close(end)
    chunks = []
    with contextlib.suppress(OSError):  # Linux says so when the other end is gone
        while chunk := os.read(keeper, 65536):
            chunks.append(chunk)
    assert process.wait(timeout=30) == 0, b"".join(chunks)
    os.close(keeper)
    return b"".join(chunks).decode()


def test_live_bar_on_a_terminal():
    text = on_a_terminal()
    assert "\x1b[" in text
    assert re.search(r"epoch 1 [━─]+.*/250", text)
    assert "12:18 left" in text
    assert text.count("validation loss") == 1
    assert "0.873 ★" in text
    assert "RESULT" in text
    assert "\x1b[?25h" in text  # the cursor is back


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"TERM": "dumb"}])
def test_plain_where_nobody_watches(environment):
    text = on_a_terminal(**environment)
    assert "\x1b" not in text
    assert "step 125/250 epoch 1.00 train/loss 0.412" in text


def test_no_color_keeps_the_bar_and_drops_the_colour():
    text = on_a_terminal(NO_COLOR="1")
    assert "\x1b[?25h" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)


class _DumbTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_sentences_wrap_between_words_on_a_plain_terminal_and_nowhere_else():
    warning = Said(
        "reviews.jsonl: 12 rows (8.3 %) with a text seen before; data.duplicates: drop leaves them out", "warning"
    )
    terminal, file = _DumbTerminal(), io.StringIO()
    for stream in (terminal, file):
        PlainLines(stream)(warning)
    lines = terminal.getvalue().splitlines()
    assert len(lines) == 2 and all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("  ") and " ".join(" ".join(lines).split()) == file.getvalue().strip()
    assert len(file.getvalue().splitlines()) == 1


@pytest.mark.parametrize("text", ["short", " " + "word " * 40, "   * " + "a/very/long/path" * 9, "数据" * 60])
def test_wrapped_lines_lose_nothing(text):
    lines = output.wrapped(text.rstrip(), 40)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(len(line) <= 40 or " " not in line.strip() for line in lines)
