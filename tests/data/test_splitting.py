"""The split: in proportion, the same for the same seed, equal texts on one side."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tunewright.data.splitting import _shuffled_ranks, first_of_each, leaks, split
from tunewright.errors import DataError


def hashes(*texts: int) -> np.ndarray:
    """Spread like real hashes, the same for the same text."""
    return np.array(texts, np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def distinct(count: int) -> np.ndarray:
    return hashes(*range(count))


def test_every_row_is_on_one_side_and_in_order() -> None:
    train, validation = split(np.zeros(100, np.int32), distinct(100), 0.1, 7)
    assert sorted([*train, *validation]) == list(range(100))
    assert len(validation) == 10
    assert train.tolist() == sorted(train) and validation.tolist() == sorted(validation)


def test_classes_in_proportion() -> None:
    keys = np.repeat([0, 1, 2, 3], [600, 300, 98, 2]).astype(np.int32)
    _, validation = split(keys, distinct(1000), 0.1, 0)
    assert np.bincount(keys[validation]).tolist() == [60, 30, 10, 1]


def test_shares_are_right_in_sum() -> None:
    keys = np.repeat(np.arange(20), 14).astype(np.int32)
    _, validation = split(keys, distinct(280), 0.1, 0)
    assert len(validation) == 28
    assert set(np.bincount(keys[validation]).tolist()) == {1, 2}


def test_a_class_of_one_text_stays_in_train() -> None:
    keys = np.array([0] * 20 + [1], np.int32)
    for seed in range(20):
        assert 20 in split(keys, distinct(21), 0.5, seed)[0]


def test_two_texts_of_a_class_are_on_both_sides() -> None:
    keys = np.array([0, 0, 1, 1], np.int32)
    for fraction in (0.01, 0.5, 0.99):
        train, validation = split(keys, distinct(4), fraction, 3)
        assert keys[train].tolist() == keys[validation].tolist() == [0, 1]


def test_equal_texts_stay_together() -> None:
    rng = np.random.default_rng(0)
    texts = rng.integers(0, 300, 1000)
    keys = (texts % 3).astype(np.int32)
    for seed in range(10):
        train, validation = split(keys, hashes(*texts), 0.2, seed)
        assert not set(texts[train]) & set(texts[validation])
        assert abs(len(validation) - 200) < 20


def test_equal_texts_with_different_labels_stay_together() -> None:
    train, validation = split(np.array([0, 1, 0, 1, 0, 1], np.int32), hashes(1, 1, 2, 2, 3, 3), 0.3, 1)
    assert {len(train), len(validation)} == {2, 4}
    assert train[0] % 2 == 0 and train[1] == train[0] + 1


def test_one_text_repeated_often_does_not_fill_validation() -> None:
    texts = hashes(*[1] * 500, *range(100, 600))
    for seed in range(20):
        train, validation = split(np.zeros(1000, np.int32), texts, 0.1, seed)
        assert len(validation) == 100
        assert 0 in train


def test_seeded_and_independent_of_row_order() -> None:
    keys, texts = (np.arange(500) % 2).astype(np.int32), distinct(500)
    _, validation = split(keys, texts, 0.2, 42)
    assert (split(keys, texts, 0.2, 42)[1] == validation).all()
    assert (split(keys, texts, 0.2, 43)[1] != validation).any()
    order = np.random.default_rng(1).permutation(500)
    again = split(keys[order], texts[order], 0.2, 42)[1]
    assert sorted(order[again]) == validation.tolist()
    # A split that changes with a new version would leak what was held out before.
    assert split(np.zeros(12, np.int32), distinct(12), 0.25, 42)[1].tolist() == [0, 1, 11]


def test_a_side_would_be_empty() -> None:
    with pytest.raises(DataError, match=r"3 rows with 1 different texts can't be split"):
        split(np.zeros(3, np.int32), hashes(5, 5, 5), 0.1, 0)
    with pytest.raises(DataError, match=r"leaves 2 for training and 0 for validation"):
        split(np.array([0, 1], np.int32), distinct(2), 0.1, 0)


def test_quantities_split_at_random() -> None:
    _, validation = split(np.full(1000, -1, np.int32), distinct(1000), 0.1, 0)
    assert len(validation) == 100
    assert 350 < validation.mean() < 650


def test_a_million_rows_take_no_time() -> None:
    rng = np.random.default_rng(0)
    keys, texts = rng.integers(0, 50, 10**6).astype(np.int32), rng.integers(0, 2**64, 10**6, np.uint64)
    began = time.perf_counter()
    _, validation = split(keys, texts, 0.1, 0)
    assert time.perf_counter() - began < 5
    assert len(validation) == 100_000


def test_leaks_and_duplicates() -> None:
    assert leaks(hashes(1, 2, 3), hashes(4, 3, 1, 3)).tolist() == [1, 2, 3]
    assert leaks(hashes(1), hashes(2)).tolist() == []
    assert first_of_each(hashes(5, 4, 5, 3, 4)).tolist() == [0, 1, 3]


def test_a_text_that_comes_twice_may_be_held_out_like_any_other() -> None:
    """Putting every repeated text last would leave validation without what is frequent."""
    texts = np.repeat(np.arange(60), 2)
    texts = hashes(*texts, *range(100, 160))
    twice = [np.isin(split(np.zeros(180, np.int32), texts, 0.2, seed)[1], np.arange(120)).mean() for seed in range(10)]
    assert 0.5 < np.mean(twice) < 0.8  # two rows in three are of such texts


def test_a_text_one_row_too_large_for_its_share_is_not_held_out() -> None:
    texts = hashes(1, 1, 1, *range(10, 27))
    for seed in range(20):
        train, validation = split(np.zeros(20, np.int32), texts, 0.1, seed)
        assert len(validation) == 2 and {0, 1, 2} <= set(train.tolist())


def test_rows_left_over_go_to_the_first_classes() -> None:
    """Equal remainders, in mixed order: an unstable sort would choose by processor."""
    sizes = np.array([14, 13, 13])[np.random.default_rng(0).integers(0, 3, 200)]
    keys = np.repeat(np.arange(200), sizes).astype(np.int32)
    _, validation = split(keys, distinct(len(keys)), 0.1, 0)
    larger = np.flatnonzero(sizes == 14)
    left_over = round(len(keys) * 0.1) - 200
    assert 0 < left_over - len(larger) < 100  # enough for all of these, and for some of the others
    more = [*larger, *np.flatnonzero(sizes == 13)[: left_over - len(larger)]]
    assert np.flatnonzero(np.bincount(keys[validation]) == 2).tolist() == sorted(more)


def test_texts_are_shuffled_by_splitmix64() -> None:
    """Its first three numbers, as published; a side that changed with a version would leak what was held out."""
    assert _shuffled_ranks(hashes(0, 1, 2), seed=0).tolist() == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
