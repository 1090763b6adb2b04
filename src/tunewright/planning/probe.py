"""A few real steps before the run, to replace arithmetic by measurement: one that warms up, the longest, a typical one.

Runs what training and scoring will run, on their own rows, and leaves weights, optimizer, gradients and random state as
they were. Says nothing about the whole run: `time` and `memory` do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from tunewright.data.batching import cut_by_tokens, epoch_steps, lay_end_to_end
from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.data.tokenizing import TokenizedDataset
from tunewright.data.written_tokens import WrittenDataset
from tunewright.learning.gradients import Budget, Objective, Training, step_gradient
from tunewright.models.boundary import BATCH_TOKENS, BoundaryCache, keeps_one_vector
from tunewright.models.forward import Forward, in_evaluation
from tunewright.models.inference import MAX_TOKENS, predict_logits
from tunewright.models.likelihoods import target_likelihoods
from tunewright.planning.counting import undisturbed
from tunewright.planning.memory import memory_held
from tunewright.runtime import Runtime, peak_memory

SAMPLED_EVERY = 0.002  # seconds
CACHING_TOKENS = 2048  # a part of a cache batch is enough to know its speed


@dataclass(frozen=True)
class Timed:
    """Texts that were computed, and how long it took."""

    lengths: np.ndarray
    seconds: float
    peak_bytes: int  # of the process meanwhile


@dataclass(frozen=True)
class Probe:
    """What was measured; each list may be empty."""

    training: list[Timed] = field(default_factory=list)  # whole steps
    scoring: list[Timed] = field(default_factory=list)
    caching: list[Timed] = field(default_factory=list)
    held_bytes: int = 0  # resident before
    kept_bytes: int = 0  # resident after: an allocator seldom gives everything back


@dataclass(frozen=True)
class Steps:
    """Which texts the probe computes."""

    training: list[np.ndarray]  # indices of train
    scoring: list[np.ndarray]  # indices of validation
    longest_step: int  # tokens of the largest step of the first epoch


def choose_steps(train: np.ndarray, validation: np.ndarray, batch_size: int, seed: int) -> Steps:
    """Typical, longest, typical steps of the first epoch; the longest and a typical scoring batch, by token lengths."""
    steps = epoch_steps(train, batch_size, seed=seed, epoch=0)
    tokens = np.array([train[step].sum() for step in steps])
    middle, longest = int(np.argsort(tokens, kind="stable")[len(tokens) // 2]), int(np.argmax(tokens))
    batches = cut_by_tokens(np.argsort(validation, kind="stable"), validation, MAX_TOKENS)
    chosen = [batches[-1], batches[len(batches) // 2]] if len(batches) > 1 else batches
    return Steps([steps[middle], steps[longest], steps[middle]], chosen, int(tokens.max()))


def probe(
    forward: Forward,
    objective: Objective,
    train: TokenizedDataset,
    validation: TokenizedDataset,
    steps: Steps,
    k: int,
    micro_batch_tokens: int,
    runtime: Runtime,
) -> Probe:
    """Run the chosen steps in the order of a run: cache, score, train."""
    alone = replace(runtime, rank=0, world_size=1)
    train_cache, train_texts = _stand_in_of(forward, train, k), _each_text(train)
    device = runtime.device
    found = Probe(held_bytes=memory_held(device))

    def score(indices: np.ndarray) -> None:
        part = _each_text(validation.subset(indices))
        cache = _stand_in(forward, part.lengths, k)
        if isinstance(part, WrittenDataset) and forward.writes:
            target_likelihoods(forward, part, cache=cache, runtime=alone)
        else:
            predict_logits(forward, [part.tokens(i) for i in range(len(part))], cache=cache, runtime=alone)

    def step(indices: np.ndarray) -> None:
        training, budget = Training(train, train.lengths, train_cache), Budget(micro_batch_tokens)
        step_gradient(forward, objective, training, indices, budget, alone, 0, lambda sentence: None)

    with undisturbed(forward.model):
        if k:
            found.caching.extend(
                _timed(
                    _cache_batch(forward, train_texts, k), [_some(train_texts.lengths)] * 2, train_texts.lengths, device
                )[1:]
            )
        found.scoring.extend(_timed(score, [steps.scoring[-1], *steps.scoring], validation.lengths, device)[1:])
        found.training.extend(_each_apart(forward, step, steps.training, train.lengths, device)[1:])
    return replace(found, kept_bytes=memory_held(device))


def _each_apart(
    forward: Forward, step: Callable[[np.ndarray], None], parts: list[np.ndarray], lengths: np.ndarray, device: str
) -> list[Timed]:
    """As the loop does it: no gradient is left from the step before."""
    timed: list[Timed] = []
    for part in parts:
        timed += _timed(step, [part], lengths, device)
        forward.model.zero_grad(set_to_none=True)
    return timed


def _cache_batch(forward: Forward, dataset: TokenizedDataset, k: int) -> Callable[[np.ndarray], None]:
    def run(indices: np.ndarray) -> None:
        with torch.no_grad(), in_evaluation(forward.model):
            device = next(forward.model.parameters()).device
            forward.states(lay_end_to_end([dataset.tokens(int(i)) for i in indices], device), k)

    return run


def _some(lengths: np.ndarray) -> np.ndarray:
    """A batch of middling texts, as the cache is built of."""
    batches = cut_by_tokens(np.argsort(lengths, kind="stable"), lengths, min(BATCH_TOKENS, CACHING_TOKENS))
    return batches[len(batches) // 2]


def _timed(
    work: Callable[[np.ndarray], None], parts: list[np.ndarray], lengths: np.ndarray, device: str
) -> list[Timed]:
    timed: list[Timed] = []
    for indices in parts:
        with _watching_memory(device) as peak:
            begin = time.perf_counter()
            work(indices)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - begin
        timed.append(Timed(lengths[indices], seconds, peak[0]))
    return timed


@contextmanager
def _watching_memory(device: str) -> Generator[list[int]]:
    """The largest resident size while inside: the system's own figure if it rose, else what a look now and then saw."""
    before, seen, done = peak_memory(), [memory_held(device)], threading.Event()

    def look() -> None:
        while not done.wait(SAMPLED_EVERY):
            seen[0] = max(seen[0], memory_held(device))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()
        after = peak_memory()
        seen[0] = after if after > before else max(seen[0], memory_held(device))


# ---- what stands for a boundary cache that isn't built yet ----


def _each_text(part: TokenizedDataset) -> TokenizedDataset:
    """Of comparisons, the texts that they compare."""
    return part.each_text() if isinstance(part, ComparisonDataset) else part


def _stand_in_of(forward: Forward, part: TokenizedDataset, k: int) -> BoundaryCache | None:
    """Of all examples of a dataset."""
    cache = _stand_in(forward, _each_text(part).lengths, k)
    return cache.of_groups(part.num_texts) if cache and isinstance(part, ComparisonDataset) else cache


def _stand_in(forward: Forward, lengths: np.ndarray, k: int) -> BoundaryCache | None:
    """A cache of zeros that takes no memory: one row, seen as many."""
    if not k:
        return None
    sizes = np.ones_like(lengths) if keeps_one_vector(forward, k) else lengths
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    row = np.zeros((1, forward.config.hidden_size), np.uint16 if forward.precision == "bf16" else np.float32)
    return BoundaryCache(k, np.broadcast_to(row, (int(offsets[-1]), row.shape[1])), offsets, "")
