"""A metric of resampled rows is the metric of those rows, whichever way it is computed."""

from __future__ import annotations

import numpy as np
import pytest

from tunewright.defaults import METRICS
from tunewright.errors import UsageError
from tunewright.evaluation import resampling as r
from tunewright.evaluation.leaderboard import resampled_mean, resampled_metric
from tunewright.evaluation.metrics import metrics
from tunewright.evaluation.texts import score_likelihoods, score_texts

N = 120


def _rows(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if kind == "single":
        labels = rng.integers(0, 3, N)
        return rng.normal(size=(N, 3)) + 1.5 * np.eye(3)[labels], labels
    if kind == "multi":
        labels = (rng.random((N, 4)) < 0.4).astype(np.float32)
        return rng.normal(size=(N, 4)) + 2 * labels - 1, labels
    labels = rng.normal(size=N).astype(np.float32)
    return (labels + rng.normal(size=N) * 0.5)[:, None], labels


@pytest.mark.parametrize(("kind", "metric"), [(k, one) for k in ("single", "multi", "number") for one in METRICS[k]])
def test_every_metric_equals_that_of_the_drawn_rows(kind, metric):
    logits, labels = _rows(kind)
    found = r.of_logits(logits, labels, kind, metric)
    assert r.value(found) == pytest.approx(metrics(logits, labels, kind)[metric], abs=1e-12)
    expected = resampled_metric(lambda rows: metrics(logits[rows], labels[rows], kind).get(metric, np.nan), N, 7, 50)
    assert r.resampled(found, 50, 7) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_resamples_are_those_of_the_board():
    right = np.random.default_rng(1).random(N) < 0.7
    logits = np.where(right, 1.0, -1.0)[:, None] * np.array([[-1.0, 1.0]])
    found = r.of_logits(logits, np.ones(N, int), "single", "accuracy")
    assert r.resampled(found, 300, 3) == pytest.approx(resampled_mean(right.astype(float), 3, 300))


@pytest.mark.parametrize("metric", ["exact_match", "f1", "rouge_l", "bleu", "chrf", "stopped"])
def test_written_metrics(metric):
    answers = ["a good film", "the plot was dull", "good", "", "a story of love and war"] * 4
    references = [("a good film",), ("the plot was weak", "dull plot"), ("bad",), ("x",), ("a tale of war",)] * 4
    found = score_texts(answers, references, [True, False, True, True, True] * 4)
    measured = r.of_texts(found, metric)
    assert r.value(measured) == pytest.approx(found.metrics[metric])
    rows = np.random.default_rng(5).integers(0, 20, 20)
    drawn = score_texts([answers[i] for i in rows], [references[i] for i in rows],
                        [bool(i % 5 != 1) for i in rows])  # fmt: skip
    assert r.resampled(measured, 1, 5)[0] == pytest.approx(drawn.metrics[metric])


def test_likelihoods_are_weighted_by_tokens():
    nats, tokens, hits = np.array([1.0, 8.0]), np.array([1, 4]), np.array([1, 0])
    found = score_likelihoods(nats, tokens, hits)
    assert r.value(r.of_texts(found, "loss")) == pytest.approx(9 / 5)
    assert r.value(r.of_texts(found, "perplexity")) == pytest.approx(np.exp(9 / 5))
    assert r.value(r.of_texts(found, "token_accuracy")) == pytest.approx(1 / 5)


def test_a_metric_that_is_not_there():
    logits, labels = _rows("single")
    with pytest.raises(UsageError, match="rmse is no metric of single labels"):
        r.of_logits(logits, labels, "single", "rmse")
    with pytest.raises(UsageError, match="bleu was not measured"):
        r.of_texts(score_likelihoods(np.ones(2), np.ones(2)), "bleu")
