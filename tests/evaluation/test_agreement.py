"""Agreement and shares against scikit-learn, scipy and the numbers that Krippendorff printed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from tunewright.evaluation.agreement import clustered_share, cohen_kappa, krippendorff_alpha, wilson

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections A to C; None: not coded.
BINARY = [list("0100000010"), list("1110010000")]
NOMINAL = [list("aabbdcccedda"), list("babbbccceddd")]
MISSING = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def units(people) -> list[list[float]]:
    """What each unit was called, letters as numbers."""
    number = lambda value: float(ord(value)) if isinstance(value, str) else float(value)  # noqa: E731
    return [[number(value) for value in unit if value is not None] for unit in zip(*people, strict=True)]


@pytest.mark.parametrize(
    ("people", "level", "printed"),
    [
        (BINARY, "nominal", 0.095),
        (NOMINAL, "nominal", 0.692),
        (MISSING, "nominal", 0.743),
        (MISSING, "ordinal", 0.815),
    ],
)
def test_alpha_of_the_worked_examples(people, level, printed):
    assert round(krippendorff_alpha(units(people), level).value, 3) == printed


def alpha_by_definition(given, distance) -> float:
    """1 - observed over expected disagreement, summed over pairs of values one by one."""
    paired = [unit for unit in given if len(unit) >= 2]
    values = [value for unit in paired for value in unit]
    observed = sum(
        distance(a, b, values) / (len(unit) - 1) for unit in paired for a, b in itertools.permutations(unit, 2)
    ) / len(values)
    expected = sum(distance(a, b, values) for a, b in itertools.permutations(values, 2))
    return 1 - observed / (expected / (len(values) * (len(values) - 1)))


def nominal(a, b, _):
    return float(a != b)


def ordinal(a, b, values):
    low, high = sorted((a, b))
    between = sum(low <= value <= high for value in values)
    return (between - (values.count(a) + values.count(b)) / 2) ** 2 if a != b else 0.0


@pytest.mark.parametrize(("level", "distance"), [("nominal", nominal), ("ordinal", ordinal)])
@pytest.mark.parametrize("seed", range(5))
def test_alpha_by_its_definition(level, distance, seed):
    rng = np.random.default_rng(seed)
    given = [list(rng.integers(-1, 2, rng.integers(0, 5)).astype(float)) for _ in range(30)]
    assert krippendorff_alpha(given, level).value == pytest.approx(alpha_by_definition(given, distance), abs=1e-12)


def test_alpha_of_perfect_and_of_random_coders():
    rng = np.random.default_rng(0)
    same = [[value, value, value] for value in rng.integers(0, 3, 50).astype(float)]
    random = list(rng.integers(0, 3, (4000, 2)).astype(float))
    assert krippendorff_alpha(same).value == 1
    assert abs(krippendorff_alpha(random).value) < 0.05


@pytest.mark.parametrize("given", [[], [[1.0]], [[], []], [[1.0, 1.0], [1.0, 1.0]]])
def test_alpha_where_it_says_nothing(given):
    found = krippendorff_alpha(given, samples=10)
    assert math.isnan(found.value)
    assert found.to_json()["alpha"] is None


def test_alpha_does_not_hang_on_the_order_of_units_or_people():
    given = units(MISSING)
    turned = [unit[::-1] for unit in given[::-1]]
    assert krippendorff_alpha(turned, "ordinal").value == pytest.approx(krippendorff_alpha(given, "ordinal").value)


def test_the_interval_of_alpha_resamples_groups():
    """Units of one group stand or fall together: copying each unit adds no certainty."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 60)
    given = [[float(t), float(t if rng.random() < 0.8 else 1 - t)] for t in truth]
    alone = krippendorff_alpha(given, samples=2000)
    copied = krippendorff_alpha(given * 5, groups=list(range(60)) * 5, samples=2000)
    loose = krippendorff_alpha(given * 5, samples=2000)
    width = lambda found: found.interval.high - found.interval.low  # noqa: E731
    assert alone.interval.low < alone.value < alone.interval.high
    assert width(copied) == pytest.approx(width(alone), rel=0.1)
    assert width(loose) < 0.6 * width(alone)


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    first = rng.integers(-1, 2, 80)
    second = np.where(rng.random(80) < 0.6, first, rng.integers(-1, 2, 80))
    expected = cohen_kappa_score(first, second)
    assert cohen_kappa(list(first), list(second)) == pytest.approx(expected, abs=1e-12)


def test_kappa_where_it_says_nothing():
    assert math.isnan(cohen_kappa([], []))
    assert math.isnan(cohen_kappa([1, 1], [1, 1])), "nobody could have disagreed"
    with pytest.raises(ValueError, match="2 values and 1"):
        cohen_kappa([1, 2], [1])


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (1, 3), (61, 100), (499, 1000)])
def test_wilson_is_scipys(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    found = wilson(k / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_single_draws_give_the_plain_interval():
    hits = [1] * 30 + [0] * 20
    found = clustered_share(hits, [1] * 50)
    assert (found.count, found.total, found.value) == (30, 50, 0.6)
    assert found.interval == wilson(0.6, 50)


def test_pairs_of_one_ranking_count_as_what_they_are():
    """Six pairs that always go together are one opinion; six independent ones are six."""
    rng = np.random.default_rng(0)
    tied = clustered_share([6 * int(rng.random() < 0.5) for _ in range(100)], [6] * 100)
    free = clustered_share([int(rng.binomial(6, 0.5)) for _ in range(100)], [6] * 100)
    width = lambda share: share.interval.high - share.interval.low  # noqa: E731
    assert width(tied) == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 100), rel=0.1)
    assert width(free) == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 600), rel=0.2)


def test_effective_pairs_by_hand():
    """Two rankings of two pairs, hits 2 and 1: p = 3/4, variance = 2/1 · (½² + ½²) / 4² = 1/16, n = 3/16 · 16 = 3."""
    assert clustered_share([2, 1], [2, 2]).interval.to_json() == pytest.approx(wilson(0.75, 3).to_json(), abs=1e-12)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Rankings of three, some people always choosing left: the share of left, 400 times over."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        hits = [3 if rng.random() < 0.2 else int(rng.binomial(3, 0.5)) for _ in range(60)]
        interval = clustered_share(hits, [3] * 60).interval
        held += interval.low <= 0.6 <= interval.high
    assert 0.92 <= held / 400 <= 0.98


def test_shares_of_nothing_and_of_all():
    nothing = clustered_share([], [])
    assert (nothing.total, nothing.interval, nothing.to_json()["share"]) == (0, None, None)
    assert clustered_share([0, 0], [0, 0]).total == 0
    every = clustered_share([6, 6, 6], [6, 6, 6])
    assert every.value == 1
    assert every.interval == wilson(1.0, 3), "three opinions, not eighteen"
