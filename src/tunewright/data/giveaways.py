"""What gives the label away: a word, a sign at the edge of the text, a column or an id that predicts it (nearly) alone.

Arrays in, findings out; `examining` puts them into words. A model that finds a giveaway looks perfect and has learned
nothing else. The thresholds keep quiet about small data and about words that merely lean to one side: what is
reported can't be chance, and no ordinary sentiment word comes near it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from zlib import crc32

import numpy as np

from tunewright.data.gathering import OtherColumn
from tunewright.data.words import Words, distinct

PURITY = 0.98  # share of the rows with the word that have the label
COVERAGE = {2: 0.5, 3: 0.5, 4: 0.5}  # share of the label's rows that have the word, by number of classes
COVERAGE_OF_MANY = 0.8  # with many classes, each has words of its own (coin, for "flip a coin")
MIN_ROWS = 20  # that have the word, and that don't have the label
MIN_ROWS_COLUMN = 50
MIN_OTHERS = 10  # rows outside the largest class
LIFT = 0.5  # of the way from guessing to certainty that even the lower bound of the purity must go
Place = Literal["word", "start", "end"]

_BUCKETS = 1 << 20
_CLASS_BITS = 14  # MAX_CLASSES is 10,000
_Z = 1.96


@dataclass(frozen=True)
class WordGiveaway:
    """A word, or a sign at an edge of the text, that stands (nearly) only in one class and in much of it."""

    label_key: int
    where: Place
    row: int  # one that has it, so that its spelling can be looked up
    code: int  # CRC-32 of the word, or the sign's code point
    num_rows: int  # that have it
    purity: float
    coverage: float


@dataclass(frozen=True)
class ColumnGiveaway:
    """A column that predicts the label. `accuracy` is over all rows, each predicted from the others."""

    column: str
    how: Literal["value", "pattern", "order"]
    accuracy: float


def word_giveaways(words: Words, edges: np.ndarray, label_keys: np.ndarray) -> list[WordGiveaway]:
    """The strongest first, at most one for a class and place."""
    classes = np.bincount(label_keys[label_keys >= 0])
    if len(classes) < 2:
        return []
    floor = max(MIN_ROWS, int(_coverage(len(classes)) * classes[classes > 0].min()))
    found = list(_judged(*_word_table(words, label_keys, floor), classes, "word"))
    places: tuple[tuple[int, Place], ...] = ((0, "start"), (1, "end"))
    for column, place in places:
        signs = edges[:, column]
        there = np.flatnonzero(signs)
        keys = (signs[there].astype(np.uint64) << np.uint64(_CLASS_BITS)) | label_keys[there].astype(np.uint64)
        found += _judged(*_merged([keys]), classes, place)
    found.sort(key=lambda each: (-each.purity * each.coverage, each.code))
    best: dict[tuple[int, str], WordGiveaway] = {}
    for each in found:
        best.setdefault((each.label_key, each.where), each)
    return [_with_row(each, words, edges, label_keys) for each in best.values()]


def code_of(word: str) -> int:
    """The code of a word, to find its spelling in a text that has it."""
    return crc32(word.encode())


def _coverage(num_classes: int) -> float:
    return COVERAGE.get(num_classes, COVERAGE_OF_MANY)


def _word_table(words: Words, label_keys: np.ndarray, floor: int) -> tuple[np.ndarray, np.ndarray]:
    """((word, class) keys, rows that have both), for the words that `floor` rows have."""
    rows = np.flatnonzero(label_keys >= 0)
    frequent = np.zeros(_BUCKETS, np.int32)
    for part in words.chunks(rows):
        frequent += np.bincount(_bucket(_distinct(words, part)[0]), minlength=_BUCKETS).astype(np.int32)
    pieces, counts = [], []
    for part in words.chunks(rows):
        word, owner = _distinct(words, part)
        kept = frequent[_bucket(word)] >= floor
        keys = (word[kept] << np.uint64(_CLASS_BITS)) | label_keys[part][owner[kept]].astype(np.uint64)
        some, count = np.unique(keys, return_counts=True)
        pieces.append(some)
        counts.append(count)
    return _merged(pieces, counts)


def _distinct(words: Words, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(word, index into rows), each word once per row."""
    flat, owner, _ = words.of(rows)
    keys = distinct((owner.astype(np.uint64) << np.uint64(32)) | flat)
    return keys & np.uint64(0xFFFFFFFF), (keys >> np.uint64(32)).astype(np.int64)


def _bucket(word: np.ndarray) -> np.ndarray:
    return (word % np.uint64(_BUCKETS)).astype(np.int64)


def _merged(pieces: list[np.ndarray], counts: list[np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
    keys = np.concatenate(pieces) if pieces else np.zeros(0, np.uint64)
    weights = np.concatenate(counts) if counts else np.ones(len(keys))
    found, index = np.unique(keys, return_inverse=True)
    return found, np.bincount(index, weights=weights, minlength=len(found))


def _judged(keys: np.ndarray, counts: np.ndarray, classes: np.ndarray, place: Place) -> Iterator[WordGiveaway]:
    code = keys >> np.uint64(_CLASS_BITS)
    label = (keys & np.uint64((1 << _CLASS_BITS) - 1)).astype(np.int64)
    _, index = np.unique(code, return_inverse=True)
    rows = np.bincount(index, weights=counts)[index] if len(index) else counts
    share = classes[label] / classes.sum()
    purity, coverage = counts / np.maximum(rows, 1), counts / np.maximum(classes[label], 1)
    enough = (rows >= MIN_ROWS) & (classes.sum() - classes[label] >= MIN_ROWS)
    strong = (purity >= PURITY) & (coverage >= _coverage(int((classes > 0).sum())))
    sure = (_lower_bound(purity, rows) - share) >= LIFT * (1 - share)
    for i in np.flatnonzero(enough & strong & sure).tolist():
        yield WordGiveaway(int(label[i]), place, -1, int(code[i]), int(rows[i]), float(purity[i]), float(coverage[i]))


def _lower_bound(share: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Wilson's, 95 %."""
    n = np.maximum(count, 1)
    spread = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return (share + _Z**2 / (2 * n) - spread) / (1 + _Z**2 / n)


def _with_row(found: WordGiveaway, words: Words, edges: np.ndarray, label_keys: np.ndarray) -> WordGiveaway:
    rows = np.flatnonzero(label_keys == found.label_key)
    if found.where != "word":
        row = rows[edges[rows, 0 if found.where == "start" else 1] == found.code][0]
    else:
        row = -1
        for part in words.chunks(rows):
            word, owner = _distinct(words, part)
            there = owner[word == found.code]
            if len(there):
                row = part[there[0]]
                break
    return replace(found, row=int(row))


# ---- columns ----


def column_giveaways(columns: Mapping[str, OtherColumn], label_keys: np.ndarray) -> list[ColumnGiveaway]:
    """Columns that predict the label by value, by what is left of an id without its digits, or by order."""
    if not _enough(label_keys):
        return []
    guess = np.bincount(label_keys[label_keys >= 0]).max() / len(label_keys)
    needed = max(PURITY, 1 - (1 - guess) / 10)  # nine of ten mistakes of guessing are gone
    found: list[ColumnGiveaway] = []
    for name, column in columns.items():
        for how, accuracy in _accuracies(column, label_keys):
            if accuracy >= needed:
                found.append(ColumnGiveaway(name, how, accuracy))
                break
    return found


def is_sorted_by_label(label_keys: np.ndarray) -> bool:
    """Whether the rows stand class by class."""
    return _enough(label_keys) and _order_accuracy(np.arange(len(label_keys), dtype=np.float64), label_keys) >= PURITY


def _enough(label_keys: np.ndarray) -> bool:
    if len(label_keys) < MIN_ROWS_COLUMN or (label_keys < 0).any():
        return False
    return len(label_keys) - int(np.bincount(label_keys).max()) >= MIN_OTHERS


def _accuracies(
    column: OtherColumn, label_keys: np.ndarray
) -> Iterator[tuple[Literal["value", "pattern", "order"], float]]:
    yield "value", _group_accuracy(column.values, label_keys)
    yield "pattern", _group_accuracy(column.patterns, label_keys)
    yield "order", _order_accuracy(column.numbers, label_keys)


def _group_accuracy(values: np.ndarray, label_keys: np.ndarray) -> float:
    """Each row predicted from the other rows with its value; a value that stands alone predicts nothing."""
    keys = (values.astype(np.uint64) << np.uint64(_CLASS_BITS)) | label_keys.astype(np.uint64)
    found, counts = np.unique(keys, return_counts=True)
    _, value = np.unique(found >> np.uint64(_CLASS_BITS), return_inverse=True)
    largest = np.zeros(value.max() + 1, np.int64)
    np.maximum.at(largest, value, counts)
    if len(largest) > len(label_keys) / 3:  # hardly a value is there three times
        return math.nan
    return float(largest[largest > 1].sum() / len(label_keys))


def _order_accuracy(numbers: np.ndarray, label_keys: np.ndarray) -> float:
    """Each row predicted as the one before it, in the order of the numbers; NaN unless nearly all are different."""
    if np.isnan(numbers).any() or len(np.unique(numbers)) < 0.9 * len(numbers):
        return math.nan
    ordered = label_keys[np.argsort(numbers, kind="stable")]
    return float((ordered[1:] == ordered[:-1]).mean())
