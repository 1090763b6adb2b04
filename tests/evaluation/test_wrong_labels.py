"""Confident learning as cleanlab does it, from the same probabilities, and planted mistakes are found."""

from __future__ import annotations

import numpy as np
import pytest

from tunewright.evaluation import wrong_labels as w


def _noisy(n: int, classes: int, flips: float, seed: int, skill: float = 2.5) -> tuple[np.ndarray, ...]:
    """Probabilities of a fair model, labels with flips, and which were flipped."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), true] += skill
    chances = np.exp(logits * 1.5)
    wrong = rng.random(n) < flips
    labels = np.where(wrong, (true + rng.integers(1, classes, n)) % classes, true)
    return chances / chances.sum(axis=1, keepdims=True), labels, wrong


# Rows of six, as cleanlab 2.9.0 answers: compute_confident_joint(labels, chances, calibrate=False) and
# get_label_quality_scores(labels, chances, method=...).
SIX = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6], [0.85, 0.15]])
SIX_LABELS = np.array([0, 0, 0, 1, 1, 1])


def test_joint_by_hand() -> None:
    """Means of the own class: 0.667 and 0.517. Row 2 counts as 1, row 5 as 0, all others as their own."""
    assert w.confident_joint(SIX, SIX_LABELS).tolist() == [[2, 1], [1, 2]]
    doubts = w.find_doubts(SIX, SIX_LABELS, "single")
    assert doubts.rows.tolist() == [5, 2]
    assert doubts.likely.tolist() == [0, 1]
    assert doubts.chance_given.tolist() == [0.15, 0.3]
    assert doubts.estimated_wrong == 2
    assert w.scores(SIX, SIX_LABELS, "own").tolist() == [0.9, 0.8, 0.3, 0.8, 0.6, 0.15]
    assert w.scores(SIX, SIX_LABELS) == pytest.approx([0.9, 0.8, 0.3, 0.8, 0.6, 0.15])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_cleanlab(seed: int) -> None:
    count = pytest.importorskip("cleanlab.count", reason="cleanlab is not installed")
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    classes = 2 + seed % 4
    chances, labels, _ = _noisy(400, classes, 0.08, seed)
    raw = count.compute_confident_joint(labels, chances, calibrate=False)
    ours = w.confident_joint(chances, labels)
    theirs = raw * (np.bincount(labels, minlength=classes) / raw.sum(axis=1))[:, None]
    assert ours == pytest.approx(theirs, abs=1e-6)
    ranks: dict[str, w.Rank] = {"normalized_margin": "margin", "self_confidence": "own"}
    for name, rank in ranks.items():
        assert w.scores(chances, labels, rank) == pytest.approx(get_label_quality_scores(labels, chances, method=name))
    issues = find_label_issues(labels, chances, filter_by="prune_by_noise_rate", n_jobs=1,
                               return_indices_ranked_by="normalized_margin")  # fmt: skip
    doubts = w.find_doubts(chances, labels, "single").rows
    # cleanlab rounds the joint to whole rows that sum to N; a cell may differ by one.
    assert len(np.setxor1d(doubts, issues)) <= classes
    common = np.intersect1d(doubts, issues)
    assert doubts[np.isin(doubts, common)].tolist() == issues[np.isin(issues, common)].tolist()


def test_planted_flips_come_first() -> None:
    chances, labels, wrong = _noisy(2000, 3, 0.05, 0, skill=3.5)
    doubts = w.find_doubts(chances, labels, "single")
    precision, recall = w.found_at(doubts.rows, wrong)
    assert precision[np.argmax(recall >= 0.5)] > 0.8
    assert w.ranking_area(w.scores(chances, labels), wrong) > 0.97
    assert 0.5 * wrong.sum() < doubts.estimated_wrong < 2 * wrong.sum()


def test_good_labels_of_a_sure_model_raise_no_doubt() -> None:
    labels = np.arange(90) % 3
    chances = np.full((90, 3), 0.02)
    chances[np.arange(90), labels] = 0.96
    doubts = w.find_doubts(chances, labels, "single")
    assert len(doubts) == 0
    assert doubts.estimated_wrong == 0


def test_a_class_without_rows() -> None:
    chances, labels, _ = _noisy(100, 2, 0.1, 0)
    wider = np.concatenate([chances * 0.9, np.full((100, 1), 0.1)], axis=1)
    assert w.confident_joint(wider, labels).sum() == pytest.approx(100)
    assert 2 not in w.find_doubts(wider, labels, "single").given


def test_several_labels_are_questions_of_their_own() -> None:
    rng = np.random.default_rng(0)
    hot = rng.random((300, 3)) < 0.4
    chances = np.where(hot, rng.uniform(0.7, 0.99, hot.shape), rng.uniform(0.01, 0.3, hot.shape))
    for row, label in ((7, 1), (9, 2)):
        chances[row, label] = 0.97 if hot[row, label] else 0.03
    given = hot.copy()
    given[7, 1], given[9, 2] = ~hot[7, 1], ~hot[9, 2]
    doubts = w.find_doubts(chances, given.astype(np.float32), "multi")
    found = set(zip(doubts.rows.tolist(), doubts.given.tolist(), strict=True))
    assert found == {(7, 1), (9, 2)}
    missing = dict(zip(doubts.rows.tolist(), doubts.missing.tolist(), strict=True))
    assert missing == {7: bool(hot[7, 1]), 9: bool(hot[9, 2])}
    assert doubts.joint.shape == (3, 2, 2)
    assert len(w.find_doubts(chances, hot.astype(np.float32), "multi")) == 0


def test_nearly_equal_texts_with_different_labels() -> None:
    long = "the plot of this film was slow and the actors tried their best to save it but they could not"
    texts = [long, long + " really", "a very different and much better story about trains in the winter", long.upper()]
    [rows] = w.conflicting_rows(texts, np.array([0, 1, 1, 0]))
    assert rows.tolist() == [0, 1, 3]
    assert w.conflicting_rows(texts, np.array([1, 1, 0, 1])) == []
