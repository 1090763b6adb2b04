"""Intervals and tests agree with scipy, with the general bootstrap, and with the truth they should cover."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import scipy.stats

from tunewright.evaluation import metrics as m
from tunewright.evaluation import scores
from tunewright.evaluation import statistics as s


def _close(found: s.Interval, expected: s.Interval, tolerance: float) -> None:
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=tolerance)


def test_bootstrap_of_a_mean_matches_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=80)
    found = s.bootstrap(lambda rows: float(values[rows].mean()), 80, 3000, seed=1)
    expected = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=3000, rng=2)
    _close(found, s.Interval(*expected.confidence_interval), 0.03)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(20.0)
    once, again, other = (s.bootstrap(lambda r: float(values[r].mean()), 20, 200, seed=k) for k in (4, 4, 5))
    assert once == again
    assert once != other


def test_fast_paths_draw_what_the_general_bootstrap_draws() -> None:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 3, 150)
    predicted = np.where(rng.random(150) < 0.7, true, rng.integers(0, 3, 150))
    logits = np.eye(3)[predicted]

    def value(rows: np.ndarray) -> float:
        return float(scores.macro_f1(m.class_counts(logits[rows], true[rows], "single")))

    fast = s.percentiles(scores.macro_f1(s.resampled_counts(true, predicted, 3, 3000, seed=0)))
    _close(fast, s.bootstrap(value, 150, 3000, seed=1), 0.012)
    right = true == predicted
    _close(s.proportion(right, 3000, 0), s.bootstrap(lambda r: float(right[r].mean()), 150, 3000, 1), 0.012)
    sums = s.resampled_sums(right[:, None].astype(float), 3000, seed=0)[:, 0] / 150
    _close(s.percentiles(sums), s.proportion(right, 3000, 0), 0.012)


def test_roc_auc_resamples_match_the_general_bootstrap() -> None:
    rng = np.random.default_rng(6)
    positive = rng.random(120) < 0.4
    given = np.round(rng.normal(size=120) + positive)  # with many ties
    fast = s.percentiles(s.resampled_roc_auc(given[:, None], positive[:, None], 2000, seed=0))
    _close(fast, s.bootstrap(lambda r: scores.roc_auc(given[r], positive[r]), 120, 2000, seed=1), 0.015)


def test_undefined_resamples_are_left_out() -> None:
    positive = np.array([True] + [False] * 5)  # many resamples hold no positive row
    interval = s.percentiles(s.resampled_roc_auc(np.arange(6.0)[:, None], positive[:, None], 300, seed=0))
    assert (interval.low, interval.high) == (0.0, 0.0)
    assert math.isnan(s.percentiles(np.array([np.nan])).low)


@pytest.mark.parametrize("hits", [0, 20])
def test_all_right_is_not_certainty(hits: int) -> None:
    right = np.arange(20) < hits
    exact = scipy.stats.binomtest(hits, 20).proportion_ci(method="exact")
    _close(s.proportion(right, 1000, 0), s.Interval(exact.low, exact.high), 1e-12)


def test_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(400):
        interval = s.proportion(rng.random(200) < 0.8, 400, seed)
        covered += interval.low <= 0.8 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


def test_a_thousand_resamples_of_ten_thousand_rows_take_under_two_seconds() -> None:
    rng = np.random.default_rng(8)
    true = rng.integers(0, 10, 10_000)
    predicted = np.where(rng.random(10_000) < 0.8, true, rng.integers(0, 10, 10_000))
    start = time.process_time()
    s.proportion(true == predicted, 1000, 0)
    s.resampled_counts(true, predicted, 10, 1000, 0)
    assert time.process_time() - start < 2


def test_huge_row_counts_draw_fewer_resamples() -> None:
    assert s.affordable(1000, 10_000) == 1000
    assert s.affordable(1000, 100_000) == 500
    assert s.affordable(1000, 10**9) == 100


@pytest.mark.parametrize(("fixed", "broke"), [(0, 0), (1, 0), (5, 5), (47, 6), (3, 200), (900, 1000)])
def test_mcnemar_is_the_exact_binomial_test(fixed: int, broke: int) -> None:
    before = np.array([False] * fixed + [True] * broke + [True, False] * 20)
    after = np.array([True] * fixed + [False] * broke + [True, False] * 20)
    paired = s.mcnemar(before, after)
    expected = scipy.stats.binomtest(fixed, fixed + broke, 0.5).pvalue if fixed + broke else 1.0
    assert (paired.fixed, paired.broke) == (fixed, broke)
    assert paired.p_value == pytest.approx(expected, rel=1e-8)
    assert paired.difference == pytest.approx(after.mean() - before.mean())
    assert paired.interval.low <= paired.difference <= paired.interval.high


def test_paired_errors_see_a_small_change_that_all_rows_share() -> None:
    rng = np.random.default_rng(9)
    before = rng.exponential(size=300) * 10
    paired = s.paired_errors(before, before - 0.1 - 0.01 * rng.random(300))
    assert (paired.fixed, paired.broke) == (300, 0)
    assert paired.p_value < 0.01
    assert paired.interval.high < 0


def test_paired_errors_of_equal_models_mean_nothing() -> None:
    paired = s.paired_errors(np.ones(50), np.ones(50))
    assert (paired.fixed, paired.broke, paired.p_value, paired.difference) == (0, 0, 1.0, 0.0)
