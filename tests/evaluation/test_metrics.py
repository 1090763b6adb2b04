"""Metrics agree with scikit-learn and scipy, on random rows and on the degenerate ones."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics as sk
from sklearn.calibration import calibration_curve

from tunewright.evaluation import metrics as m
from tunewright.evaluation import scores


def _rows(seed: int, n: int, classes: int, *, sharp: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return rng.normal(size=(n, classes)) + sharp * np.eye(classes)[labels], labels


def _oracle_single(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    chances, answer = scipy.special.softmax(logits, axis=1), logits.argmax(axis=1)
    classes = list(range(logits.shape[1]))
    two = logits.shape[1] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": sk.accuracy_score(labels, answer),
            "macro_f1": sk.f1_score(labels, answer, average="macro", zero_division=0),
            "weighted_f1": sk.f1_score(labels, answer, average="weighted", zero_division=0),
            "mcc": sk.matthews_corrcoef(labels, answer),
            "roc_auc": sk.roc_auc_score(labels, chances[:, 1] if two else chances, multi_class="ovr", average="macro"),
            "loss": sk.log_loss(labels, chances, labels=classes),
        }


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("n", [40, 333])
def test_single_label_metrics_equal_scikit_learn(classes: int, n: int) -> None:
    logits, labels = _rows(classes * n, n, classes)
    found = m.metrics(logits, labels, "single")
    expected = _oracle_single(logits, labels)
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-9)
    assert set(found) == {*expected, "ece"}
    assert set(found) <= set(m.HIGHER_IS_BETTER)


def test_roc_auc_shares_ties() -> None:
    rng = np.random.default_rng(5)
    given, positive = rng.integers(0, 4, 200).astype(float), rng.random(200) < 0.3
    assert scores.roc_auc(given, positive) == pytest.approx(sk.roc_auc_score(positive, given), abs=1e-12)
    assert scores.roc_auc(np.ones(200), positive) == 0.5


def test_roc_auc_sees_past_saturated_probabilities() -> None:
    logits = np.array([[0.0, 60.0], [0.0, 50.0], [0.0, 55.0], [0.0, 40.0]])
    assert m.metrics(logits, np.array([1, 0, 1, 0]), "single")["roc_auc"] == 1.0


def test_one_class_only_leaves_roc_auc_out_and_keeps_the_rest() -> None:
    logits, _ = _rows(3, 30, 2)
    found = m.metrics(logits, np.zeros(30, int), "single")
    assert "roc_auc" not in found
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == 0).mean())
    assert all(np.isfinite(v) for v in found.values())


def test_absent_class_is_not_counted_in_macro_f1() -> None:
    labels = np.array([0, 1, 0, 1])
    logits = 9 * np.eye(3)[[0, 1, 0, 0]]
    assert m.metrics(logits, labels, "single")["macro_f1"] == pytest.approx(
        sk.f1_score(labels, logits.argmax(1), average="macro")
    )


def test_constant_predictions_have_no_correlation_with_truth() -> None:
    found = m.metrics(np.tile([3.0, 0.0, 0.0], (9, 1)), np.arange(9) % 3, "single")
    assert found["mcc"] == 0.0
    assert found["accuracy"] == pytest.approx(1 / 3)
    numbers = m.metrics(np.ones((9, 1)), np.arange(9.0), "number")
    assert set(numbers) == {"loss", "rmse", "mae"}


def test_huge_logits_give_a_finite_loss() -> None:
    found = m.metrics(np.array([[1e4, -1e4], [-1e4, 1e4]]), np.array([0, 0]), "single")
    assert found["loss"] == pytest.approx(1e4)


@pytest.mark.parametrize("density", [0.05, 0.4])
def test_multi_label_metrics_equal_scikit_learn(density: float) -> None:
    rng = np.random.default_rng(8)
    labels = (rng.random((150, 5)) < density).astype(np.float32)
    logits = rng.normal(size=(150, 5)) + 2 * labels - 1
    labels[:, 4] = 0  # a label that no row has
    answer = (logits > 0).astype(int)
    found = m.metrics(logits, labels, "multi")
    assert found["micro_f1"] == pytest.approx(sk.f1_score(labels, answer, average="micro"))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, answer, average="macro", zero_division=0))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, answer))
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(labels[:, :4], logits[:, :4], average="macro"))
    chances = m.probabilities(logits, "multi")
    assert found["loss"] == pytest.approx(
        np.mean([sk.log_loss(labels[:, k], chances[:, k], labels=[0, 1]) for k in range(5)])
    )


def test_number_metrics_equal_scipy() -> None:
    rng = np.random.default_rng(9)
    truth = rng.integers(0, 6, 120).astype(float)  # ties
    values = np.round(truth + rng.normal(size=120), 1)
    found = m.metrics(values[:, None], truth, "number")
    assert found == pytest.approx(
        {
            "loss": sk.mean_squared_error(truth, values),
            "rmse": sk.root_mean_squared_error(truth, values),
            "mae": sk.mean_absolute_error(truth, values),
            "pearson": scipy.stats.pearsonr(values, truth).statistic,
            "spearman": scipy.stats.spearmanr(values, truth).statistic,
        }
    )


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_per_class_equals_scikit_learn(kind: m.Kind) -> None:
    logits, labels = _rows(12, 80, 4)
    if kind == "multi":
        labels = (logits + np.random.default_rng(0).normal(size=logits.shape) > 0).astype(int)
    rows = m.per_class(logits, labels, ("a", "b", "c", "d"), kind)
    expected = sk.precision_recall_fscore_support(labels, m.predictions(logits, kind), zero_division=0)
    found = np.array([[r.precision, r.recall, r.f1, r.support] for r in rows]).T
    np.testing.assert_allclose(found, np.array(expected), atol=1e-12)
    assert [r.name for r in rows] == ["a", "b", "c", "d"]


def test_confusion_has_the_true_class_down() -> None:
    logits, labels = _rows(13, 60, 3, sharp=0.5)
    np.testing.assert_array_equal(
        m.confusion(logits, labels, "single"), sk.confusion_matrix(labels, logits.argmax(1), labels=[0, 1, 2])
    )
    assert m.confusion(logits, labels, "multi") is None


def test_reliability_of_labels_equals_scikit_learn() -> None:
    rng = np.random.default_rng(14)
    logits = rng.normal(size=(400, 1)) * 2
    labels = (rng.random((400, 1)) < m.probabilities(logits, "multi")).astype(int)
    rows = m.reliability(logits, labels, "multi")
    share, mean = calibration_curve(labels[:, 0], m.probabilities(logits, "multi")[:, 0], n_bins=10)
    np.testing.assert_allclose([r.accuracy for r in rows], share)
    np.testing.assert_allclose([r.confidence for r in rows], mean)
    assert sum(r.count for r in rows) == 400


def test_calibration_error_of_known_rows() -> None:
    # Too sure by 0.2 in one bin, too modest by 0.2 in another: they don't cancel.
    sure = np.log([[0.8, 0.2]]).repeat(10, axis=0)
    modest = np.log([[0.6, 0.4]]).repeat(10, axis=0)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 8 + [1] * 2)
    assert m.expected_calibration_error(np.concatenate([sure, modest]), labels) == pytest.approx(0.2, abs=1e-9)


def test_row_losses_average_to_the_loss() -> None:
    logits, labels = _rows(15, 50, 3)
    assert m.row_losses(logits, labels, "single").mean() == pytest.approx(m.metrics(logits, labels, "single")["loss"])


def test_majority_baseline_never_reads() -> None:
    train, validation = np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1, 1])
    found = m.majority_baseline(train, validation, "single")
    assert found["accuracy"] == pytest.approx(0.6)
    assert found["mcc"] == 0.0
    assert found["roc_auc"] == 0.5
    assert found["loss"] == pytest.approx(-(2 * np.log(1 / 3) + 3 * np.log(2 / 3)) / 5)
    unseen = m.majority_baseline(train, np.array([2, 2]), "single")
    assert unseen["accuracy"] == 0.0
    assert np.isfinite(unseen["loss"])


def test_majority_baseline_of_other_kinds() -> None:
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 0]])
    assert m.majority_baseline(labels, labels, "multi")["accuracy"] == 0.75
    numbers = m.majority_baseline(np.array([1.0, 3.0]), np.array([2.0, 4.0]), "number")
    assert numbers == {"loss": 2.0, "rmse": pytest.approx(2**0.5), "mae": 1.0}


@pytest.mark.parametrize("kind", ["single", "multi", "number"])
def test_no_rows_have_no_metrics(kind: m.Kind) -> None:
    assert m.metrics(np.zeros((0, 2)), np.zeros((0,)), kind) == {}


def test_defaults_are_metrics() -> None:
    assert [m.default_metric(k) for k in ("single", "multi", "number")] == ["accuracy", "micro_f1", "rmse"]
