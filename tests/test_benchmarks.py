"""The pure parts of the benchmarks of models that write: shapes, FLOPs, the same rows for both sides."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from tests import whole

FOLDER = whole.ROOT / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """A benchmark as a module."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return importlib.import_module


@pytest.mark.parametrize("name", ["toy", "0.6B", "1.7B", "4B", "8B"])
def test_a_shape_has_the_parameters_of_the_model_that_it_makes(load, name):
    gpu = load("gpu")
    from transformers import AutoModelForCausalLM

    shape = gpu.SHAPES[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(gpu.config_of(shape))
    layers = [m for m in model.model.modules() if type(m) is torch.nn.Linear]
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.linear == sum(m.weight.numel() for m in layers)
    assert shape.head == model.lm_head.weight.numel()


def test_published_flops_are_four_and_six_times_the_weights(load):
    gpu = load("gpu")
    shape = gpu.SHAPES["8B"]
    assert gpu.published_flops(shape, "lora") == 4 * (shape.linear + shape.head)
    assert gpu.published_flops(shape, "full") == 6 * (shape.linear + shape.head)
    # 12,473 tokens/s of an 8B model are published as 402 TFLOP/s
    assert 12_473 * gpu.published_flops(shape, "lora") == pytest.approx(402e12, rel=0.1)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_computed_flops_are_those_that_torch_counts(load, method):
    """Forward and backward of a real model of this shape, every token learnt."""
    gpu = load("gpu")
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    shape, length = gpu.SHAPES["toy"], 64
    config = gpu.config_of(shape)
    config._attn_implementation = "eager"  # its products are counted, the masked half included
    model = AutoModelForCausalLM.from_config(config).requires_grad_(method == "full")
    embedded = torch.randn(1, length, shape.width, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=embedded).logits.sum().backward()
    counted = counter.get_total_flops() / length
    linear = (3 if method == "full" else 2) * 2 * (shape.linear + shape.head)
    attention = counted - linear  # of all pairs of tokens
    pairs = (length + 1) / 2 / length
    assert gpu.computed_flops(shape, method, [length], 1.0) == pytest.approx(linear + attention * pairs, rel=0.01)


def test_the_head_counts_where_a_token_is_learnt(load):
    gpu = load("gpu")
    shape = gpu.SHAPES["0.6B"]
    all_of_it, none = (gpu.computed_flops(shape, "lora", [100], share) for share in (1.0, 0.0))
    assert all_of_it - none == pytest.approx(4 * shape.head)


def test_lengths(load):
    gpu = load("gpu")
    assert gpu.lengths_of("even", 3) == [4096] * 3
    mixed = gpu.lengths_of("mixed", 1000)
    assert mixed == gpu.lengths_of("mixed", 1000)
    assert 64 <= min(mixed) < 70 and 4000 < max(mixed) <= 4096


def test_rows_have_the_length_that_was_asked_for(load, tmp_path):
    gpu, peer = load("gpu"), load("peer_sft")
    gpu.write_rows(tmp_path / "rows.jsonl", [64, 256, 7], 1024)
    tokenizer = gpu.tokenizer(1024)
    for line, length in zip((tmp_path / "rows.jsonl").read_text().splitlines(), [64, 256, 7], strict=True):
        ids, known = peer.tokens_of(importlib.import_module("json").loads(line), tokenizer, 4096)
        assert len(ids) == length and len(ids) - known == max(2, round(length / 4))
        assert tokenizer.unk_token_id not in ids


def test_without_a_gpu_one_line_says_so(load, monkeypatch):
    gpu = load("gpu")
    monkeypatch.setattr(gpu, "gpu_is_there", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "run"])
    with pytest.raises(SystemExit) as stopped:
        gpu.main()
    assert stopped.value.code == "no GPU here: this benchmark needs one; --check tries it on the CPU"


def test_both_sides_get_the_same_text(load):
    sft = load("sft")
    row = {"context": "Rome is old.", "question": "What is old?", "answer": "Rome"}
    (pair,) = sft.rendered([row], "question-answer")
    assert pair["prompt"] == "Please answer the following question.\n\nRome is old.\n\nQ: What is old?\n\nA:"
    assert pair["completion"] == " Rome"


def test_pieces_of_an_article_lose_nothing(load):
    sft = load("sft")
    article = " ".join(f"Sentence {i} is here." for i in range(200))
    pieces = sft.pieces(article, 300)
    assert " ".join(pieces) == article
    assert all(300 <= len(piece) < 330 for piece in pieces[:-1])
    assert sft.pieces("") == []


def test_too_long_a_prompt_loses_its_beginning_and_no_answer(load):
    gpu, peer = load("gpu"), load("peer_sft")
    tokenizer = gpu.tokenizer(100)
    row = {"prompt": " ".join(f"w{i}" for i in range(10, 30)), "completion": " w50 w51"}
    ids, known = peer.tokens_of(row, tokenizer, 8)
    assert ids == [10, *range(26, 30), 50, 51, tokenizer.eos_token_id] and known == 5


def test_a_padded_batch_learns_completions_alone(load):
    peer = load("peer_sft")
    batch = peer.padded([([5, 6, 7], 1), ([8, 9], 1)], pad=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [-100, 9, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("way", ["everywhere", "torch", "tunewright"])
def test_each_way_to_the_loss_is_the_same_loss(load, way, learns):
    losses = load("target_loss").LOSSES
    torch.manual_seed(0)
    hidden, weight = torch.randn(20, 8), torch.randn(50, 8)
    places, wanted = torch.arange(0, 20, 2), torch.randint(0, 50, (10,))
    found = []
    for name in ("plain", way):
        states, head = hidden.clone().requires_grad_(), weight.clone().requires_grad_(learns)
        loss = losses[name](states, head, places, wanted)
        loss.backward()
        found.append((loss.detach(), states.grad, head.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
