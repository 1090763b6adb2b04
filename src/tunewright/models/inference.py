"""Logits for rows: sorted by length, batched by tokens, nothing remembered for gradients, order of input kept.

Used by evaluation, prediction and the before/after table. With a boundary cache the cached layers aren't run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from tunewright.data.batching import cut_by_tokens, lay_end_to_end
from tunewright.models.boundary import BoundaryCache
from tunewright.models.forward import Forward, in_evaluation
from tunewright.runtime import Runtime

MAX_TOKENS = 4096


def predict_logits(
    forward: Forward,
    input_ids: Sequence[np.ndarray | list[int]],
    *,
    max_tokens: int = MAX_TOKENS,
    cache: BoundaryCache | None = None,
    runtime: Runtime | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Logits [N, outputs], float32, of N tokenised texts. With several ranks each computes its share.

    `before_batch` is called before each batch and may raise to stop.
    """
    # GPT-2 adds no token of its own, so a blank text has none; the pad token stands for it.
    input_ids = [tokens if len(tokens) else [forward.config.pad_token_id or 0] for tokens in input_ids]
    lengths = np.array([len(tokens) for tokens in input_ids], dtype=np.int64)
    batches = cut_by_tokens(np.argsort(lengths, kind="stable"), lengths, max_tokens)
    rank, world_size = (runtime.rank, runtime.world_size) if runtime else (0, 1)
    device = next(forward.model.parameters()).device
    result = torch.zeros(len(lengths), forward.config.num_labels)
    with torch.inference_mode(), in_evaluation(forward.model):
        for batch in batches[rank::world_size]:
            before_batch()
            texts = lay_end_to_end([input_ids[i] for i in batch], device)
            boundary = cache.boundary(batch, device) if cache else None
            result[torch.from_numpy(batch)] = forward.logits(texts, boundary).float().cpu()
    return (runtime.sum(result) if runtime else result).numpy()
