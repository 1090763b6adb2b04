"""What a tuned model must beat to be worth its trouble: never reading the text, and counting its words.

Majority answers the frequencies of the training labels. TF-IDF with logistic regression (numbers: ridge regression) is
tuned, not a straw man: words and pairs of words, sublinear counts, its strength chosen by cross-validation among the
training rows. Both answer with logits as a trained model does, so that every metric is had the same way. scikit-learn
is an extra; without it the second is left out, and said.

Shapes: N training rows, M judged rows, C classes.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunewright.evaluation.folds import fold_of, strata_of_lists, strata_of_numbers, train_and_held_out
from tunewright.evaluation.metrics import Kind, row_losses

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # C of the regression: the larger, the less is held back
FOLDS = 3
MISSING = "scikit-learn isn't installed, so the TF-IDF baseline is left out; pip install 'tunewright[baseline]'"
_UNSEEN = 5.0  # nats below the least likely class, for one that training never saw


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline's answers to the judged rows, and what it cost."""

    name: str
    logits: np.ndarray  # float64 [M, C]
    costs: dict[str, float]  # train_seconds, saved_bytes, rows_per_second
    said: str = ""


def majority(labels: np.ndarray, kind: Kind, num_outputs: int, num_judged: int) -> Baseline:
    """The training labels' frequencies for every row, each class counted once more; numbers: their mean."""
    labels = np.asarray(labels)
    if kind == "number":
        answer = np.array([float(labels.mean())])
    elif kind == "multi":
        answer = np.log(labels.sum(axis=0) + 1.0) - np.log((1 - labels).sum(axis=0) + 1.0)
    else:
        counts = np.bincount(labels, minlength=num_outputs) + 1.0
        answer = np.log(counts / counts.sum())
    name = "mean of the labels" if kind == "number" else "majority class" if kind == "single" else "commonest labels"
    return Baseline(name, np.tile(answer, (num_judged, 1)), {})


def has_sklearn() -> bool:
    """Whether the second baseline can be had."""
    return importlib.util.find_spec("sklearn") is not None


def tfidf(
    texts: Sequence[str], labels: np.ndarray, groups: np.ndarray, kind: Kind, judged: Sequence[str], seed: int,
    num_outputs: int,
) -> Baseline:  # fmt: skip
    """TF-IDF and a linear model. `groups` [N]: equal texts by equal numbers, never on both sides of a fold."""
    begin = time.perf_counter()
    labels = np.asarray(labels)
    strength = _strength(texts, labels, groups, kind, seed, num_outputs)
    model = _Linear.fitted(texts, labels, kind, strength, num_outputs)
    trained = time.perf_counter() - begin
    begin = time.perf_counter()
    logits = model.logits(judged)
    speed = len(judged) / max(time.perf_counter() - begin, 1e-9)
    costs = {"train_seconds": trained, "saved_bytes": float(model.num_bytes), "rows_per_second": speed}
    named = "ridge regression" if kind == "number" else "logistic regression"
    return Baseline(f"TF-IDF + {named}", logits, costs, f"C {strength:g}, chosen on the training rows")


def _strength(
    texts: Sequence[str], labels: np.ndarray, groups: np.ndarray, kind: Kind, seed: int, num_outputs: int
) -> float:
    """The strength of least loss over held-out folds of the training rows."""
    strata = strata_of_lists(labels) if kind == "multi" else strata_of_numbers(labels) if kind == "number" else labels
    num_folds = min(FOLDS, len(np.unique(groups)))
    if num_folds < 2:
        return 1.0
    losses = np.zeros(len(STRENGTHS))
    for learnt, held_out in train_and_held_out(fold_of(strata, num_folds, seed, groups)):
        vectors = _vectorizer(len(learnt))
        x = vectors.fit_transform([texts[i] for i in learnt.tolist()])
        y = vectors.transform([texts[i] for i in held_out.tolist()])
        for place, strength in enumerate(STRENGTHS):
            model = _Linear.of(vectors, x, labels[learnt], kind, strength, num_outputs)
            losses[place] += row_losses(model.of_vectors(y), labels[held_out], kind).sum()
    return STRENGTHS[int(np.argmin(losses))]


def _vectorizer(num_texts: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-not-found]

    least = 2 if num_texts >= 200 else 1
    # Any run of letters and digits: the default would drop words of one letter, and Chinese ones with them.
    words = r"(?u)\b\w+\b|[^\w\s]"
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=least, token_pattern=words)


@dataclass(frozen=True, eq=False)
class _Linear:
    """A fitted vectorizer with one linear answer per output."""

    vectors: Any
    weight: np.ndarray  # [features, C]
    bias: np.ndarray  # [C]

    @classmethod
    def fitted(cls, texts: Sequence[str], labels: np.ndarray, kind: Kind, strength: float, num_outputs: int) -> _Linear:
        vectors = _vectorizer(len(texts))
        return cls.of(vectors, vectors.fit_transform(texts), labels, kind, strength, num_outputs)

    @classmethod
    def of(cls, vectors: Any, x: Any, labels: np.ndarray, kind: Kind, strength: float, num_outputs: int) -> _Linear:
        if kind == "number":
            weight, bias = _ridge(x, labels, strength)
        elif kind == "multi":
            answers = [_yes_or_no(x, labels[:, i] > 0, strength) for i in range(num_outputs)]
            weight, bias = np.stack([w for w, _ in answers], axis=1), np.array([b for _, b in answers])
        else:
            weight, bias = _classes(x, labels, strength, num_outputs)
        return cls(vectors, weight, bias)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return self.of_vectors(self.vectors.transform(texts))

    def of_vectors(self, x: Any) -> np.ndarray:
        return np.asarray(x @ self.weight) + self.bias

    @property
    def num_bytes(self) -> int:
        """Of the weights and the words that they belong to."""
        words = sum(len(word.encode()) for word in self.vectors.vocabulary_)
        return int(self.weight.nbytes + self.bias.nbytes + self.vectors.idf_.nbytes + words)


def _regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-not-found]

    return LogisticRegression(C=strength, max_iter=2000)


def _yes_or_no(x: Any, holds: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Weights [features] and bias of log odds."""
    if holds.all() or not holds.any():
        return np.zeros(x.shape[1]), float(np.log(holds.sum() + 1.0) - np.log((~holds).sum() + 1.0))
    fitted = _regression(strength).fit(x, holds)
    return fitted.coef_[0], float(fitted.intercept_[0])


def _classes(x: Any, labels: np.ndarray, strength: float, num_outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [features, C] and biases [C]; a class that never occurred is less likely than every other."""
    seen = np.unique(labels)
    weight, bias = np.zeros((x.shape[1], num_outputs)), np.full(num_outputs, -_UNSEEN)
    if len(seen) == 1:
        bias[seen] = 0.0
        return weight, bias
    if len(seen) == 2:
        weight[:, seen[1]], bias[seen[1]] = _yes_or_no(x, labels == seen[1], strength)
        bias[seen[0]] = 0.0
    else:
        fitted = _regression(strength).fit(x, labels)
        weight[:, seen], bias[seen] = fitted.coef_.T, fitted.intercept_
    unseen = np.setdiff1d(np.arange(num_outputs), seen)
    bias[unseen] = bias[seen].min() - _UNSEEN
    return weight, bias


def _ridge(x: Any, values: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import Ridge  # type: ignore[import-not-found]

    fitted = Ridge(alpha=1.0 / strength).fit(x, np.asarray(values, np.float64))
    return fitted.coef_[:, None], np.array([float(fitted.intercept_)])
