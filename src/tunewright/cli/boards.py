"""What `models try` and `search` share: how a comparison is followed while it is made, and the screen at its end.

Lines of a comparison's outcome; nothing is computed here.
"""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunewright.cli import output

if TYPE_CHECKING:
    from tunewright.choosing.board import Outcome
    from tunewright.evaluation.leaderboard import Board, BoardRow

WIDEST = 110
NARROWEST_NAME = 22  # columns that a candidate's name keeps, before another cost is shown
FIRST_COSTS = ("train_seconds", "prompt_tokens", "rows_per_second", "saved_bytes", "peak_memory_bytes")


@contextmanager
def following(quiet: bool) -> Generator[Callable[[str], None]]:
    """What is being done: a line that changes on a terminal, a line per new thing elsewhere, nothing when quiet."""
    if quiet:
        yield lambda words: None
    elif output.is_live(sys.stderr):
        with output.console(sys.stderr).status("starting") as status:
            yield status.update
    else:
        told: set[str] = set()

        def tell(words: str) -> None:
            stage = words.rsplit(": ", 1)[0] if words.count(": ") > 1 else words
            if stage not in told:
                told.add(stage)
                print(stage, file=sys.stderr, flush=True)

        yield tell


def show(outcome: Outcome, state: str, *, as_json: bool, quiet: bool) -> None:
    """The end of the command."""
    if as_json:
        found = {"run": None, "state": state, "metrics": {}, **outcome.to_json()}
        output.print_json(found | {"report": str(outcome.folder / "report.html")})
    elif quiet:
        print(outcome.best)
    else:
        signs = output.marks()
        output.show([output.spelt(line, signs) for line in lines(outcome, signs, min(output.width(), WIDEST))])


def lines(outcome: Outcome, signs: output.Marks, fit: int) -> list[str]:
    """The board, what follows from it, and what to do next."""
    from tunewright.choosing.report import expected_words, left_words, length_words
    from tunewright.evaluation.leaderboard import recommend

    facts, board = outcome.facts, outcome.board
    head = (
        f"{facts['train_rows']:,} rows to learn from, {facts['judged_rows']:,} to be judged by; {length_words(facts)}"
    )
    found = [*_wrapped(head, fit), "", *table(board, signs, fit)]
    if any(row.as_good and row.p_value is not None for row in board.rows):
        found += ["", " = can't be told from the leader on these rows"]
    found += ["", *_wrapped(f"{recommend(board)}.", fit), *_wrapped(expected_words(outcome), fit)]
    if outcome.left:
        found += ["", *[line for one in outcome.left
                        for line in _wrapped(f"{one.name}: {left_words(one, board.metric)}", fit, "   ")]]  # fmt: skip
    if outcome.said:
        found += ["", *[line for sentence in outcome.said for line in _wrapped(sentence, fit, "   ")]]
    return [*found, "", *_next(outcome)]


def table(board: Board, signs: output.Marks, fit: int) -> list[str]:
    """A row per candidate: quality, how far behind the leader, and as many costs as there is room for."""
    from tunewright.choosing.report import COSTS, cost_words, shown_costs
    from tunewright.evaluation.wording import metric_name

    known = shown_costs(board)
    rows = [["", metric_name(board.metric), "95 % interval", "to leader"], *(_cells(row, board) for row in board.rows)]
    columns = {name: [COSTS[name][0], *(cost_words(name, row.costs.get(name)) for row in board.rows)] for name in known}
    chosen, room = list[str](), fit - NARROWEST_NAME - sum(_width(rows, i) + 2 for i in (1, 2, 3))
    for name in (name for name in FIRST_COSTS if name in columns):
        room -= max(map(len, columns[name])) + 2
        if room < 0:
            break
        chosen.append(name)
    for name in (name for name in COSTS if name in chosen):
        for cells, words in zip(rows, columns[name], strict=True):
            cells.append(words)
    return output.table(rows, "<" + ">" * (len(rows[0]) - 1), fit=fit, cut=signs.cut)


def _cells(row: BoardRow, board: Board) -> list[str]:
    from tunewright.evaluation.wording import metric_between, metric_change, metric_value

    mark = "leads" if row.p_value is None else metric_change(row.behind, board.metric) + (" =" if row.as_good else "  ")
    interval = metric_between((row.interval.low, row.interval.high), board.metric)
    return [f"({row.name})" if row.baseline else row.name, metric_value(row.value, board.metric), interval, mark]


def _width(rows: list[list[str]], column: int) -> int:
    return max(len(row[column]) for row in rows)


def _wrapped(text: str, fit: int, indent: str = " ") -> list[str]:
    return textwrap.wrap(text, max(fit - 1, 30), initial_indent=" ", subsequent_indent=indent,
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip


def _next(outcome: Outcome) -> list[str]:
    """Where everything is, as commands to paste."""
    found: list[tuple[str, Any]] = [("report", outcome.folder / "report.html")]
    if outcome.best is not None:
        found.append(("train the best", f"tunewright train {shlex.quote(str(outcome.best))}"))
    if outcome.cheaper is not None:
        name, path = outcome.cheaper
        found.append((f"or {name}", f"tunewright train {shlex.quote(str(path))}"))
    width = max(len(name) for name, _ in found)
    return [f" {name:<{width}}  {what}" for name, what in found]


def going_on(command: str) -> None:
    """How to go on after a stop."""
    sys.stderr.write(f"to go on from here, give the same command again: {command}\n")
