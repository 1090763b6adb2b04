"""report.html of a comparison: what to take, the board, what quality costs, and how far to trust it.

One file without script or request, in the look of a run's report. Lays out values; everything was computed before.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import durable
from tunewright.choosing.board import Outcome, cheaper_one
from tunewright.evaluation import charts, wording
from tunewright.evaluation.charts_trials import Place, pareto_chart
from tunewright.evaluation.leaderboard import Board, BoardRow, recommend

EVALUATION = Path(charts.__file__).parent  # where report.css lies
COSTS: dict[str, tuple[str, str]] = {  # column -> its heading, what it means
    "train_seconds": ("training", "seconds of training, the frozen layers' one pass with it"),
    "peak_memory_bytes": ("memory", "the most that its process held"),
    "saved_bytes": ("saved", "what is saved; an adapter also needs its base"),
    "rows_per_second": ("rows/s", "rows answered in a second by the saved model"),
    "prompt_tokens": ("prompt tokens", "tokens a prompt has on average: what is learnt need not be prompted"),
}


@dataclass(frozen=True)
class Line:
    """A row of the table, in words."""

    number: int
    name: str
    baseline: bool
    value: str
    interval: str
    seeds: str
    spread: str
    behind: str
    behind_interval: str
    chance: str
    as_good: bool
    costs: list[str]
    reports: list[str]  # links to the trials' own


def write_report(outcome: Outcome) -> Path:
    """Write report.html into the comparison's folder, whole or not at all."""
    target = outcome.folder / "report.html"
    with durable.storing(target):
        durable.write_text(target, render(outcome))
    return target


def render(outcome: Outcome) -> str:
    """The page as text."""
    return _template().render(_sections(outcome))


@functools.cache
def _template() -> Any:
    import jinja2

    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, EVALUATION]), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page.filters |= {"count": wording.count, "duration": wording.duration}
    return page.get_template("report.html.j2")


def _sections(outcome: Outcome) -> dict[str, Any]:
    board, facts = outcome.board, outcome.facts
    columns = shown_costs(board)
    metric = wording.metric_name(board.metric)
    return {
        "name": outcome.name,
        "facts": facts,
        "metric": metric,
        "meaning": wording.metric_meaning(board.metric, str(facts["kind"])),
        "headline": headline(board),
        "verdict": recommend(board),
        "warm": board.leader.baseline or any(row.baseline and row.as_good for row in board.rows),
        "expected": expected_words(outcome),
        "lines": [_line(i, row, board, columns, outcome) for i, row in enumerate(board.rows, 1)],
        "columns": [COSTS[name] for name in columns],
        "left": outcome.left,
        "left_words": [left_words(one, board.metric) for one in outcome.left],
        "length": length_words(facts),
        "notes": outcome.said,
        "commands": commands(outcome),
        "charts": [(heading, _trusted(drawing)) for heading, drawing in _charts(board, metric) if drawing],
        "chart_style": _trusted(charts.CHART_STYLE),
    }


def _trusted(markup: str) -> Any:
    """Our own drawing, whose texts `charts` has escaped already."""
    import markupsafe

    return markupsafe.Markup(markup)  # noqa: S704


# ---- words that the command's screen shares ----


def headline(board: Board) -> str:
    """What to take, in a few words."""
    if board.leader.baseline:
        return f"Training brought nothing over {board.leader.name}"
    if any(row.baseline and row.as_good for row in board.rows):
        return f"{board.leader.name} leads, and a baseline may be as good"
    cheaper = cheaper_one(board)
    return f"Take {(cheaper or board.leader).name}"


def shown_costs(board: Board) -> list[str]:
    """Columns of which some row knows something that isn't the same everywhere."""
    return [name for name in COSTS if any(row.costs.get(name) for row in board.rows)]


def cost_words(name: str, amount: float | None) -> str:
    """A cost as a person reads it."""
    if amount is None or not math.isfinite(amount):
        return "–"
    if name == "train_seconds":
        return wording.duration(amount) if amount else "none"
    if name in ("peak_memory_bytes", "saved_bytes"):
        return wording.bytes_size(amount) if amount else "none"
    return f"{amount:,.0f}" if amount >= 10 else f"{amount:.1f}"


def expected_words(outcome: Outcome) -> str:
    """How far the winner's own number is to be believed."""
    found, board = outcome.expected, outcome.board
    if found is None:
        return ""
    value = wording.metric_value(found.value, board.metric)
    of = f"chosen as the best of {len(board.rows)}, judged on rows that didn't choose it"
    if found.optimism <= 0:
        return f"On new rows expect about {value}: {of}."
    flattery = wording.metric_value(found.optimism, board.metric)
    return f"On new rows expect about {value}: {of}. The table flatters the best by about {flattery}."


def left_words(one: Any, metric: str) -> str:
    """Why a candidate isn't on the board."""
    if one.value is None:
        return one.why
    said = f"{one.why}: {wording.metric_name(metric)} {wording.metric_value(one.value, metric)}"
    if one.behind is None:
        return said
    low, high = one.behind_interval
    return (
        f"{said}, {wording.metric_change(one.behind, metric)} [{wording.metric_change(low, metric)}, "
        f"{wording.metric_change(high, metric)}] to the leader then ({wording.chance(one.p_value)})"
    )


def length_words(facts: dict[str, Any]) -> str:
    """How long each trial learnt, and how often."""
    seeds = int(facts.get("seeds", 1))
    each = f"{seeds} seeds each" if seeds > 1 else "one seed each"
    if facts["what"] == "search":
        again = f"; the best ones with {seeds} seeds" if seeds > 1 else ""
        return f"{facts['trials']:,} trials by {facts['method']}, each as long as the recipe says{again}"
    epochs = facts["epochs"].values()
    low, high = min(epochs), max(epochs)
    passes = f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
    if facts["full"]:
        return f"every trial as long as the recipe says ({passes} epochs), {each}"
    budget = wording.duration(facts["budget_seconds"])
    return f"{facts['tokens']:,} tokens for every trial ({passes} epochs), from a budget of {budget}; {each}"


def commands(outcome: Outcome) -> list[str]:
    """What to do next."""
    found = [f"tunewright train {outcome.best}"] if outcome.best else []
    return [*found, f"tunewright train {outcome.cheaper[1]}"] if outcome.cheaper else found


# ---- the table and the pictures ----


def _line(number: int, row: BoardRow, board: Board, columns: list[str], outcome: Outcome) -> Line:
    metric, first = board.metric, row.p_value is None
    interval = (row.behind_interval.low, row.behind_interval.high)
    spread = f"± {wording.metric_value(row.seed_deviation, metric)}" if row.seed_deviation is not None else ""
    return Line(
        number=number,
        name=row.name,
        baseline=row.baseline,
        value=wording.metric_value(row.value, metric),
        interval=wording.metric_between((row.interval.low, row.interval.high), metric),
        seeds="" if row.baseline else str(row.seeds),
        spread=spread,
        behind="" if first else wording.metric_change(row.behind, metric),
        behind_interval=f"[{wording.metric_change(interval[0], metric)}, {wording.metric_change(interval[1], metric)}]",
        chance="" if first else wording.chance(row.p_value),
        as_good=row.as_good,
        costs=[cost_words(name, row.costs.get(name)) for name in columns],
        reports=[f"{run}/report.html" for run in outcome.runs.get(row.name, ())
                 if (outcome.folder / run / "report.html").exists()],
    )  # fmt: skip


def _charts(board: Board, metric: str) -> list[tuple[str, str]]:
    """Quality against what it costs to train, to keep, to use."""
    wanted = [
        ("train_seconds", "Quality and training time", "training", False),
        ("saved_bytes", "Quality and saved size", "saved", False),
        ("rows_per_second", "Quality and time to answer", "time for 1,000 rows", True),
        ("prompt_tokens", "Quality and prompt length", "prompt tokens", False),
    ]
    return [(heading, _chart(board, cost, heading, label, metric, per_row)) for cost, heading, label, per_row in wanted]


def _chart(board: Board, cost: str, heading: str, label: str, metric: str, per_row: bool) -> str:
    """Baselines that cost nothing have no place on a logarithmic axis; they are in the table."""

    def price(row: BoardRow) -> float:
        amount = row.costs.get(cost, 0.0)
        return (1000 / amount if amount else 0.0) if per_row else amount

    priced = [row for row in board.rows if price(row) > 0]
    if len(priced) < 2 or len({round(price(row), 9) for row in priced}) < 2:
        return ""
    sign = 1.0 if board.higher_is_better else -1.0
    beaten = {
        row.name for row in priced for other in priced
        if sign * other.value >= sign * row.value and price(other) <= price(row)
        and (other.value != row.value or price(other) < price(row))
    }  # fmt: skip
    places = [Place(row.name, price(row), row.value, row.interval.low, row.interval.high, row.name not in beaten)
              for row in priced]  # fmt: skip
    say = {"saved_bytes": wording.bytes_size, "prompt_tokens": wording.count}.get(cost, wording.duration)
    return pareto_chart(
        places, title=heading, x_label=label, y_label=metric, higher_is_better=board.higher_is_better, say=say
    )
