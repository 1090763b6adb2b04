"""Packed attention against plain attention with a block mask; one-token attention against the whole."""

from __future__ import annotations

import types

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface

from tunewright.models.attention import (
    NAME,
    WIDTH,
    _may_see,
    _products_are_faster,
    _window_mask,
    linear_weight,
    packed_attention,
    packed_attention_in,
    pooled_attention,
)

LENGTHS = (3, 5, 5, 2)


def states(heads, generator):
    return torch.randn(1, heads, sum(LENGTHS), 8, generator=generator)


def block_mask(causal, window, lengths=LENGTHS):
    text = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    position = torch.arange(sum(lengths))
    distance = position[:, None] - position
    mask = text[:, None] == text
    if causal:
        mask &= distance >= 0
    if window is not None:
        mask &= (distance < window) if causal else (distance.abs() < window)
    return mask


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 2, 100])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_texts_never_see_each_other(causal, window, groups, softcap):
    generator = torch.Generator().manual_seed(0)
    q, k, v = states(4, generator), states(4 // groups, generator), states(4 // groups, generator)
    module = types.SimpleNamespace(is_causal=causal)
    found, _ = packed_attention(
        module, q, k, v, None, sequence_lengths=LENGTHS, scaling=0.3, sliding_window=window, softcap=softcap
    )
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) * 0.3
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~block_mask(causal, window), float("-inf"))
    torch.testing.assert_close(found, (scores.softmax(-1) @ v).transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_one_token_equals_its_row_of_the_whole(bias):
    torch.manual_seed(0)
    key, value = nn.Linear(16, 16, bias=bias), nn.Linear(16, 16, bias=bias)
    hidden, query = torch.randn(sum(LENGTHS), 16), torch.randn(len(LENGTHS), 16)
    found = pooled_attention(query, hidden, LENGTHS, key, value, head_width=4, scaling=0.5)
    expected = []
    for q, text in zip(query, hidden.split(LENGTHS), strict=True):
        heads = [t.unflatten(-1, (4, 4)).transpose(0, 1) for t in (q[None], key(text), value(text))]
        expected.append(F.scaled_dot_product_attention(*heads, scale=0.5).transpose(0, 1).flatten())
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_what_is_not_linear_is_left_alone():
    assert linear_weight(nn.Sequential(nn.Linear(2, 2))) is None
    assert linear_weight(nn.Identity()) is None
    linear = nn.Linear(2, 2)
    assert linear_weight(linear) == (linear.weight, linear.bias)


def test_the_config_is_restored_even_after_an_error():
    config = types.SimpleNamespace(_attn_implementation="sdpa", _attn_implementation_internal="sdpa")
    with pytest.raises(ValueError), packed_attention_in(config):
        assert config._attn_implementation_internal == NAME
        assert AttentionInterface()[NAME] is packed_attention  # where transformers looks the name up
        raise ValueError
    assert config._attn_implementation_internal == "sdpa"


def adapted(**options):
    """A linear layer with a LoRA adapter that does something."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["0"], **options)
    layer = peft.get_peft_model(nn.Sequential(nn.Linear(4, 3)), config).base_model.model[0]
    nn.init.normal_(layer.lora_B["default"].weight)
    return layer.eval()


@pytest.mark.parametrize("state", ["active", "disabled", "merged"])
def test_an_adapter_is_added_in_as_peft_does(state):
    layer, x = adapted(lora_dropout=0.5), torch.randn(5, 4)
    if state == "merged":
        layer.merge()
    layer.enable_adapters(state != "disabled")
    torch.testing.assert_close(F.linear(x, *linear_weight(layer)), layer(x), atol=1e-6, rtol=1e-5)


def test_an_adapter_that_is_not_linear_takes_the_long_way():
    assert linear_weight(adapted(lora_dropout=0.5).train()) is None
    assert linear_weight(adapted(lora_dropout=0.0).train()) is not None
    assert linear_weight(adapted(use_dora=True)) is None


def plain(q, k, v, scaling, causal=False):
    """Softmax attention in double precision, text by text."""
    scores = q.double() @ k.double().transpose(-1, -2) * scaling
    return (scores.masked_fill(~block_mask(causal, None), float("-inf")).softmax(-1) @ v.double()).transpose(1, 2)


@pytest.mark.parametrize("softcap", [None, 1e6])  # so high that it caps nothing
@pytest.mark.parametrize("causal", [False, True])
def test_scaling_is_by_width_where_the_model_names_none(softcap, causal):
    generator = torch.Generator().manual_seed(1)
    q, k, v = (states(2, generator) for _ in range(3))
    module = types.SimpleNamespace(is_causal=causal)
    found, _ = packed_attention(module, q, k, v, None, sequence_lengths=LENGTHS, softcap=softcap)
    torch.testing.assert_close(found.double(), plain(q, k, v, 8**-0.5, causal), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lengths", [(4,), (4, 4), (3, 5), (3, 3, 5, 5)])
def test_one_and_two_lengths(lengths):
    """Texts of one length go together; all of them come back, in their order."""
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, sum(lengths), 8, generator=generator) for _ in range(3))
    found, _ = packed_attention(types.SimpleNamespace(), q, k, v, None, sequence_lengths=lengths)
    texts = [F.scaled_dot_product_attention(*t) for t in zip(*(x.split(lengths, 2) for x in (q, k, v)), strict=True)]
    torch.testing.assert_close(found, torch.cat(texts, 2).transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_fp32_keeps_no_square_of_the_length(monkeypatch):
    """It must go through the fused kernel: `plan` counts on memory that grows with tokens."""
    real, seen = F.scaled_dot_product_attention, []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: seen.append(a[0].dtype) or real(*a, **k))
    for dtype in (torch.float32, torch.bfloat16):
        q = torch.zeros(1, 2, sum(LENGTHS), 8, dtype=dtype)
        packed_attention(types.SimpleNamespace(), q, q, q, None, sequence_lengths=LENGTHS)
    assert set(seen) == {torch.float32}


def test_a_module_that_does_not_say_sees_both_ways():
    generator = torch.Generator().manual_seed(1)
    q, k, v = (states(2, generator) for _ in range(3))
    found, _ = packed_attention(types.SimpleNamespace(), q, k, v, None, sequence_lengths=LENGTHS)
    torch.testing.assert_close(found.double(), plain(q, k, v, 8**-0.5), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_bf16_on_a_processor_is_the_same_attention(causal, window, scaling):
    """It takes another road there: two products and a softmax."""
    generator = torch.Generator().manual_seed(2)
    q, k, v = (states(2, generator).bfloat16() for _ in range(3))
    module = types.SimpleNamespace(is_causal=causal)
    found, _ = packed_attention(module, q, k, v, None, sequence_lengths=LENGTHS, scaling=scaling, sliding_window=window)
    scores = q.double() @ k.double().transpose(-1, -2) * (scaling or 8**-0.5)
    scores = scores.masked_fill(~block_mask(causal, window), float("-inf"))
    expected = (scores.softmax(-1) @ v.double()).transpose(1, 2)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, atol=0.03, rtol=0.03)


MIXED = (WIDTH, 3, WIDTH + 1, 2 * WIDTH, 5, 5)  # full, short, one more than full, twice as wide


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 3, WIDTH])
def test_bf16_pads_to_few_shapes_and_nothing_shows(causal, window):
    """Output and gradient against plain attention in double precision; padding must not even be a NaN."""
    generator = torch.Generator().manual_seed(4)
    drawn = [torch.randn(1, 2, sum(MIXED), 8, generator=generator).bfloat16() for _ in range(3)]
    module = types.SimpleNamespace(is_causal=causal)
    own = [tensor.clone().requires_grad_() for tensor in drawn]
    found, _ = packed_attention(module, *own, None, sequence_lengths=MIXED, sliding_window=window)
    exact = [tensor.double().requires_grad_() for tensor in drawn]
    mask = block_mask(causal, window, MIXED)
    scores = (exact[0] @ exact[1].transpose(-1, -2) * 8**-0.5).masked_fill(~mask, float("-inf"))
    expected = (scores.softmax(-1) @ exact[2]).transpose(1, 2)
    torch.testing.assert_close(found.double(), expected, atol=0.03, rtol=0.03)
    slope = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    (found.double() * slope).sum().backward()
    (expected * slope).sum().backward()
    for mine, plain_one in zip(own, exact, strict=True):
        torch.testing.assert_close(mine.grad.double(), plain_one.grad, atol=0.06, rtol=0.06)


def test_every_token_of_the_padding_sees_something():
    """A row of nothing but minus infinity is a NaN, and so is its gradient."""
    for causal in (False, True):
        for window in (None, 1, 3):
            seen = _may_see((2, 8, 1), 8, causal, window, torch.device("cpu"))
            assert seen.any(-1).all()
            for text, size in enumerate((2, 8, 1)):
                mask = seen[text, 0].expand(8, 8)[:size]
                assert not mask[:, size:].any()
                assert torch.equal(mask[:, :size], block_mask(causal, window, (size,)))


@pytest.mark.parametrize(
    ("dtype", "length", "products"),
    [
        (torch.float32, 500, False),
        (torch.bfloat16, 95, False),
        (torch.bfloat16, 96, True),
        (torch.bfloat16, 1024, True),
        (torch.bfloat16, 1025, False),
    ],
)
def test_which_road_is_taken(dtype, length, products):
    """Short texts make products too small to gain; past 1,024 tokens they would hold a square too many."""
    assert _products_are_faster(torch.zeros(1, 1, 8, 1, dtype=dtype), length) is products
    assert not _products_are_faster(torch.zeros(1, 1, 8, 1, dtype=torch.bfloat16, device="meta"), 500)


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_dropout_drops_weights_and_keeps_their_sum_in_the_mean(softcap):
    """Values of one everywhere: without dropout every output is one; with it, one on average."""
    ones = torch.ones(1, 2, 400, 4)
    q = k = torch.zeros_like(ones)
    attend = dict(sequence_lengths=(200, 200), softcap=softcap)
    whole, _ = packed_attention(types.SimpleNamespace(), q, k, ones, None, **attend)
    torch.testing.assert_close(whole, torch.ones_like(whole))
    torch.manual_seed(0)
    dropped, _ = packed_attention(types.SimpleNamespace(), q, k, ones, None, dropout=0.5, **attend)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert dropped.std().item() == pytest.approx(200**-0.5, rel=0.15)


def test_masks_are_made_where_the_states_are():
    """On a device without data, as on a GPU, a mask from elsewhere would be an error."""
    q = torch.zeros(1, 2, sum(LENGTHS), 8, device="meta")
    attend = dict(sequence_lengths=LENGTHS, sliding_window=2)
    assert packed_attention(types.SimpleNamespace(), q, q, q, None, **attend)[0].shape == (1, sum(LENGTHS), 2, 8)


def test_a_window_as_wide_as_the_text_needs_no_mask():
    assert _window_mask(4, 4, True, torch.device("cpu")) is None
    assert _window_mask(4, 3, True, torch.device("cpu")).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 1, 1, 1],
    ]
    assert _window_mask(3, 1, False, torch.device("cpu")).int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def project(bias=True):
    torch.manual_seed(3)
    return nn.Linear(16, 16, bias=bias), nn.Linear(16, 16, bias=bias), torch.randn(sum(LENGTHS), 16), torch.randn(4, 16)


def test_projections_that_are_not_linear_are_computed():
    """The same numbers on both roads: keys alone, values alone, both."""
    key, value, hidden, query = project()
    arguments = dict(head_width=4, scaling=0.5)
    short = pooled_attention(query, hidden, LENGTHS, key, value, **arguments)
    long_key, long_value = nn.Sequential(key), nn.Sequential(value)
    for k, v in ((long_key, value), (key, long_value), (long_key, long_value)):
        torch.testing.assert_close(
            pooled_attention(query, hidden, LENGTHS, k, v, **arguments), short, atol=1e-5, rtol=1e-5
        )


def test_one_token_drops_attention_as_the_whole_would():
    """With dropout, weights no longer sum to one, so the values' bias must be weighted too."""
    key, value, _, _ = project()
    nn.init.zeros_(key.weight), nn.init.zeros_(value.weight)
    nn.init.ones_(value.bias)
    hidden, query = torch.randn(400, 16), torch.randn(2, 16)
    torch.manual_seed(0)
    found = pooled_attention(query, hidden, (200, 200), key, value, head_width=4, scaling=0.5, dropout=0.5)
    kept = found / (2 / 200)  # of 200 equal weights, those that were kept
    torch.testing.assert_close(kept, kept.round(), atol=1e-3, rtol=0)
    assert kept.min() > 70 and kept.max() < 130 and kept.unique().numel() > 1


def test_one_token_is_computed_in_fp32_whatever_is_around_it():
    """In bf16 a LoRA update would be rounded away when it is added to its weight."""
    key, value, hidden, query = project()
    expected = pooled_attention(query, hidden, LENGTHS, key, value, head_width=4, scaling=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        found = pooled_attention(query, hidden, LENGTHS, key, value, head_width=4, scaling=0.5)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
