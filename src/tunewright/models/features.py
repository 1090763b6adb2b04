"""One vector per text from a frozen model: the mean of what its last layer says of each token.

Computed once per base and kept, for heads that learn in seconds (`learning.frozen_head`). Shapes: N texts, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from tunewright import durable
from tunewright.data.batching import Examples, cut_by_tokens, lay_end_to_end
from tunewright.models.forward import Forward, in_evaluation

BATCH_TOKENS = 4096


@torch.inference_mode()
def text_features(
    forward: Forward,
    dataset: Examples,
    lengths: np.ndarray,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """float32 [N, D]; blank texts give zeros."""
    device = next(forward.model.parameters()).device
    found, done = np.zeros((len(lengths), forward.config.hidden_size), np.float32), 0
    order = np.argsort(lengths, kind="stable")
    with in_evaluation(forward.model):
        for batch in cut_by_tokens(order[lengths[order] > 0], lengths, BATCH_TOKENS):
            texts = lay_end_to_end([dataset.tokens(int(i)) for i in batch], device)
            hidden = forward.hidden(texts).float()
            means = [part.mean(0) for part in hidden.split(list(texts.lengths))]
            found[batch] = torch.stack(means).cpu().numpy()
            done += len(batch)
            on_progress(done, len(lengths))
    return found


def kept_features(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of this file; made and written whole where there is none."""
    if path.is_file():
        return load_file(path)["features"].numpy()
    made = make()
    with durable.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_tensors(path, {"features": torch.from_numpy(made)})
    return made
