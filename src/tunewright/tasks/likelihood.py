"""How a model that writes is scored without writing: the next word, a masked word, or a sequence for a sequence."""

from __future__ import annotations

from typing import Protocol

from tunewright.data.written_tokens import WrittenDataset
from tunewright.models.forward import Forward
from tunewright.models.likelihoods import Likelihoods, target_likelihoods
from tunewright.tasks.task import ScoringParts


class Likelihood(Protocol):
    """One way to score."""

    writes: bool  # whether the model can generate

    def __call__(self, forward: Forward, dataset: WrittenDataset, parts: ScoringParts) -> Likelihoods: ...


class NextWord:
    """Of causal models."""

    writes = True

    def __call__(self, forward: Forward, dataset: WrittenDataset, parts: ScoringParts) -> Likelihoods:
        return target_likelihoods(
            forward, dataset, cache=parts.cache, runtime=parts.runtime, before_batch=parts.stop_if_asked
        )
