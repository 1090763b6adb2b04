"""oneDNN gives what F.linear gives, on the layers it suits, and is gone afterwards."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tunewright.models import products
from tunewright.models.products import onednn_products

pytestmark = pytest.mark.skipif(not products.works(), reason="this torch has no such operator")


@pytest.fixture
def calls(monkeypatch):
    """Shapes that went through oneDNN; every size of weight suits."""
    seen, own = [], products.product

    def product(x, weight, bias):
        seen.append((tuple(x.shape), tuple(weight.shape)))
        return own(x, weight, bias)

    monkeypatch.setattr(products, "product", product)
    monkeypatch.setattr(products, "SMALL", 1)
    return seen


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 4, 33, 200])
def test_same_result(calls, rows, bias):
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40, bias=bias), torch.randn(1, rows, 24)
    with torch.inference_mode(), onednn_products(layer):
        result = layer(x)
    assert result.shape == (1, rows, 40)
    assert torch.allclose(result, F.linear(x, layer.weight, layer.bias), atol=1e-5)
    assert len(calls) == (rows >= products.FEW)


def test_one_row_meets_a_wide_weight(calls, monkeypatch):
    monkeypatch.setattr(products, "WIDE", 24 * 40)
    layer = nn.Linear(24, 40)
    with torch.inference_mode(), onednn_products(layer):
        layer(torch.randn(1, 24))
    assert len(calls) == 1


def test_small_weights_are_left_alone():
    layer = nn.Linear(8, 8)
    with onednn_products(layer):
        assert "forward" not in vars(layer)


def test_a_replaced_forward_is_left_alone(calls):
    layer = nn.Linear(8, 8)
    layer.forward = lambda x: x
    with onednn_products(layer):
        assert layer(torch.ones(5, 8)).equal(torch.ones(5, 8))
    assert "forward" in vars(layer)


def test_bf16_and_subclasses_are_left_alone(calls):
    class Own(nn.Linear):
        pass

    model = nn.ModuleList([nn.Linear(8, 8).bfloat16(), Own(8, 8)])
    with torch.inference_mode(), onednn_products(model):
        model[0](torch.ones(5, 8, dtype=torch.bfloat16))
        model[1](torch.ones(5, 8))
    assert not calls


def test_autocast_wins(calls):
    layer = nn.Linear(8, 8)
    with torch.inference_mode(), onednn_products(layer), torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(5, 8)).dtype == torch.bfloat16
    assert not calls


def test_gradients_flow_again_afterwards(calls):
    layer = nn.Linear(8, 8)
    with pytest.raises(ZeroDivisionError), onednn_products(layer):
        raise ZeroDivisionError
    assert "forward" not in vars(layer)
    assert layer(torch.ones(5, 8)).requires_grad


def test_a_wrong_operator_is_not_used(monkeypatch):
    products.works.cache_clear()
    monkeypatch.setattr(products, "product", lambda x, weight, bias: F.linear(x, weight, bias) + 1)
    assert not products.works()
    monkeypatch.undo()
    products.works.cache_clear()
    assert products.works()
