"""Whole runs of models that write, on tiny real ones: a question whose answer can be learnt, and plain text."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests import tiny, whole
from tunewright.library import train
from tunewright.runs import Run

TEMPLATE = "the film was {film} a story {verdict}"
CLASSES = {"llama": hf.LlamaForCausalLM, "gpt2": hf.GPT2LMHeadModel, "gemma": hf.GemmaForCausalLM}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"trainable.rank": 4, "trainable.dropout": 0.1},
    "full": {"trainable.method": "full"},
    "head": {"trainable.method": "head"},
}
SETTINGS: dict[str, Any] = {
    "training.threads": 1,
    "training.precision": "fp32",
    "training.device": "cpu",
    "training.epochs": 3.0,
    "training.batch_size": 8,
    "training.learning_rate": 1e-2,
    "evaluation.bootstrap_samples": 100,
    "evaluation.max_new_tokens": 4,
    "evaluation.generate_rows": 6,
    "evaluation.retain": "none",
}


@cache
def base(kind: str = "llama") -> Path:
    """A tiny causal model on disk, head and all."""
    folder = whole.scratch() / f"{kind}-writer"
    torch.manual_seed(0)
    CLASSES[kind](tiny.config(kind)).save_pretrained(str(folder))
    tiny.tokenizer(kind).save_pretrained(str(folder))
    return folder


def rows(n: int = 40) -> list[dict[str, str]]:
    """Reviews as questions: the answer is the class's own word."""
    return [
        {"film": row["text"], "verdict": {"positive": "good", "negative": "bad"}[row["label"]]}
        for row in tiny.sentences(n)
    ]


@cache
def data_file(n: int = 40) -> Path:
    """The same as JSON lines."""
    path = whole.scratch() / f"verdicts-{n}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(n)), encoding="utf-8")
    return path


def start(runs: Path, method: str = "lora", **arguments: Any) -> Run:
    """Train a tiny writer; `settings` go on top of the usual ones."""
    settings = SETTINGS | {"data.template": TEMPLATE} | METHODS[method] | arguments.pop("settings", {})
    kind, data = arguments.pop("kind", "llama"), arguments.pop("data", None)
    return train(
        str(base(kind)), str(data_file()) if data is None else data, task="generate", settings=settings, runs=runs,
        **arguments,
    )  # fmt: skip


@cache
def finished(method: str = "lora") -> Run:
    """A finished run that tests may read but not change."""
    return start(whole.scratch() / "writers", method, name=f"writer-{method}")
