"""The objective of encoder–decoder models (T5, BART): one sequence read, another written.

An example is a text whose first part is read and whose targets are written (`data/pairs_tokens`); losses are sums over
target tokens in nats, so cutting a step changes nothing. Sources and targets are padded to the longest of a
micro-batch; steps are sorted by length, and `padding_share` says what that still costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from tunewright.data.batching import Batch, Examples, WrittenExamples, collate, cut_by_tokens
from tunewright.models.forward import Boundary, Forward
from tunewright.models.guesses import guess_likelihoods, pair_guesses
from tunewright.models.likelihoods import MAX_TOKENS, Likelihoods, MeasuredExamples
from tunewright.runtime import Runtime


@dataclass(frozen=True)
class SequenceToSequence:
    """Loss of the written tokens; the head runs nowhere else."""

    caches: ClassVar[bool] = False  # whether layers below the trained ones may run once and be kept

    def loss_of(self, forward: Forward, batch: Batch, boundary: Boundary | None) -> Tensor:
        """Sum of −log p of the micro-batch's targets, in nats."""
        assert boundary is None, "layers of encoder-decoder models aren't cached"
        return pair_guesses(forward, batch).loss_sum()

    def weight_of(self, dataset: Examples, indices: np.ndarray) -> float:
        """Targets of these examples."""
        assert isinstance(dataset, WrittenExamples)
        return float(sum(int(dataset.is_target(int(i)).sum()) for i in indices))


def pair_likelihoods(
    forward: Forward,
    dataset: MeasuredExamples,
    *,
    max_tokens: int = MAX_TOKENS,
    runtime: Runtime | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> Likelihoods:
    """Nats, targets and hits of each pair."""
    device = next(forward.model.parameters()).device
    return guess_likelihoods(
        forward,
        dataset.lengths,
        lambda indices: pair_guesses(forward, collate(dataset, indices, device)),
        max_tokens=max_tokens,
        runtime=runtime,
        before_batch=before_batch,
    )


def padding_share(dataset: MeasuredExamples, steps: list[np.ndarray], max_tokens: int) -> float:
    """Of all places computed in these steps, how many hold nothing: 0 to 1."""
    lengths = np.asarray(dataset.lengths, np.int64)
    real = computed = 0
    for step in steps:
        for part in cut_by_tokens(step[np.argsort(lengths[step], kind="stable")], lengths, max_tokens):
            written = np.array([int(dataset.is_target(int(i)).sum()) for i in part])
            read = lengths[part] - written
            real += int(lengths[part].sum())
            computed += len(part) * int(read.max() + written.max())
    return 1 - real / computed if computed else 0.0
