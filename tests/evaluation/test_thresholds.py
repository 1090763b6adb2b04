"""Thresholds reach what was asked on the rows that choose them, and say honestly what they reach on others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_score, recall_score

from tunewright.evaluation import thresholds as t


def _scored(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    return np.round(1 / (1 + np.exp(-(rng.normal(size=n) + 2 * positive - 1))), 3), positive


def _all_thresholds(scores: np.ndarray, positive: np.ndarray) -> list[tuple[float, float, float]]:
    return [(v, precision_score(positive, scores >= v), recall_score(positive, scores >= v)) for v in np.unique(scores)]


@pytest.mark.parametrize("wanted", [0.6, 0.8, 0.95])
def test_thresholds_are_the_best_of_all(wanted: float) -> None:
    scores, positive = _scored(400)
    every = _all_thresholds(scores, positive)
    precise, complete = (t.threshold_for(scores, positive, aim, wanted) for aim in ("precision", "recall"))
    assert precise is not None and complete is not None
    lowest = min(v for v, precision, _ in every if precision >= wanted)
    highest = max(v for v, _, recall in every if recall >= wanted)
    assert (scores >= precise.value).sum() == (scores >= lowest).sum()
    assert (scores >= complete.value).sum() == (scores >= highest).sum()


def test_what_is_promised_holds_on_new_rows() -> None:
    """Chosen by the lower end, the precision of new rows is below what was asked rarely; by the estimate, often."""
    new_scores, new_positive = _scored(20_000, seed=1)
    short = {False: 0, True: 0}
    for seed in range(2, 42):
        for surely in short:
            found = t.threshold_for(*_scored(300, seed), "precision", 0.8, surely=surely)
            if found is not None:
                short[surely] += precision_score(new_positive, new_scores >= found.value) < 0.8
    assert short[True] <= 6
    assert short[False] >= 12


def test_the_measured_precision_is_not_flattered() -> None:
    new_scores, new_positive = _scored(20_000, seed=1)
    flattery, own = [], []
    for seed in range(2, 122):
        scores, positive = _scored(80, seed)
        found = t.threshold_for(scores, positive, "precision", 0.85)
        if found is not None:
            truth = precision_score(new_positive, new_scores >= found.value)
            flattery.append(found.precision - truth)
            own.append(precision_score(positive, scores >= found.value) - truth)
    assert -0.04 < np.mean(flattery) < 0.005  # thresholds from fewer rows are a little worse: never too good
    assert np.mean(own) > 0.01


def test_out_of_reach_is_none() -> None:
    assert t.threshold_for(np.array([0.9, 0.1]), np.array([False, True]), "precision", 0.9) is None
    assert t.threshold_for(np.array([0.9]), np.array([False]), "recall", 0.5) is None


def test_recall_of_one_says_every_positive() -> None:
    scores, positive = _scored(100)
    found = t.threshold_for(scores, positive, "recall", 1.0)
    assert found is not None
    assert found.value <= scores[positive].min()
    assert found.to_json()["precision_interval"][0] <= found.precision


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (10, 10), (3, 7), (90, 100)])
def test_wilson_matches_scipy(hits: int, total: int) -> None:
    expected = binomtest(hits, total).proportion_ci(method="wilson")
    assert (t.wilson(hits, total).low, t.wilson(hits, total).high) == pytest.approx((expected.low, expected.high))


def test_coverage_curve_by_hand() -> None:
    confidence, right = np.array([0.9, 0.9, 0.8, 0.6]), np.array([True, True, False, True])
    curve = t.coverage_curve(confidence, right)
    assert [(p.confidence, p.coverage, p.accuracy, p.count) for p in curve] == [
        (0.9, 0.5, 1.0, 2),
        (0.8, 0.75, pytest.approx(2 / 3), 3),
        (0.6, 1.0, 0.75, 4),
    ]
    assert t.risk_area(confidence, right) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert t.coverage_curve(np.zeros(0), np.zeros(0, bool)) == []


def test_long_curves_are_thinned_and_end_with_every_row() -> None:
    rng = np.random.default_rng(0)
    curve = t.coverage_curve(rng.random(5000), rng.random(5000) < 0.8)
    assert len(curve) == 50
    assert curve[-1].coverage == 1.0


def test_abstaining_reaches_the_accuracy() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 3000)
    right = rng.random(3000) < confidence
    found = t.abstain_below(confidence, right, 0.9)
    assert found is not None
    assert found.value == pytest.approx(0.8, abs=0.06)  # the mean of what lies above 0.8 is 0.9
    assert found.precision == pytest.approx(0.9, abs=0.02)
    assert found.said_share == pytest.approx(0.4, abs=0.1)


def test_decisions() -> None:
    chances = np.array([[0.6, 0.4, 0.0], [0.5, 0.3, 0.2], [0.34, 0.33, 0.33]])
    assert t.decide(chances, "single").tolist() == [0, 0, 0]
    assert t.decide(chances, "single", {1: 0.35}).tolist() == [1, 0, 0]
    assert t.decide(chances, "single", {0: 0.9}).tolist() == [1, 1, 1]
    assert t.decide(chances, "single", {0: 0.55, 1: 0.9, 2: 0.9}).tolist() == [0, t.UNKNOWN, t.UNKNOWN]
    assert t.decide(chances, "single", abstain=0.45).tolist() == [0, 0, t.UNKNOWN]
    assert t.decide(chances, "multi", {2: 0.15}).tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 1]]
