"""k folds of the rows: every class in proportion in each, rows of one group (equal texts) always in the same.

Used where a small data set judges itself: k-fold evaluation, probabilities of rows by a model that didn't learn them,
and the folds that keep a calibration honest. Works on numbers per row, reads no text and trains nothing.

Groups of several rows are placed first, largest first, each where it leaves the classes most even (as scikit-learn's
StratifiedGroupKFold does, on squares instead of deviations); the rows that stand alone then fill every fold's share.
Without such groups no two folds differ by more than one row, in all or of any class.
Shapes: N rows, K folds, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tunewright.errors import UsageError

STRATA_OF_NUMBERS = 10


@dataclass(frozen=True)
class Spread:
    """A metric over folds or seeds."""

    mean: float
    deviation: float  # sample standard deviation, n - 1; NaN for a single value
    low: float
    high: float
    count: int


def fold_of(strata: np.ndarray, num_folds: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """int64 [N], the fold of each row: 0 to K - 1.

    `strata` [N]: the class of each row, or any number that stands for it; `groups` [N]: rows of one number stay
    together. Raises UsageError where there are fewer groups than folds.
    """
    _, stratum = np.unique(np.asarray(strata), return_inverse=True)
    members = np.arange(len(stratum)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(members, minlength=0)
    _check(num_folds, len(stratum), len(sizes))
    rng = np.random.default_rng(seed)
    found = np.full(len(stratum), -1)
    counts = np.zeros((num_folds, int(stratum.max()) + 1), np.int64)  # rows of each class so far [K, C]
    _place_groups(found, counts, stratum, members, sizes, rng)
    _place_rows(found, counts, stratum, np.flatnonzero(found < 0), rng)
    return found


def train_and_held_out(folds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows to learn from, rows to judge) of each fold, as sorted indices."""
    for fold in range(int(folds.max()) + 1):
        yield np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


def strata_of_numbers(values: np.ndarray, bins: int = STRATA_OF_NUMBERS) -> np.ndarray:
    """int64 [N]: tenths by size, so that folds of a regression hold small and large numbers alike."""
    inner = np.quantile(values, np.arange(1, bins) / bins)
    return np.searchsorted(np.unique(inner), values, "right")


def strata_of_lists(hot: np.ndarray) -> np.ndarray:
    """int64 [N]: a number per combination of labels, from 0/1 [N, C]."""
    return np.unique(np.asarray(hot) > 0, axis=0, return_inverse=True)[1].reshape(len(hot))


def spread(values: np.ndarray | list[float]) -> Spread:
    """Mean and spread of a metric over folds or seeds."""
    array = np.asarray(values, np.float64)
    deviation = float(array.std(ddof=1)) if len(array) > 1 else float("nan")
    return Spread(float(array.mean()), deviation, float(array.min()), float(array.max()), len(array))


def _check(num_folds: int, num_rows: int, num_groups: int) -> None:
    if num_folds < 2:
        raise UsageError(f"{num_folds} fold leaves nothing to learn from; expected 2 or more")
    if num_groups < num_folds:
        raise UsageError(
            f"{num_rows:,} rows with {num_groups:,} different texts can't make {num_folds} folds; "
            f"expected at least one text for each. Ask for fewer folds."
        )


def _place_groups(
    found: np.ndarray, counts: np.ndarray, stratum: np.ndarray, members: np.ndarray, sizes: np.ndarray,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Groups of two rows or more; changes `found` and `counts`."""
    large = np.flatnonzero(sizes > 1)
    if not len(large):
        return
    order = np.argsort(members, kind="stable")
    begins = np.cumsum(sizes) - sizes
    total = np.bincount(stratum, minlength=counts.shape[1])
    share = total / len(counts)
    shuffled = rng.permutation(large)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")].tolist():
        rows = order[begins[group] : begins[group] + sizes[group]]
        own = np.bincount(stratum[rows], minlength=counts.shape[1])
        # Rows beyond a fold's share of each class weigh by how rare the class is; equal folds: the emptier one.
        over = np.maximum(counts + own - np.ceil(share), 0) / np.maximum(total, 1)
        uneven = ((2 * counts + own) * own / np.maximum(total, 1)).sum(axis=1)  # rise of the sum of squares
        fold = int(np.lexsort((counts.sum(axis=1), uneven, over.sum(axis=1)))[0])
        found[rows] = fold
        counts[fold] += own


def _place_rows(
    found: np.ndarray, counts: np.ndarray, stratum: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> None:
    """Rows that stand alone, class by class: each fold up to the same level."""
    rows = rng.permutation(rows)
    rows = rows[np.argsort(stratum[rows], kind="stable")]
    num_each = np.bincount(stratum[rows], minlength=counts.shape[1])
    ends = np.cumsum(num_each)
    for one in np.flatnonzero(num_each).tolist():
        wanted = _filled(counts[:, one], counts.sum(axis=1), int(num_each[one]))
        found[rows[ends[one] - num_each[one] : ends[one]]] = np.repeat(np.arange(len(counts)), wanted)
        counts[:, one] += wanted


def _filled(there: np.ndarray, in_all: np.ndarray, more: int) -> np.ndarray:
    """How many of `more` rows each fold gets so that `there` becomes as even as it can; ties: the smaller fold."""
    level = there.copy()
    order = np.lexsort((in_all, there))
    for upto in range(1, len(order) + 1):  # raise the lowest `upto` folds to the next one's height, while rows last
        low = order[:upto]
        top = there[order[upto]] if upto < len(order) else np.iinfo(np.int64).max
        room = int(top - level[low[0]]) * upto
        if more <= room:
            each, rest = divmod(more, upto)
            level[low] += each
            level[low[np.argsort(in_all[low], kind="stable")][:rest]] += 1
            break
        level[low] = top
        more -= room
    return level - there
