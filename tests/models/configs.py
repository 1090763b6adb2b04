"""Tiny configs of every architecture the forward describes, and two it doesn't. Random weights, no dropout."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

_SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "num_labels": 3,
}
_GROUPED = {**_SHAPE, "num_key_value_heads": 2}
_GEMMA = {**_SHAPE, "num_key_value_heads": 1, "head_dim": 8}
_MODERN = {
    **_SHAPE,
    "local_attention": 8,
    "global_attn_every_n_layers": 2,
    "cls_token_id": 1,
    "bos_token_id": 1,
    "sep_token_id": 2,
    "eos_token_id": 2,
}

DESCRIBED: dict[str, Any] = {
    "bert": lambda: hf.BertConfig(**_SHAPE),
    "electra": lambda: hf.ElectraConfig(**_SHAPE, embedding_size=32),
    "roberta": lambda: hf.RobertaConfig(**{**_SHAPE, "pad_token_id": 1}),
    "distilbert": lambda: hf.DistilBertConfig(
        vocab_size=50, dim=32, n_layers=3, n_heads=4, hidden_dim=64, max_position_embeddings=64, num_labels=3
    ),
    "modernbert-mean": lambda: hf.ModernBertConfig(**_MODERN, classifier_pooling="mean"),
    "modernbert-cls": lambda: hf.ModernBertConfig(**_MODERN, classifier_pooling="cls"),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=50, n_embd=32, n_layer=3, n_head=4, n_positions=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        num_labels=3,
    ),
    "llama": lambda: hf.LlamaConfig(**_GROUPED),
    "mistral": lambda: hf.MistralConfig(**_GROUPED, sliding_window=6),
    "qwen2": lambda: hf.Qwen2Config(**_GROUPED),
    "qwen3": lambda: hf.Qwen3Config(**_GROUPED, head_dim=8),
    "gemma": lambda: hf.GemmaConfig(**_GEMMA),
    "gemma2": lambda: hf.Gemma2Config(**_GEMMA, sliding_window=6),
    "gemma3": lambda: hf.Gemma3TextConfig(**_GEMMA, sliding_window=6),
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "albert": lambda: hf.AlbertConfig(**_SHAPE, embedding_size=16),
    "deberta": lambda: hf.DebertaV2Config(**_SHAPE, relative_attention=True, pos_att_type=["p2c", "c2p"]),
}


def build(kind: str) -> Any:
    """A classifier of this kind, in training mode, every weight moved off its initial value."""
    torch.manual_seed(0)
    model = hf.AutoModelForSequenceClassification.from_config((DESCRIBED | PLAIN)[kind]())
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    without_dropout(model)
    return model.train()


WRITERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")


def build_writer(kind: str) -> Any:
    """A language model of this kind, in training mode, every weight moved off its initial value."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(DESCRIBED[kind]())
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    without_dropout(model)
    return model.train()


def without_dropout(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
