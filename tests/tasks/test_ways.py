"""Encoders learn by masked words, encoder–decoder models by pairs, and what each can't do is said."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
import transformers as hf

from tests import tiny, whole, writing
from tunewright.errors import ModelError, RecipeError
from tunewright.library import train

PLAIN = writing.SETTINGS | {"evaluation.generate_rows": "auto"}


@cache
def stories() -> str:
    path = whole.scratch() / "stories-60.txt"
    path.write_text("\n\n".join(row["text"] for row in tiny.sentences(60)), encoding="utf-8")
    return str(path)


@cache
def reader() -> Path:
    """A tiny T5 on disk."""
    folder = whole.scratch() / "t5-writer"
    tokenizer = tiny.tokenizer("bert")
    tokenizer.eos_token = "[SEP]"
    torch.manual_seed(0)
    config = hf.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    hf.T5ForConditionalGeneration(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def test_an_encoder_learns_from_plain_text_and_becomes_a_base(tmp_path):
    settings = PLAIN | {"training.epochs": 6.0, "evaluation.retain": "general", "trainable.method": "full"}
    run = train(str(whole.base("bert")), stories(), task="continue", runs=tmp_path, name="mlm", settings=settings)
    before, after = run.summary["comparison"]["before"], run.metrics
    assert after["perplexity"] < 0.9 * before["perplexity"]
    assert run.summary["forgetting"]["kind"] == "masked perplexity"
    body = hf.AutoModelForMaskedLM.from_pretrained(str(run.folder / "model"))
    tuned = train(f"run:{run.id}", str(whole.data_file()), runs=tmp_path, settings=whole.SETTINGS, name="next")
    start = whole.tensors(tuned.folder)  # the untrained head alone
    assert tuned.state == "succeeded" and start
    grown = dict(tuned.untrained.model.named_parameters())
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(grown[name], dict(body.named_parameters())[name]), "the body goes on from where it was"


def test_an_encoder_decoder_learns_to_answer(tmp_path):
    settings = writing.SETTINGS | {
        "data.template": writing.TEMPLATE, "training.epochs": 20.0, "trainable.method": "full",
    }  # fmt: skip
    run = train(str(reader()), str(writing.data_file()), task="generate", runs=tmp_path, settings=settings)
    assert run.summary["comparison"]["before"]["exact_match"] == 0 and run.metrics["exact_match"] == 1
    assert [str(answer) for answer in run.predict([{"film": "good good plot"}, {"film": "dull dull plot"}])] == [
        "good", "bad",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "task", "settings", "error", "message"),
    [
        (lambda: whole.base("bert"), "generate", {}, ModelError, "fills gaps and can't write"),
        (reader, "continue", {}, ModelError, "reads one text and writes another"),
        (writing.base, "continue", {"data.mask": "words"}, RecipeError, "a llama model is none"),
        (lambda: whole.base("bert"), "continue", {"evaluation.prompts": ["a"]}, RecipeError, "leave them out"),
    ],
)
def test_what_a_model_cannot_do(base, task, settings, error, message, tmp_path):
    settings = PLAIN | settings
    data = stories() if task == "continue" else str(writing.data_file())
    settings |= {"data.template": writing.TEMPLATE, "evaluation.generate_rows": 4} if task == "generate" else {}
    with pytest.raises(error) as caught:
        train(str(base()), data, task=task, runs=tmp_path, settings=settings)
    assert message in str(caught.value)
