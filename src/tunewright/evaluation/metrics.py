"""Metrics: logits and labels in, named numbers out. Pure numpy; scikit-learn and scipy are the oracles of the tests.

Stands between `models.inference` (logits) and `evaluate` (a judgement with intervals). Says nothing about uncertainty,
reads no file and knows no label's name, except to pass it on.

Shapes: N rows, C outputs. `kind` is one of
    single   logits [N, C], labels int [N]              softmax, the largest wins
    multi    logits [N, C], labels 0/1 [N, C]           sigmoid each, above 0.5 wins
    number   logits [N] or [N, 1], labels float [N]     the value itself
A metric that is undefined on these rows (ROC-AUC of one class, correlation of a constant) is left out, never NaN.
Losses are nats per row (single), nats per row and label (multi), squared units (number).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tunewright.evaluation.scores import (
    Counts,
    f1_scores,
    macro_f1,
    mcc,
    micro_f1,
    mid_ranks,
    pearson,
    ratio,
    roc_auc,
    weighted_f1,
)

Kind = Literal["single", "multi", "number"]

CALIBRATION_BINS = 15
HIGHER_IS_BETTER: dict[str, bool] = {
    "accuracy": True,
    "macro_f1": True,
    "weighted_f1": True,
    "micro_f1": True,
    "mcc": True,
    "roc_auc": True,
    "pearson": True,
    "spearman": True,
    "loss": False,
    "ece": False,
    "rmse": False,
    "mae": False,
}


@dataclass(frozen=True)
class ClassScores:
    """How one class fares."""

    name: str
    precision: float  # of those called this, how many are
    recall: float  # of those that are, how many were called this
    f1: float
    support: int  # rows that are


@dataclass(frozen=True)
class Bin:
    """Answers given with similar confidence, and how often they were right."""

    low: float
    high: float
    count: int
    confidence: float  # mean probability given
    accuracy: float  # share that was right


def default_metric(kind: Kind) -> str:
    """The metric that decides which checkpoint is best, when the recipe doesn't say."""
    return {"single": "accuracy", "multi": "micro_f1", "number": "rmse"}[kind]


def metrics(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> dict[str, float]:
    """Every metric that is defined on these rows."""
    if len(labels) == 0:
        return {}
    family = {"single": _single, "multi": _multi, "number": _number}[kind]
    found = family(np.asarray(logits, np.float64), np.asarray(labels))
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def probabilities(logits: np.ndarray, kind: Kind) -> np.ndarray:
    """[N, C] probabilities; [N, 0] for numbers, which have none."""
    logits = np.asarray(logits, np.float64)
    if kind == "single":
        return np.exp(_log_softmax(logits))
    if kind == "multi":
        return np.exp(-np.logaddexp(0.0, -logits))
    return np.zeros((len(logits), 0))


def predictions(logits: np.ndarray, kind: Kind) -> np.ndarray:
    """Class index [N], 0/1 per label [N, C], or value [N]."""
    if kind == "single":
        return np.argmax(logits, axis=1)
    return (np.asarray(logits) > 0).astype(np.int64) if kind == "multi" else _values(logits)


def correct(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> np.ndarray:
    """Bool [N]: the answer is exactly right (multi: every label is)."""
    same = predictions(logits, kind) == labels
    return same.all(axis=1) if kind == "multi" else same


def row_losses(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> np.ndarray:
    """Loss of each row [N]; their mean is the metric `loss`."""
    logits = np.asarray(logits, np.float64)
    if kind == "single":
        return -np.take_along_axis(_log_softmax(logits), np.asarray(labels)[:, None], axis=1)[:, 0]
    if kind == "multi":
        return (np.logaddexp(0.0, logits) - logits * labels).mean(axis=1)
    return (_values(logits) - labels) ** 2


def per_class(logits: np.ndarray, labels: np.ndarray, names: tuple[str, ...], kind: Kind) -> list[ClassScores]:
    """Precision, recall and F1 of each class, in the order of `names`; nothing for numbers."""
    if kind == "number":
        return []
    counts = class_counts(logits, labels, kind)
    columns = (ratio(counts.hits, counts.predicted), ratio(counts.hits, counts.true), f1_scores(counts))
    rows = zip(names, *columns, counts.true, strict=True)
    return [ClassScores(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in rows]


def confusion(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> np.ndarray | None:
    """Rows counted as int [C, C]: true class down, predicted class across. Only for single labels."""
    if kind != "single":
        return None
    classes = logits.shape[1]
    cells = np.asarray(labels) * classes + predictions(logits, kind)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def reliability(logits: np.ndarray, labels: np.ndarray, kind: Kind, bins: int = 10) -> list[Bin]:
    """Confidence against truth, in bins of equal width; empty bins are left out.

    single: the probability of the winning class, and whether it was right. multi: each label's probability, and
    whether the label holds.
    """
    if kind == "number":
        return []
    confidence, right = _forecasts(logits, labels, kind)
    index = _bin_index(confidence, bins)
    found = []
    for i in np.unique(index):
        here = index == i
        mean, share = float(confidence[here].mean()), float(right[here].mean())
        found.append(Bin(i / bins, (i + 1) / bins, int(here.sum()), mean, share))
    return found


def majority_baseline(
    train_labels: np.ndarray, validation_labels: np.ndarray, kind: Kind, num_classes: int | None = None
) -> dict[str, float]:
    """The metrics of a model that never reads the text: it answers with what `train` holds most of.

    Its probabilities are the frequencies in train, each class counted once more so that none is impossible; for numbers
    it answers the mean.
    """
    train, validation = np.asarray(train_labels), np.asarray(validation_labels)
    if kind == "number":
        answer = np.array([train.mean()])
    elif kind == "multi":
        answer = np.log(train.sum(axis=0) + 1.0) - np.log((1 - train).sum(axis=0) + 1.0)
    else:
        classes = num_classes or int(max(train.max(initial=0), validation.max(initial=0))) + 1
        counts = np.bincount(train, minlength=classes) + 1.0
        answer = np.log(counts / counts.sum())
    return metrics(np.tile(answer, (len(validation), 1)), validation, kind)


# --- families ---------------------------------------------------------------------------------------------------


def _single(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    counts = class_counts(logits, labels, "single")
    return {
        "accuracy": np.mean(correct(logits, labels, "single")),
        "macro_f1": macro_f1(counts),
        "weighted_f1": weighted_f1(counts),
        "mcc": mcc(counts),
        "roc_auc": _single_roc_auc(logits, labels),
        "ece": expected_calibration_error(logits, labels),
        "loss": row_losses(logits, labels, "single").mean(),
    }


def _multi(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    counts = class_counts(logits, labels, "multi")
    return {
        "micro_f1": micro_f1(counts),
        "macro_f1": f1_scores(counts).mean(),
        "accuracy": np.mean(correct(logits, labels, "multi")),
        "roc_auc": _mean_defined([roc_auc(s, p) for s, p in zip(logits.T, labels.T > 0, strict=True)]),
        "loss": row_losses(logits, labels, "multi").mean(),
    }


def _number(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    values, truth = _values(logits), labels.astype(np.float64)
    error = values - truth
    return {
        "loss": np.mean(error**2),
        "rmse": np.sqrt(np.mean(error**2)),
        "mae": np.mean(np.abs(error)),
        "pearson": pearson(values, truth),
        "spearman": pearson(mid_ranks(values), mid_ranks(truth)),
    }


# --- counts and what follows from them --------------------------------------------------------------------------


def class_counts(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> Counts:
    """Hits, true and predicted rows of each class [C]."""
    answer = predictions(logits, kind)
    if kind == "multi":
        return Counts((answer * (labels > 0)).sum(axis=0), (labels > 0).sum(axis=0), answer.sum(axis=0))
    classes = logits.shape[1]
    hit = answer[answer == labels]
    return Counts(*(np.bincount(x, minlength=classes) for x in (hit, labels, answer)))


# --- ranks, calibration -----------------------------------------------------------------------------------------


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance between confidence and accuracy over bins of equal width (Guo et al. 2017), winning class only."""
    confidence, right = _forecasts(logits, labels, "single")
    gaps = np.bincount(_bin_index(confidence, bins), weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(right))


def ranking_scores(logits: np.ndarray) -> np.ndarray:
    """Scores [N, K] to rank rows by, one column per question asked: class 1 (two classes), or each class in turn."""
    if logits.shape[1] == 2:
        # The difference orders rows as the probability does, without saturating at 1.
        return (logits[:, 1] - logits[:, 0])[:, None]
    return probabilities(logits, "single")


def _single_roc_auc(logits: np.ndarray, labels: np.ndarray) -> float:
    scores = ranking_scores(logits)
    classes = [1] if logits.shape[1] == 2 else range(logits.shape[1])
    return _mean_defined([roc_auc(s, labels == c) for s, c in zip(scores.T, classes, strict=True)])


def _forecasts(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    chances = probabilities(logits, kind)
    if kind == "multi":
        return chances.ravel(), np.asarray(labels, np.float64).ravel()
    return chances.max(axis=1), correct(logits, labels, kind).astype(np.float64)


def _bin_index(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.clip((confidence * bins).astype(np.int64), 0, bins - 1)


def _mean_defined(values: list[float]) -> float:
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _values(logits: np.ndarray) -> np.ndarray:
    return np.asarray(logits, np.float64).reshape(len(logits))
