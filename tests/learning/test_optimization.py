"""The schedule, clipping, and what decays."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from tunewright.learning.optimization import clip_gradients, learning_rate_factor, make_optimizer


def test_linear_rises_then_falls_to_zero():
    factors = [learning_rate_factor(step, 10, 2, "linear") for step in range(11)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[6] == pytest.approx(0.5) and factors[10] == 0.0
    assert all(a > b for a, b in itertools.pairwise(factors[2:]))


def test_cosine_and_constant():
    assert learning_rate_factor(5, 10, 0, "cosine") == pytest.approx(0.5)
    assert learning_rate_factor(9, 10, 0, "constant") == 1.0


def test_vectors_do_not_decay():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    model[0].weight.requires_grad_(True)
    groups = make_optimizer(model, 0.1).param_groups
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert decays[id(model[0].weight)] == 0.1
    assert {decays[id(p)] for p in (model[0].bias, model[1].weight, model[1].bias)} == {0.0}


def test_frozen_parameters_are_not_optimised():
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert [len(g["params"]) for g in make_optimizer(model, 0.1).param_groups] == [1]


def test_clipping_scales_and_reports_the_norm_before():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([parameter], 1.0).item() == pytest.approx(5.0)
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]), atol=1e-5, rtol=1e-5)
    assert clip_gradients([parameter], 0.0).item() == pytest.approx(1.0, abs=1e-4)
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]), atol=1e-5, rtol=1e-5)
