"""Baselines are what scikit-learn and the metrics' own majority say they are."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests import tiny
from tunewright.evaluation.metrics import majority_baseline, metrics
from tunewright.planning import baselines as b


@pytest.mark.parametrize("kind", ["single", "multi", "number"])
def test_majority_is_the_metrics_own(kind):
    rng = np.random.default_rng(0)
    labels = {"single": rng.integers(0, 3, 90), "multi": (rng.random((90, 3)) < 0.4).astype(np.float32),
              "number": rng.normal(size=90).astype(np.float32)}[kind]  # fmt: skip
    found = b.majority(labels[:60], kind, 3, 30)
    assert metrics(found.logits, labels[60:], kind) == majority_baseline(labels[:60], labels[60:], kind, 3)


def _reviews(n: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    rows = tiny.sentences(n)
    texts = [row["text"] for row in rows]
    groups = np.unique(texts, return_inverse=True)[1]
    return texts, np.array([row["label"] == "positive" for row in rows], int), groups


def test_it_learns_words_and_says_what_it_costs():
    texts, labels, groups = _reviews(200)
    found = b.tfidf(texts[:150], labels[:150], groups[:150], "single", texts[150:], 0, 2)
    assert metrics(found.logits, labels[150:], "single")["accuracy"] > 0.95
    assert found.costs["saved_bytes"] > 1000 and found.costs["rows_per_second"] > 0
    assert "chosen on the training rows" in found.said
    again = b.tfidf(texts[:150], labels[:150], groups[:150], "single", texts[150:], 0, 2)
    assert np.array_equal(found.logits, again.logits)


def test_logits_are_scikit_learns():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, _, _ = _reviews(60)
    labels = np.array([len(text) % 3 for text in texts])
    ours = b._Linear.fitted(texts, labels, "single", 1.0, 3)
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b|[^\w\s]")
    fitted = LogisticRegression(C=1.0, max_iter=2000).fit(vectors.fit_transform(texts), labels)
    assert ours.logits(texts) == pytest.approx(fitted.decision_function(vectors.transform(texts)), abs=1e-9)


def test_noise_is_held_back():
    """Labels that the words don't decide: the chosen strength is none that would learn them by heart."""
    texts, _, groups = _reviews(200)
    labels = np.array([random.Random(i).randint(0, 1) for i in range(200)])
    assert b._strength(texts, labels, groups, "single", 0, 2) <= 0.1


def test_classes_that_training_never_saw():
    texts, labels, groups = _reviews(40)
    found = b.tfidf(texts, labels, groups, "single", texts, 0, 3)
    assert found.logits.shape == (40, 3)
    assert (found.logits[:, 2] < found.logits[:, :2].min(axis=1)).all()
    alone = b.tfidf(texts, np.zeros(40, int), groups, "single", texts[:5], 0, 2)
    assert (alone.logits.argmax(axis=1) == 0).all()


def test_several_labels_and_numbers():
    texts, labels, groups = _reviews(200)
    hot = np.stack([labels, 1 - labels, np.zeros(200)], axis=1)
    several = b.tfidf(texts[:150], hot[:150], groups[:150], "multi", texts[150:], 0, 3)
    assert metrics(several.logits, hot[150:], "multi")["accuracy"] > 0.9
    numbers = labels + np.linspace(0, 0.1, 200)
    one = b.tfidf(texts[:150], numbers[:150], groups[:150], "number", texts[150:], 0, 1)
    assert metrics(one.logits, numbers[150:], "number")["pearson"] > 0.9
