"""Losses against scikit-learn and torch; weights and sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.utils.class_weight import compute_class_weight

from tunewright.learning.classification import Classification, balanced_weights

LOGITS = torch.tensor(np.random.default_rng(0).normal(size=(20, 3)), dtype=torch.float32)
LABELS = torch.tensor(np.random.default_rng(1).integers(0, 3, 20))


def test_single_label_is_log_loss():
    expected = log_loss(LABELS, LOGITS.double().softmax(-1), labels=[0, 1, 2])
    assert Classification("single").loss_sum(LOGITS, LABELS).item() / 20 == pytest.approx(expected, rel=1e-5)


def test_weights_and_smoothing_are_torchs():
    weights = torch.tensor([0.5, 2.0, 1.0])
    objective = Classification("single", weights, 0.1)
    expected = torch.nn.functional.cross_entropy(LOGITS, LABELS, weight=weights, label_smoothing=0.1)
    found = objective.loss_sum(LOGITS, LABELS) / objective.weight_sum(LABELS.numpy())
    torch.testing.assert_close(found, expected)


def test_multi_label_is_binary_log_loss():
    labels = (LOGITS + torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) > 0).float()
    expected = np.mean([log_loss(labels[:, c], torch.sigmoid(LOGITS[:, c].double())) for c in range(3)])
    assert Classification("multi").loss_sum(LOGITS, labels).item() / 20 == pytest.approx(expected, rel=1e-5)


def test_numbers_are_squared_error():
    labels = torch.linspace(-1, 1, 20)
    expected = mean_squared_error(labels, LOGITS[:, 0])
    assert Classification("number").loss_sum(LOGITS[:, :1], labels).item() / 20 == pytest.approx(expected, rel=1e-5)


def test_balanced_weights_are_scikit_learns():
    labels = np.array([0] * 10 + [1] * 3 + [2] * 7)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_weights(labels, 3), expected, rtol=1e-6)
    assert balanced_weights(labels, 4)[3] == 1.0
