"""A judgement holds what it should for each kind of label, and overfitting is put into words."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from tunewright.evaluation import metrics as m
from tunewright.evaluation import statistics as s
from tunewright.evaluation.evaluate import compare_rows, judge, overfitting_words


@dataclass(frozen=True)
class Spec:
    kind: m.Kind
    names: tuple[str, ...] = ()


def _rows(kind: m.Kind, n: int = 200) -> tuple[np.ndarray, np.ndarray, Spec]:
    rng = np.random.default_rng(1)
    if kind == "number":
        labels = rng.normal(size=n)
        return (labels + 0.3 * rng.normal(size=n))[:, None], labels, Spec("number")
    truth = rng.integers(0, 3, n)
    labels = truth if kind == "single" else (np.eye(3)[truth] + (rng.random((n, 3)) < 0.2) > 0).astype(np.float32)
    hot = np.eye(3)[truth] if kind == "single" else labels
    return rng.normal(size=(n, 3)) + 2 * hot - 1, labels, Spec(kind, ("a", "b", "c"))


@pytest.mark.parametrize("kind", ["single", "multi", "number"])
def test_every_metric_but_calibration_has_an_interval_around_it(kind: m.Kind) -> None:
    logits, labels, spec = _rows(kind)
    found = judge(logits, labels, spec, bootstrap_samples=400, seed=3)
    assert set(found.metrics) - set(found.intervals) <= {"ece"}
    for name, interval in found.intervals.items():
        assert interval.low < found.metrics[name] < interval.high, name


@pytest.mark.parametrize("kind", ["single", "multi", "number"])
def test_intervals_match_the_general_bootstrap(kind: m.Kind) -> None:
    logits, labels, spec = _rows(kind, n=80)
    found = judge(logits, labels, spec, bootstrap_samples=2000, seed=3)
    for name, interval in found.intervals.items():

        def value(rows: np.ndarray, name: str = name) -> float:
            return m.metrics(logits[rows], labels[rows], kind)[name]

        slow = s.bootstrap(value, 80, 400, seed=4)
        width = slow.high - slow.low
        assert (interval.low, interval.high) == pytest.approx((slow.low, slow.high), abs=0.2 * width), name


def test_judgement_is_plain_json() -> None:
    logits, labels, spec = _rows("single")
    stored = json.loads(json.dumps(judge(logits, labels, spec, bootstrap_samples=100).to_json(), allow_nan=False))
    assert stored["labels"] == ["a", "b", "c"]
    assert np.array(stored["confusion"]).sum() == stored["num_rows"] == 200
    assert stored["per_class"][0].keys() == {"name", "precision", "recall", "f1", "support"}
    assert stored["intervals"]["accuracy"][0] < stored["metrics"]["accuracy"]
    assert sum(b["count"] for b in stored["reliability"]) == 200


def test_one_row_and_one_class_are_judged_without_a_fuss() -> None:
    found = judge(np.array([[2.0, 0.0]]), np.array([0]), Spec("single", ("no", "yes")), bootstrap_samples=100)
    assert found.metrics["accuracy"] == 1.0
    assert found.intervals["accuracy"].low == pytest.approx(0.025)
    assert "roc_auc" not in found.metrics
    json.dumps(found.to_json(), allow_nan=False)


def test_compare_rows_counts_fixed_and_broken() -> None:
    labels = np.array([0, 0, 1, 1])
    before, after = np.eye(2)[[0, 1, 1, 0]], np.eye(2)[[0, 0, 0, 1]]
    paired = compare_rows(before, after, labels, "single")
    assert (paired.fixed, paired.broke, paired.p_value) == (2, 1, 1.0)
    numbers = compare_rows(np.zeros((40, 1)), np.full((40, 1), 0.9), np.ones(40), "number")
    assert (numbers.fixed, numbers.broke) == (40, 0)
    assert numbers.difference == pytest.approx(0.01 - 1.0)


def _epochs(*losses: tuple[float, float], accuracy: tuple[float, ...] = ()) -> list[dict[str, float]]:
    rows = [{"step": 10 * e, "epoch": e, "train/loss": t, "validation/loss": v} for e, (t, v) in enumerate(losses, 1)]
    return [row | {"validation/accuracy": a} for row, a in zip(rows, accuracy, strict=True)] if accuracy else rows


def test_overfitting_is_said_with_its_numbers() -> None:
    words = overfitting_words(_epochs((0.412, 0.331), (0.224, 0.402), accuracy=(0.873, 0.865)))
    assert words is not None
    assert words.startswith(
        "Validation loss rose after epoch 1 (0.331 → 0.402) while train loss fell (0.412 → 0.224): it is learning"
    )


def test_overconfidence_is_told_from_worse_answers() -> None:
    words = overfitting_words(_epochs((0.4, 0.33), (0.2, 0.40), accuracy=(0.87, 0.88)))
    assert words is not None
    assert "answers no worse (accuracy 0.870 → 0.880)" in words


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [(0.4, 0.3)],
        [(0.4, 0.3), (0.3, 0.25)],  # still learning
        [(0.4, 0.3), (0.3, 0.303)],  # noise
        [(0.3, 0.3), (0.4, 0.4)],  # train rose too: diverging, not overfitting
    ],
)
def test_no_overfitting_is_not_said(losses: list[tuple[float, float]]) -> None:
    assert overfitting_words(_epochs(*losses)) is None


def test_overfitting_skips_the_untrained_row_and_rows_without_losses() -> None:
    untrained = {"step": 0, "epoch": 0.0, "train/loss": 9.0, "validation/loss": 0.1}
    assert overfitting_words([untrained, *_epochs((0.4, 0.3), (0.3, 0.2)), {"step": 30, "train/loss": 0.1}]) is None
    assert overfitting_words([*_epochs((0.4, float("nan")), (0.3, 0.2))]) is None
