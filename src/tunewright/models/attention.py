"""Attention over texts laid end to end: each text sees only itself; and attention of one token per text.

`packed_attention` is registered with transformers and called by a model's own code while `packed_attention_in` holds.
Shapes: N tokens of all texts, B texts, H heads, G key heads, D model width, d head width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "tunewright_packed"
WIDTH = 32  # tokens: lengths are rounded up to a multiple of it where padding is cheaper than another shape


@contextlib.contextmanager
def packed_attention_in(config: Any) -> Generator[None]:
    """Models of this config call `packed_attention`; transformers builds no mask for a name it doesn't know."""
    AttentionInterface.register(NAME, packed_attention)
    own = config._attn_implementation
    config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        config._attn_implementation_internal = own


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequence_lengths: tuple[int, ...],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each text: query [1, H, N, d], key and value [1, G, N, d] -> [1, N, H, d]."""
    causal = bool(getattr(module, "is_causal", False))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if softcap is None and dropout == 0 and _products_are_faster(query, max(sequence_lengths)):
        window = None if sliding_window is None or sliding_window >= max(sequence_lengths) else sliding_window
        return _by_products(query[0], key[0], value[0], sequence_lengths, scaling, causal, window)[None], None
    rest = (sequence_lengths, scaling, dropout, causal, sliding_window, softcap)
    if value.device.type == "cpu" and value.dtype == torch.bfloat16:  # here fp32 is no slower, and more exact
        with torch.autocast("cpu", enabled=False):
            return _text_by_text(query.float(), key.float(), value.float(), *rest)[None].bfloat16(), None
    return _text_by_text(query, key, value, *rest)[None], None


def _text_by_text(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    scaling: float | None,
    dropout: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Neighbours of one length go together: [1, H, N, d] three times -> [N, H, d]."""
    runs = [(length, len(list(same))) for length, same in groupby(lengths)]
    sizes = [length * count for length, count in runs]
    outputs = []
    for (length, count), *parts in zip(runs, *(t[0].split(sizes, 1) for t in (query, key, value)), strict=True):
        q, k, v = (part.unflatten(1, (count, length)).transpose(0, 1) for part in parts)  # [count, H, length, d]
        out = _attend(q, k, v, scaling, dropout, causal, window, softcap)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scaling: float | None,
    dropout: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention of texts of one length: [count, H, length, d] -> the same."""
    mask = _window_mask(q.shape[2], window, causal, q.device) if window is not None else None
    if softcap is None:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal and mask is None, scale=scaling
        )
    scores = (q * (scaling if scaling is not None else q.shape[-1] ** -0.5)) @ k.transpose(-2, -1)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is None and causal:
        mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return F.dropout(scores.softmax(-1), dropout, training=dropout > 0) @ v


def _products_are_faster(q: Tensor, longest: int) -> bool:
    """On a CPU the fused attention gains nothing from bf16: two products and a softmax take half its time.

    Not for short texts, whose products are too small (benchmarks/attention.py), nor for very long ones: the weights
    grow with the square of the length (25 MB a layer for 2,048 tokens of 512, 12 heads).
    """
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and 96 <= longest <= 1024


def _by_products(
    q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], scaling: float | None, causal: bool, window: int | None
) -> Tensor:
    """Attention by two products: [H, N, d] three times -> [N, H, d].

    Neighbours whose lengths round up to the same width go together, padded to it: few shapes, since each is compiled.
    """
    parts = [[text.transpose(0, 1) for text in t.split(lengths, 1)] for t in (q, k, v)]  # [length, H, d]
    outputs: list[Tensor] = []
    start = 0
    for width, same in groupby(lengths, lambda length: -(-length // WIDTH) * WIDTH):
        sizes = tuple(same)
        own = slice(start, start + len(sizes))
        start += len(sizes)
        query, key, value = (_filled(part[own], width) for part in parts)  # [count, H, width, d]
        scores = (query * (scaling if scaling is not None else q.shape[-1] ** -0.5)) @ key.transpose(-2, -1)
        _hide(scores, sizes, causal, window)
        with torch.autocast(q.device.type, enabled=False):  # which would keep the weights in fp32
            out = (scores.softmax(-1) @ value).transpose(1, 2)
        outputs += [text[:size] for text, size in zip(out, sizes, strict=True)]
    return torch.cat(outputs)


@torch.no_grad()
def _hide(scores: Tensor, sizes: tuple[int, ...], causal: bool, window: int | None) -> None:
    """−inf where nothing may be seen, in place: the softmax gives those no weight, and so no gradient either."""
    width = scores.shape[-1]
    # Of texts that see both ways only what is padding is hidden; where nothing is padded, nothing.
    first = 0 if causal or window is not None else min(sizes)
    if first < width:
        hidden = ~_may_see(sizes, width, causal, window, scores.device)
        scores[..., first:].masked_fill_(hidden[..., first:], float("-inf"))


def _filled(texts: list[Tensor], width: int) -> Tensor:
    """[length, H, d] of each text, zeros behind -> [count, H, width, d]."""
    together = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    return F.pad(together, (0, 0, 0, 0, 0, width - together.shape[1])).transpose(1, 2)


def _may_see(sizes: tuple[int, ...], width: int, causal: bool, window: int | None, device: torch.device) -> Tensor:
    """True = may be seen, [count, 1, 1 or width, width]. Padding behind a text sees its first token, not nothing."""
    position = torch.arange(width, device=device)
    there = position < torch.tensor(sizes, device=device)[:, None]  # [count, width]
    if not causal and window is None:
        return there[:, None, None]
    seen = position[:, None] >= position if causal else torch.ones(width, width, dtype=torch.bool, device=device)
    if window is not None:
        seen = seen & ((position[:, None] - position).abs() < window)
    seen = there[:, None, None] & seen
    return seen | ((position == 0) & ~seen.any(-1, keepdim=True))


def _window_mask(length: int, window: int, causal: bool, device: torch.device) -> Tensor | None:
    """True = may be seen, [length, length]; None where the window is wider than the text."""
    if window >= length:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position
    return (distance >= 0) & (distance < window) if causal else distance.abs() < window


def pooled_attention(
    query: Tensor,
    hidden: Tensor,
    lengths: tuple[int, ...],
    key: nn.Module,
    value: nn.Module,
    *,
    head_width: int,
    scaling: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of one token per text over its text: query [B, D], hidden [N, D] -> context [B, D].

    With one query per text, q·(W x + b) = (Wᵀ q)·x + const and Σ a (W x + b) = W (Σ a x) + b, so the keys and values
    of the N tokens are never computed. A projection that is not linear in x (adapter dropout in training) is.
    In fp32, whatever the model computes in: a LoRA update added to a weight in bf16 would be rounded away.
    """
    off = torch.autocast(hidden.device.type, enabled=False)
    with off:
        key_weight = linear_weight(key)
        value_weight = linear_weight(value) if dropout == 0 else None  # dropped weights don't sum to one
    keys = key(hidden).unflatten(1, (-1, head_width)) if key_weight is None else hidden[:, None]  # [N, H or 1, d or D]
    values = value(hidden).unflatten(1, (-1, head_width)) if value_weight is None else hidden[:, None]
    with off:
        q = query.float().unflatten(1, (-1, head_width))  # [B, H, d]
        if key_weight is not None:
            q = torch.einsum("bhd,hdm->bhm", q, key_weight[0].unflatten(0, (-1, head_width)))
        return _pooled(q, keys.float(), values.float(), lengths, value_weight, scaling, dropout)


def _pooled(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: tuple[int, ...],
    value_weight: tuple[Tensor, Tensor | None] | None,
    scaling: float,
    dropout: float,
) -> Tensor:
    """Scores, weights and their mixture, text by text: [B, H, m], [N, H or 1, m] twice -> [B, D]."""
    contexts = []
    for q_text, k_text, v_text in zip(q, keys.split(lengths), values.split(lengths), strict=True):
        weights = (_scores(q_text, k_text) * scaling).softmax(-1)
        weights = F.dropout(weights, dropout, training=dropout > 0)
        contexts.append(_mix(weights, v_text))
    context = torch.stack(contexts)  # [B, H, D], or [B, H, d] where values were computed
    if value_weight is not None:
        weight, bias = value_weight
        context = torch.einsum("bhm,hdm->bhd", context, weight.unflatten(0, (q.shape[1], -1)))
        context = context if bias is None else context + bias.unflatten(0, (q.shape[1], -1))
    return context.flatten(1)


def _scores(query: Tensor, keys: Tensor) -> Tensor:
    """[H, m] · [n, 1 or H, m] -> [H, n]."""
    return query @ keys[:, 0].T if keys.shape[1] == 1 else torch.einsum("hm,nhm->hn", query, keys)


def _mix(weights: Tensor, values: Tensor) -> Tensor:
    """[H, n] · [n, 1 or H, m] -> [H, m]."""
    return weights @ values[:, 0] if values.shape[1] == 1 else torch.einsum("hn,nhm->hm", weights, values)


def linear_weight(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Weight [out, in] and bias of a projection in fp32, its LoRA update added in, or None where it isn't linear."""
    if type(module) is nn.Linear:
        return module.weight.float(), _in_fp32(module.bias)
    layer: Any = module
    if not hasattr(layer, "lora_A") or type(layer.base_layer) is not nn.Linear or any(layer.use_dora.values()):
        return None
    weight, bias = layer.base_layer.weight.float(), layer.base_layer.bias
    for name in layer.active_adapters if not (layer.disable_adapters or layer.merged) else ():
        dropout = layer.lora_dropout[name]
        if layer.training and getattr(dropout, "p", 0.0) > 0:
            return None
        weight = weight + layer.scaling[name] * (layer.lora_B[name].weight @ layer.lora_A[name].weight)
    return weight, _in_fp32(bias)


def _in_fp32(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float()
