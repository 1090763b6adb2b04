"""The formulas behind the metrics: F1 and Matthews correlation from counts, ROC-AUC and correlation from ranks.

Pure numpy on counts and scores; which rows and labels they come from is `metrics`' business. What takes `Counts` works
on any leading axes, so `statistics` hands in a thousand resamples at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Counts(NamedTuple):
    """Per class [..., C]: all that the F1 family and MCC need. Leading axes are resamples."""

    hits: np.ndarray
    true: np.ndarray
    predicted: np.ndarray


def f1_scores(counts: Counts) -> np.ndarray:
    """F1 of each class [..., C]; 0 for a class that occurs nowhere."""
    return ratio(2.0 * counts.hits, counts.true + counts.predicted)


def macro_f1(counts: Counts) -> np.ndarray:
    """Mean F1 of the classes that occur, among labels or predictions."""
    present = ((counts.true + counts.predicted) > 0).sum(axis=-1)
    return ratio(f1_scores(counts).sum(axis=-1), present)


def weighted_f1(counts: Counts) -> np.ndarray:
    """Mean F1, each class as often as it occurs."""
    return ratio((f1_scores(counts) * counts.true).sum(axis=-1), counts.true.sum(axis=-1))


def micro_f1(counts: Counts) -> np.ndarray:
    """F1 of all (row, label) decisions together."""
    hits, true, predicted = (c.sum(axis=-1) for c in counts)
    return ratio(2.0 * hits, true + predicted)


def mcc(counts: Counts) -> np.ndarray:
    """Matthews correlation for any number of classes (Gorodkin 2004); 0 where a side is constant."""
    hits, true, predicted = (c.astype(np.float64) for c in counts)
    total = true.sum(axis=-1)
    covariance = hits.sum(axis=-1) * total - (true * predicted).sum(axis=-1)
    spread = (total**2 - (true**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    return ratio(covariance, np.sqrt(spread))


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive row scores above a negative one, ties counting half; NaN with one side empty."""
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return float("nan")
    above = mid_ranks(scores)[positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation; NaN where a side is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / np.sqrt((x @ x) * (y @ y)))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, 0 where below is."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=below > 0)
