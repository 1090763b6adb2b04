"""Stand-ins own nothing and do one thing each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.models import configs
from tunewright.models import architectures
from tunewright.models.layers import Inject, Pool, PoolPlan, Record, Skip, mean_per_text

HIDDEN = torch.arange(12.0).reshape(1, 6, 2)


def test_skip_inject_record():
    layer = nn.Linear(2, 2)
    assert Skip(layer)(HIDDEN) is HIDDEN
    assert Inject(layer, torch.ones(1, 3, 2))(HIDDEN).shape == (1, 3, 2)
    record = Record(layer)
    assert record(HIDDEN) is HIDDEN and record.states is HIDDEN
    after = Record(layer).after(layer)
    assert torch.equal(after(HIDDEN), layer(HIDDEN))


def test_they_register_no_parameter():
    layer = nn.Linear(2, 2)
    plan = PoolPlan(torch.tensor([0, 4]), (4, 2), None)
    for stand_in in (Skip(layer), Record(layer).after(layer), Pool(layer, plan)):
        assert not list(stand_in.parameters())


def test_pool_gathers_where_parts_are_unknown():
    pooled = Pool(nn.Identity(), PoolPlan(torch.tensor([0, 4]), (4, 2), None))(HIDDEN)
    assert pooled.tolist() == [[[0.0, 1.0]], [[8.0, 9.0]]]


def test_mean_per_text():
    assert mean_per_text(HIDDEN, (4, 2)).tolist() == [[[3.0, 4.0]], [[9.0, 10.0]]]


def test_they_show_what_models_read_off_their_layers():
    """ModernBERT and Gemma ask each layer for its kind of attention before they call it."""
    layer = nn.Linear(2, 2)
    layer.attention_type = "sliding_attention"
    assert Skip(layer).attention_type == "sliding_attention"
    assert Inject(layer, HIDDEN).attention_type == "sliding_attention"
    assert Skip(nn.Linear(2, 2)).attention_type is None


def bert(dropout: float = 0.0):
    """A whole layer, its table row, and hidden states of a text of four tokens and one of two."""
    model = configs.build("bert")
    layer = model.bert.encoder.layer[-1].eval()
    layer.attention.self.dropout.p = dropout
    return layer, architectures.find(model).last_layer, torch.randn(1, 6, 32)


def alone(layer, hidden, begin, end, token):
    """What the layer's own code makes of one text by itself, at one token."""
    return layer(hidden[:, begin:end])[0, token]


@pytest.mark.parametrize("indices", [[0, 4], [3, 5]])
def test_pool_computes_the_layer_for_one_token_of_each_text(indices):
    layer, names, hidden = bert()
    found = Pool(layer, PoolPlan(torch.tensor(indices), (4, 2), names))(hidden)
    expected = torch.stack([alone(layer, hidden, 0, 4, indices[0]), alone(layer, hidden, 4, 6, indices[1] - 4)])
    assert found.shape == (2, 1, 32)
    torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=1e-5)


def test_attention_is_dropped_in_training_only():
    layer, names, hidden = bert(dropout=0.5)
    pool = Pool(layer, PoolPlan(torch.tensor([0, 4]), (4, 2), names))
    assert torch.equal(pool(hidden), pool(hidden))
    layer.attention.self.train()
    assert not torch.equal(pool(hidden), pool(hidden))
