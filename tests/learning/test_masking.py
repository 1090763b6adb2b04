"""Masks choose what they say, as often as they say, and nothing else."""

from __future__ import annotations

import pytest
import torch

from tunewright.learning.masking import NOT_A_TARGET, masked_tokens

MASK, VOCAB = 4, 1000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(10, VOCAB, shape, generator=generator(seed))


def nothing(ids: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(ids, dtype=torch.bool)


def test_shares_are_15_and_80_10_10() -> None:
    ids = text(200_000)
    masked, targets = masked_tokens(ids, nothing(ids), VOCAB, MASK, generator())
    chosen = targets != NOT_A_TARGET
    assert chosen.float().mean() == pytest.approx(0.15, abs=0.004)
    assert (masked[chosen] == MASK).float().mean() == pytest.approx(0.8, abs=0.01)
    # One random word in a thousand is the true one.
    assert (masked[chosen] == ids[chosen]).float().mean() == pytest.approx(0.1, abs=0.007)
    assert torch.equal(targets[chosen], ids[chosen])
    assert torch.equal(masked[~chosen], ids[~chosen])


def test_random_words_come_from_all_of_the_vocabulary_or_from_those_given() -> None:
    ids = torch.full((100_000,), 7)
    for vocab, expected in ((20, set(range(20))), (torch.tensor([11, 13]), {11, 13})):
        masked, targets = masked_tokens(ids, nothing(ids), vocab, MASK, generator())
        assert set(masked[targets != NOT_A_TARGET].tolist()) == expected | {MASK, 7}


def test_special_tokens_are_never_chosen() -> None:
    ids = text(50, 40)
    special = torch.rand(50, 40, generator=generator(3)) < 0.3
    masked, targets = masked_tokens(ids, special, VOCAB, MASK, generator(), probability=1.0)
    assert torch.equal(targets == NOT_A_TARGET, special)
    assert torch.equal(masked[special], ids[special])


def test_the_input_stays_as_it_was() -> None:
    ids, special, starts = text(100), nothing(text(100)), torch.ones(100, dtype=torch.bool)
    before = ids.clone(), special.clone(), starts.clone()
    masked_tokens(ids, special, VOCAB, MASK, generator(), 1.0, starts)
    assert all(torch.equal(a, b) for a, b in zip(before, (ids, special, starts), strict=True))


def test_the_same_generator_gives_the_same_masks() -> None:
    ids = text(500)
    one, same, other = (masked_tokens(ids, nothing(ids), VOCAB, MASK, generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_how_much_is_drawn_depends_on_the_shape_alone() -> None:
    """Else what a run draws next would depend on the text before it."""
    states = []
    for seed, starts in ((1, None), (2, torch.ones(64, dtype=torch.bool))):
        drawing, ids = generator(), text(64, seed=seed)
        masked_tokens(ids, ids > 500 * seed, VOCAB, MASK, drawing, 0.1 * seed, starts)
        states.append(drawing.get_state())
    assert torch.equal(*states)


def test_a_short_text_has_something_to_guess() -> None:
    special = torch.tensor([True, False, False, True])
    for seed in range(50):
        _, targets = masked_tokens(text(4), special, VOCAB, MASK, generator(seed), 1e-6)
        assert (targets != NOT_A_TARGET).sum() == 1
        assert not (targets[special] != NOT_A_TARGET).any()


@pytest.mark.parametrize("size", [0, 3])
def test_where_nothing_may_be_chosen_nothing_is(size: int) -> None:
    ids = text(size)
    masked, targets = masked_tokens(ids, torch.ones(size, dtype=torch.bool), VOCAB, MASK, generator(), 1.0)
    assert torch.equal(masked, ids)
    assert (targets == NOT_A_TARGET).all()


def test_words_are_chosen_whole() -> None:
    starts = torch.rand(40, 500, generator=generator(5)) < 0.6
    starts[:, 0] = True
    special = nothing(starts)
    ids = text(40, 500)
    masked, targets = masked_tokens(ids, special, VOCAB, MASK, generator(), 0.15, starts)
    chosen = targets != NOT_A_TARGET
    words = starts.cumsum(1) + 1000 * torch.arange(40)[:, None]  # numbers that no two words share
    for word in words[chosen].unique():
        assert chosen[words == word].all()
    assert chosen.float().mean() == pytest.approx(0.15, abs=0.015)
    assert chosen[starts].float().mean() == pytest.approx(0.15, abs=0.015)
    # Each token of a word meets its own fate: pieces of some are masked beside pieces that stay.
    assert (masked[chosen] == MASK).float().mean() == pytest.approx(0.8, abs=0.03)


def test_a_word_ends_at_a_special_token_and_at_the_end_of_a_row() -> None:
    """The rest of a word that was cut from its beginning belongs to no word of the row before."""
    starts = torch.tensor([[False, True, False, False], [False, False, True, False]])
    special = torch.tensor([[False, False, True, False], [False, False, False, False]])
    groups = [[(0, 0)], [(0, 1)], [(0, 3)], [(1, 0), (1, 1)], [(1, 2), (1, 3)]]
    seen = set()
    for seed in range(200):
        _, targets = masked_tokens(text(2, 4), special, VOCAB, MASK, generator(seed), 0.5, starts)
        chosen = targets != NOT_A_TARGET
        for group in groups:
            assert len({bool(chosen[place]) for place in group}) == 1
        seen.add(tuple(bool(chosen[group[0]]) for group in groups))
    assert len(seen) == 31  # every combination but none at all: the five are chosen apart


@pytest.mark.parametrize("probability", [0.0, 1.5])
def test_a_probability_is_one(probability: float) -> None:
    with pytest.raises(AssertionError):
        masked_tokens(text(3), nothing(text(3)), VOCAB, MASK, generator(), probability)
