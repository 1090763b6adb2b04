"""A tiny language model of every kind, loaded, with its trainable parameters chosen and nudged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests import tiny
from tests.models.made import Made
from tunewright.models.finding import resolve_base
from tunewright.models.trainable import TrainableSpec, choose
from tunewright.models.writers import load_writer, new_modules

GEMMA3 = {
    **{"vocab_size": 31, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    **{"max_position_embeddings": 64, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 6},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0},
}
READERS = {  # they read a text with an encoder, then write
    "t5": lambda words: hf.T5Config(
        vocab_size=words, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=2,
        decoder_start_token_id=0, dropout_rate=0.0,
    ),
    "bart": lambda words: hf.BartConfig(
        vocab_size=words, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    ),
}  # fmt: skip
CAUSAL = ("gpt2", "llama", "gemma", "gemma3")
MASKED = ("bert", "distilbert", "roberta", "modernbert")
KINDS = {
    **dict.fromkeys(CAUSAL, "causal"),
    **dict.fromkeys(READERS, "encoder-decoder"),
    **dict.fromkeys(MASKED, "masked"),
}
AUTO = {
    "causal": hf.AutoModelForCausalLM,
    "encoder-decoder": hf.AutoModelForSeq2SeqLM,
    "masked": hf.AutoModelForMaskedLM,
}
TIED = [kind for kind in KINDS if kind != "llama"]


def save_writer(kind: str, folder: Path) -> Path:
    """A language model with its head and its tokenizer; returns the folder. Every weight off its initial value."""
    like = {"gemma3": "gemma"}.get(kind, kind)
    tokenizer = tiny.tokenizer("bert" if kind in READERS else like)
    if kind in READERS:
        config = READERS[kind](len(tokenizer))
    else:
        config = hf.Gemma3TextConfig(**GEMMA3) if kind == "gemma3" else tiny.config(kind)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = AUTO[KINDS[kind]].from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    torch.set_rng_state(state)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_writer(kind: str, folder: Path, method: str = "lora", *, nudge: bool = True, **spec: Any) -> Made:
    """Base saved, loaded, chosen; trainable parameters moved a little, as training would."""
    path = folder / f"base-{kind}"
    if not path.exists():
        save_writer(kind, path)
    base = resolve_base(str(path))
    loaded = load_writer(base, None, seed=1, dropout=0.0)
    chosen = choose(loaded.model, TrainableSpec(method, **spec), new_modules(loaded.model, loaded.new_parameters))
    generator = torch.Generator().manual_seed(2)
    for parameter in chosen.model.parameters() if nudge else ():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return Made(base, loaded, chosen.model.eval(), chosen.report)
