"""How large a micro-batch may be: measured need per token against the memory this process may use.

On a CPU the kernel kills instead of raising, so the bound is set beforehand. One forward over the longest text counts
the bytes that autograd keeps; attention here keeps no square of the length, so need grows with tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tunewright.data.batching import Examples, collate
from tunewright.learning.gradients import Objective
from tunewright.models.forward import Boundary, Forward

# Largest micro-batch used when memory is no limit: beyond it a CPU's caches, and so its speed, suffer.
PREFERRED_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 32768}
SHARE = 0.5  # of the free memory that activations may take; the rest is for temporaries and everyone else


def bytes_per_token(
    forward: Forward, objective: Objective, dataset: Examples, lengths: np.ndarray, k: int = 0
) -> float:
    """Bytes that autograd keeps per token of the longest text (layers below k frozen and cached)."""
    longest = np.array([int(np.argmax(lengths))])
    device = next(forward.model.parameters()).device
    batch = collate(dataset, longest, device)
    seen: dict[int, int] = {p.untyped_storage().data_ptr(): 0 for p in forward.model.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    boundary = None
    if 0 < k < forward.num_layers:
        width = forward.config.hidden_size
        boundary = Boundary(k, torch.zeros(batch.texts.num_tokens, width, device=device))
    # Measuring must not change what the run draws.
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        objective.loss_sum(forward.logits(batch.texts, boundary), batch.labels)
    return sum(seen.values()) / batch.texts.num_tokens


def largest_micro_batch(
    per_token: float, available: int, device: str, longest: int, say: Callable[[str], None] = lambda sentence: None
) -> int:
    """Tokens per micro-batch: the preferred number, or less where memory asks for it, never less than one text."""
    preferred = PREFERRED_TOKENS[device]
    fits = int(available * SHARE / max(per_token, 1.0))
    chosen = max(min(preferred, fits), longest)
    if fits < preferred:
        need = f"{available / 1e9:.1f} GB free, {per_token / 1e3:.0f} kB per token"
        short = " (one text, and more than is free)" if fits < longest else ""
        say(f"memory: {need}, so micro-batches of {chosen} tokens{short}")
    return chosen
