"""Texts that are nearly the same: MinHash over runs of three words, bands to find candidates, exact Jaccard to decide.

Works on `words` alone and gives row indices; `examining` says what they mean. Two texts are near duplicates when their
sets of three-word runs (case and punctuation aside) have a Jaccard similarity of at least THRESHOLD. Every pair that
is given was verified; one at the threshold is missed once in a hundred (BANDS, MINIMA), one at 0.8 never in practice.

MinHash: Broder, "On the resemblance and containment of documents" (1997); banding: Leskovec, Rajaraman, Ullman,
"Mining of Massive Datasets", section 3.4. Shapes: N texts, B bands, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tunewright.data.words import Words, distinct

THRESHOLD = 0.7
RUN = 3  # words
BANDS = 25
MINIMA = 5  # per band: 1 - (1 - 0.7**5)**25 = 0.99
LARGE_BUCKET = 32  # above this, members are compared with a few leaders instead of with each other
LEADERS = 8
# A byte of each minimum estimates the similarity with a standard deviation of 0.041: of pairs at the threshold 6 in a
# thousand are lost, of those at 0.75 none.
PROMISING = THRESHOLD - 2.5 * 0.041

_32 = np.uint64(32)


def _mixed(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# Random, and the same in every process and version of NumPy.
_CONSTANTS = _mixed(np.arange(1, 2 * BANDS * MINIMA + RUN + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
_MULTIPLIERS = _CONSTANTS[: BANDS * MINIMA] | np.uint64(1)
_SUMMANDS = _CONSTANTS[BANDS * MINIMA : -RUN]
_PER_WORD = _CONSTANTS[-RUN:] | np.uint64(1)


@dataclass(frozen=True, eq=False)
class Sketches:
    """What is kept of each text: 225 bytes."""

    bands: np.ndarray  # uint32 [B, N] equal for two texts: a candidate
    bytes: np.ndarray  # uint8 [N, B * MINIMA] a byte of each minimum


@dataclass(frozen=True, eq=False)
class Texts:
    """Some texts of a part."""

    words: Words
    sketches: Sketches
    rows: np.ndarray  # int64, which of them


def sketch(words: Words) -> Sketches:
    """MinHash of every text: strongly universal multiply-shift, 32 bits of 64."""
    bands = np.empty((BANDS, len(words)), np.uint32)
    kept = np.empty((len(words), BANDS * MINIMA), np.uint8)
    done = 0
    for rows in words.chunks(np.arange(len(words))):
        values, owner = _runs(words, rows)
        begins = np.searchsorted(owner, np.arange(len(rows)))
        part = slice(done, done + len(rows))
        for band in range(BANDS):
            key = np.zeros(len(rows), np.uint64)
            for k in range(band * MINIMA, (band + 1) * MINIMA):
                smallest = np.minimum.reduceat((values * _MULTIPLIERS[k] + _SUMMANDS[k]) >> _32, begins)
                kept[part, k] = smallest & np.uint64(255)
                key = _mixed(key ^ smallest)
            bands[band, part] = key >> _32
        done += len(rows)
    return Sketches(bands, kept)


def jaccard(words: Words, left: np.ndarray, other: Words, right: np.ndarray) -> np.ndarray:
    """Exact similarity of the pairs (left[i] of `words`, right[i] of `other`): float64 [P]."""
    found = np.zeros(len(left))
    for some in _chunks_of_pairs(words.lengths[left].astype(np.int64) + other.lengths[right]):
        sides = [distinct(_keys(words, left[some])), distinct(_keys(other, right[some]))]
        both = np.sort(np.concatenate(sides))
        shared = _count(both[1:][both[1:] == both[:-1]], len(some))
        found[some] = shared / (_count(both, len(some)) - shared)
    return found


def near_groups(texts: Texts) -> np.ndarray:
    """int64 [N]: texts with the same number are linked by near duplicates; the number is the first of them.

    Only `texts.rows` are compared, each the first of its exact duplicates; the others stay alone.
    """
    words, sketches = texts.words, texts.sketches
    groups = _Groups(len(words))
    for band in sketches.bands:
        keys = band[texts.rows]
        for left, right in _candidates(keys):
            _link(words, sketches, groups, texts.rows[left], texts.rows[right])
        for members in _large_buckets(keys):
            _link_to_leaders(words, sketches, groups, texts.rows[members])
    return groups.roots()


def near_matches(train: Texts, held_out: Texts) -> tuple[np.ndarray, np.ndarray]:
    """For each of `held_out.rows` a near duplicate among `train.rows` (-1: none), and how similar it is."""
    partner, similarity = np.full(len(held_out.rows), -1), np.zeros(len(held_out.rows))
    for band, other in zip(train.sketches.bands, held_out.sketches.bands, strict=True):
        order = train.rows[np.argsort(band[train.rows], kind="stable")]
        low = np.searchsorted(band[order], other[held_out.rows])
        high = np.searchsorted(band[order], other[held_out.rows], "right")
        for offset in range(LARGE_BUCKET):
            some = np.flatnonzero((low + offset < high) & (partner < 0))
            if not len(some):
                break
            left, right = order[low[some] + offset], held_out.rows[some]
            chosen = _promising(train.sketches, left, held_out.sketches, right)
            some, left, right = some[chosen], left[chosen], right[chosen]
            found = jaccard(train.words, left, held_out.words, right)
            near = found >= THRESHOLD
            partner[some[near]], similarity[some[near]] = left[near], found[near]
    return partner, similarity


# ---- candidates ----


def _candidates(band: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of each bucket that isn't large, a distance at a time."""
    order, size = _buckets(band)
    keys = band[order]
    small = (size > 1) & (size <= LARGE_BUCKET)
    order, keys = order[small], keys[small]
    for distance in range(1, LARGE_BUCKET):
        same = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(same):
            return
        yield order[same], order[same + distance]


def _large_buckets(band: np.ndarray) -> Iterator[np.ndarray]:
    order, size = _buckets(band)
    at = 0
    large = order[size > LARGE_BUCKET]
    sizes = size[size > LARGE_BUCKET]
    while at < len(large):
        yield large[at : at + sizes[at]]
        at += sizes[at]


def _buckets(band: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texts in the order of their bucket, and the size of each one's bucket."""
    order = np.argsort(band, kind="stable")
    keys = band[order]
    begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    sizes = np.diff(np.append(begins, len(keys)))
    return order, np.repeat(sizes, sizes)


def _link_to_leaders(words: Words, sketches: Sketches, groups: _Groups, members: np.ndarray) -> None:
    """Thousands of texts from one template: compare with a leader, go on with those that it isn't near to."""
    for _ in range(LEADERS):
        leader, members = members[:1], members[1:]
        members = members[groups.roots()[members] != groups.roots()[leader]]
        if not len(members):
            return
        _link(words, sketches, groups, np.repeat(leader, len(members)), members)


def _link(words: Words, sketches: Sketches, groups: _Groups, left: np.ndarray, right: np.ndarray) -> None:
    """Verify the pairs that aren't linked yet."""
    roots = groups.roots()
    new = roots[left] != roots[right]
    left, right = left[new], right[new]
    chosen = _promising(sketches, left, sketches, right)
    left, right = left[chosen], right[chosen]
    near = jaccard(words, left, words, right) >= THRESHOLD
    groups.join(left[near], right[near])


def _promising(sketches: Sketches, left: np.ndarray, other: Sketches, right: np.ndarray) -> np.ndarray:
    """bool [P]: pairs whose estimate doesn't rule them out."""
    chosen = np.zeros(len(left), bool)
    for begin in range(0, len(left), 1 << 15):
        some = slice(begin, begin + (1 << 15))
        agree = (sketches.bytes[left[some]] == other.bytes[right[some]]).mean(axis=1)
        chosen[some] = agree >= PROMISING
    return chosen


class _Groups:
    """Union-find: the root of a group is its smallest member."""

    def __init__(self, size: int) -> None:
        self._parents = np.arange(size)
        self._flat = True

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        parents = self._parents
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            a, b = self._find(a), self._find(b)
            parents[max(a, b)] = min(a, b)
        self._flat = self._flat and not len(left)

    def _find(self, a: int) -> int:
        parents = self._parents
        while (parent := int(parents[a])) != a:
            parents[a] = parents[parent]
            a = int(parents[a])
        return a

    def roots(self) -> np.ndarray:
        while not self._flat:
            shorter = self._parents[self._parents]
            self._flat = bool((shorter == self._parents).all())
            self._parents = shorter
        return self._parents


# ---- runs of words ----


def _runs(words: Words, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 below 2**32 per run of RUN words, index into `rows`); a text shorter than that is one run."""
    flat, owner, place = words.of(rows)
    lengths = words.lengths[rows][owner]
    begins = np.flatnonzero(place < np.maximum(lengths - RUN + 1, 1))
    values = np.zeros(len(begins), np.uint64)
    for step in range(RUN):
        at = np.minimum(begins + step, len(flat) - 1)
        there = place[begins] + step < lengths[begins]
        values = _mixed(values + np.where(there, (flat[at] + np.uint64(1)) * _PER_WORD[step], np.uint64(0)))
    return values >> _32, owner[begins]


def _keys(words: Words, rows: np.ndarray) -> np.ndarray:
    values, owner = _runs(words, rows)
    return (owner.astype(np.uint64) << _32) | values


def _count(keys: np.ndarray, size: int) -> np.ndarray:
    return np.bincount((keys >> _32).astype(np.int64), minlength=size)


def _chunks_of_pairs(num_words: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of pairs, at most so many words at a time that memory stays small."""
    ends = np.cumsum(num_words)
    begin = 0
    while begin < len(num_words):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + (1 << 18), "right")))
        yield np.arange(begin, end)
        begin = end
