"""How likely a language model finds the targets of written examples: what loss, perplexity and token accuracy rest on.

Sorted by length, batched by tokens, nothing remembered for gradients, order of input kept. Used by evaluation and for
the general text that shows what was forgotten. With a boundary cache the cached layers aren't run.

Shapes: N examples, T targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batching import Batch, WrittenExamples, collate, cut_by_tokens
from tunewright.models.boundary import BoundaryCache
from tunewright.models.forward import Forward, in_evaluation
from tunewright.models.language_head import LanguageHead, target_losses
from tunewright.runtime import Runtime

MAX_TOKENS = 4096


class MeasuredExamples(WrittenExamples, Protocol):
    """Written examples that know their lengths."""

    @property
    def lengths(self) -> np.ndarray:
        """int [N], tokens of each."""
        ...


@dataclass(frozen=True)
class Likelihoods:
    """What a model thinks of each example's targets."""

    nats: np.ndarray  # float64 [N], sum of −log p over the targets
    tokens: np.ndarray  # int64 [N], how many targets
    hits: np.ndarray  # int64 [N], targets that were the model's first choice


def target_likelihoods(
    forward: Forward,
    dataset: MeasuredExamples,
    *,
    max_tokens: int = MAX_TOKENS,
    cache: BoundaryCache | None = None,
    runtime: Runtime | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> Likelihoods:
    """Nats, targets and hits of next tokens, for each example. With several ranks each computes its share.

    `before_batch` is called before each batch and may raise to stop. An example without a target counts 0 in all.
    """
    lengths = np.asarray(dataset.lengths, dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    # Nothing stands before a first token: a single one has no target, and no token would break the forward.
    batches = cut_by_tokens(order[lengths[order] > 1], lengths, max_tokens)
    rank, world_size = (runtime.rank, runtime.world_size) if runtime else (0, 1)
    found = np.zeros((3, len(lengths)))
    with torch.inference_mode(), in_evaluation(forward.model):
        head = LanguageHead.of(forward.model)
        for indices in batches[rank::world_size]:
            before_batch()
            found[:, indices] = _sums_per_text(forward, head, dataset, indices, cache)
    nats, tokens, hits = _of_all_ranks(found, runtime)
    return Likelihoods(nats, tokens.astype(np.int64), hits.astype(np.int64))


def next_tokens(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where the targets are predicted, and what they are: int64 [T] into the N tokens, int64 [T] ids."""
    assert batch.is_target is not None
    counts = batch.is_target.clone()
    first = torch.tensor((0, *batch.texts.lengths[:-1]), device=counts.device).cumsum(0)
    counts[first] = False
    behind = counts.nonzero()[:, 0]
    return behind - 1, batch.texts.input_ids[behind]


def _sums_per_text(
    forward: Forward, head: LanguageHead, dataset: MeasuredExamples, indices: np.ndarray, cache: BoundaryCache | None
) -> np.ndarray:
    """Nats, targets and hits of one batch, float64 [3, B]."""
    device = head.weight.device
    batch = collate(dataset, indices, device)
    hidden = forward.hidden(batch.texts, cache.boundary(indices, device) if cache else None)
    places, targets = next_tokens(batch)
    losses, hits = target_losses(hidden[places], head, targets)
    owner = np.repeat(np.arange(len(indices)), batch.texts.lengths)[places.cpu().numpy()]
    columns = (losses.cpu().numpy(), np.ones(len(owner)), hits.cpu().numpy())
    return np.stack([np.bincount(owner, column, len(indices)) for column in columns])


def _of_all_ranks(found: np.ndarray, runtime: Runtime | None) -> np.ndarray:
    if runtime is None or runtime.world_size == 1:
        return found
    return runtime.sum(torch.from_numpy(found).to(runtime.device)).cpu().numpy()
