"""Stacked logits have the least log loss; what knows nothing weighs nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from tunewright.evaluation.metrics import Kind, row_losses
from tunewright.evaluation.stacking import stacked


def _made(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and two models that each see some of the truth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    one, other = (rng.normal(size=(n, 3)) for _ in range(2))
    one[np.arange(n), labels] += 1.5
    other[np.arange(n), labels] += 0.8
    return one, other * 5, labels


def test_weights_are_those_that_scipy_finds() -> None:
    one, other, labels = _made(500)

    def loss(weights: np.ndarray) -> float:
        return float(-log_softmax(weights[0] * one + weights[1] * other, axis=1)[np.arange(500), labels].mean())

    expected = minimize(loss, [0.5, 0.5], bounds=[(0, None)] * 2, options={"ftol": 1e-15, "gtol": 1e-10}).x
    together, weights = stacked([one, other], labels, "single")
    assert weights == pytest.approx(expected, abs=1e-4)
    alone = min(row_losses(stacked([x], labels, "single")[0], labels, "single").mean() for x in (one, other))
    assert row_losses(together, labels, "single").mean() < alone


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_model_against_the_truth_weighs_nothing(kind: Kind) -> None:
    one, _, labels = _made(300)
    truth = labels if kind == "single" else np.eye(3)[labels]
    against = np.random.default_rng(1).normal(size=one.shape)
    against[np.arange(300), labels] -= 0.5
    _, weights = stacked([one, against], truth, kind)
    assert weights[1] == 0.0
    assert weights[0] > 0.1
