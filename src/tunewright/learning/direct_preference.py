"""The objective of direct preference optimisation: comparisons teach a model that writes, without a reward model.

The policy is its own reward model. The implicit reward of a completion is β (log π − log π_ref), and comparisons teach
it as they teach a reward model: the loss is that of `preference` (Rafailov et al. 2023, "Direct Preference
Optimization", eq. 7; with soft labels Mitchell 2023, "A note on DPO with noisy preferences", eq. 3). The reference
doesn't change, so what it thinks of each completion is measured once and handed in, and a model that learns whole needs
no copy of itself. Reads no rows, samples nothing.

Shapes: N prompts, K completions of all of them, T targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batching import Batch, Examples
from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.learning.preference import Compared, texts_of
from tunewright.models.boundary import BoundaryCache
from tunewright.models.forward import Boundary, Forward
from tunewright.models.language_head import LanguageHead, target_logprobs
from tunewright.models.likelihoods import next_tokens, target_likelihoods
from tunewright.runtime import Runtime


def implicit_rewards(logprobs: Tensor, ref_logprobs: Tensor, beta: float) -> Tensor:
    """r = β (log π − log π_ref), up to a term of the prompt alone: float [K] each, of whole completions, in nats."""
    return beta * (logprobs - ref_logprobs)


@dataclass(frozen=True)
class DirectPreference:
    """Loss of comparisons by implicit rewards: of a prompt the mean over its comparisons, so each prompt weighs 1."""

    caches: ClassVar[bool] = True  # the boundary cache holds a prompt's texts end to end, as a batch does
    dataset: ComparisonDataset  # what batches are made of
    beta: float  # how strongly the policy is held to its reference
    ref_logprobs: np.ndarray | None = (
        None  # float64 [K] as `completion_logprobs` gives; None: the policy's, as at step 0
    )

    def loss_of(self, forward: Forward, batch: Batch, boundary: Boundary | None) -> Tensor:
        """Sum over prompts of the mean loss of their comparisons, in nats."""
        compared = Compared.of(self.dataset, batch.indices, batch.texts.device)
        logprobs = _logprobs(forward, replace(batch, texts=texts_of(self.dataset, batch)), boundary)
        rewards = implicit_rewards(logprobs, self._reference(batch.indices, logprobs), self.beta)
        return (compared.shares * compared.losses(rewards)).sum()

    def weight_of(self, dataset: Examples, indices: np.ndarray) -> float:
        """The number of prompts."""
        return float(len(indices))

    def _reference(self, indices: np.ndarray, logprobs: Tensor) -> Tensor:
        """What the reference thinks of these prompts' completions, in this order."""
        if self.ref_logprobs is None:
            return logprobs.detach()
        known = [self.ref_logprobs[self._starts[i] : self._starts[i] + self.dataset.num_texts[i]] for i in indices]
        return torch.from_numpy(np.concatenate(known)).to(logprobs)

    @cached_property
    def _starts(self) -> np.ndarray:
        """int64 [N], completions of the prompts before each."""
        return np.cumsum(self.dataset.num_texts, dtype=np.int64) - self.dataset.num_texts


def completion_logprobs(
    forward: Forward,
    dataset: ComparisonDataset,
    *,
    cache: BoundaryCache | None = None,
    runtime: Runtime | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """log p of every completion, nats over its tokens with its EOS: float64 [K], those of the first prompt first.

    Without gradients, dropout off, sorted by length, whatever a step's micro-batches are. `cache`: of the dataset's
    prompts. `before_batch` may raise to stop.
    """
    texts = dataset.each_text()
    if cache is not None:  # the texts of a prompt stand side by side in it
        cache = replace(cache, offsets=np.concatenate([[0], np.cumsum(texts.lengths, dtype=np.int64)]))
    return -target_likelihoods(forward, texts, cache=cache, runtime=runtime, before_batch=before_batch).nats


def _logprobs(forward: Forward, batch: Batch, boundary: Boundary | None) -> Tensor:
    """The same of a batch of texts, float32 [K] with gradients; the head runs at completion tokens alone."""
    places, targets = next_tokens(batch)
    hidden = forward.hidden(batch.texts, boundary)
    found, _ = target_logprobs(hidden[places], LanguageHead.of(forward.model), targets)
    ends = torch.tensor(batch.texts.lengths, device=found.device).cumsum(0)
    counts = torch.bincount(torch.bucketize(places, ends, right=True), minlength=len(ends))
    return torch.stack([part.sum() for part in found.split(counts.tolist())])  # in a fixed order, on any device
