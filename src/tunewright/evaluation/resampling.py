"""A metric as something that can be had for any choice of rows: all of them, a resample, or what a resample left out.

Used where several models are compared on the same rows: every model's resamples draw the very rows of the others', so
that differences are paired by row. Nearly every metric is a formula of sums over rows, and then whole resamples are one
matrix product; ROC-AUC and rank correlation need the rows themselves.

Shapes: N rows, R resamples, K columns, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tunewright.errors import UsageError
from tunewright.evaluation import metrics as m
from tunewright.evaluation import scores, texts
from tunewright.evaluation import statistics as stats
from tunewright.evaluation.metrics import Kind
from tunewright.evaluation.scores import Counts
from tunewright.evaluation.texts import TextScores

_CHUNK = 4_000_000  # drawn rows held at once


class Measured(Protocol):
    """A model's metric on N rows."""

    @property
    def num_rows(self) -> int: ...

    def of(self, weights: np.ndarray) -> np.ndarray:
        """[R] the metric where each row counts so many times, weights float64 [R, N]; NaN where it is undefined."""
        ...


@dataclass(frozen=True, eq=False)
class Summed:
    """A formula of sums over rows."""

    columns: np.ndarray  # float64 [N, K]
    formula: Callable[[np.ndarray], np.ndarray]  # sums [R, K] -> [R]

    @property
    def num_rows(self) -> int:
        return len(self.columns)

    def of(self, weights: np.ndarray) -> np.ndarray:
        return self.formula(weights @ self.columns)


@dataclass(frozen=True, eq=False)
class Ranked:
    """A function of the rows."""

    rows: int
    function: Callable[[np.ndarray], float]  # of row indices

    @property
    def num_rows(self) -> int:
        return self.rows

    def of(self, weights: np.ndarray) -> np.ndarray:
        every = np.arange(self.rows)
        return np.array([self.function(np.repeat(every, own.astype(np.int64))) for own in weights])


def value(measured: Measured) -> float:
    """The metric of all rows."""
    return float(measured.of(np.ones((1, measured.num_rows)))[0])


def resampled(measured: Measured, samples: int, seed: int) -> np.ndarray:
    """[R] the metric on resamples; those of equally many rows and one seed are the same rows."""
    return np.concatenate([measured.of(drawn) for drawn in draws(measured.num_rows, samples, seed)])


def draws(num_rows: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks [r, N] of how often each row is drawn, as `statistics.resampled_sums` draws them."""
    rng = np.random.default_rng(seed)
    total, chunk = stats.affordable(samples, num_rows), max(1, _CHUNK // max(num_rows, 1))
    for start in range(0, total, chunk):
        drawn = (rng.integers(0, num_rows, num_rows) for _ in range(min(chunk, total - start)))
        yield np.stack([np.bincount(rows, minlength=num_rows) for rows in drawn]).astype(np.float64)


# ---- labels and numbers ----


def of_logits(logits: np.ndarray, labels: np.ndarray, kind: Kind, metric: str) -> Measured:
    """A metric of `evaluation.metrics`: logits [N, C], labels as there. UsageError for one that this kind hasn't."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if metric in ("roc_auc", "spearman"):
        return Ranked(len(labels), lambda rows: m.metrics(logits[rows], labels[rows], kind).get(metric, np.nan))
    made = _number if kind == "number" else _labelled
    found = made(logits, labels, kind, metric)
    if found is None:
        raise UsageError(f"{metric} is no metric of {kind} labels", field="evaluation.metric")
    return found


def _mean(rows: np.ndarray, after: Callable[[np.ndarray], np.ndarray] = lambda mean: mean) -> Summed:
    columns = np.column_stack([rows, np.ones(len(rows))]).astype(np.float64)
    return Summed(columns, lambda sums: after(texts._quotient(sums[:, 0], sums[:, 1])))


def _labelled(logits: np.ndarray, labels: np.ndarray, kind: Kind, metric: str) -> Measured | None:
    if metric == "accuracy":
        return _mean(m.correct(logits, labels, kind))
    if metric == "loss":
        return _mean(m.row_losses(logits, labels, kind))
    if metric == "ece" and kind == "single":
        return _calibration_error(logits, labels)
    formulas = {"macro_f1": scores.macro_f1, "micro_f1": scores.micro_f1, "weighted_f1": scores.weighted_f1,
                "mcc": scores.mcc}  # fmt: skip
    if metric not in formulas or (kind == "multi" and metric in ("mcc", "weighted_f1")):
        return None
    of_counts = formulas[metric]
    if kind == "multi" and metric == "macro_f1":
        of_counts = _mean_f1
    true, predicted = _hot(labels, logits, kind)
    width = true.shape[1]
    columns = np.concatenate([true * predicted, true, predicted], axis=1)
    return Summed(columns, lambda sums: of_counts(Counts(*np.split(sums, [width, 2 * width], axis=1))))


def _mean_f1(counts: Counts) -> np.ndarray:
    return scores.f1_scores(counts).mean(axis=-1)


def _hot(labels: np.ndarray, logits: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """0/1 [N, C] of truth and answer."""
    answers = m.predictions(logits, kind)
    if kind == "multi":
        return (labels > 0).astype(np.float64), answers.astype(np.float64)
    every = np.arange(logits.shape[1])
    return (labels[:, None] == every).astype(np.float64), (answers[:, None] == every).astype(np.float64)


def _calibration_error(logits: np.ndarray, labels: np.ndarray) -> Summed:
    confidence, right = m._forecasts(logits, labels, "single")
    bins = m._bin_index(confidence, m.CALIBRATION_BINS)
    columns = np.zeros((len(labels), m.CALIBRATION_BINS + 1))
    columns[np.arange(len(labels)), bins] = confidence - right
    columns[:, -1] = 1.0
    return Summed(columns, lambda sums: np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1])


def _number(logits: np.ndarray, labels: np.ndarray, kind: Kind, metric: str) -> Measured | None:
    values, truth = m._values(logits), labels.astype(np.float64)
    if metric in ("loss", "rmse"):
        return _mean((values - truth) ** 2, np.sqrt if metric == "rmse" else lambda mean: mean)
    if metric == "mae":
        return _mean(np.abs(values - truth))
    if metric != "pearson":
        return None
    x, y = values - values.mean(), truth - truth.mean()  # the same correlation, without cancellation
    return Summed(np.column_stack([x, y, x * x, y * y, x * y, np.ones(len(x))]), _correlation)


def _correlation(sums: np.ndarray) -> np.ndarray:
    x, y, xx, yy, xy, n = (sums[:, i] for i in range(6))
    below = np.sqrt(np.maximum(xx - x * x / n, 0.0) * np.maximum(yy - y * y / n, 0.0))
    return texts._quotient(xy - x * y / n, below)


# ---- texts ----


def of_texts(found: TextScores, metric: str) -> Measured:
    """A metric of `evaluation.texts`. UsageError for one that isn't there, BLEU without its package say."""
    if metric not in found.per_row:
        there = ", ".join(found.metrics)
        raise UsageError(f"{metric} was not measured; there are {there}", field="evaluation.metric")
    rows = texts._columns(found.per_row[metric])
    width = rows.shape[1]
    columns = np.column_stack([rows, np.ones(len(rows))]).astype(np.float64)

    def formula(sums: np.ndarray) -> np.ndarray:
        if width > 1:
            return texts._values(metric, sums[:, :width], 0)
        return texts._quotient(sums[:, 0], sums[:, 1])

    return Summed(columns, formula)
