"""Micro-batches from measured need: grows with width, disturbs nothing, never below one text."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import transformers as hf

from tests.learning.small import Toy
from tests.models import configs
from tunewright.learning.classification import Classification
from tunewright.models.forward import Forward
from tunewright.planning.memory import bytes_per_token, largest_micro_batch

DATA = Toy.make()


def need(width, k=0):
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = hf.AutoModelForSequenceClassification.from_config(hf.BertConfig(vocab_size=50, **shape)).train()
    for parameter in [*model.bert.embeddings.parameters(), *model.bert.encoder.layer[:k].parameters()] if k else ():
        parameter.requires_grad_(False)
    return bytes_per_token(Forward(model), Classification("single"), DATA, DATA.lengths, k)


def test_need_grows_with_width_and_falls_with_frozen_layers():
    assert 1.5 < need(128) / need(64) < 2.1
    assert need(64, k=2) < 0.1 * need(64) < need(64, k=1) < 0.7 * need(64)


def test_weights_are_not_counted():
    """All that autograd keeps of a linear layer's input: width x 4 bytes a token, and a little for the loss."""

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Linear(1000, 2)

        def logits(self, texts, boundary):
            return self.weight(torch.ones(texts.num_tokens, 1000))[:1]

    linear = Linear()
    forward = SimpleNamespace(model=linear, logits=linear.logits)
    found = bytes_per_token(forward, Classification("single"), DATA, DATA.lengths)
    assert 4000 <= found < 4100


def test_measuring_draws_nothing_and_leaves_no_gradient():
    model = configs.build("bert")
    dropouts = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    for module in dropouts:
        module.p = 0.5
    state = torch.get_rng_state()
    bytes_per_token(Forward(model), Classification("single"), DATA, DATA.lengths)
    assert dropouts and torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_dropout_counts_even_while_the_model_is_in_evaluation():
    """Dropout keeps masks, and attention with it keeps squares; a loaded model is in evaluation."""
    found = []
    for rate in (0.0, 0.5):
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        rates = {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
        model = hf.AutoModelForSequenceClassification.from_config(hf.BertConfig(vocab_size=50, **shape, **rates)).eval()
        found.append(bytes_per_token(Forward(model), Classification("single"), DATA, DATA.lengths))
        assert not model.training
    assert found[1] > 1.2 * found[0]


def test_budget():
    said: list[str] = []
    assert largest_micro_batch(1e3, 10**9, "cpu", 256, said.append) == 2048 and not said
    assert largest_micro_batch(1e6, 10**9, "cpu", 256, said.append) == 500 and "500 tokens" in said[0]
    assert largest_micro_batch(1e9, 10**9, "cpu", 256, said.append) == 256
    assert "256 tokens (one text, and more than is free)" in said[1]
    assert largest_micro_batch(1e3, 10**12, "cuda", 256) > largest_micro_batch(1e3, 10**12, "cpu", 256)
