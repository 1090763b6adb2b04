"""What the report shows of a model that was aligned: metrics in pairs, who won, transcripts, curves, and the tax.

Called by `report`, which lays out the rest of the page. Reads the record, the runs it was made from where their folders
are still there, and the predictions, which stream; computes nothing but which transcripts to show.
"""

from __future__ import annotations

import heapq
import itertools
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.evaluation import charts, wording
from tunewright.evaluation.alignment_tax import GENERAL, Tax, alignment_tax, line_of
from tunewright.evaluation.record import Record, mapping, number, pair, read_predictions, text, texts_of
from tunewright.evaluation.report_written import PairedRow, shortened

HELD_OUT_PROMPTS = Path("predictions") / "prompts.jsonl"  # rows as the data has them
TRANSCRIPTS = 10
WORSE = 5
MOST_POINTS = 240  # of a curve; more are averaged
# Curves: a heading, what training saw, what the held-out prompts said.
CURVES = (
    ("Loss, nats per prompt", "train/loss", "validation/loss"),
    ("Share of comparisons ranked as people did", "", "validation/accuracy"),
    ("Score", "ppo/score", "validation/score"),
    ("Score by the judge", "", "validation/judge"),
    ("KL from the reference, nats per completion", "ppo/kl", "validation/kl"),
    ("Entropy, nats per token", "ppo/entropy", ""),
    ("Value loss", "ppo/value_loss", ""),
    ("Share of updates clipped", "ppo/clip_fraction", ""),
    ("Length, tokens", "ppo/length", "validation/length"),
    ("Distinct pairs of words", "", "validation/distinct_2"),
)


@dataclass(frozen=True)
class Said:
    """One completion with what was made of it, as words."""

    text: str
    scores: str  # `score 2.31 · judge 0.88 · KL 11.2`
    cut: bool


@dataclass(frozen=True)
class Transcript:
    """One held-out prompt before and after."""

    where: str
    prompt: str
    before: Said | None
    after: Said


@dataclass(frozen=True)
class TaxRow:
    """One measure over the stages, as words."""

    name: str
    meaning: str
    rows: str  # on which rows it was taken
    values: list[str]


@dataclass(frozen=True)
class Aligned:
    """The parts of the page."""

    metrics: list[PairedRow]
    setup: list[tuple[str, str]]  # method, reward, judge
    transcripts: list[Transcript]
    worse: list[Transcript]  # those that lost most
    by: str  # whose score says so: judge or score
    stages: list[str]  # columns of the tax; none where only one run is at hand
    tax: list[TaxRow]
    words: list[tuple[str, str]]  # a run, and what it gained and paid
    notes: list[str]
    curves: list[tuple[str, str]]  # a heading and a drawing
    commands: list[str]


def aligned(record: Record, deciding: str) -> Aligned:
    """Everything of a run of kind `align`."""
    line = line_of(record)
    tax = alignment_tax(line) if len(line) > 1 else None
    by = "judge" if "judge" in record.metrics else "score"
    return Aligned(
        metrics=metric_rows(record, deciding),
        setup=_setup(record),
        transcripts=list(itertools.islice(_transcripts(record.folder), TRANSCRIPTS)),
        worse=_worse(record.folder, by),
        by=by,
        stages=list(tax.stages) if tax else [],
        tax=tax_rows(tax) if tax else [],
        words=[(stage.run, f"{stage.gained} Price: {stage.paid}.") for stage in tax.words] if tax else [],
        notes=list(tax.notes) if tax else [],
        curves=_curves(record),
        commands=rank_commands(record.name, record.folder, record.recipe),
    )


# --- metrics ----------------------------------------------------------------------------------------------------


def metric_rows(record: Record, deciding: str) -> list[PairedRow]:
    """Every metric that is known, the deciding one first."""
    known = [name for name in wording.metric_order("align") if name in record.metrics or name in record.untrained]
    return [_metric_row(record, name, deciding) for name in sorted(known, key=lambda name: name != deciding)]


def _metric_row(record: Record, name: str, deciding: str) -> PairedRow:
    paired = record.paired(name)
    change, p_value = wording.metric_change(paired.get("difference"), name), number(paired.get("p_value"))
    if pair(paired.get("interval")) is not None:
        change += f" {wording.metric_between(paired['interval'], name)}"
    better, worse = (number(paired.get(key)) for key in ("fixed", "broke"))
    won = mapping(mapping(mapping(record.run.get("alignment")).get("win_rates")).get(name))
    if number(won.get("won")) is not None:
        better, worse, p_value = number(won.get("won")), number(won.get("lost")), number(won.get("p_value"))
    counts = f"{wording.count(better)} better, {wording.count(worse)} worse" if better is not None else ""
    sure = "" if p_value is None else f"({wording.chance(p_value)})"
    return PairedRow(
        name=wording.metric_name(name),
        meaning=wording.metric_meaning(name, "align"),
        before=wording.metric_value(record.untrained.get(name), name),
        after=wording.metric_value(record.metrics.get(name), name),
        interval=wording.metric_between(record.intervals.get(name), name),
        change=change,
        rows=f"{counts} {sure}".strip(),
        decides=name == deciding,
    )


def _setup(record: Record) -> list[tuple[str, str]]:
    found = mapping(record.run.get("alignment"))
    rows = [("method", text(found.get("method")).upper())]
    rows += [("reward", " + ".join(texts_of(found.get("reward"))))]
    judge = text(found.get("judge"))
    same = found.get("judge_is_reward") is True
    rows += [("judge", f"{judge} (the reward itself: it proves nothing)" if same else judge or "nobody")]
    if number(found.get("kl_coef")) is not None:
        rows += [("price of a nat", f"{found['kl_coef']:g}")]
    if number(found.get("beta")) is not None:
        rows += [("beta", f"{found['beta']:g}")]
    return [(name, value) for name, value in rows if value]


def win_chart(record: Record) -> str:
    """Win rates with their intervals, beside the half that no difference would give; empty without any."""
    rows = []
    for name, words, tone in (("win_rate", "by the reward", "warm"), ("judge_win_rate", "by the judge", "accent")):
        value, ends = record.metrics.get(name), record.intervals.get(name)
        if value is not None and ends is not None:
            rows.append(charts.Estimate(words, value, *ends, tone))  # type: ignore[arg-type]
    even = [charts.Estimate("no difference", 0.5)] if rows else []
    return charts.interval_chart([*even, *rows], title="Prompts won", x_label="share of prompts won")


# --- transcripts ------------------------------------------------------------------------------------------------


def _transcripts(folder: Path) -> Iterator[Transcript]:
    """The first prompts, whoever won."""
    return filter(None, map(_transcript, read_predictions(folder)))


def _worse(folder: Path, by: str) -> list[Transcript]:
    """Prompts whose completion lost most, worst first."""
    losses: list[tuple[float, int, Transcript]] = []
    for place, row in enumerate(read_predictions(folder)):
        before, after, found = number(row.get(f"{by}_before")), number(row.get(by)), _transcript(row)
        if before is not None and after is not None and after < before and found is not None:
            losses.append((after - before, place, found))
    return [found for *_, found in heapq.nsmallest(WORSE, losses, key=lambda one: one[:2])]


def _transcript(row: Mapping[str, Any]) -> Transcript | None:
    after = _said(row, "prediction", "")
    if after is None:
        return None
    return Transcript(text(row.get("row")), shortened(text(row.get("prompt"))), _said(row, "before", "_before"), after)


def _said(row: Mapping[str, Any], key: str, ending: str) -> Said | None:
    words = row.get(key)
    if not isinstance(words, str):
        return None
    shown = ((name, number(row.get(name + ending))) for name in ("score", "judge", "kl"))
    scores = [f"{wording.metric_name(name)} {value:.2f}" for name, value in shown if value is not None]
    return Said(shortened(words), " · ".join(scores), row.get(f"stopped{ending}") == "length")


# --- tax, curves, commands --------------------------------------------------------------------------------------


def tax_rows(tax: Tax) -> list[TaxRow]:
    """The table of stages, as words."""
    return [
        TaxRow(
            name=wording.metric_name(row.metric),
            meaning=wording.metric_meaning(row.metric, "align"),
            rows=row.rows if row.rows == GENERAL else f"held-out rows of {row.rows}",
            values=[wording.metric_value(value, row.metric) for value in row.values],
        )
        for row in tax.rows
    ]


def _curves(record: Record) -> list[tuple[str, str]]:
    found = []
    steps = [row for row in record.rows if not any(name.startswith("validation/") for name in row)]
    for heading, practised, held_out in CURVES:
        learnt = _points(steps, practised)
        series = [
            charts.Series("rollouts" if practised.startswith("ppo/") else "train", learnt, "warm", dots=False),
            charts.Series("held out", _points(record.evaluations, held_out), "accent"),
        ]
        best = number(mapping(record.run.get("best")).get("step"))
        drawing = charts.line_chart(
            series, title=heading, x_label="step", y_label=heading.split(",")[0].lower(),
            best=None if best is None else (best, "★ kept"),
        )  # fmt: skip
        found += [(heading, drawing)] if drawing else []
    return found


def _points(rows: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value), of long curves the means of neighbours."""
    pairs = [(number(row.get("step")), number(row.get(name))) for row in rows] if name else []
    points = sorted((x, y) for x, y in pairs if x is not None and y is not None)
    size = -(-len(points) // MOST_POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def rank_commands(run: str, folder: Path, recipe: Mapping[str, Any]) -> list[str]:
    """How people compare before and after without knowing which is which, on the prompts that training never saw."""
    base = text(recipe.get("model")).removeprefix("run:") or "BASE"
    words = ["rank", "sample", base, run, "--prompts", str(folder / HELD_OUT_PROMPTS), "-k", "1", "-o", "judgements.db"]
    return [
        f"tunewright {shlex.join(words)}",
        "tunewright rank serve judgements.db",
        "tunewright rank status judgements.db",
    ]
