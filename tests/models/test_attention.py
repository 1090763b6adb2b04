"""Packed attention against plain attention with a block mask; one-token attention against the whole."""

from __future__ import annotations

import types

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tunewright.models.attention import NAME, linear_weight, packed_attention, packed_attention_in, pooled_attention

LENGTHS = (3, 5, 5, 2)


def states(heads, generator):
    return torch.randn(1, heads, sum(LENGTHS), 8, generator=generator)


def block_mask(causal, window):
    text = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    position = torch.arange(sum(LENGTHS))
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
