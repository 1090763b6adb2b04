"""From a tokenised dataset to batches: which examples make a step, and how a step is cut to fit memory.

A step is planned for the whole world, then sliced by rank. Order is a pure function of (seed, epoch), so a resumed
run needs no state to find its place. Texts lie end to end: no padding exists here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

WINDOW = 32  # steps sorted together by length; wide enough that a step's texts have nearly equal lengths


class Examples(Protocol):
    """What batching needs of a tokenised dataset."""

    @property
    def labels(self) -> np.ndarray: ...

    def tokens(self, index: int) -> np.ndarray: ...


@runtime_checkable
class WrittenExamples(Examples, Protocol):
    """Examples of which some tokens are to be learnt."""

    def is_target(self, index: int) -> np.ndarray:
        """bool, one per token: True = counts."""
        ...


@dataclass(frozen=True)
class Texts:
    """Tokenised texts laid end to end."""

    input_ids: Tensor  # int64 [N], all tokens of all texts
    lengths: tuple[int, ...]  # tokens per text, B of them, summing to N

    @property
    def device(self) -> torch.device:
        return self.input_ids.device

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True)
class Batch:
    """One micro-batch."""

    texts: Texts
    labels: Tensor  # int64 [B], float32 [B], or float32 [B, K] for several labels
    indices: np.ndarray  # int64 [B], which examples of the dataset these are
    is_target: Tensor | None = None  # bool [N], of texts that are written: True = counts


def lay_end_to_end(token_lists: Sequence[np.ndarray | Sequence[int]], device: torch.device | str = "cpu") -> Texts:
    """Concatenate tokenised texts."""
    flat = np.concatenate([np.asarray(tokens, dtype=np.int64) for tokens in token_lists])
    return Texts(torch.from_numpy(flat).to(device), tuple(len(tokens) for tokens in token_lists))


def epoch_steps(lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Indices of each optimizer step of one epoch: shuffled windows, sorted by length inside, steps shuffled again.

    Every example appears exactly once; the last step of the epoch's plan may be smaller.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    steps: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * WINDOW):
        window = order[start : start + batch_size * WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        steps += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    return [steps[i] for i in generator.permutation(len(steps))]


def micro_batches(
    step: np.ndarray, lengths: np.ndarray, max_tokens: int, *, rank: int = 0, world_size: int = 1
) -> list[np.ndarray]:
    """This rank's examples of a step, cut so that no part exceeds max_tokens (a longer text stands alone)."""
    own = step[rank::world_size]
    return cut_by_tokens(own[np.argsort(lengths[own], kind="stable")], lengths, max_tokens)


def cut_by_tokens(indices: np.ndarray, lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Cut a sequence of examples, in order, into parts of at most max_tokens tokens."""
    parts: list[np.ndarray] = []
    start = total = 0
    for position, index in enumerate(indices):
        length = int(lengths[index])
        if position > start and total + length > max_tokens:
            parts.append(indices[start:position])
            start, total = position, 0
        total += length
    return [*parts, indices[start:]] if len(indices) else []


def collate(dataset: Examples, indices: np.ndarray, device: torch.device | str = "cpu") -> Batch:
    """The examples at these indices as one micro-batch."""
    texts = lay_end_to_end([dataset.tokens(int(i)) for i in indices], device)
    labels = torch.from_numpy(np.ascontiguousarray(dataset.labels[indices])).to(device)
    if not isinstance(dataset, WrittenExamples):
        return Batch(texts, labels, indices)
    is_target = torch.from_numpy(np.concatenate([dataset.is_target(int(i)) for i in indices])).to(device)
    return Batch(texts, labels, indices, is_target)
