"""The best of many equals looks better than it is; by how much is found without new rows."""

from __future__ import annotations

import numpy as np
import pytest

from tunewright.evaluation.resampling import of_logits, value
from tunewright.evaluation.winner import expected_of_winner

N = 200


def _answers(rate: float, rng: np.random.Generator) -> list:
    """One seed's answers to N rows, right at this rate."""
    right = rng.random(N) < rate
    return [of_logits(np.where(right, 1.0, -1.0)[:, None] * [[-1.0, 1.0]], np.ones(N, int), "single", "accuracy")]


def test_many_equal_candidates_flatter_the_winner():
    """Twenty coins of 0.7: the luckiest shows about 0.76, and new rows would give 0.7."""
    shown, expected = [], []
    for k in range(15):
        rng = np.random.default_rng(k)
        candidates = [_answers(0.7, rng) for _ in range(20)]
        found = expected_of_winner(candidates, higher_is_better=True, seed=k, samples=200)
        shown.append(max(value(one[0]) for one in candidates))
        expected.append(found.value)
        assert found.optimism == pytest.approx(shown[-1] - found.value)
    assert np.mean(shown) > 0.745
    assert np.mean(expected) == pytest.approx(0.7, abs=0.02)


def test_a_clear_winner_is_not_talked_down():
    rng = np.random.default_rng(0)
    candidates = [_answers(0.9, rng), _answers(0.6, rng), _answers(0.5, rng)]
    found = expected_of_winner(candidates, higher_is_better=True)
    assert found.value == pytest.approx(value(candidates[0][0]), abs=0.01)


def test_losses_point_the_other_way():
    rng = np.random.default_rng(0)
    candidates = [[of_logits(rng.normal(size=(N, 2)), rng.integers(0, 2, N), "single", "loss")] for _ in range(10)]
    found = expected_of_winner(candidates, higher_is_better=False)
    assert found.optimism > 0
    assert found.value > min(value(one[0]) for one in candidates)


def test_one_candidate_was_not_chosen():
    assert expected_of_winner([_answers(0.7, np.random.default_rng(0))], higher_is_better=True) is None
