"""How far people agree, and how sure a share of their choices is. Pure numpy, no records.

`judgement_quality` asks for judgements on the ranking page; anything else that several people coded will do as well.
Sources: Cohen 1960, "A coefficient of agreement for nominal scales"; Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability"; Wilson 1927, "Probable inference, the law of succession, and statistical inference".

Letters: N units (things that were coded), L distinct values, S resamples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunewright.evaluation.statistics import Interval, percentiles, resampled_sums

Level = Literal["nominal", "ordinal"]
_Z = 1.959963984540054  # of the middle 95 % of a normal distribution


@dataclass(frozen=True)
class Share:
    """So many of so many, with the interval in which the true share lies 95 times in 100."""

    count: int
    total: int
    interval: Interval | None  # None of nothing

    @property
    def value(self) -> float:
        """0 to 1; NaN of nothing."""
        return self.count / self.total if self.total else math.nan

    def to_json(self) -> dict[str, object]:
        """As printed with --json."""
        interval = list(map(defined, self.interval.to_json())) if self.interval else None
        return {"share": defined(self.value), "count": self.count, "of": self.total, "interval": interval}


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha: 1 all agree, 0 as by chance, below 0 worse than chance; NaN where it can't be said."""

    value: float
    interval: Interval | None  # over resampled groups of units; None where it wasn't asked for
    units: int  # that two or more coded

    def to_json(self) -> dict[str, object]:
        """As printed with --json."""
        interval = list(map(defined, self.interval.to_json())) if self.interval else None
        return {"alpha": defined(self.value), "interval": interval, "units": self.units}


def defined(value: float) -> float | None:
    """None for NaN, which JSON doesn't have."""
    return None if math.isnan(value) else value


# ---- agreement ----


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Agreement of two people on the same N units beyond chance: (p_o - p_e) / (1 - p_e); NaN of none.

    p_o: share of equal values; p_e: the share that their own frequencies would give by chance. Where both use one value
    only, chance can't be told from agreement: NaN.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values and {len(second)}; expected the same units")
    if not first:
        return math.nan
    place = {value: number for number, value in enumerate(dict.fromkeys([*first, *second]))}
    table = np.zeros((len(place), len(place)))
    np.add.at(table, ([place[value] for value in first], [place[value] for value in second]), 1 / len(first))
    observed, expected = table.trace(), float(table.sum(0) @ table.sum(1))
    return float((observed - expected) / (1 - expected)) if expected < 1 - 1e-12 else math.nan


def krippendorff_alpha(
    units: Sequence[Sequence[float]],
    level: Level = "nominal",
    *,
    groups: Sequence[Hashable] | None = None,
    samples: int = 0,
    seed: int = 0,
) -> Alpha:
    """Agreement of any number of people, each of whom may have coded any of the units: 1 - D_o / D_e.

    units [N]: the values that each unit got, from whomever; those with fewer than two say nothing and are left out.
    groups [N]: units that stand or fall together (pairs of one prompt); `samples` resamples of these give the interval.
    """
    coded = [number for number, unit in enumerate(units) if len(unit) >= 2]
    if not coded:
        return Alpha(math.nan, None, 0)
    names = list(range(len(units))) if groups is None else list(groups)
    place = {name: number for number, name in enumerate(dict.fromkeys(names[number] for number in coded))}
    each = _coincidences([units[number] for number in coded])
    size = each.shape[1]
    tables = np.zeros((len(place), size, size))
    np.add.at(tables, [place[names[number]] for number in coded], each)
    value = float(_alphas(tables.sum(0, keepdims=True), level)[0])
    if not samples or len(place) < 2:
        return Alpha(value, None, len(coded))
    sums = resampled_sums(tables.reshape(len(tables), -1), samples, seed)
    return Alpha(value, percentiles(_alphas(sums.reshape(-1, size, size), level)), len(coded))


def _coincidences(units: Sequence[Sequence[float]]) -> np.ndarray:
    """[N, L, L] ordered pairs of values that different people gave each unit, each weighing 1 / (people - 1)."""
    people = np.array([len(unit) for unit in units])
    values, index = np.unique(np.concatenate([np.asarray(unit, np.float64) for unit in units]), return_inverse=True)
    counts = np.zeros((len(units), len(values)))
    np.add.at(counts, (np.repeat(np.arange(len(units)), people), index), 1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(values))
    return pairs / (people - 1)[:, None, None]


def _alphas(tables: np.ndarray, level: Level) -> np.ndarray:
    """Alpha [S] of tables of coincidences [S, L, L]; NaN where only one value was used."""
    totals = tables.sum(2)
    sizes = totals.sum(1)
    distances = _distances(totals, level)
    observed = (tables * distances).sum((1, 2))
    expected = (totals[:, :, None] * totals[:, None, :] * distances).sum((1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (sizes - 1) * observed / expected, math.nan)


def _distances(totals: np.ndarray, level: Level) -> np.ndarray:
    """[S, L, L] how far apart two values are.

    nominal: 0 or 1; ordinal: the squared number of given values from one to the other, each end counting half.
    """
    size = totals.shape[1]
    if level == "nominal":
        return np.broadcast_to(1.0 - np.eye(size), (len(totals), size, size))
    middles = np.cumsum(totals, 1) - totals / 2
    return (middles[:, :, None] - middles[:, None, :]) ** 2


# ---- shares ----


def wilson(share: float, n: float) -> Interval:
    """Wilson's interval of a share of n; n may be a fraction, where draws hang together."""
    spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    middle, scale = share + _Z**2 / (2 * n), 1 + _Z**2 / n
    return Interval(max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale))


def clustered_share(hits: Sequence[int], totals: Sequence[int]) -> Share:
    """A share over N clusters (the pairs of a ranking) which each hold `totals[i]` draws with `hits[i]` among them.

    Pairs of one ranking aren't independent, so the interval is Wilson's on the effective number of draws: p (1 - p)
    over the variance of p between clusters (ratio estimator; Cochran 1977, 6.4), never more than there are. One draw
    per cluster gives the plain interval.
    """
    got, of = np.asarray(hits, np.float64), np.asarray(totals, np.float64)
    got, of = got[of > 0], of[of > 0]
    clusters, total = len(of), float(of.sum())
    if not clusters:
        return Share(0, 0, None)
    share = float(got.sum() / total)
    effective = _effective(got, of, share) if 0 < share < 1 and clusters > 1 else float(clusters)
    return Share(int(got.sum()), int(total), wilson(share, effective))


def _effective(got: np.ndarray, of: np.ndarray, share: float) -> float:
    if np.all(of == 1):
        return float(len(of))
    clusters, total = len(of), float(of.sum())
    variance = clusters / (clusters - 1) * float(((got - share * of) ** 2).sum()) / total**2
    return min(total, share * (1 - share) / variance) if variance > 0 else total
