"""Decision thresholds and "don't know": from which probability on to say a class, below which to say nothing.

A threshold for a wanted precision or recall is chosen on labelled rows, then measured by folds: on rows that didn't
choose it, because the best of many thresholds looks better than it is (chosen from fewer rows, those of the folds are a
little worse). Abstaining is the same question of the winning class: the least confidence above which the answers reach
a wanted accuracy. `decide` applies both.

Runs no model, reads no file. Shapes: N rows, C classes; scores are probabilities, larger means surer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from tunewright.evaluation.folds import fold_of, train_and_held_out
from tunewright.evaluation.metrics import Kind
from tunewright.evaluation.statistics import Interval

FOLDS = 5
UNKNOWN = -1  # what `decide` gives instead of a class
Z95 = 1.959963984540054  # of a two-sided 95 % interval
Aim = Literal["precision", "recall"]


@dataclass(frozen=True)
class Threshold:
    """A class is said where its probability is at least `value`; the measures are of rows that didn't choose it."""

    value: float
    aim: Aim
    wanted: float
    precision: float  # of the rows it is said of, how many are; NaN where it is said of none
    precision_interval: Interval
    recall: float  # of the rows that are, how many it is said of
    recall_interval: Interval
    said_share: float  # of all rows

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        intervals = {n: getattr(self, n).to_json() for n in ("precision_interval", "recall_interval")}
        return asdict(self) | intervals


@dataclass(frozen=True)
class Covered:
    """A point of the coverage-accuracy curve: only the surest answers are given."""

    confidence: float  # the least that is answered
    coverage: float  # share of the rows that get an answer
    accuracy: float  # of those, how many are right
    interval: Interval
    count: int  # rows answered


def threshold_for(
    scores: np.ndarray, positive: np.ndarray, aim: Aim, wanted: float, *, surely: bool = False,
    groups: np.ndarray | None = None, seed: int = 0,
) -> Threshold | None:  # fmt: skip
    """The threshold [scores and bool positive: N] that reaches the aim and gives least away of the other measure.

    precision: the lowest threshold at which it is reached; recall: the highest. `surely`: it is the lower end of the
    95 % interval that must reach it. None where no threshold does.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    value = _choose(scores, positive, aim, wanted, surely)
    if value is None:
        return None
    said = _said_by_others(scores, positive, aim, wanted, surely, groups, seed)
    hits = int((said & positive).sum())
    precision, precision_interval = _share(hits, int(said.sum()))
    recall, recall_interval = _share(hits, int(positive.sum()))
    return Threshold(value, aim, wanted, precision, precision_interval, recall, recall_interval, float(said.mean()))


def coverage_curve(confidence: np.ndarray, right: np.ndarray, points: int = 50) -> list[Covered]:
    """Accuracy against coverage, the surest rows first; at most so many points, the last one answers every row.

    confidence [N]: probability of the winning class; right [N]: whether it was. Equal confidences come together.
    """
    if not len(confidence):
        return []
    levels, count, hits = _levels(np.asarray(confidence, np.float64), np.asarray(right, bool))
    wanted = np.linspace(0, count[-1], points + 1)[1:]
    chosen = np.unique(np.minimum(np.searchsorted(count, wanted), len(count) - 1))
    return [_covered(float(levels[i]), int(hits[i]), int(count[i]), len(confidence)) for i in chosen.tolist()]


def abstain_below(
    confidence: np.ndarray, right: np.ndarray, accuracy: float, *, surely: bool = False,
    groups: np.ndarray | None = None, seed: int = 0,
) -> Threshold | None:  # fmt: skip
    """The least confidence above which the answers reach this accuracy; None where even the surest don't.

    In what is found, precision is the accuracy of the answers and said_share the coverage, of rows that didn't choose.
    """
    return threshold_for(confidence, right, "precision", accuracy, surely=surely, groups=groups, seed=seed)


def risk_area(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean share of wrong answers over all coverages (AURC, Geifman and El-Yaniv 2017): 0 is best."""
    _, count, hits = _levels(np.asarray(confidence, np.float64), np.asarray(right, bool))
    wrong = (count - hits) / count
    return float((wrong * np.diff(count, prepend=0)).sum() / count[-1])


def decide(
    chances: np.ndarray, kind: Kind, thresholds: Mapping[int, float] | None = None, abstain: float = 0.0
) -> np.ndarray:
    """What is said: class index or UNKNOWN [N] (single), or 0/1 [N, C] (multi), from probabilities [N, C].

    Single: of the classes with a threshold that reach it, the one farthest above (as a ratio); else the likeliest of
    those without one; UNKNOWN where nothing is left or its probability is below `abstain`. Multi: each label by itself,
    0.5 where it has no threshold.
    """
    limits = dict(thresholds or {})
    if kind == "multi":
        return (chances >= np.array([limits.get(c, 0.5) for c in range(chances.shape[1])])).astype(np.int64)
    answer = chances.argmax(axis=1) if not limits else _limited(chances, limits)
    picked = np.take_along_axis(chances, np.maximum(answer, 0)[:, None], axis=1)[:, 0]
    return np.where((answer >= 0) & (picked >= abstain), answer, UNKNOWN)


def wilson(hits: int, total: int) -> Interval:
    """95 % interval of a share (Wilson 1927): close to its level for few rows, and never beyond 0 and 1."""
    if not total:
        return Interval(math.nan, math.nan)
    share, squared = hits / total, Z95**2
    middle = (share + squared / (2 * total)) / (1 + squared / total)
    half = Z95 * math.sqrt(share * (1 - share) / total + squared / (4 * total**2)) / (1 + squared / total)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


# ---- parts ----


def _levels(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(distinct scores falling, rows at or above each, positive ones among them)."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return scores[order][ends], ends + 1, np.cumsum(positive[order])[ends]


def _choose(scores: np.ndarray, positive: np.ndarray, aim: Aim, wanted: float, surely: bool) -> float | None:
    if not len(scores) or not positive.any():
        return None
    levels, count, hits = _levels(scores, positive)
    below = count if aim == "precision" else np.full_like(count, positive.sum())
    reached = (_lower_ends(hits, below) if surely else hits / below) >= wanted
    if not reached.any():
        return None
    at = np.flatnonzero(reached)[-1 if aim == "precision" else 0]
    return float(_between(levels, int(at)))


def _between(levels: np.ndarray, at: int) -> float:
    """Half-way to the next lower score, where nothing lies, so that new rows fall on either side of it alike."""
    return levels[at] if at + 1 == len(levels) else (levels[at] + levels[at + 1]) / 2


def _lower_ends(hits: np.ndarray, total: np.ndarray) -> np.ndarray:
    pairs: Sequence[tuple[int, int]] = list(zip(hits.tolist(), total.tolist(), strict=True))
    return np.array([wilson(one, other).low for one, other in pairs])


def _said_by_others(
    scores: np.ndarray, positive: np.ndarray, aim: Aim, wanted: float, surely: bool, groups: np.ndarray | None,
    seed: int,
) -> np.ndarray:  # fmt: skip
    """bool [N]: whether the class is said of each row by the threshold that the other folds choose."""
    num_groups = len(scores) if groups is None else len(np.unique(groups))
    said = np.zeros(len(scores), bool)
    for learnt, judged in train_and_held_out(fold_of(positive, min(FOLDS, num_groups), seed, groups)):
        value = _choose(scores[learnt], positive[learnt], aim, wanted, surely)
        said[judged] = False if value is None else scores[judged] >= value
    return said


def _share(hits: int, total: int) -> tuple[float, Interval]:
    return (hits / total if total else math.nan), wilson(hits, total)


def _covered(confidence: float, hits: int, count: int, total: int) -> Covered:
    return Covered(confidence, count / total, hits / count, wilson(hits, count), count)


def _limited(chances: np.ndarray, limits: Mapping[int, float]) -> np.ndarray:
    own = list(limits)
    ratios = chances[:, own] / np.maximum(np.array([limits[c] for c in own]), 1e-12)
    others = [c for c in range(chances.shape[1]) if c not in limits]
    rest = np.array(others)[chances[:, others].argmax(axis=1)] if others else np.full(len(chances), UNKNOWN)
    return np.where(ratios.max(axis=1) >= 1, np.array(own)[ratios.argmax(axis=1)], rest)
