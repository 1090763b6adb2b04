"""Operations counted on short texts are those of long ones, and counting leaves no trace."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.learning.small import Toy
from tests.models import configs
from tunewright.learning.classification import Classification
from tunewright.models.forward import Forward
from tunewright.planning.counting import Work, count

OBJECTIVE = Classification("single")
DATA = Toy.make()


def test_a_polynomial_of_the_length():
    assert Work(each=1, linear=10, square=2).flops(np.array([3, 5])) == 2 * 1 + 10 * 8 + 2 * (9 + 25)


def test_known_answer_of_a_linear_layer():
    """Forward 2·m·n per token, the same again for the weight's gradient; its input needs none."""

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Linear(16, 2, bias=False)

        def logits(self, texts, boundary):
            return self.weight(torch.ones(texts.num_tokens, 16)).mean(0, keepdim=True)

    linear = Linear()
    works = count(SimpleNamespace(model=linear, logits=linear.logits, rounding=64), OBJECTIVE, DATA, DATA.lengths, 0)
    assert works.scoring.linear == pytest.approx(2 * 16 * 2) and works.training.linear == pytest.approx(4 * 16 * 2)
    assert works.scoring.square == pytest.approx(0, abs=1e-6) and works.caching == Work()


def test_counts_of_short_texts_foretell_a_long_one():
    model = configs.build("bert")
    short = np.full(8, 12)
    works = count(Forward(model), OBJECTIVE, DATA, DATA.lengths, 0)
    assert works.training.flops(short) > 2.5 * works.scoring.flops(short) > 0
    assert works.training.square > 0  # attention is counted on a CPU too


def test_rounding_up_teaches_nothing_of_longer_texts():
    """In bf16 token counts are rounded up to 64: cuts of 12, 24 and 48 tokens would all cost the same."""
    plain, rounding = Forward(configs.build("bert")), Forward(configs.build("bert"))
    rounding.compute_in("bf16")
    long = np.array([200])
    expected, found = (count(f, OBJECTIVE, DATA, DATA.lengths, 0).scoring.flops(long) for f in (plain, rounding))
    assert found == pytest.approx(expected, rel=0.1) and rounding.rounding == 64


def test_frozen_layers_cost_forward_only_and_lower_ones_nothing():
    model = configs.build("bert")
    forward = Forward(model)
    whole = count(forward, OBJECTIVE, DATA, DATA.lengths, 0)
    top = count(forward, OBJECTIVE, DATA, DATA.lengths, 1)
    assert top.scoring.flops(DATA.lengths) < whole.scoring.flops(DATA.lengths)
    assert top.scoring.flops(DATA.lengths) + top.caching.flops(DATA.lengths) == pytest.approx(
        whole.scoring.flops(DATA.lengths), rel=0.05
    )


def test_counting_leaves_no_trace():
    model = configs.build("bert").eval()
    state, before = torch.get_rng_state(), {n: p.detach().clone() for n, p in model.named_parameters()}
    count(Forward(model), OBJECTIVE, DATA, DATA.lengths, 0)
    assert torch.equal(state, torch.get_rng_state()) and not model.training
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in model.named_parameters())
