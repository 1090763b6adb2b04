"""Linear layers through oneDNN on a CPU, for passes that no gradient follows.

Beside `cached_decoding`. torch multiplies fp32 through a BLAS that is slow where a few rows meet a wide weight, which
is what writing token by token does; oneDNN reads the same weight as it lies, without a copy. Measured on one AVX-512
core, rows by [640, 262144]: 1 row 56 → 42 ms, 4 rows 112 → 62, 32 rows 248 → 163; 2,048 rows by [640, 2048] 69 → 53.
What is chosen hangs on shapes alone, never on timing, so a run's numbers don't hang on a busy moment.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = 1 << 19  # weights below this gain nothing, such as an adapter's
WIDE = 1 << 24  # weights from this on gain with a single row
FEW = 4  # rows from which the others gain


@contextlib.contextmanager
def onednn_products(model: nn.Module) -> Generator[None]:
    """The model's linear layers multiply through oneDNN inside, where that applies; gradients don't flow."""
    layers = [module for module in model.modules() if type(module) is nn.Linear and _suits(module)]
    for layer in layers:
        layer.forward = _through_onednn(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _suits(layer: nn.Linear) -> bool:
    """Whether a layer gains; one whose forward somebody replaced already is theirs."""
    weight = layer.weight
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.is_contiguous()
    return plain and "forward" not in vars(layer) and weight.numel() >= SMALL and works()


def _through_onednn(layer: nn.Linear) -> Any:
    weight, bias = layer.weight, layer.bias

    def forward(x: Tensor) -> Tensor:
        rows = x.numel() // x.shape[-1]
        gains = rows >= FEW or weight.numel() >= WIDE
        if not gains or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return F.linear(x, weight, bias)
        return product(x, weight, bias)

    return forward


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What F.linear computes. The operator is the one that torch's own compiler calls, and not a public name."""
    operators: Any = torch.ops.mkldnn
    return operators._linear_pointwise(x, weight, bias, "none", [], "")


@functools.cache
def works() -> bool:
    """Whether this torch has the operator, and it gives F.linear's result."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((4, 8), (6, 8), (6,)))
    try:
        return bool(torch.allclose(product(x, weight, bias), F.linear(x, weight, bias), rtol=1e-4, atol=1e-5))
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False
