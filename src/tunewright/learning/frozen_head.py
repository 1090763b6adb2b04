"""Logistic regression on what a frozen model makes of each text, or on its words: heads trained in seconds.

The quick way to probabilities for rows that a model didn't learn, and to a learning curve, where training the model
itself many times would take hours. Convex: one answer, whatever the seed. The ridge is chosen by held-out log loss.

Shapes: N rows, D features, V words, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tunewright.data.word_features import WordTable

Kind = Literal["single", "multi"]
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the mean loss
WORD_RIDGE = 0.1  # scikit-learn's C = 10: words are many, and each says little
_ITERATIONS = 200


@dataclass(frozen=True, eq=False)
class FrozenHead:
    """Standardise, multiply, add."""

    mean: Tensor  # float64 [D]
    scale: Tensor  # float64 [D]
    weight: Tensor  # float64 [D, C]
    bias: Tensor  # float64 [C]
    ridge: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float64 [N, C]."""
        x = (torch.from_numpy(np.asarray(features, np.float64)) - self.mean) / self.scale
        return (x @ self.weight + self.bias).numpy()


@dataclass(frozen=True, eq=False)
class WordHead:
    """The same on a table of words, which is scaled already."""

    weight: Tensor  # float64 [V, C]
    bias: Tensor  # float64 [C]

    def logits(self, table: WordTable) -> np.ndarray:
        """float64 [N, C]."""
        return (torch.sparse.mm(_sparse(table), self.weight) + self.bias).numpy()


def fit_head(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    kind: Kind,
    ridge: float,
    start: FrozenHead | None = None,
) -> FrozenHead:
    """Least mean loss + ridge / 2 * squared weights; features [N, D], labels int [N] or 0/1 [N, C].

    `start`: a head of the same rows to begin from; the end is the same, sooner.
    """
    x = torch.from_numpy(np.asarray(features, np.float64))
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-12, scale, torch.ones_like(scale))
    x = (x - mean) / scale
    weight = torch.zeros(x.shape[1], num_classes, dtype=torch.float64) if start is None else start.weight.clone()
    bias = torch.zeros(num_classes, dtype=torch.float64) if start is None else start.bias.clone()
    _minimise(lambda: x @ weight, weight, bias, labels, kind, ridge)
    return FrozenHead(mean, scale, weight.detach(), bias.detach(), ridge)


def fit_words(
    table: WordTable, labels: np.ndarray, num_classes: int, kind: Kind, ridge: float | None = None
) -> WordHead:
    """The same on words, for the labels of the table's rows; default: a ridge of a tenth of a row."""
    x = _sparse(table)
    weight = torch.zeros(table.num_columns, num_classes, dtype=torch.float64)
    bias = torch.zeros(num_classes, dtype=torch.float64)
    strength = ridge if ridge is not None else WORD_RIDGE / max(1, table.num_rows)
    _minimise(lambda: torch.sparse.mm(x, weight), weight, bias, labels, kind, strength)
    return WordHead(weight.detach(), bias.detach())


def _minimise(
    products: Callable[[], Tensor], weight: Tensor, bias: Tensor, labels: np.ndarray, kind: Kind, ridge: float
) -> None:
    """L-BFGS to the minimum; changes weight and bias."""
    truth = torch.from_numpy(np.asarray(labels))
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=_ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-11, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = _of_logits(products() + bias, truth, kind) + ridge / 2 * weight.square().sum()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)


def _sparse(table: WordTable) -> Tensor:
    indices = torch.from_numpy(np.stack([table.rows, table.columns]))
    size = (table.num_rows, table.num_columns)
    return torch.sparse_coo_tensor(
        indices, torch.from_numpy(table.values), size, is_coalesced=True, check_invariants=False
    )


def choose_ridge(features: np.ndarray, labels: np.ndarray, num_classes: int, kind: Kind, folds: np.ndarray) -> float:
    """The ridge of least log loss on the rows of one fold after a fit on the others; folds: int [N].

    From the strongest down, each from where the last one ended, until the held-out loss has risen twice.
    """
    learnt, judged = folds != 0, folds == 0
    truth = torch.from_numpy(np.asarray(labels)[judged])
    best, least, rises, head = RIDGES[-1], float("inf"), 0, None
    for ridge in reversed(RIDGES):
        head = fit_head(features[learnt], labels[learnt], num_classes, kind, ridge, head)
        loss = float(_of_logits(torch.from_numpy(head.logits(features[judged])), truth, kind))
        best, least, rises = (ridge, loss, 0) if loss < least else (best, least, rises + 1)
        if rises == 2:
            break
    return best


def _of_logits(logits: Tensor, labels: Tensor, kind: Kind) -> Tensor:
    """Mean nats per row."""
    if kind == "single":
        return torch.nn.functional.cross_entropy(logits, labels.long())
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.double())
