"""Tiny real base models and tokenizers, built from a config in milliseconds and saved like downloaded ones.

A folder holds the model without a head, so that the head is newly initialised, as with a real base.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

WORDS = {
    "positive": ["good", "great", "lovely", "superb", "fun", "warm", "bright", "clever"],
    "negative": ["bad", "awful", "dull", "poor", "weak", "cold", "dark", "silly"],
    "neither": ["the", "film", "plot", "was", "a", "really", "story", "with", "actor", "scene", "and", "music"],
}
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
ENCODERS = ("bert", "distilbert", "roberta", "modernbert", "deberta-v2", "albert")
DECODERS = ("gpt2", "llama", "gemma")
KINDS = (*ENCODERS, *DECODERS)


def sentences(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Separable toy reviews with a label."""
    generator = random.Random(seed)
    rows = []
    for i in range(n):
        label = ("positive", "negative")[i % 2]
        words = generator.choices(WORDS["neither"], k=generator.randint(3, 14)) + generator.choices(WORDS[label], k=2)
        generator.shuffle(words)
        rows.append({"text": " ".join(words), "label": label})
    return rows


def tokenizer(kind: str) -> Any:
    """A word tokenizer with the special tokens of this kind; decoders have no pad token."""
    words = sorted(w for group in WORDS.values() for w in group)
    if kind in DECODERS:
        special, names = ["<bos>", "<eos>", "<unk>"], {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    else:
        special = SPECIAL
        names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
        names["mask_token"] = "[MASK]"
    if kind == "roberta":  # positions start behind the padding index, so it must not be 0
        special = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    if kind in DECODERS and kind != "gpt2":
        backend.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 0)])
    elif kind not in DECODERS:
        pieces = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
        backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=pieces)
    return hf.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)


def config(kind: str, layers: int = 2) -> Any:
    """A config of width 32."""
    tok = tokenizer(kind)
    ids = {"pad_token_id": tok.pad_token_id, "bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id}
    shape = {
        "vocab_size": len(tok),
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 66 if kind == "roberta" else 64,
    }
    grouped = {**shape, "num_key_value_heads": 2, "head_dim": 8}
    modern = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return {
        "bert": lambda: hf.BertConfig(**shape, pad_token_id=0),
        "distilbert": lambda: hf.DistilBertConfig(
            vocab_size=len(tok), dim=32, n_layers=layers, n_heads=4, hidden_dim=64, max_position_embeddings=64
        ),
        "roberta": lambda: hf.RobertaConfig(**shape, pad_token_id=1, bos_token_id=0, eos_token_id=2),
        "modernbert": lambda: hf.ModernBertConfig(**shape, **modern, global_attn_every_n_layers=2, local_attention=8),
        "deberta-v2": lambda: hf.DebertaV2Config(
            **shape, pad_token_id=0, relative_attention=True, pos_att_type=["c2p"]
        ),
        "albert": lambda: hf.AlbertConfig(**shape, embedding_size=16, pad_token_id=0),
        "gpt2": lambda: hf.GPT2Config(
            vocab_size=len(tok), n_embd=32, n_layer=layers, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1
        ),
        "llama": lambda: hf.LlamaConfig(**grouped, **ids),
        "gemma": lambda: hf.GemmaConfig(**grouped, **ids),
    }[kind]()


def save(kind: str, folder: Path, *, layers: int = 2) -> Path:
    """Save a base model of this kind with its tokenizer; returns the folder."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    hf.AutoModel.from_config(config(kind, layers)).save_pretrained(folder)
    torch.set_rng_state(state)
    tokenizer(kind).save_pretrained(folder)
    return folder
