"""Which chart shows what: from a run's record to the drawings of its report.

`charts` draws and knows no run; `report` places. Nothing is computed here but the thinning of long curves.
"""

from __future__ import annotations

from typing import Any

from tunewright.evaluation import charts, wording
from tunewright.evaluation.record import Record, mapping, number, numbers, objects

MOST_POINTS = 240  # of a curve; more are averaged
MOST_BARS = 40


def figures(record: Record, deciding: str) -> dict[str, str]:
    """Every drawing by its place in the page; the empty string where the run has nothing to draw."""
    bins = [
        (number(b.get("confidence")), number(b.get("accuracy")), number(b.get("count")))
        for b in objects(record.judgement.get("reliability"))
    ]
    label_counts = numbers(mapping(record.run.get("data")).get("label_counts"))
    return {
        "verdict": charts.interval_chart(
            _estimates(record, deciding),
            title=f"{wording.metric_name(deciding)} compared",
            x_label=wording.metric_name(deciding),
        ),
        "loss": charts.line_chart(
            _loss_series(record), title="Loss while training", x_label="epoch", y_label="loss", best=_best(record)
        ),
        "metric": charts.line_chart(
            _metric_series(record, deciding),
            title=f"{wording.metric_name(deciding)} while training",
            x_label="epoch",
            y_label=wording.metric_name(deciding),
            best=_best(record),
        ),
        "confusion": charts.confusion_chart(confusion_table(record), record.labels, title="Confusion table"),
        "reliability": charts.reliability_chart(
            [(c, a, int(n)) for c, a, n in bins if c is not None and a is not None and n is not None],
            title="Confidence against truth",
        ),
        "labels": charts.bar_chart(list(label_counts.items())[:MOST_BARS], title="Training labels"),
    }


def _estimates(record: Record, deciding: str) -> list[charts.Estimate]:
    blind, before = numbers(record.run.get("baseline")).get(deciding), record.untrained.get(deciding)
    after, (low, high) = record.metrics.get(deciding), record.intervals.get(deciding, (None, None))
    rows = [charts.Estimate(_blind_name(record), blind)] if blind is not None else []
    rows += [charts.Estimate("before training", before, tone="warm")] if before is not None else []
    return rows + ([charts.Estimate("after training", after, low, high, "accent")] if after is not None else [])


def _blind_name(record: Record) -> str:
    """Who is beaten by reading."""
    return "by length alone" if record.kind == "preference" else "never reading the text"


def _points(rows: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    pairs = [(number(row.get("epoch")), number(row.get(name))) for row in rows]
    points = sorted((x, y) for x, y in pairs if x is not None and y is not None)
    size = -(-len(points) // MOST_POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _loss_series(record: Record) -> list[charts.Series]:
    evaluations = record.evaluations
    train = _points([row for row in record.rows if "validation/loss" not in row], "train/loss")
    dots = len(train) < 3
    train = _points(evaluations, "train/loss") if dots else train
    validation = charts.Series("validation", _points(evaluations, "validation/loss"), "accent")
    return [charts.Series("train", train, "warm", dashed=dots, dots=dots), validation]


def _metric_series(record: Record, deciding: str) -> list[charts.Series]:
    points = _points(record.evaluations, f"validation/{deciding}")
    blind = numbers(record.run.get("baseline")).get(deciding)
    if not points or deciding == "loss":
        return []
    series = [charts.Series("validation", points, "accent")]
    if blind is not None:
        ends = [(points[0][0], blind), (points[-1][0], blind)]
        series.append(charts.Series(_blind_name(record), ends, "faint", dashed=True, dots=False))
    return series


def _best(record: Record) -> tuple[float, str] | None:
    epoch = number(mapping(record.run.get("best")).get("epoch"))
    return None if epoch is None else (epoch, "★ kept")


def confusion_table(record: Record) -> list[list[int]]:
    """The stored counts, or nothing when they don't fit the labels."""
    stored = record.judgement.get("confusion")
    if not isinstance(stored, list) or len(stored) != len(record.labels):
        return []
    rows = [[int(number(n) or 0) for n in row] if isinstance(row, list) else [] for row in stored]
    return rows if all(len(row) == len(rows) for row in rows) else []
