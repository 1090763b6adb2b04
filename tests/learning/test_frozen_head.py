"""The frozen head is scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tests import tiny
from tunewright.data.word_features import word_table
from tunewright.learning.frozen_head import RIDGES, choose_ridge, fit_head, fit_words


def _made(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return rng.normal(size=(n, 12)) * 3 + 5 + labels[:, None] * np.linspace(0, 1, 12), labels


@pytest.mark.parametrize(("classes", "ridge"), [(2, 1e-2), (3, 1e-2), (4, 1.0)])
def test_equals_scikit_learn(classes: int, ridge: float) -> None:
    features, labels = _made(200, classes)
    head = fit_head(features, labels, classes, "single", ridge)
    # Theirs sums losses and, of two classes, has one column of weights: half the difference of ours, twice the square.
    scale = StandardScaler().fit(features)
    strength = 1 / (200 * ridge) * (2 if classes == 2 else 1)
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=5000).fit(scale.transform(features), labels)
    chances = np.exp(head.logits(features))
    chances /= chances.sum(axis=1, keepdims=True)
    assert chances == pytest.approx(theirs.predict_proba(scale.transform(features)), abs=2e-4)


def test_several_labels_are_logistic_regressions_of_their_own() -> None:
    features, labels = _made(150, 3)
    hot = np.stack([labels == 1, labels > 0], axis=1).astype(np.float32)
    together = fit_head(features, hot, 2, "multi", 0.1).logits(features)
    # The mean over labels halves each one's loss, and so doubles the ridge.
    alone = fit_head(features, hot[:, :1], 1, "multi", 0.2).logits(features)
    assert together[:, :1] == pytest.approx(alone, abs=1e-4)


def test_a_constant_feature_and_a_class_without_rows_do_no_harm() -> None:
    features, labels = _made(60, 2)
    features[:, 3] = 7.0
    logits = fit_head(features, labels, 3, "single", 0.1).logits(features)
    assert np.isfinite(logits).all()
    assert (logits.argmax(axis=1) != 2).all()


def test_noise_asks_for_a_strong_ridge_and_signal_for_a_weak_one() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(120, 60))
    labels, folds = rng.integers(0, 2, 120), np.arange(120) % 5
    assert choose_ridge(noise, labels, 2, "single", folds) >= 1.0
    clear = noise.copy()
    clear[:, 0] += 4 * labels
    assert choose_ridge(clear, labels, 2, "single", folds) < max(RIDGES)


def test_on_words_it_is_scikit_learn_too() -> None:
    rows = tiny.sentences(150)
    texts, labels = [row["text"] for row in rows], np.array([row["label"] == "positive" for row in rows]).astype(int)
    table = word_table(texts)
    head = fit_words(table, labels, 2, "single")
    dense = coo_array((table.values, (table.rows, table.columns)), shape=(150, table.num_columns)).toarray()
    theirs = LogisticRegression(C=2 / 0.1, tol=1e-10, max_iter=5000).fit(dense, labels)
    logits = head.logits(table)
    assert 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])) == pytest.approx(theirs.predict_proba(dense)[:, 1], abs=1e-4)
