"""Stand-ins that `forward` puts into a model's list of layers for one call: skip, inject, record, pool.

None of them owns a parameter, and none registers the layer it stands for, so a model's state never shows them.
Shapes: hidden states [1, N, D] for N tokens laid end to end; pooled [B, 1, D].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunewright.models.architectures import LastLayer
from tunewright.models.attention import pooled_attention


@dataclass(frozen=True)
class PoolPlan:
    """Which token of each text feeds the head."""

    indices: Tensor  # int64 [B], positions among the N tokens
    lengths: tuple[int, ...]
    last_layer: LastLayer | None  # how to compute the layer for that token alone, if known


class Skip(nn.Module):
    """A layer that has nothing to do; shows the attribute that some models read off their layers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.attention_type = getattr(layer, "attention_type", None)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden


class Inject(Skip):
    """Puts the cache's hidden states in the place of those that arrive."""

    def __init__(self, layer: nn.Module, states: Tensor) -> None:
        super().__init__(layer)
        self.states = states

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.states


class Record(Skip):
    """Keeps the hidden states that reach it, or that leave the layer it follows."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.states: Tensor | None = None
        self._inner: tuple[nn.Module, ...] = ()

    def after(self, layer: nn.Module) -> Record:
        self._inner = (layer,)  # a tuple, so that the layer isn't registered twice
        return self

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        for layer in self._inner:
            hidden = layer(hidden, *args, **kwargs)
        self.states = hidden
        return hidden


class Pool(Skip):
    """The last layer for the pooled tokens: alone where its parts are known, else whole and then gathered."""

    def __init__(self, layer: nn.Module, plan: PoolPlan) -> None:
        super().__init__(layer)
        self._inner = (layer,)
        self.plan = plan

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        (layer,) = self._inner
        if self.plan.last_layer is not None:
            return _one_token_layer(layer, self.plan, self.plan.last_layer, hidden)
        return layer(hidden, *args, **kwargs).index_select(1, self.plan.indices).transpose(0, 1)


def _one_token_layer(layer: nn.Module, plan: PoolPlan, names: LastLayer, hidden: Tensor) -> Tensor:
    """The layer's output for one token per text: [1, N, D] -> [B, 1, D]."""
    residual = hidden.index_select(1, plan.indices)
    attention: Any = layer.get_submodule(names.attention)
    context = pooled_attention(
        layer.get_submodule(names.query)(residual)[0],
        hidden[0, : sum(plan.lengths)],
        plan.lengths,
        layer.get_submodule(names.key),
        layer.get_submodule(names.value),
        head_width=attention.attention_head_size,
        scaling=attention.scaling,
        dropout=attention.dropout.p if attention.training else 0.0,
    )
    return names.finish(layer, context[None], residual).transpose(0, 1)


def mean_per_text(hidden: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Mean of each text's tokens: [1, N, D] -> [B, 1, D]."""
    texts = hidden[0, : sum(lengths)].split(list(lengths))
    return torch.stack([text.mean(0, keepdim=True) for text in texts])
