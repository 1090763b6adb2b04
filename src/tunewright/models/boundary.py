"""The boundary-activation cache: what enters the lowest trained layer, computed once per text.

Layers below the lowest trainable parameter give the same output every epoch. They run once, in fixed batches (so that
the bytes are the same whenever it is built), and their output lies in a memory-mapped file; an epoch then costs only
the layers above. With a new head on a frozen model the file holds one vector per text.

Shapes: N tokens of the batch's texts, D model width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tunewright import durable
from tunewright.data.batching import Examples, cut_by_tokens, lay_end_to_end
from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.models.forward import Boundary, Forward, in_evaluation

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class BoundaryCache:
    """Hidden states entering layer k for each text of a dataset, on disk."""

    k: int
    states: np.ndarray  # [all tokens or all texts, D], float32, or bfloat16 as the uint16 of its bits; memory-mapped
    offsets: np.ndarray  # int64 [texts + 1], rows of `states` of each text
    fingerprint: str  # SHA-256 of the states

    def of_groups(self, sizes: np.ndarray) -> BoundaryCache:
        """The same, of examples that hold so many texts each, in their order."""
        return replace(self, offsets=self.offsets[np.concatenate([[0], np.cumsum(sizes)])])

    def boundary(self, indices: np.ndarray, device: torch.device | str = "cpu") -> Boundary:
        """The states of these texts, end to end."""
        parts = [self.states[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        states = torch.from_numpy(np.concatenate(parts))
        return Boundary(self.k, (states.view(torch.bfloat16) if states.dtype == torch.uint16 else states).to(device))


def size_bytes(forward: Forward, lengths: np.ndarray, k: int) -> int:
    """Disk that the cache of texts of these lengths takes."""
    rows = len(lengths) if keeps_one_vector(forward, k) else lengths.sum()
    return int(rows) * forward.config.hidden_size * (2 if forward.precision == "bf16" else 4)


def keeps_one_vector(forward: Forward, k: int) -> bool:
    """Whether the cache holds one vector per text (only the head is trained) instead of one per token."""
    return k == forward.num_layers and not forward.pools_late


@torch.no_grad()
def build(
    forward: Forward,
    dataset: Examples,
    lengths: np.ndarray,
    k: int,
    path: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BoundaryCache:
    """Run the layers below k once over the dataset and write what comes out to `path`."""
    if isinstance(dataset, ComparisonDataset):  # each text alone; a prompt's states lie end to end
        texts = dataset.each_text()
        return build(forward, texts, texts.lengths, k, path, on_progress).of_groups(dataset.num_texts)
    width, device = forward.config.hidden_size, next(forward.model.parameters()).device
    sizes = np.ones_like(lengths) if keeps_one_vector(forward, k) else lengths
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = np.uint16 if forward.precision == "bf16" else np.float32
    with durable.storing(path, "boundary cache can't be written"):
        states = np.lib.format.open_memmap(path, mode="w+", dtype=kept, shape=(int(offsets[-1]), width))
        durable.reserve(path)  # a mapped file that finds the disk full kills the process
    done = 0
    with in_evaluation(forward.model):
        for batch in cut_by_tokens(np.argsort(lengths, kind="stable"), lengths, BATCH_TOKENS):
            texts = lay_end_to_end([dataset.tokens(int(i)) for i in batch], device)
            hidden = _array(forward.states(texts, k), kept)
            for i, part in zip(batch, np.split(hidden, np.cumsum(sizes[batch])[:-1]), strict=True):
                states[offsets[i] : offsets[i + 1]] = part
            done += len(batch)
            on_progress(done, len(lengths))
    states.flush()
    return BoundaryCache(k, states, offsets, _fingerprint(states))


def _array(hidden: torch.Tensor, kept: type) -> np.ndarray:
    """In the number format that is kept; numpy has no bfloat16, so its bits pass as integers."""
    hidden = hidden.cpu()
    return (hidden.bfloat16().view(torch.uint16) if kept is np.uint16 else hidden.float()).numpy()


def _fingerprint(states: np.ndarray, rows: int = 65536) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(states), rows):
        digest.update(np.ascontiguousarray(states[start : start + rows]).data)
    return digest.hexdigest()
