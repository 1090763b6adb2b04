"""Texts as weighted words: TF-IDF of words and pairs of words, as the rows of a sparse table.

What a text classifier knows without any model: the baseline of every comparison, and a second opinion beside one
(`learning.frozen_head`). Words are those of `words`: case and punctuation aside. Nothing here sees a label.

Weights: (1 + ln count) * (ln((1 + N) / (1 + rows with it)) + 1), each text scaled to length 1 (Salton and Buckley 1988;
scikit-learn's TfidfVectorizer(sublinear_tf=True)). Shapes: N texts, V features, E entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tunewright.data.words import Words, WordStore

FEWEST_TEXTS = 2  # a word of one text teaches nothing about others
_PAIR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class WordTable:
    """E entries of a sparse [N, V] table, ordered by row."""

    rows: np.ndarray  # int64 [E]
    columns: np.ndarray  # int64 [E]
    values: np.ndarray  # float64 [E]
    num_rows: int
    num_columns: int

    def part(self, chosen: np.ndarray) -> WordTable:
        """These rows, in this order."""
        place = np.full(self.num_rows, -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[self.rows] >= 0
        rows, columns, values = place[self.rows[kept]], self.columns[kept], self.values[kept]
        order = np.argsort(rows, kind="stable")
        return WordTable(rows[order], columns[order], values[order], len(chosen), self.num_columns)


def word_table(texts: Iterable[str]) -> WordTable:
    """Words and pairs of neighbouring words that at least two texts have."""
    store = WordStore()
    for text in texts:
        store.add(text)
    words = store.close()
    rows, keys = _occurrences(words)
    _, columns, spread = np.unique(keys, return_inverse=True, return_counts=True)
    cells, counts = np.unique(rows * len(spread) + columns, return_counts=True)
    rows, columns = np.divmod(cells, max(1, len(spread)))
    return _weighted(rows, columns, counts, len(words))


def _occurrences(words: Words) -> tuple[np.ndarray, np.ndarray]:
    """(text, key) of each word and of each pair of words side by side."""
    flat, owner, _ = words.of(np.arange(len(words)))
    same = owner[1:] == owner[:-1]
    pairs = flat[:-1][same] * _PAIR + flat[1:][same] + np.uint64(1 << 32)  # wraps; never a single word's 32 bits
    return np.concatenate([owner, owner[1:][same]]), np.concatenate([flat, pairs])


def _weighted(rows: np.ndarray, columns: np.ndarray, counts: np.ndarray, num_texts: int) -> WordTable:
    texts_with = np.bincount(columns)
    kept = texts_with[columns] >= FEWEST_TEXTS
    rows, counts = rows[kept], counts[kept]
    _, columns = np.unique(columns[kept], return_inverse=True)
    texts_with = np.bincount(columns)
    rarity = np.log((1 + num_texts) / (1 + texts_with)) + 1
    values = (1 + np.log(counts)) * rarity[columns]
    length = np.sqrt(np.bincount(rows, weights=values**2, minlength=num_texts))
    return WordTable(rows, columns, values / length[rows], num_texts, len(texts_with))
