"""The objective of classification: one label, several labels, or a number for each text.

Losses are sums over examples, in nats; the loop divides by the weight of the whole step, so cutting a step into
micro-batches or ranks changes nothing. Shapes: B texts, C outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tunewright.data.batching import Batch, Examples
from tunewright.models.forward import Boundary, Forward


def single_label_loss(logits_BC: Tensor, labels_B: Tensor, weights_C: Tensor | None, smoothing: float) -> Tensor:
    """Σ_b w[y_b] · CE(logits_b, y_b), with label smoothing as in torch's cross_entropy (Szegedy et al. 2016)."""
    return F.cross_entropy(logits_BC.float(), labels_B, weight=weights_C, label_smoothing=smoothing, reduction="sum")


def multi_label_loss(logits_BC: Tensor, labels_BC: Tensor, weights_C: Tensor | None) -> Tensor:
    """Σ_b mean_c w[c] · BCE(logit, label): one yes-or-no question per label."""
    return (
        F.binary_cross_entropy_with_logits(logits_BC.float(), labels_BC.float(), weight=weights_C, reduction="none")
        .mean(1)
        .sum()
    )


def number_loss(predictions_B: Tensor, labels_B: Tensor) -> Tensor:
    """Σ_b (prediction - label)², squared units of the label."""
    return F.mse_loss(predictions_B.float(), labels_B.float(), reduction="sum")


@dataclass(frozen=True)
class Classification:
    """Loss of one kind of label, and what an example weighs in a step."""

    caches: ClassVar[bool] = True  # layers below the trained ones may run once and be kept
    kind: str  # single, multi, number
    weights: Tensor | None = None  # float32 [C]
    label_smoothing: float = 0.0

    def loss_of(self, forward: Forward, batch: Batch, boundary: Boundary | None) -> Tensor:
        """Sum of the weighted losses of a micro-batch, from the model's logits."""
        return self.loss_sum(forward.logits(batch.texts, boundary), batch.labels)

    def weight_of(self, dataset: Examples, indices: np.ndarray) -> float:
        """What the sum of losses of these examples is divided by."""
        return self.weight_sum(dataset.labels[indices])

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of the weighted losses of a micro-batch: logits [B, C] -> scalar."""
        weights = self.weights.to(logits.device) if self.weights is not None else None
        if self.kind == "single":
            return single_label_loss(logits, labels, weights, self.label_smoothing)
        if self.kind == "multi":
            return multi_label_loss(logits, labels, weights)
        return number_loss(logits[:, 0], labels)

    def weight_sum(self, labels: np.ndarray) -> float:
        """What the sum of losses of these examples is divided by."""
        if self.kind == "single" and self.weights is not None:
            return float(self.weights.double()[torch.from_numpy(labels)].sum())
        return float(len(labels))


def balanced_weights(labels: np.ndarray, num_classes: int) -> Tensor:
    """n / (C · count of the class), as scikit-learn's class_weight="balanced"; a class never seen weighs 1."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.where(counts > 0, len(labels) / (num_classes * np.maximum(counts, 1)), 1.0)
    return torch.tensor(weights, dtype=torch.float32)
