"""Several models' logits as one: each weighed by what it adds, none below 0.

The weights minimise the log loss on rows that none of the models learnt (out-of-fold answers), so a model that knows
nothing gets 0 and one that is too sure of itself is cooled down. Convex; solved one weight at a time, by bisection on
the slope. Source: Wolpert, "Stacked generalization" (1992), with the weights of a logarithmic opinion pool.

Shapes: N rows, C outputs, K models; kinds as in `metrics`, without numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.evaluation.metrics import Kind, probabilities

LARGEST = 100.0  # weight: beyond it every row is certain already
_SWEEPS, _HALVINGS, _STILL = 100, 60, 1e-7


def stacked(logits: Sequence[np.ndarray], labels: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """(weighted sum of the K logits [N, C], weights float64 [K])."""
    models = np.stack([_centred(np.asarray(one, np.float64), kind) for one in logits])
    truth = _truth(np.asarray(labels), models.shape[2], kind)
    weights = np.full(len(models), 1.0 / len(models))
    for _ in range(_SWEEPS):
        before = weights.copy()
        for k in range(len(models)):
            weights[k] = _best(models, weights, k, truth, kind)
        if np.abs(weights - before).max() < _STILL:
            break
    return np.tensordot(weights, models, 1), weights


def _best(models: np.ndarray, weights: np.ndarray, k: int, truth: np.ndarray, kind: Kind) -> float:
    """The weight of model k of least loss, the others as they are."""
    rest = np.tensordot(np.where(np.arange(len(weights)) == k, 0.0, weights), models, 1)

    def slope(weight: float) -> float:
        return float((models[k] * (probabilities(rest + weight * models[k], kind) - truth)).sum())

    low, high = 0.0, LARGEST
    if slope(low) >= 0:
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2


def _centred(logits: np.ndarray, kind: Kind) -> np.ndarray:
    return logits - logits.mean(axis=1, keepdims=True) if kind == "single" else logits


def _truth(labels: np.ndarray, num_classes: int, kind: Kind) -> np.ndarray:
    return np.eye(num_classes)[labels] if kind == "single" else (labels > 0).astype(np.float64)
