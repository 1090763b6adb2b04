"""Temperature scaling: one number that makes a classifier's probabilities as sure as they may be.

After training, a temperature T is fitted on held-out rows and kept with the model; logits are divided by it wherever
probabilities are shown. Answers don't change: the largest logit stays the largest, and 0 stays 0. What it brings is
measured on rows that didn't fit it, and where it brings nothing T stays 1. Numbers have no probabilities, so no T.

The log loss is convex in 1/T, so its minimum is found by bisection on the slope. Source: Guo, Pleiss, Sun, Weinberger,
"On Calibration of Modern Neural Networks" (2017). Shapes: N rows, C outputs; kinds as in `metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunewright.evaluation import metrics as m
from tunewright.evaluation import statistics as stats
from tunewright.evaluation.folds import fold_of, train_and_held_out
from tunewright.evaluation.statistics import Interval

HOTTEST = 100.0  # of 1/T and of T: beyond it the rows say nothing about T
FOLDS = 5
FEWEST_ROWS = 20
_STEPS = 80  # halvings of log(1/T): to the last bit
_HONEST_DRAWS = 1000


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what it changes on rows that didn't fit it."""

    temperature: float  # logits are divided by it; 1: they stay as they are
    num_rows: int
    loss_before: float  # nats per row
    loss_after: float
    loss_change: Interval  # of after - before, over rows
    ece_before: float
    ece_after: float
    honest_ece: Interval  # where the ECE of an honest model lies on so many rows: sampling alone never gives 0
    said: str  # one sentence

    def to_json(self) -> dict[str, Any]:
        """Plain values, as stored in calibration.json."""
        return asdict(self) | {"loss_change": self.loss_change.to_json(), "honest_ece": self.honest_ece.to_json()}


def scaled(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Logits whose softmax or sigmoid is calibrated."""
    return logits if temperature == 1.0 else np.asarray(logits, np.float64) / temperature


def calibrate(
    logits: np.ndarray, labels: np.ndarray, kind: m.Kind, *, groups: np.ndarray | None = None, seed: int = 0
) -> Calibration:
    """Fit T on all rows, and judge it by 5 folds: each fold's rows under the T of the others.

    `groups` [N]: rows of one number (equal texts) stay in one fold. T is 1 where the folds don't gain.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    reason = _why_not(logits, labels, kind)
    fitted = None if reason else fit_temperature(logits, labels, kind)
    if fitted is None:
        return _judged(logits, logits, labels, kind, 1.0, seed, reason or _no_minimum(logits, labels, kind))
    held_out = _held_out(logits, labels, kind, groups, seed)
    if held_out is None or not _gains(held_out, logits, labels, kind):
        return _judged(logits, logits, labels, kind, 1.0, seed, "probabilities are as sure as they may be: kept")
    return _judged(logits, held_out, labels, kind, fitted, seed, "")


def fit_temperature(logits: np.ndarray, labels: np.ndarray, kind: m.Kind) -> float | None:
    """The T of least log loss on these rows; None where none is least: every answer right, or no better than chance."""
    slope = _slope(np.asarray(logits, np.float64), np.asarray(labels), kind)
    low, high = -math.log(HOTTEST), math.log(HOTTEST)
    if slope(math.exp(low)) >= 0 or slope(math.exp(high)) <= 0:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def calibration_error(logits: np.ndarray, labels: np.ndarray, kind: m.Kind, bins: int = m.CALIBRATION_BINS) -> float:
    """ECE: mean distance between probability and truth over bins; of several labels, over all (row, label) pairs."""
    found = m.reliability(logits, labels, kind, bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in found) / max(1, sum(b.count for b in found))


def honest_error(logits: np.ndarray, kind: m.Kind, seed: int = 0, bins: int = m.CALIBRATION_BINS) -> Interval:
    """Where the ECE lies when every probability is exactly true (Bröcker and Smith 2007, consistency resampling)."""
    chances = m.probabilities(logits, kind)
    sure = chances.ravel() if kind == "multi" else chances.max(axis=1)
    index = np.clip((sure * bins).astype(np.int64), 0, bins - 1)
    rng = np.random.default_rng(seed)
    found = np.empty(stats.affordable(_HONEST_DRAWS, len(sure)))
    for i in range(len(found)):
        gaps = np.bincount(index, weights=sure - (rng.random(len(sure)) < sure), minlength=bins)
        found[i] = np.abs(gaps).sum() / len(sure)
    return stats.percentiles(found)


# ---- parts ----


def _slope(logits: np.ndarray, labels: np.ndarray, kind: m.Kind) -> Callable[[float], float]:
    """d(log loss)/d(1/T): the mean logit that is expected, less the mean logit of the truth."""
    if kind == "multi":
        wanted = float((logits * (labels > 0)).mean())
        return lambda beta: float((logits * m.probabilities(beta * logits, kind)).mean()) - wanted
    logits = logits - logits.mean(axis=1, keepdims=True)
    wanted = float(np.take_along_axis(logits, labels[:, None], axis=1).mean())
    return lambda beta: float((logits * m.probabilities(beta * logits, kind)).sum(axis=1).mean()) - wanted


def _why_not(logits: np.ndarray, labels: np.ndarray, kind: m.Kind) -> str:
    if kind == "number":
        return "numbers have no probabilities"
    if len(labels) < FEWEST_ROWS:
        return f"{len(labels)} rows are too few to fit a temperature; expected {FEWEST_ROWS} or more"
    return ""


def _no_minimum(logits: np.ndarray, labels: np.ndarray, kind: m.Kind) -> str:
    if _slope(logits, labels, kind)(1 / HOTTEST) >= 0:
        return "the answers are no better than chance: no temperature makes their probabilities true"
    return "every answer is right: the rows don't say how sure a wrong one would be"


def _held_out(
    logits: np.ndarray, labels: np.ndarray, kind: m.Kind, groups: np.ndarray | None, seed: int
) -> np.ndarray | None:
    """Each row's logits under the temperature of the other folds; None where a fold has none."""
    right = m.correct(logits, labels, kind)
    num_groups = len(labels) if groups is None else len(np.unique(groups))
    found = np.empty_like(logits)
    if num_groups < FOLDS:
        return None
    for learnt, judged in train_and_held_out(fold_of(right, FOLDS, seed, groups)):
        temperature = fit_temperature(logits[learnt], labels[learnt], kind)
        if temperature is None:
            return None
        found[judged] = logits[judged] / temperature
    return found


def _gains(after: np.ndarray, before: np.ndarray, labels: np.ndarray, kind: m.Kind) -> bool:
    return bool(m.row_losses(after, labels, kind).mean() < m.row_losses(before, labels, kind).mean())


def _judged(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, kind: m.Kind, temperature: float, seed: int, said: str
) -> Calibration:
    if kind == "number" or not len(labels):
        nan, nothing = math.nan, Interval(math.nan, math.nan)
        return Calibration(1.0, len(labels), nan, nan, nothing, nan, nan, nothing, said)
    losses = [m.row_losses(logits, labels, kind) for logits in (before, after)]
    change = stats.resampled_sums((losses[1] - losses[0])[:, None], 1000, seed)[:, 0] / len(labels)
    ece_before, ece_after = (calibration_error(logits, labels, kind) for logits in (before, after))
    return Calibration(
        temperature=temperature,
        num_rows=len(labels),
        loss_before=float(losses[0].mean()),
        loss_after=float(losses[1].mean()),
        loss_change=stats.percentiles(change),
        ece_before=ece_before,
        ece_after=ece_after,
        honest_ece=honest_error(after, kind, seed),
        said=said or _words(temperature, ece_before, ece_after),
    )


def _words(temperature: float, before: float, after: float) -> str:
    wrong = "too sure of itself" if temperature > 1 else "not sure enough of itself"
    return (
        f"the model was {wrong}: logits divided by {temperature:.2f}, calibration error {before:.3f} → {after:.3f} "
        "on rows that didn't fit it"
    )
