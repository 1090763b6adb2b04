"""Folds keep equal texts together and classes in proportion, at least as evenly as scikit-learn's."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from tunewright.errors import UsageError
from tunewright.evaluation import folds as f


def _table(strata: np.ndarray, folds: np.ndarray, num_folds: int) -> np.ndarray:
    return np.stack([np.bincount(strata[folds == k], minlength=int(strata.max()) + 1) for k in range(num_folds)])


@pytest.mark.parametrize("seed", range(30))
def test_rows_alone_leave_no_fold_more_than_one_row_ahead(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strata = rng.choice(5, int(rng.integers(20, 300)), p=rng.dirichlet(np.ones(5)))
    num_folds = int(rng.integers(2, 9))
    table = _table(strata, f.fold_of(strata, num_folds, seed), num_folds)
    assert table.sum() == len(strata)
    assert np.ptp(table, axis=0).max() <= 1
    assert np.ptp(table.sum(axis=1)) <= 1


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_groups_stay_whole_and_classes_are_as_even_as_scikit_learns() -> None:
    better = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        strata = rng.choice(3, 240, p=[0.6, 0.3, 0.1])
        groups = rng.integers(0, int(rng.integers(40, 240)), 240)
        folds = f.fold_of(strata, 5, seed, groups)
        assert all(len(set(folds[groups == group].tolist())) == 1 for group in np.unique(groups))
        theirs = np.empty(240, int)
        for k, (_, held_out) in enumerate(StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(
                strata, strata, groups)):  # fmt: skip
            theirs[held_out] = k
        ours, other = (_table(strata, found, 5) / np.bincount(strata) for found in (folds, theirs))
        better.append(ours.std(axis=0).mean() - other.std(axis=0).mean())
    assert np.mean(better) < 0
    assert np.mean(np.array(better) <= 1e-9) > 0.8


def test_a_text_repeated_often_fills_one_fold_only() -> None:
    groups = np.array([0] * 30 + list(range(1, 31)))
    folds = f.fold_of(np.zeros(60, int), 2, 0, groups)
    assert sorted(np.bincount(folds)) == [30, 30]
    assert len(set(folds[:30].tolist())) == 1


def test_the_seed_decides() -> None:
    strata = np.arange(60) % 3
    once, again, other = (f.fold_of(strata, 4, seed) for seed in (7, 7, 8))
    assert (once == again).all()
    assert (once != other).any()


def test_every_row_is_held_out_once() -> None:
    folds = f.fold_of(np.arange(23) % 2, 4, 0)
    held = np.concatenate([held_out for _, held_out in f.train_and_held_out(folds)])
    assert sorted(held.tolist()) == list(range(23))
    assert all(not np.intersect1d(*pair).size for pair in f.train_and_held_out(folds))


def test_numbers_and_lists_become_strata() -> None:
    values = np.random.default_rng(0).exponential(size=200)
    folds = f.fold_of(f.strata_of_numbers(values), 5, 0)
    means = [values[folds == k].mean() for k in range(5)]
    assert np.std(means) < 0.1 * values.mean()
    assert set(f.strata_of_numbers(np.ones(9)).tolist()) == {1}
    hot = np.array([[0, 1], [1, 1], [0, 1], [0, 0]])
    strata = f.strata_of_lists(hot)
    assert strata[0] == strata[2]
    assert len(set(strata.tolist())) == 3


@pytest.mark.parametrize(("num_folds", "groups"), [(1, [0, 1]), (3, [0, 0, 1, 1])])
def test_too_few_groups_are_one_line(num_folds: int, groups: list[int]) -> None:
    with pytest.raises(UsageError, match="expected"):
        f.fold_of(np.zeros(len(groups)), num_folds, 0, np.array(groups))


def test_a_million_rows_take_under_two_seconds() -> None:
    begin = time.process_time()
    f.fold_of(np.arange(1_000_000) % 10, 5, 0, np.arange(1_000_000))
    assert time.process_time() - begin < 2


def test_spread() -> None:
    found = f.spread([0.8, 0.9, 1.0])
    assert (found.mean, found.deviation, found.low, found.high) == pytest.approx((0.9, 0.1, 0.8, 1.0))
    assert np.isnan(f.spread([0.5]).deviation)
