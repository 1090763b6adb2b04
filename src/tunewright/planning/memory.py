"""How large a micro-batch may be: measured need per token against the memory this process may use.

On a CPU the kernel kills instead of raising, so the bound is set beforehand. One forward over the longest text counts
the bytes that autograd keeps. Where attention has dropout it keeps squares of the length, so shorter texts need less.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch

from tunewright.data.batching import Examples, collate
from tunewright.learning.gradients import Objective
from tunewright.models.forward import Boundary, Forward
from tunewright.runtime import memory_available, memory_in_use

# Largest micro-batch used when memory is no limit: beyond it a CPU's caches, and so its speed, suffer.
PREFERRED_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 32768}
# What activations of a large model may take on a CPU, though more is free: more gains nothing (benchmarks/sft.py).
PREFERRED_BYTES = {"cpu": 1 << 30}
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
    # Measuring must not change what the run draws. A loaded model is in evaluation, where dropout keeps nothing.
    with (
        in_training(forward.model),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        objective.loss_of(forward, batch, boundary)
    return sum(seen.values()) / batch.texts.num_tokens


@contextlib.contextmanager
def in_training(model: Any) -> Generator[None]:
    """Dropout on inside, the model's mode restored after."""
    was_training = model.training
    model.train()
    try:
        yield
    finally:
        model.train(was_training)


def largest_micro_batch(
    per_token: float, available: int, device: str, longest: int, say: Callable[[str], None] = lambda sentence: None
) -> int:
    """Tokens per micro-batch: the preferred number, or less where memory asks for it, never less than one text."""
    roomy = int(PREFERRED_BYTES.get(device, available) / max(per_token, 1.0))
    preferred = min(PREFERRED_TOKENS[device], roomy)
    fits = int(available * SHARE / max(per_token, 1.0))
    chosen = max(min(preferred, fits), longest)
    if fits < preferred:
        need = f"{available / 1e9:.1f} GB free, {per_token / 1e3:.0f} kB per token"
        short = " (one text, and more than is free)" if fits < longest else ""
        say(f"memory: {need}, so micro-batches of {chosen} tokens{short}")
    return chosen


def memory_held(device: str) -> int:
    """Bytes that this process holds where the model is."""
    return torch.cuda.memory_allocated() if device == "cuda" else memory_in_use()


def memory_free(device: str) -> int:
    """Bytes that it may still take there."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else memory_available()
