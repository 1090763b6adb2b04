"""The value head: how it starts, and that it computes in fp32 whatever it is given."""

from __future__ import annotations

import math

import pytest
import torch

from tunewright.models.value_head import ValueHead

D = 4095


def test_starts_with_std_one_over_root_of_width_plus_one():
    head = ValueHead(D, seed=0)
    assert head.weight.std().item() == pytest.approx(1 / math.sqrt(D + 1), rel=0.05)
    assert head.weight.mean().item() == pytest.approx(0.0, abs=0.001)
    assert head.bias.item() == 0.0


def test_seeds():
    state = torch.get_rng_state()
    one, same, other = ValueHead(8, seed=1), ValueHead(8, seed=1), ValueHead(8, seed=2)
    assert torch.equal(one.weight, same.weight) and not torch.equal(one.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), state)  # dropout and masks draw the same with and without it


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_first_values_have_std_one_whatever_the_states_scale(scale):
    hidden = torch.randn(2000, 256, generator=torch.Generator().manual_seed(0)) * scale
    assert ValueHead(256, seed=3)(hidden).std().item() == pytest.approx(1.0, rel=0.15)


def test_known_answer():
    head = ValueHead(2, seed=0)
    head.weight.data, head.bias.data = torch.tensor([[2.0, -1.0]]), torch.tensor([0.5])
    # (3, 4) has the mean square 12.5
    values = head(torch.tensor([[3.0, 4.0], [-3.0, -4.0]]))
    torch.testing.assert_close(values, torch.tensor([2.0, -2.0]) / math.sqrt(12.5) + 0.5)


def test_bf16_states_are_read_in_fp32():
    hidden = torch.randn(3, 5, 16).bfloat16()
    values = ValueHead(16, seed=0)(hidden)
    assert values.dtype == torch.float32 and values.shape == (3, 5)
    assert torch.equal(values, ValueHead(16, seed=0)(hidden.float()))
