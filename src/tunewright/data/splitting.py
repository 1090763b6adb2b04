"""Which rows are held out for validation: seeded, every class in proportion, equal texts never on both sides.

Works on the survey's arrays (a label number and a text hash per row) and gives row indices; reads no text. A text's
side depends on the seed and the text alone, not on where in the file it stands.
"""

from __future__ import annotations

import numpy as np

from tunewright.errors import DataError


def split(
    label_keys: np.ndarray, text_hashes: np.ndarray, fraction: float, seed: int, where: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted row indices of (train, validation). Classes with two different texts or more are in both.

    `where` names the data in an error.
    """
    hashes, first, group, sizes = np.unique(
        text_hashes, return_index=True, return_inverse=True, return_counts=True
    )  # a group: all rows of one text
    strata = label_keys[first]
    held_out = _choose(strata, sizes, _shuffled_ranks(hashes, seed), fraction)
    is_validation = held_out[group]
    train, validation = np.flatnonzero(~is_validation), np.flatnonzero(is_validation)
    if not len(train) or not len(validation):
        raise DataError(
            f"{len(label_keys)} rows with {len(hashes)} different texts can't be split: holding out {fraction:g} "
            f"of them leaves {len(train)} for training and {len(validation)} for validation. "
            f"Add examples (two per class at least), or name a validation file with data.validation.",
            where=where,
            field="data.validation",
        )
    return train, validation


def leaks(train_hashes: np.ndarray, validation_hashes: np.ndarray) -> np.ndarray:
    """Indices of the validation rows whose text is in train as well."""
    return np.flatnonzero(np.isin(validation_hashes, train_hashes))


def first_of_each(text_hashes: np.ndarray) -> np.ndarray:
    """Sorted indices of the rows that are left when each text is kept once (`data.duplicates: drop`)."""
    return np.sort(np.unique(text_hashes, return_index=True)[1])


def _choose(strata: np.ndarray, sizes: np.ndarray, ranks: np.ndarray, fraction: float) -> np.ndarray:
    """Which groups are held out, bool per group: in each stratum, in shuffled order, until its share is reached."""
    _, stratum = np.unique(strata, return_inverse=True)
    num_groups = np.bincount(stratum)
    wanted = _shares(np.bincount(stratum, weights=sizes), fraction)
    # Groups too large for their share go last, smallest first, so that one text repeated often doesn't fill it.
    excess = np.maximum(sizes - wanted[stratum], 0)
    order = np.lexsort((ranks, excess, stratum))
    stratum, sizes = stratum[order], sizes[order]
    begins = np.cumsum(num_groups) - num_groups  # of each stratum in this order
    place = np.arange(len(order)) - begins[stratum]
    taken = np.cumsum(sizes) - (np.cumsum(sizes) - sizes)[begins][stratum]  # rows, up to and with this group
    enough = (taken <= wanted[stratum]) | (place == 0)
    held_out = np.zeros(len(order), bool)
    held_out[order] = enough & (place < num_groups[stratum] - 1)  # the last group stays in train
    return held_out


def _shares(num_rows: np.ndarray, fraction: float) -> np.ndarray:
    """Rows to hold out of each stratum: proportional, whole, and right in sum (largest remainders)."""
    exact = num_rows * fraction
    shares = np.floor(exact).astype(np.int64)
    missing = round(exact.sum()) - shares.sum()
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    return shares


def _shuffled_ranks(hashes: np.ndarray, seed: int) -> np.ndarray:
    """A number per text that looks random and depends on text and seed alone (splitmix64's finaliser)."""
    mixed = hashes + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)  # wraps, as it should
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
