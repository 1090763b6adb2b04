"""How sure a number is: bootstrap intervals and paired tests. Pure numpy, seeded.

Used by `evaluate` and `compare`. Knows rows, sums and counts; which metric they belong to is the caller's business.

A resample draws N rows with replacement. Only sums over rows are needed for most metrics, so whole resamples are one
matrix product, and a confusion table is resampled as the multinomial that it is: the same distribution, without rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tunewright.evaluation.scores import Counts

LEVEL = 0.95
# Above this many drawn rows per metric the number of resamples is lowered: the ends of the interval hardly move then.
DRAW_BUDGET = 50_000_000
FEWEST_SAMPLES = 100
_CHUNK = 4_000_000  # drawn rows held at once


@dataclass(frozen=True)
class Interval:
    """Where the number would lie, 95 times in 100, had other rows been drawn."""

    low: float
    high: float

    def to_json(self) -> list[float]:
        """As stored: [low, high]."""
        return [self.low, self.high]


@dataclass(frozen=True)
class Paired:
    """Two models on the same rows."""

    fixed: int  # rows wrong before, right after (numbers: nearer to the truth)
    broke: int  # rows right before, wrong after (numbers: farther from it)
    p_value: float  # how often chance alone would look this one-sided
    difference: float  # after - before: accuracy, or mean squared error for numbers
    interval: Interval  # of the difference


def bootstrap(metric: Callable[[np.ndarray], float], n: int, samples: int, seed: int) -> Interval:
    """Interval of any metric of row indices; the slow, general way. Undefined resamples are left out."""
    rng = np.random.default_rng(seed)
    return percentiles(np.array([metric(rng.integers(0, n, n)) for _ in range(affordable(samples, n))]))


def percentiles(values: np.ndarray) -> Interval:
    """The middle 95 % of resampled values."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def affordable(samples: int, n: int) -> int:
    """Resamples to draw from n rows: as asked, fewer when n is very large."""
    return max(min(samples, DRAW_BUDGET // max(n, 1)), min(samples, FEWEST_SAMPLES))


def resampled_sums(columns: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Sums [S, M] of the columns [N, M] over S resamples."""
    rng = np.random.default_rng(seed)
    n, total = len(columns), affordable(samples, len(columns))
    chunk = max(1, _CHUNK // n)
    parts = []
    for start in range(0, total, chunk):
        draws = [np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(min(chunk, total - start))]
        parts.append(np.stack(draws).astype(np.float64) @ columns)
    return np.concatenate(parts)


def resampled_counts(true: np.ndarray, predicted: np.ndarray, classes: int, samples: int, seed: int) -> Counts:
    """Counts [S, C] of S resamples: the confusion table is drawn, cell by cell, instead of the rows."""
    rng = np.random.default_rng(seed)
    cells, counts = np.unique(true * classes + predicted, return_counts=True)
    rows, columns = np.divmod(cells, classes)
    n, total = len(true), affordable(samples, len(cells))
    found = Counts(*(np.zeros((total, classes), np.int64) for _ in range(3)))
    for s in range(total):
        drawn = rng.multinomial(n, counts / n)
        found.hits[s] = np.bincount(rows, weights=drawn * (rows == columns), minlength=classes)
        found.true[s] = np.bincount(rows, weights=drawn, minlength=classes)
        found.predicted[s] = np.bincount(columns, weights=drawn, minlength=classes)
    return found


def resampled_roc_auc(scores: np.ndarray, positive: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """ROC-AUC [S] over resamples, averaged over the columns of scores and positive [N, K] where defined."""
    rng = np.random.default_rng(seed)
    n = len(scores)
    columns = [_tie_cells(s, p) for s, p in zip(scores.T, positive.T, strict=True)]
    found = np.full(affordable(samples, n * len(columns)), np.nan)
    for i in range(len(found)):
        rows = rng.integers(0, n, n)
        areas = [_area(np.bincount(cells[rows], minlength=size)) for cells, size in columns]
        defined = [area for area in areas if not math.isnan(area)]
        found[i] = sum(defined) / len(defined) if defined else math.nan
    return found


def proportion(right: np.ndarray, samples: int, seed: int) -> Interval:
    """Interval of a share of rows. A resample of one is a binomial draw.

    With every row right (or none) each resample is the same; the exact binomial bound (Clopper and Pearson) is given
    instead, so that 20 of 20 doesn't look like certainty.
    """
    n, hits = len(right), int(np.sum(right))
    bound = ((1 - LEVEL) / 2) ** (1 / n)
    if hits == n:
        return Interval(bound, 1.0)
    if hits == 0:
        return Interval(0.0, 1.0 - bound)
    return percentiles(np.random.default_rng(seed).binomial(n, hits / n, samples) / n)


def mcnemar(before_correct: np.ndarray, after_correct: np.ndarray, samples: int = 1000, seed: int = 0) -> Paired:
    """Two models on the same rows; exact two-sided binomial test on the rows that changed (McNemar 1947)."""
    before, after = np.asarray(before_correct, bool), np.asarray(after_correct, bool)
    fixed, broke = int((after & ~before).sum()), int((before & ~after).sum())
    change = after.astype(np.float64) - before
    interval = percentiles(resampled_sums(change[:, None], samples, seed)[:, 0] / len(change))
    return Paired(fixed, broke, sign_test(fixed, broke), float(change.mean()), interval)


def paired_errors(before: np.ndarray, after: np.ndarray, samples: int = 1000, seed: int = 0) -> Paired:
    """Two models' squared errors on the same rows; paired bootstrap of the difference of their means."""
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    means = resampled_sums(change[:, None], samples, seed)[:, 0] / len(change)
    # Counting the observed one too keeps the p-value above 0 (Davison and Hinkley 1997, 4.2).
    one_sided = (min((means >= 0).sum(), (means <= 0).sum()) + 1) / (len(means) + 1)
    fixed, broke = int((change < 0).sum()), int((change > 0).sum())
    return Paired(fixed, broke, float(min(1.0, 2 * one_sided)), float(change.mean()), percentiles(means))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of a fair coin falling this unevenly; exact, summed in logarithms."""
    n, fewer = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    terms = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    largest = terms[-1]  # binomial coefficients rise up to the middle
    log_sum = largest + math.log(math.fsum(math.exp(term - largest) for term in terms))
    return min(1.0, 2 * math.exp(log_sum - n * math.log(2)))


def _tie_cells(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, int]:
    """Each row's cell: its place among the distinct scores, times two, plus one where positive."""
    distinct, place = np.unique(scores, return_inverse=True)
    return place * 2 + positive, 2 * len(distinct)


def _area(cells: np.ndarray) -> float:
    negative, positive = cells.reshape(-1, 2).T.astype(np.float64)
    pairs = negative.sum() * positive.sum()
    if not pairs:
        return math.nan
    return float((positive * (np.cumsum(negative) - negative / 2)).sum() / pairs)
