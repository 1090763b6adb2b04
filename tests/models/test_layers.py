"""Stand-ins own nothing and do one thing each."""

from __future__ import annotations

import torch
from torch import nn

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
