"""The table of model types whose layers we know: where they live, which token feeds the head, how the last layer ends.

Stands under `forward`, which reads it. A model type that is not here (or that shares its layers, like ALBERT) still
trains: `forward` then calls the model as it is, on a padded batch, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class LastLayer:
    """How an encoder's layer is computed for one token: its projections, and what follows attention."""

    query: str  # dotted path inside the layer
    key: str
    value: str
    attention: str  # module that holds `scaling` and `dropout`
    finish: Callable[[Any, Tensor, Tensor], Tensor]  # (layer, context [1, B, D], residual [1, B, D]) -> [1, B, D]


@dataclass(frozen=True)
class Architecture:
    """One model type; paths are dotted names inside the base model."""

    layers: str
    pooled: str  # "first" or "last" token of each text
    final_norm: str | None = None  # where mean pooling, if the config asks for it, has to happen
    positions_start: str = "zero"  # "zero", or "after_padding" for RoBERTa's positions from padding_idx + 1
    last_layer: LastLayer | None = None
    checks_shape: bool = False  # the model's own code wants [1, N, D] back from its layers, so pooling waits


def _finish_bert(layer: Any, context: Tensor, residual: Tensor) -> Tensor:
    return layer.feed_forward_chunk(layer.attention.output(context, residual))


def _finish_distilbert(layer: Any, context: Tensor, residual: Tensor) -> Tensor:
    attended = layer.sa_layer_norm(layer.attention.out_lin(context) + residual)
    return layer.output_layer_norm(layer.ffn(attended) + attended)


_BERT_LAST = LastLayer(
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.self", _finish_bert
)
_DISTILBERT_LAST = LastLayer("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention", _finish_distilbert)
_BERT = Architecture("encoder.layer", "first", last_layer=_BERT_LAST)
_ROBERTA = Architecture("encoder.layer", "first", positions_start="after_padding", last_layer=_BERT_LAST)
_DECODER = Architecture("layers", "last", final_norm="norm")

ARCHITECTURES: dict[str, Architecture] = {
    "bert": _BERT,
    "electra": _BERT,
    "distilbert": Architecture("transformer.layer", "first", last_layer=_DISTILBERT_LAST),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "modernbert": Architecture("layers", "first", final_norm="final_norm"),
    "gpt2": Architecture("h", "last", final_norm="ln_f", checks_shape=True),
    "llama": _DECODER,
    "mistral": _DECODER,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "gemma": _DECODER,
    "gemma2": _DECODER,
    "gemma3_text": _DECODER,
}


def find(model: nn.Module) -> Architecture | None:
    """The table's row for this model, or None where it has none."""
    config: Any = model.config
    return ARCHITECTURES.get(config.model_type)


def pools_by_mean(model: nn.Module) -> bool:
    """Whether the head reads the mean of all tokens (ModernBERT's `classifier_pooling: mean`)."""
    return getattr(model.config, "classifier_pooling", None) == "mean"
