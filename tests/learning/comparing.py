"""Comparisons made by hand, for tests of what learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunewright.data.comparison_tokens import ComparisonDataset


@dataclass(frozen=True)
class Compared:
    """One prompt, its completions, and (better, worse, weight) of each comparison."""

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]
    pairs: Sequence[tuple[int, int, float]] = ((0, 1, 1.0),)


def dataset(prompts: Sequence[Compared]) -> ComparisonDataset:
    """As `tokenize_comparisons` would make it, without a tokenizer."""
    texts = [(len(one.prompt), [*one.prompt, *said]) for one in prompts for said in one.completions]
    sizes = np.array([len(ids) for _, ids in texts], np.int32)
    num_texts = np.array([len(one.completions) for one in prompts], np.int32)
    num_pairs = np.array([len(one.pairs) for one in prompts], np.int32)
    first_text = np.cumsum(num_texts, dtype=np.int64) - num_texts
    lengths = np.add.reduceat(sizes, first_text)
    pairs = [pair for one in prompts for pair in one.pairs]
    return ComparisonDataset(
        input_ids=np.concatenate([np.array(ids, np.int32) for _, ids in texts]),
        targets=np.concatenate([np.arange(len(ids)) >= asked for asked, ids in texts]),
        starts=np.cumsum(lengths, dtype=np.int64) - lengths,
        lengths=lengths,
        full_lengths=lengths,
        rows=np.arange(len(prompts)),
        labels=np.zeros((len(prompts), 0), np.float32),
        fingerprint="made by hand",
        first_text=first_text,
        num_texts=num_texts,
        first_pair=np.cumsum(num_pairs, dtype=np.int64) - num_pairs,
        num_pairs=num_pairs,
        sizes=sizes,
        full_sizes=sizes,
        pair_texts=np.array([pair[:2] for pair in pairs], np.int32),
        pair_weights=np.array([pair[2] for pair in pairs], np.float32),
        pair_margins=np.zeros(len(pairs), np.float32),
        pair_annotators=np.full(len(pairs), -1, np.int32),
    )


def made(seed: int = 0, prompts: int = 6, vocabulary: int = 50) -> ComparisonDataset:
    """Two to four completions each, in full or in part compared, some tied, of many lengths."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(prompts):
        asked = generator.integers(3, vocabulary, generator.integers(1, 9)).tolist()
        said = [generator.integers(3, vocabulary, generator.integers(1, 12)).tolist()
                for _ in range(generator.integers(2, 5))]  # fmt: skip
        order = generator.permutation(len(said))
        pairs = [
            (int(a), int(b), float(generator.choice([0.5, 0.8, 1.0])))
            for place, a in enumerate(order) for b in order[place + 1 :]
        ]  # fmt: skip
        found.append(Compared(asked, said, pairs[: generator.integers(1, len(pairs) + 1)]))
    return dataset(found)
