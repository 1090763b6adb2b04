"""Chance by the book: frequencies as the probabilities say, cuts as transformers makes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from tunewright.errors import UsageError
from tunewright.models import sampling
from tunewright.models.sampling import Sampling, choose, draw


def logits(rows: int = 1, words: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, words, generator=torch.Generator().manual_seed(seed)) * 2


def allowed(row: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """Probabilities after transformers' own cuts: [V]."""
    scores = row[None] / temperature
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return scores[0].softmax(-1)


def grid(count: int) -> torch.Tensor:
    """Numbers evenly over [0, 1): each word is drawn as often as its probability says, to within one."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


@pytest.mark.parametrize("words", [40, 513, 3000])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1, 0, 1), (0.5, 0, 1), (1, 7, 1), (1, 0, 0.8), (1.7, 12, 0.6), (1, 0, 0.999)]
)
def test_frequencies_are_probabilities(words, temperature, top_k, top_p):
    row = logits(1, words)[0]
    count = 4000
    settings = Sampling(max_new_tokens=1, temperature=temperature, top_k=top_k, top_p=top_p)
    chosen = draw(row.expand(count, -1), settings, grid(count))
    frequencies = np.bincount(chosen.numpy(), minlength=words) / count
    expected = allowed(row, temperature, top_k, top_p).double().numpy()
    assert np.abs(frequencies - expected).max() < 3 / count
    assert not frequencies[expected == 0].any()


def test_top_p_beyond_the_candidates(monkeypatch):
    """A flat distribution spreads its mass over more words than are looked at first."""
    monkeypatch.setattr(sampling, "CANDIDATES", 4)
    row = logits(1, 60)[0] / 10
    chosen = draw(row.expand(3000, -1), Sampling(max_new_tokens=1, temperature=1, top_p=0.9), grid(3000))
    assert set(chosen.tolist()) == set(allowed(row, 1, 0, 0.9).nonzero()[:, 0].tolist())


def test_each_row_has_its_own_number():
    rows = logits(3).repeat(1, 1)
    numbers = [0.1, 0.5, 0.9]
    settings = Sampling(max_new_tokens=1, temperature=1)
    together = choose(rows, settings, numbers).tokens
    alone = [choose(row[None], settings, [number]).tokens[0] for row, number in zip(rows, numbers, strict=True)]
    assert together == alone


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_chunks_change_nothing(monkeypatch, chunk):
    rows = logits(5)
    settings = Sampling(max_new_tokens=1, temperature=0.7, top_p=0.9)
    numbers = [0.05, 0.3, 0.5, 0.7, 0.99]
    expected = choose(rows, settings, numbers)
    monkeypatch.setattr(sampling, "CHUNK", chunk)
    again = choose(rows, settings, numbers)
    assert again.tokens == expected.tokens
    assert again.logprobs == pytest.approx(expected.logprobs, abs=1e-6)


def test_greedy_takes_the_first_of_the_best():
    rows = torch.tensor([[0.0, 3.0, 3.0, 1.0]])
    choice = choose(rows, Sampling(max_new_tokens=1), [])
    assert choice.tokens == [1]
    assert choice.logprobs == pytest.approx([float(rows.log_softmax(-1)[0, 1])])


def test_top_k_1_is_greedy():
    assert Sampling(max_new_tokens=1, temperature=3, top_k=1).is_greedy


@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 1e30])
def test_extreme_temperatures_are_no_trouble(temperature):
    row = logits(1)
    settings = Sampling(max_new_tokens=1, temperature=temperature)
    token = int(draw(row, settings, torch.tensor([0.5], dtype=torch.float64)))
    assert 0 <= token < 40
    if temperature < 1:
        assert token == int(row.argmax())


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_the_ends_of_chance(number):
    """Never a word that was cut off or that doesn't exist."""
    for settings in ({}, {"top_k": 3}, {"top_p": 0.5}):
        row = logits(1, 700)
        token = draw(
            row, Sampling(max_new_tokens=1, temperature=1, **settings), torch.tensor([number], dtype=torch.float64)
        )
        assert allowed(row[0], 1, settings.get("top_k", 0), settings.get("top_p", 1.0))[token] > 0


def test_half_precision_logits():
    choice = choose(logits(2).bfloat16(), Sampling(max_new_tokens=1), [])
    assert all(math.isfinite(value) for value in choice.logprobs)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", math.nan),
        ("top_k", -1),
        ("stop", ("",)),
        ("stop", "end"),
        ("seed", -1),
    ],
)
def test_settings_that_make_no_sense(field, value):
    with pytest.raises(UsageError) as caught:
        Sampling(**{"max_new_tokens": 5, field: value})
    assert caught.value.field == field
    assert field in str(caught.value)
