"""Temperatures are those of least log loss, help on rows that didn't fit them, and stay 1 where nothing is to gain."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from tunewright.evaluation import calibration as c
from tunewright.evaluation import metrics as m


def _honest(n: int, classes: int = 3, seed: int = 0, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose probabilities are exactly true, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * spread
    chances = np.exp(log_softmax(logits, axis=1))
    return logits, (rng.random((n, 1)) > np.cumsum(chances, axis=1)).sum(axis=1).clip(0, classes - 1)


@pytest.mark.parametrize("sure", [0.4, 1.0, 3.0, 10.0])
def test_temperature_is_the_minimum_of_the_log_loss(sure: float) -> None:
    logits, labels = _honest(800)
    logits = logits * sure

    def loss(t: float) -> float:
        return float(-log_softmax(logits / t, axis=1)[np.arange(800), labels].mean())

    best: Any = minimize_scalar(loss, bounds=(0.05, 30), method="bounded", options={"xatol": 1e-10})
    found = c.fit_temperature(logits, labels, "single")
    assert found == pytest.approx(best.x, rel=1e-5)
    assert found == pytest.approx(sure, rel=0.12)


def test_temperature_of_several_labels() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(1500, 4)) * 1.5
    labels = (rng.random((1500, 4)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    assert c.fit_temperature(logits * 4, labels, "multi") == pytest.approx(4, rel=0.1)


def test_overconfidence_is_halved_on_rows_that_did_not_fit_it() -> None:
    logits, labels = _honest(2000, seed=2)
    found = c.calibrate(logits * 4, labels, "single")
    assert found.ece_before > 0.08
    assert found.ece_after < found.ece_before / 2
    assert found.ece_after <= 1.5 * found.honest_ece.high
    assert found.loss_after < found.loss_before
    assert found.loss_change.high < 0
    assert "too sure of itself" in found.said
    json.dumps(found.to_json(), allow_nan=False)


def test_answers_do_not_change() -> None:
    logits, labels = _honest(300)
    t = c.fit_temperature(logits * 5, labels, "single")
    assert t is not None
    assert (m.predictions(c.scaled(logits, t), "single") == m.predictions(logits, "single")).all()
    assert (m.predictions(c.scaled(logits, t), "multi") == m.predictions(logits, "multi")).all()
    assert c.scaled(logits, 1.0) is logits


def test_the_measured_gain_is_of_held_out_rows() -> None:
    """On the rows that fit it, a temperature always gains; on others from pure noise it doesn't."""
    kept = [c.calibrate(*_honest(60, seed=seed), "single").temperature for seed in range(40)]
    assert 0.3 < np.mean([t == 1.0 for t in kept]) < 1.0  # honest already: mostly left alone
    logits, labels = _honest(60, seed=3)
    fitted = c.fit_temperature(logits, labels, "single")
    assert fitted is not None
    on_itself = m.row_losses(logits / fitted, labels, "single").mean()
    assert on_itself <= m.row_losses(logits, labels, "single").mean()


@pytest.mark.parametrize(
    ("logits", "labels", "kind", "words"),
    [
        (np.eye(2)[np.arange(40) % 2] * 3, np.arange(40) % 2, "single", "every answer is right"),
        (np.eye(2)[np.arange(40) % 2] * 3, 1 - np.arange(40) % 2, "single", "no better than chance"),
        (np.eye(2)[np.arange(6) % 2], np.arange(6) % 2, "single", "too few"),
        (np.zeros((40, 1)), np.zeros(40), "number", "no probabilities"),
    ],
)
def test_where_nothing_can_be_fitted_it_stays_as_it_is(
    logits: np.ndarray, labels: np.ndarray, kind: m.Kind, words: str
) -> None:
    found = c.calibrate(logits, labels, kind)
    assert found.temperature == 1.0
    assert words in found.said


def test_calibration_error_is_that_of_the_metrics() -> None:
    logits, labels = _honest(500)
    assert c.calibration_error(logits, labels, "single") == pytest.approx(m.expected_calibration_error(logits, labels))


def test_an_honest_model_lies_in_the_honest_interval() -> None:
    inside = 0
    for seed in range(60):
        logits, labels = _honest(300, seed=seed)
        interval = c.honest_error(logits, "single", seed)
        inside += interval.low <= c.calibration_error(logits, labels, "single") <= interval.high
    assert inside >= 52
    assert not math.isclose(c.honest_error(_honest(300)[0], "single").low, 0, abs_tol=1e-3)


def test_equal_texts_stay_in_one_fold() -> None:
    """A wrong row copied forty times would otherwise be learnt in one fold and praised in the next."""
    logits, labels = _honest(100)
    copies = np.concatenate([np.arange(100), np.full(40, 7)])
    found = c.calibrate(logits[copies], labels[copies], "single", groups=copies)
    assert found.num_rows == 140
