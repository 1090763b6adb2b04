"""Would more labels help? A power law through the metric at several sizes of train, and what it says of other sizes.

    metric(n) = a - b * n^-c    (losses: a + b * n^-c)

`tasks` measures the points on the same validation rows; this file fits and forecasts, and neither trains nor reads. The
law is the least-squares fit. Its intervals come from the posterior over a grid of laws, with the noise unknown: three
to six points allow many laws, and far from the points they differ, which an interval from the best one alone would not
show. On made-up curves with known truth its 95 % intervals hold it about 95 times in 100, from three points on (tests).

Fitted is the error e(n) = |best - metric| = floor + gap * (n / n_ref)^-c with floor, gap >= 0. Priors: floor and
e(n_ref) uniform, log c uniform in 0.05 to 2, noise variance scaled inverse chi-square around the errors given. The
intervals are of what another run would measure on the *same* validation rows, whose own luck moves all points alike.
Source of the form: Hestness et al., "Deep Learning Scaling is Predictable, Empirically" (2017).
Shapes: M points, S draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunewright.errors import UsageError

FEWEST_SIZES = 3
SLOWEST, FASTEST = 0.05, 2.0  # exponents
LEVEL = 0.95
DRAWS = 4000
PRIOR_ROWS = 2  # points' worth of belief in the errors given
_EXPONENTS, _FLOORS, _HEIGHTS = 48, 40, 60


@dataclass(frozen=True)
class Point:
    """One run: rows learnt from, and what the validation rows said."""

    size: int
    value: float
    error: float  # standard error over the validation rows; the first guess of a run's own noise


@dataclass(frozen=True)
class PowerLaw:
    """metric(n) = a - b * n^-c, with b < 0 for a loss."""

    a: float
    b: float
    c: float

    def __call__(self, size: float) -> float:
        return self.a - self.b * size**-self.c


@dataclass(frozen=True)
class Forecast:
    """A value at some size, or a difference of two, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Points, the law through them, and the laws that they allow."""

    points: tuple[Point, ...]
    law: PowerLaw
    best: float  # what no model exceeds: 1 for scores, 0 for losses
    higher_is_better: bool
    reference: float  # n_ref
    draws: np.ndarray  # float64 [S, 4] floor, gap, exponent, noise (a standard deviation)
    seed: int

    @property
    def largest(self) -> int:
        """Most rows that a point learnt from."""
        return max(point.size for point in self.points)

    def expected(self, size: float) -> Forecast:
        """The mean of many runs with so many rows."""
        return _forecast(self._metrics(size))

    def measured(self, size: float) -> Forecast:
        """One more run with so many rows, its own luck included."""
        noise = np.random.default_rng(self.seed + 1).normal(size=len(self.draws)) * self.draws[:, 3]
        return _forecast(self._bounded(self._metrics(size) + noise))

    def gain(self, start: float, end: float) -> Forecast:
        """What `end` rows bring over `start`, as a mean; above 0 where the metric rises."""
        return _forecast(self._metrics(end) - self._metrics(start))

    def to_json(self, sizes: Sequence[int] = ()) -> dict[str, Any]:
        """Plain values, with forecasts at these sizes."""
        return {
            "points": [vars(point) for point in self.points],
            "law": vars(self.law),
            "forecasts": [{"size": n, **vars(self.measured(n))} for n in sizes],
            "twice": vars(self.gain(self.largest, 2 * self.largest)),
        }

    def _metrics(self, size: float) -> np.ndarray:
        floor, gap, exponent, _ = self.draws.T
        error = floor + gap * (size / self.reference) ** -exponent
        return self.best + (-error if self.higher_is_better else error)

    def _bounded(self, values: np.ndarray) -> np.ndarray:
        return np.minimum(values, self.best) if self.higher_is_better else np.maximum(values, self.best)


def fit_curve(
    points: Sequence[Point], *, higher_is_better: bool = True, best: float | None = None, seed: int = 0
) -> LearningCurve:
    """The law through these points, several of one size welcome. Raises UsageError below three sizes.

    `best`: the metric of a perfect model; default 1 where more is better, else 0.
    """
    points = tuple(sorted(points, key=lambda point: point.size))
    found = len({point.size for point in points})
    if found < FEWEST_SIZES or points[0].size < 1:
        raise UsageError(
            f"a learning curve through {found} size{'s' if found != 1 else ''}; expected {FEWEST_SIZES} or more"
        )
    top = (1.0 if higher_is_better else 0.0) if best is None else best
    sizes = np.array([point.size for point in points], np.float64)
    errors = np.abs(top - np.array([point.value for point in points]))
    doubt = np.array([point.error for point in points])
    if not (np.isfinite(errors).all() and np.isfinite(doubt).all() and (doubt > 0).all()):
        raise UsageError("a point of the learning curve has no finite value with a standard error above 0")
    reference = float(np.exp(np.log(sizes).mean()))
    floor, gap, exponent = _least_squares(sizes / reference, errors, doubt)
    sign = 1.0 if higher_is_better else -1.0
    law = PowerLaw(top - sign * floor, sign * gap * reference**exponent, exponent)
    draws = _posterior(sizes / reference, errors, doubt, seed)
    return LearningCurve(points, law, top, higher_is_better, reference, draws, seed)


def words(curve: LearningCurve, metric: str, now: int | None = None) -> str:
    """One sentence: what twice the rows would bring, and whether that is worth the labels.

    `now`: rows there are; default: of the largest point.
    """
    now = now or curve.largest
    gain = curve.gain(now, 2 * now)
    half = (gain.high - gain.low) / 2
    unit = 100.0 if curve.best == 1.0 else 1.0
    amount = f"{unit * gain.value:+.{1 if unit > 1 else 3}f} ± {unit * half:.{1 if unit > 1 else 3}f}"
    unit_words = f" points of {metric}" if unit > 1 else f" in {metric}"
    most = unit * max(abs(gain.low), abs(gain.high))
    worth = "; more labels of the same kind would hardly help" if unit > 1 and most < 1.0 else ""
    return f"twice the labels ({2 * now:,} rows) would give about {amount}{unit_words}{worth}"


# ---- the fit ----


def _least_squares(sizes: np.ndarray, errors: np.ndarray, doubt: np.ndarray) -> tuple[float, float, float]:
    """(floor, gap, exponent) of least weighted squares: linear for each exponent, whose best is found by grid and
    golden section."""
    weights = doubt**-2.0

    def residual(log_exponent: float) -> float:
        return _linear(sizes ** -math.exp(log_exponent), errors, weights)[2]

    grid = np.linspace(math.log(SLOWEST), math.log(FASTEST), 200)
    at = int(np.argmin([residual(x) for x in grid]))
    exponent = math.exp(_golden(residual, float(grid[max(at - 1, 0)]), float(grid[min(at + 1, len(grid) - 1)])))
    floor, gap, _ = _linear(sizes**-exponent, errors, weights)
    return floor, gap, exponent


def _linear(basis: np.ndarray, errors: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """floor, gap >= 0 and the weighted squares of errors - floor - gap * basis."""
    mean_x, mean_e = np.average(basis, weights=weights), np.average(errors, weights=weights)
    spread = (weights * (basis - mean_x) ** 2).sum()
    gap = max(0.0, float((weights * (basis - mean_x) * (errors - mean_e)).sum() / max(spread, 1e-300)))
    floor = float(mean_e - gap * mean_x)
    if floor < 0:
        floor, gap = 0.0, float((weights * basis * errors).sum() / (weights * basis**2).sum())
    return floor, gap, float((weights * (errors - floor - gap * basis) ** 2).sum())


def _golden(function: Any, low: float, high: float, steps: int = 60) -> float:
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(steps):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if function(left) < function(right) else (left, high)
    return (low + high) / 2


# ---- what the points allow ----


def _posterior(sizes: np.ndarray, errors: np.ndarray, doubt: np.ndarray, seed: int) -> np.ndarray:
    """[S, 4] laws drawn in proportion to how well they explain the points; the noise's size is integrated out.

    With noise variance s^2 * doubt^2 and s^2 ~ scaled inverse chi-square(PRIOR_ROWS, 1), the likelihood of a law is
    (PRIOR_ROWS + sum of its weighted squares)^-((PRIOR_ROWS + M) / 2).
    """
    rng = np.random.default_rng(seed)
    exponents = np.exp(np.linspace(math.log(SLOWEST), math.log(FASTEST), _EXPONENTS))
    floors = np.linspace(0.0, errors.max() + 1e-12, _FLOORS)
    centre, off = _height(sizes, errors, doubt)
    reach = 5 * float(doubt.mean()) * max(1.0, off) / math.sqrt(max(1.0, len(sizes) / 2))
    heights = np.maximum(centre + reach * np.linspace(-1, 1, _HEIGHTS), 1e-9)
    floor, height, exponent = np.meshgrid(floors, heights, exponents, indexing="ij")
    gap = height - floor
    squares = np.zeros_like(gap)
    for size, error, one in zip(sizes, errors, doubt, strict=True):
        squares += ((error - floor - gap * size**-exponent) / one) ** 2
    rows = PRIOR_ROWS + len(sizes)
    logs = np.where(gap >= 0, -rows / 2 * np.log(PRIOR_ROWS + squares), -np.inf).ravel()
    chances = np.exp(logs - logs.max())
    chosen = rng.choice(len(chances), DRAWS, p=chances / chances.sum())
    noise = np.sqrt((PRIOR_ROWS + squares.ravel()[chosen]) / rng.chisquare(rows, DRAWS)) * float(doubt[-1])
    # A cell of the grid stands for all that lies in it.
    jitter = rng.uniform(-0.5, 0.5, (3, DRAWS))
    floor_drawn = floor.ravel()[chosen] + jitter[0] * (floors[1] - floors[0])
    height_drawn = height.ravel()[chosen] + jitter[1] * (heights[-1] - heights[0]) / (_HEIGHTS - 1)
    exponent_drawn = exponent.ravel()[chosen] * np.exp(jitter[2] * math.log(FASTEST / SLOWEST) / (_EXPONENTS - 1))
    floor_drawn = np.clip(floor_drawn, 0.0, np.maximum(height_drawn, 0.0))
    return np.stack([floor_drawn, np.maximum(height_drawn - floor_drawn, 0.0), exponent_drawn, noise], axis=1)


def _height(sizes: np.ndarray, errors: np.ndarray, doubt: np.ndarray) -> tuple[float, float]:
    """(error at n_ref of the best law, how far the points lie from it in standard errors)."""
    floor, gap, exponent = _least_squares(sizes, errors, doubt)
    squares = (((errors - floor - gap * sizes**-exponent) / doubt) ** 2).sum()
    return floor + gap, math.sqrt(float(squares) / max(1, len(sizes) - 2))


def _forecast(values: np.ndarray) -> Forecast:
    low, middle, high = np.quantile(values, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return Forecast(float(middle), float(low), float(high))
