"""bf16: products are rounded, what is learnt is not, and nothing else about a forward changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.models import configs
from tests.models.made import PROBE, make
from tests.models.test_forward import gradients
from tests.models.test_saving import saved
from tunewright.data.batching import Texts, lay_end_to_end
from tunewright.errors import ModelError
from tunewright.models import attention
from tunewright.models.boundary import build
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.saving import verify_saved


def texts() -> Texts:
    return lay_end_to_end(PROBE)


def forwards(kind, folder, method="lora"):
    """The same model twice: in fp32 and in bf16."""
    pair = [Forward(make(kind, folder, method).model) for _ in range(2)]
    pair[1].compute_in("bf16")
    return pair


def closeness(a: dict, b: dict) -> float:
    flat = [torch.cat([tensor.flatten() for tensor in grads.values()]) for grads in (a, b)]
    return float(F.cosine_similarity(*flat, dim=0))


@pytest.mark.parametrize("method", ["lora", "full", "head"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "albert"])
def test_logits_and_gradients_are_those_of_fp32_but_for_rounding(kind, method, tmp_path):
    exact, rounded = forwards(kind, tmp_path, method)
    expected, found = exact.logits(texts()), rounded.logits(texts())
    scale = expected.abs().max()
    assert 0 < (expected - found).abs().max() < 0.05 * scale
    assert closeness(gradients(exact.model, expected), gradients(rounded.model, found.float())) > 0.99


def test_only_the_frozen_base_beside_an_adapter_is_rounded(tmp_path):
    for method in ("lora", "full", "head"):
        _, rounded = forwards("bert", tmp_path, method)
        for name, parameter in rounded.model.named_parameters():
            rounded_once = method == "lora" and not parameter.requires_grad and parameter.ndim > 1
            wanted = torch.bfloat16 if rounded_once else torch.float32
            assert parameter.dtype == wanted, (method, name)


def test_what_is_learnt_gets_an_exact_gradient(tmp_path):
    _, rounded = forwards("bert", tmp_path)
    found = gradients(rounded.model, rounded.logits(texts()).float())
    assert all(gradient.dtype == torch.float32 for gradient in found.values())


def test_a_saved_model_is_compared_in_the_format_it_learnt_in(tmp_path):
    made = make("bert", tmp_path)
    saved(made, tmp_path / "model")
    forward = Forward(made.model)
    forward.compute_in("bf16")
    verify_saved(forward, tmp_path / "model", PROBE)
    made.model.get_submodule("base_model.model.classifier").modules_to_save["default"].weight.data += 0.1
    with pytest.raises(ModelError, match="answers differently"):
        verify_saved(forward, tmp_path / "model", PROBE)


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("k", [1, 2])
def test_a_cache_holds_bf16_and_changes_nothing(kind, k, tmp_path):
    from tests.models.test_boundary import DATA

    forward = Forward(configs.build(kind))
    forward.compute_in("bf16")
    cache = build(forward, DATA, DATA.lengths, k, tmp_path / "states.npy")
    assert cache.states.dtype == np.uint16
    indices = np.arange(len(DATA.ids))
    ids = [DATA.tokens(int(i)) for i in indices]
    np.testing.assert_allclose(
        predict_logits(forward, ids, cache=cache), predict_logits(forward, ids), atol=0.02, rtol=0.02
    )


@pytest.mark.parametrize(
    "causal, window", [(False, None), (True, None), (True, 3), (False, 4), (True, 40), (False, 100)]
)
@pytest.mark.parametrize("lengths", [(9, 9, 9), (1, 170, 133, 32, 2)])
def test_products_equal_the_fused_attention(causal, window, lengths):
    """Text by text, whatever is padded in between, and in their gradients."""
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.is_causal = causal
    rounded = [torch.randn(1, 3, sum(lengths), 8).bfloat16().requires_grad_() for _ in range(3)]
    exact = [t.detach().float().requires_grad_() for t in rounded]
    results = []
    for operands in (rounded, exact):
        out, _ = attention.packed_attention(module, *operands, None, sequence_lengths=lengths, sliding_window=window)
        weights = torch.linspace(-1, 1, out.numel()).view_as(out)
        results.append([out, *torch.autograd.grad((out.float() * weights).sum(), operands)])
    assert results[0][0].dtype == torch.bfloat16
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)


def test_few_shapes_are_compiled(monkeypatch):
    """Every shape of a bf16 product costs memory for good: texts of 1 to 200 tokens are seven widths and few sums."""
    shapes, whole = set(), attention._filled
    monkeypatch.setattr(attention, "_filled", lambda texts, width: shapes.add(width) or whole(texts, width))
    forward = Forward(configs.build("bert"))
    forward.compute_in("bf16")
    sums = {len(forward._rounded_up(torch.zeros(n))) for n in range(1, 257)}
    assert sums == {64, 128, 192, 256}
    q = torch.zeros(1, 2, 200 * 201 // 2, 8, dtype=torch.bfloat16)
    attention.packed_attention(torch.nn.Module(), q, q, q, None, sequence_lengths=tuple(range(1, 201)))
    assert shapes == {32, 64, 96, 128, 160, 192, 224}


@pytest.mark.parametrize("part", ["key", "value"])
def test_a_small_update_is_not_rounded_away_in_the_last_layer(part, tmp_path):
    """Added to a weight in bf16, an update a thousandth of its size would vanish."""
    made = make("bert", tmp_path, nudge=False, targets=[part])
    forward = Forward(made.model)
    forward.compute_in("bf16")
    module = made.model.get_submodule(f"base_model.model.bert.encoder.layer.0.attention.self.{part}")
    before = attention.linear_weight(module)[0]
    module.lora_B["default"].weight.data.fill_(1e-5)
    update = attention.linear_weight(module)[0] - before
    expected = module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight
    assert module.base_layer.weight.dtype == torch.bfloat16
    torch.testing.assert_close(update, expected, atol=1e-8, rtol=1e-2)
