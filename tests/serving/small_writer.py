"""Tiny models that write, with the format of a run beside them: what tests of using them start from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from peft import LoraConfig, TaskType, get_peft_model

from tests.data import tiny_tokenizers
from tests.data.test_written import Rows
from tunewright.data.written import PROMPT_FORMAT, Format, recognise
from tunewright.data.written_tokens import RowEncoder
from tunewright.models.finding import resolve_base
from tunewright.models.saving import save_model

QUESTIONS = [
    {"question": f"what is {word}?", "answer": f"a {word}"} for word in ("tea", "rain", "the long film", "salt", "good")
]
TALKS = [
    {"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "the good film"}]}
    for n in "abc"
]
TEMPLATE = "Q: {question}\nA: {answer}"


def config(kind: str, tokenizer: Any, positions: int) -> Any:
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "vocab_size": len(tokenizer)}
    if kind == "gpt2":
        return hf.GPT2Config(**ids, n_embd=32, n_layer=2, n_head=4, n_positions=positions)
    return hf.LlamaConfig(
        **ids, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=64, max_position_embeddings=positions,
    )  # fmt: skip


def base(folder: Path, kind: str = "gpt2", positions: int = 96) -> Path:
    """A base model's folder, with a chat template's absence and a tokenizer that can spell anything."""
    tokenizer = getattr(tiny_tokenizers, kind)()
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config(kind, tokenizer, positions))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(
    folder: Path,
    rows: Sequence[dict[str, Any]] = QUESTIONS,
    *,
    kind: str = "gpt2",
    lora: bool = True,
    max_length: int = 48,
    max_new_tokens: int = 6,
    positions: int = 96,
    **asked: Any,
) -> Path:
    """A run's folder: a base, and a model that differs from it, saved as a run saves it."""
    found = resolve_base(str(base(folder / "base", kind, positions)))
    tokenizer = hf.AutoTokenizer.from_pretrained(found.path)
    model: Any = hf.AutoModelForCausalLM.from_pretrained(found.path, dtype=torch.float32)
    torch.manual_seed(1)
    if lora:
        settings = LoraConfig(r=4, target_modules="all-linear", task_type=TaskType.CAUSAL_LM, init_lora_weights=False,
                              fan_in_fan_out=kind == "gpt2")  # fmt: skip
        model = get_peft_model(model, settings)
    else:
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    save_model(model.eval(), tokenizer, folder / "model", base=found, labels=None, max_length=max_length,
               truncate="left")  # fmt: skip
    form = recognise(Rows(*rows), **asked)
    body = form.to_json() | {"max_new_tokens": max_new_tokens}
    (folder / "model" / PROMPT_FORMAT).write_text(json.dumps(body))
    summary = {"id": folder.name, "name": folder.name, "state": "succeeded", "created": "2026",
               "model": {"name": str(found.path), "path": found.path, "hub_id": None, "revision": None}}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(summary))
    return folder


def encoder(folder: Path, form: Format, max_length: int | None = 48) -> RowEncoder:
    """The encoder that training had."""
    return RowEncoder.of(form, hf.AutoTokenizer.from_pretrained(folder / "base"), max_length, "left")


def theirs(model: Any, ids: list[int], new: int, eos: Sequence[int]) -> list[int]:
    """What transformers writes after one prompt, greedily."""
    output = model.generate(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
        max_new_tokens=new, eos_token_id=list(eos), pad_token_id=0,
    )  # fmt: skip
    return output[0].tolist()[len(ids) :]
