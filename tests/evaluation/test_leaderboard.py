"""The leader leads, false alarms stay rare, and what is as good and cheaper is recommended."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tunewright.evaluation import leaderboard as b
from tunewright.evaluation.statistics import percentiles

N = 600


def _candidate(name: str, rate: float, seeds: int = 1, *, rng_seed: int = 0, wobble: float = 0.0,
               baseline: bool = False, shared: np.ndarray | None = None, **costs: float) -> b.Candidate:  # fmt: skip
    """Right and wrong answers at this rate; `shared` [N] makes rows hard for everybody alike."""
    rng = np.random.default_rng(rng_seed)
    trials = []
    for seed in range(seeds):
        level = rate + rng.normal() * wobble
        hard = rng.random(N) if shared is None else shared
        right = (hard < level).astype(float)
        trials.append(b.Trial(seed, float(right.mean()), b.resampled_mean(right, 0, 400), costs))
    return b.Candidate(name, tuple(trials), baseline)


def test_rows_are_paired() -> None:
    """Two models that share the hard rows differ surely by little; unpaired intervals would overlap."""
    shared = np.random.default_rng(1).random(N)
    found = b.board([_candidate("a", 0.80, shared=shared), _candidate("b", 0.83, shared=shared)], "accuracy")
    leader, other = found.rows
    assert leader.name == "b"
    assert other.interval.high > leader.interval.low
    assert other.behind_interval.high < 0
    assert not other.as_good
    assert (leader.behind, leader.p_value) == (0.0, None)


def test_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    shared = rng.random(N)
    steady = b.board([_candidate("x", 0.8, 4, shared=shared, rng_seed=1)], "accuracy").rows[0]
    wobbly = b.board([_candidate("x", 0.8, 4, shared=shared, rng_seed=1, wobble=0.03)], "accuracy").rows[0]
    assert steady.seed_deviation == 0
    assert wobbly.seed_deviation == pytest.approx(0.03, abs=0.02)
    width = [row.interval.high - row.interval.low for row in (steady, wobbly)]
    assert width[1] > 1.5 * width[0]


def test_the_interval_covers_the_truth_over_rows_and_seeds() -> None:
    covered = 0
    for k in range(100):
        row = b.board([_candidate("x", 0.8, 3, rng_seed=k, wobble=0.02)], "accuracy", seed=k).rows[0]
        covered += row.interval.low <= 0.8 <= row.interval.high
    assert covered >= 92


def test_equal_candidates_are_rarely_called_worse() -> None:
    alarms = 0
    for k in range(80):
        found = b.board([_candidate(f"c{i}", 0.8, rng_seed=1000 * k + i) for i in range(2)], "accuracy", seed=k)
        alarms += any(not row.as_good for row in found.rows)
    assert alarms <= 8


def test_losses_point_the_other_way() -> None:
    losses = np.random.default_rng(0).exponential(size=N)
    made = [
        b.Candidate(name, (b.Trial(0, float((losses * k).mean()), b.resampled_mean(losses * k, 0), {}),))
        for name, k in (("worse", 1.2), ("better", 1.0))
    ]
    found = b.board(made, "loss", higher_is_better=False)
    assert [row.name for row in found.rows] == ["better", "worse"]
    assert found.rows[1].behind < 0
    assert found.rows[1].behind_interval.high < 0


def test_any_metric_sees_the_same_resamples() -> None:
    values = np.random.default_rng(0).random(50)
    general = b.resampled_metric(lambda rows: float(values[rows].mean()), 50, seed=3, samples=200)
    assert general == pytest.approx(b.resampled_mean(values, 3, 200))
    assert percentiles(general).low < values.mean() < percentiles(general).high


@pytest.mark.parametrize(
    ("given", "expected"),
    [([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.5, 0.9], [1.0, 1.0]), ([], []), ([0.02], [0.02])],
)
def test_holm_by_hand(given: list[float], expected: list[float]) -> None:
    assert b.holm(given) == pytest.approx(expected)


def test_pareto_by_hand() -> None:
    quality, cost = np.array([0.9, 0.8, 0.85, 0.9, 0.7]), np.array([10.0, 1.0, 12.0, 9.0, 1.0])
    assert b.pareto(quality, cost).tolist() == [False, True, False, True, False]


def test_the_front_of_a_board_is_cheapest_first() -> None:
    made = [_candidate("slow", 0.9, train_seconds=100), _candidate("fast", 0.8, train_seconds=5),
            _candidate("bad", 0.7, train_seconds=50), _candidate("unpriced", 0.95)]  # fmt: skip
    found = b.board(made, "accuracy")
    assert [row.name for row in found.front("train_seconds")] == ["fast", "slow"]
    json.dumps(found.to_json(), allow_nan=False)


def test_recommendations() -> None:
    shared = np.random.default_rng(5).random(N)
    lora = _candidate("lora", 0.85, shared=shared, train_seconds=400)
    cheap = _candidate("head", 0.848, shared=shared, train_seconds=40)
    poor = _candidate("tiny", 0.6, shared=shared, train_seconds=4)
    words = b.recommend(b.board([lora, cheap, poor], "accuracy"))
    assert words.startswith("lora is best: accuracy 0.8")
    assert "head can't be told from it" in words and "10.0 times as fast" in words and "take head" in words
    assert b.recommend(b.board([lora, poor], "accuracy")).endswith("measurably better than every other one")
    counting = _candidate("TF-IDF", 0.845, shared=shared, baseline=True, train_seconds=1)
    assert "the baseline TF-IDF can't be told" in b.recommend(b.board([lora, poor, counting], "accuracy"))
    assert "brought nothing" in b.recommend(
        b.board([poor, _candidate("TF-IDF", 0.9, baseline=True, shared=shared)], "accuracy")
    )
    assert "costs no less" in b.recommend(
        b.board([cheap, _candidate("x", 0.847, shared=shared, train_seconds=90)], "accuracy")
    )
    assert math.isfinite(b.board([lora], "accuracy").leader.value)
