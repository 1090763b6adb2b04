"""Several models on the same rows: which is best, which are as good, and what each costs.

    trials (one per seed) -> candidates -> rows of the board, paired with the leader -> Pareto front -> recommendation

Every trial brings its metric on the same resamples of the validation rows (`resampled`), so that differences are paired
by row; the spread over seeds comes on top. Holding the leader against the others is many tests at once, so p-values are
Holm's; what is not measurably worse than the leader may be chosen for its cost. Trains nothing, reads no file.

Shapes: N rows, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunewright.evaluation import statistics as stats
from tunewright.evaluation.statistics import Interval

RESAMPLES = 2000
SIGNIFICANT = 0.05


@dataclass(frozen=True, eq=False)
class Trial:
    """One run of a candidate."""

    seed: int
    value: float  # the metric on all rows
    resampled: np.ndarray  # float64 [R], the metric on resamples that all trials of a board share
    costs: Mapping[str, float]  # train_seconds, peak_memory_bytes, saved_bytes, rows_per_second, prompt_tokens: any


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model trained in one way, with one seed or several; a baseline needs no training."""

    name: str
    trials: tuple[Trial, ...]
    baseline: bool = False


@dataclass(frozen=True)
class BoardRow:
    """A candidate as the board shows it."""

    name: str
    value: float  # mean over seeds
    interval: Interval  # over rows and seeds
    seeds: int
    seed_deviation: float | None  # sample standard deviation over seeds; None with one
    behind: float  # value less the leader's, turned so that worse is below 0; 0 for the leader
    behind_interval: Interval  # paired by row
    p_value: float | None  # of being as good as the leader, Holm's; None for the leader
    costs: dict[str, float]  # means over seeds
    baseline: bool

    @property
    def as_good(self) -> bool:
        """Whether these rows and seeds can't tell it from the leader."""
        return self.p_value is None or self.p_value >= SIGNIFICANT

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {name: value for name, value in vars(self).items() if not isinstance(value, Interval)}
        return plain | {"interval": self.interval.to_json(), "behind_interval": self.behind_interval.to_json()}


@dataclass(frozen=True)
class Board:
    """The leader first, then the others by value."""

    metric: str
    higher_is_better: bool
    rows: tuple[BoardRow, ...]

    @property
    def leader(self) -> BoardRow:
        return self.rows[0]

    def front(self, cost: str) -> list[BoardRow]:
        """Rows that no other one beats in quality and cost at once, cheapest first; rows without this cost are out."""
        priced = [row for row in self.rows if cost in row.costs]
        sign = 1.0 if self.higher_is_better else -1.0
        quality = np.array([sign * row.value for row in priced])
        prices = np.array([row.costs[cost] for row in priced])
        kept = [row for row, there in zip(priced, pareto(quality, prices), strict=True) if there]
        return sorted(kept, key=lambda row: row.costs[cost])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"metric": self.metric, "rows": [row.to_json() for row in self.rows]}


def resampled_mean(values: np.ndarray, seed: int, samples: int = RESAMPLES) -> np.ndarray:
    """[R] means of a value per row [N] (right or wrong, a loss), on the resamples that a board's trials share."""
    return stats.resampled_sums(np.asarray(values, np.float64)[:, None], samples, seed)[:, 0] / len(values)


def resampled_metric(
    metric: Callable[[np.ndarray], float], num_rows: int, seed: int, samples: int = RESAMPLES
) -> np.ndarray:
    """[R] of any metric of row indices, on the very resamples of `resampled_mean`; NaN where it is undefined."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, num_rows, num_rows) for _ in range(stats.affordable(samples, num_rows)))
    return np.array([metric(rows) for rows in drawn])


def board(candidates: Sequence[Candidate], metric: str, *, higher_is_better: bool = True, seed: int = 0) -> Board:
    """Rows for the candidates, which all have been judged on the same rows and resamples."""
    assert candidates and len({len(t.resampled) for c in candidates for t in c.trials}) == 1
    sign = 1.0 if higher_is_better else -1.0
    ordered = sorted(candidates, key=lambda c: (-sign * _value(c), _price(c), c.name))
    rng = np.random.default_rng(seed)
    draws = [_draws(candidate, rng) for candidate in ordered]
    changes = [sign * (draw - draws[0]) for draw in draws]
    raw = [_p_value(change, sign * (_value(c) - _value(ordered[0])))
           for change, c in zip(changes[1:], ordered[1:], strict=True)]  # fmt: skip
    chances = [None, *holm(raw)]
    rows = [
        _row(candidate, draw, change, chance, sign * (_value(candidate) - _value(ordered[0])))
        for candidate, draw, change, chance in zip(ordered, draws, changes, chances, strict=True)
    ]
    return Board(metric, higher_is_better, tuple(rows))


def pareto(quality: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """bool: no other one has as much quality for as little cost, and one of the two better."""
    found = np.ones(len(quality), bool)
    for i in range(len(quality)):
        no_worse = (quality >= quality[i]) & (cost <= cost[i])
        found[i] = not (no_worse & ((quality > quality[i]) | (cost < cost[i]))).any()
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests at once, so that one false alarm in any of them stays below the level (Holm 1979)."""
    order, highest = np.argsort(p_values, kind="stable"), 0.0
    found = [1.0] * len(p_values)
    for place, index in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        found[index] = highest
    return found


def recommend(found: Board, cost: str = "train_seconds", cost_words: str = "trains") -> str:
    """Which to take, in a sentence or two: the cheapest of those that can't be told from the leader."""
    leader, trained = found.leader, [row for row in found.rows if not row.baseline]
    interval = f"[{leader.interval.low:.3f}, {leader.interval.high:.3f}]"
    first = f"{leader.name} is best: {found.metric.replace('_', ' ')} {leader.value:.3f} {interval}"
    if leader.baseline and trained:
        return f"{first}; training brought nothing over this baseline"
    if equal := [row.name for row in found.rows if row.baseline and row.as_good]:
        return f"{first}; the baseline {equal[0]} can't be told from it on these rows, and needs no model to be tuned"
    as_good = [row for row in found.rows if row is not leader and row.as_good and _cheaper(row, leader, cost)]
    if not as_good:
        rivals = [row for row in found.rows[1:] if row.as_good]
        if not rivals:
            return f"{first}, and measurably better than every other one" if found.rows[1:] else first
        return f"{first}; {rivals[0].name} can't be told from it on these rows, and costs no less"
    row = min(as_good, key=lambda each: each.costs[cost])
    ratio = leader.costs[cost] / row.costs[cost] if row.costs[cost] else math.inf
    faster = f"{ratio:.1f} times as fast" if math.isfinite(ratio) else "for nothing"
    return (
        f"{first}. {row.name} can't be told from it on these rows ({row.behind:+.3f} "
        f"[{row.behind_interval.low:+.3f}, {row.behind_interval.high:+.3f}], p {row.p_value:.2f}) and {cost_words} "
        f"{faster}: take {row.name}, or {leader.name} where the last points matter"
    )


# ---- parts ----


def _value(candidate: Candidate) -> float:
    return float(np.mean([trial.value for trial in candidate.trials]))


def _price(candidate: Candidate) -> float:
    """Of equals the smaller leads: no clock has a say in it, so that the same answers give the same board."""
    return float(np.mean([trial.costs.get("saved_bytes", math.inf) for trial in candidate.trials]))


def _draws(candidate: Candidate, rng: np.random.Generator) -> np.ndarray:
    """[R] values the candidate might have had: other rows (shared by all candidates), and other seeds.

    The mean over seeds has standard error s / sqrt(seeds), known only roughly: Student's t with seeds - 1 degrees.
    """
    rows = np.mean([trial.resampled for trial in candidate.trials], axis=0)
    deviation, seeds = _deviation(candidate), len(candidate.trials)
    if not deviation:
        return rows
    return rows + rng.standard_t(seeds - 1, len(rows)) * deviation / math.sqrt(seeds)


def _deviation(candidate: Candidate) -> float | None:
    values = [trial.value for trial in candidate.trials]
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _p_value(change: np.ndarray, observed: float) -> float:
    """Two-sided; counting the observed one too keeps it above 0 (Davison and Hinkley 1997, 4.2)."""
    change = change[np.isfinite(change)]
    if observed == 0 or not len(change):
        return 1.0
    return float(min(1.0, 2 * (min((change >= 0).sum(), (change <= 0).sum()) + 1) / (len(change) + 1)))


def _row(candidate: Candidate, draws: np.ndarray, change: np.ndarray, chance: float | None, behind: float) -> BoardRow:
    names = dict.fromkeys(name for trial in candidate.trials for name in trial.costs)
    costs = {name: float(np.mean([t.costs[name] for t in candidate.trials if name in t.costs])) for name in names}
    return BoardRow(
        name=candidate.name,
        value=_value(candidate),
        interval=stats.percentiles(draws),
        seeds=len(candidate.trials),
        seed_deviation=_deviation(candidate),
        behind=behind,
        behind_interval=Interval(0.0, 0.0) if chance is None else stats.percentiles(change),
        p_value=chance,
        costs=costs,
        baseline=candidate.baseline,
    )


def _cheaper(row: BoardRow, leader: BoardRow, cost: str) -> bool:
    return not row.baseline and row.costs.get(cost, math.inf) < leader.costs.get(cost, -math.inf)
