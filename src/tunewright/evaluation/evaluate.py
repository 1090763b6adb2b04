"""A judgement of predictions: every metric, how sure it is, where the mistakes are.

Called by the pipeline after inference, for the untrained model and for the final one. Runs no model and reads no file;
`report` and `compare` show what is found here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from tunewright.evaluation import metrics as m
from tunewright.evaluation import scores
from tunewright.evaluation import statistics as stats
from tunewright.evaluation.statistics import Interval, Paired

# A rise below this share of the lowest validation loss is noise, not news.
RISE_WORTH_SAYING = 0.02


class Labels(Protocol):
    """What is needed of a LabelSpec."""

    @property
    def kind(self) -> m.Kind: ...
    @property
    def names(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Judgement:
    """What is known about a model from one set of rows."""

    kind: m.Kind
    num_rows: int
    metrics: dict[str, float]
    intervals: dict[str, Interval]  # 95 %; metrics without one are left out
    per_class: list[m.ClassScores]  # empty for numbers
    confusion: np.ndarray | None  # int [C, C], true down, predicted across; single labels only
    names: tuple[str, ...]
    reliability: list[m.Bin]  # empty for numbers

    def to_json(self) -> dict[str, Any]:
        """Plain values, as stored in evaluation.json."""
        return {
            "kind": self.kind,
            "num_rows": self.num_rows,
            "metrics": dict(self.metrics),
            "intervals": {name: interval.to_json() for name, interval in self.intervals.items()},
            "per_class": [asdict(row) for row in self.per_class],
            "labels": list(self.names),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "reliability": [asdict(row) for row in self.reliability],
        }


def judge(
    logits: np.ndarray, labels: np.ndarray, spec: Labels, *, bootstrap_samples: int = 1000, seed: int = 0
) -> Judgement:
    """Metrics with intervals, per class, confusion and calibration, from logits [N, C] and labels."""
    kind, labels = spec.kind, np.asarray(labels)
    found = m.metrics(logits, labels, kind)
    return Judgement(
        kind=kind,
        num_rows=len(labels),
        metrics=found,
        intervals=_intervals(logits, labels, kind, found, bootstrap_samples, seed),
        per_class=m.per_class(logits, labels, spec.names, kind),
        confusion=m.confusion(logits, labels, kind),
        names=tuple(spec.names),
        reliability=m.reliability(logits, labels, kind),
    )


def compare_rows(
    before_logits: np.ndarray, after_logits: np.ndarray, labels: np.ndarray, kind: m.Kind, *, seed: int = 0
) -> Paired:
    """What changed on the same rows: fixed, broke, and whether chance explains it."""
    if kind == "number":
        before, after = (m.row_losses(logits, labels, kind) for logits in (before_logits, after_logits))
        return stats.paired_errors(before, after, seed=seed)
    before, after = (m.correct(logits, labels, kind) for logits in (before_logits, after_logits))
    return stats.mcnemar(before, after, seed=seed)


def overfitting_words(epoch_rows: Iterable[Mapping[str, Any]]) -> str | None:
    """One sentence when validation loss rose while train loss fell; None when it didn't.

    Takes evaluation rows of metrics.jsonl, oldest first; step 0 (untrained) and rows without both losses are skipped.
    """
    rows = [row for row in epoch_rows if row.get("step", 1) and _losses(row) is not None]
    if len(rows) < 2:
        return None
    best = min(range(len(rows)), key=lambda i: rows[i]["validation/loss"])
    low, last = rows[best], rows[-1]
    rose = last["validation/loss"] > low["validation/loss"] * (1 + RISE_WORTH_SAYING)
    if not rose or last["train/loss"] >= low["train/loss"]:
        return None
    return (
        f"Validation loss rose after epoch {low.get('epoch', best + 1):g} "
        f"({low['validation/loss']:.3f} → {last['validation/loss']:.3f}) while train loss fell "
        f"({low['train/loss']:.3f} → {last['train/loss']:.3f}): {_verdict(low, last)}"
    )


def _verdict(low: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """Whether the answers suffered too, or only their confidence."""
    for name in ("accuracy", "micro_f1"):
        before, after = low.get(f"validation/{name}"), last.get(f"validation/{name}")
        if before is not None and after is not None and after >= before:
            words = name.replace("_", " ").replace("f1", "F1")
            return (
                f"it answers no worse ({words} {before:.3f} → {after:.3f}) but grows too sure of its mistakes; "
                "don't trust its probabilities, or train for fewer epochs."
            )
    return "it is learning the training rows by heart; fewer epochs, a lower rank or more data would help."


def _losses(row: Mapping[str, Any]) -> tuple[float, float] | None:
    train, validation = row.get("train/loss"), row.get("validation/loss")
    if not isinstance(train, int | float) or not isinstance(validation, int | float):
        return None
    return (train, validation) if math.isfinite(train) and math.isfinite(validation) else None


# --- intervals --------------------------------------------------------------------------------------------------


def _intervals(
    logits: np.ndarray, labels: np.ndarray, kind: m.Kind, found: dict[str, float], samples: int, seed: int
) -> dict[str, Interval]:
    """Intervals of the metrics found. ECE has none: resampling only ever pushes it up."""
    if not found:
        return {}
    family = {"single": _single, "multi": _multi, "number": _number}[kind]
    every = family(np.asarray(logits, np.float64), labels, samples, seed)
    return {name: every[name] for name in found if name in every and math.isfinite(every[name].low)}


def _single(logits: np.ndarray, labels: np.ndarray, samples: int, seed: int) -> dict[str, Interval]:
    classes = logits.shape[1]
    counts = stats.resampled_counts(labels, m.predictions(logits, "single"), classes, samples, seed)
    asked = [1] if classes == 2 else range(classes)
    areas = stats.resampled_roc_auc(
        m.ranking_scores(logits), np.stack([labels == c for c in asked], axis=1), samples, seed
    )
    return {
        "accuracy": stats.proportion(m.correct(logits, labels, "single"), samples, seed),
        "macro_f1": stats.percentiles(scores.macro_f1(counts)),
        "weighted_f1": stats.percentiles(scores.weighted_f1(counts)),
        "mcc": stats.percentiles(scores.mcc(counts)),
        "roc_auc": stats.percentiles(areas),
        "loss": _mean(m.row_losses(logits, labels, "single"), samples, seed),
    }


def _multi(logits: np.ndarray, labels: np.ndarray, samples: int, seed: int) -> dict[str, Interval]:
    true, answer = labels > 0, m.predictions(logits, "multi") > 0
    sums = stats.resampled_sums(np.concatenate([true & answer, true, answer], axis=1).astype(np.float64), samples, seed)
    counts = scores.Counts(*np.split(sums, 3, axis=1))
    return {
        "micro_f1": stats.percentiles(scores.micro_f1(counts)),
        "macro_f1": stats.percentiles(scores.f1_scores(counts).mean(axis=1)),
        "accuracy": stats.proportion(m.correct(logits, labels, "multi"), samples, seed),
        "roc_auc": stats.percentiles(stats.resampled_roc_auc(logits, true, samples, seed)),
        "loss": _mean(m.row_losses(logits, labels, "multi"), samples, seed),
    }


def _number(logits: np.ndarray, labels: np.ndarray, samples: int, seed: int) -> dict[str, Interval]:
    values, truth = m.predictions(logits, "number"), labels.astype(np.float64)
    error = values - truth
    squared = stats.resampled_sums(np.stack([error**2, np.abs(error)], axis=1), samples, seed) / len(error)
    return {
        "loss": stats.percentiles(squared[:, 0]),
        "rmse": stats.percentiles(np.sqrt(squared[:, 0])),
        "mae": stats.percentiles(squared[:, 1]),
        "pearson": _correlation(values, truth, samples, seed),
        # Ranks are taken once, among all rows: ranking each resample anew changes little and costs two sorts.
        "spearman": _correlation(scores.mid_ranks(values), scores.mid_ranks(truth), samples, seed),
    }


def _mean(values: np.ndarray, samples: int, seed: int) -> Interval:
    return stats.percentiles(stats.resampled_sums(values[:, None], samples, seed)[:, 0] / len(values))


def _correlation(x: np.ndarray, y: np.ndarray, samples: int, seed: int) -> Interval:
    x, y, n = x - x.mean(), y - y.mean(), len(x)
    sx, sy, sxx, syy, sxy = stats.resampled_sums(np.stack([x, y, x * x, y * y, x * y], axis=1), samples, seed).T / n
    spread = (sxx - sx**2) * (syy - sy**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return stats.percentiles(np.where(spread > 0, (sxy - sx * sy) / np.sqrt(spread), np.nan))
