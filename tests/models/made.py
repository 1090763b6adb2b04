"""A tiny base, loaded, with its trainable parameters chosen and nudged: what most tests of this folder start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tunewright.data.labels import LabelSpec
from tunewright.models.heads import head_modules
from tunewright.models.loading import BaseModel, Loaded, add_pad_token, load_base, resolve_base
from tunewright.models.trainable import TrainableReport, TrainableSpec, choose

LABELS = LabelSpec("single", ("bad", "good", "so-so"), ("0", "1", "2"))
HEADS = {  # everything behind the last layer
    "bert": ("bert.pooler", "classifier"),
    "distilbert": ("pre_classifier", "classifier"),
    "roberta": ("classifier",),
    "modernbert": ("model.final_norm", "head", "classifier"),
    "deberta-v2": ("pooler", "classifier"),
    "albert": ("albert.pooler", "classifier"),
    "gpt2": ("transformer.ln_f", "score"),
    "llama": ("model.norm", "score"),
    "gemma": ("model.norm", "score"),
}
PROBE = [[4, 5, 6], [7, 8, 9, 10, 11, 12, 13], [5], [9, 8, 7, 6]]


@dataclass(frozen=True)
class Made:
    base: BaseModel
    loaded: Loaded
    model: Any
    report: TrainableReport


def make(
    kind: str, folder: Path, method: str = "lora", *, nudge: bool = True, labels: LabelSpec = LABELS, **spec: Any
) -> Made:
    """Base saved, loaded, chosen; trainable parameters moved a little, as training would."""
    path = folder / f"base-{kind}"
    if not path.exists():
        tiny.save(kind, path)
    base = resolve_base(str(path))
    loaded = load_base(base, labels, seed=1, dropout=None if method == "full" else 0.0)
    if method == "full" and loaded.needs_pad_token:
        add_pad_token(loaded.model, loaded.tokenizer)
    head = head_modules(loaded.model, loaded.new_parameters)
    chosen = choose(loaded.model, TrainableSpec(method, **spec), head)
    generator = torch.Generator().manual_seed(2)
    for parameter in chosen.model.parameters() if nudge else ():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return Made(base, loaded, chosen.model.eval(), chosen.report)
