"""Floating-point operations of a text, counted while a few short ones are computed: no table of architectures.

The count of a text of n tokens is a polynomial: a constant (head and last layer), n (linear layers), n² (attention).
Three short texts give its coefficients, for any model and any choice of what learns. Stands below `time`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tunewright.data.batching import Batch, Examples, Texts, WrittenExamples, collate, lay_end_to_end
from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.learning.gradients import Objective
from tunewright.models.boundary import keeps_one_vector
from tunewright.models.forward import Boundary, Forward, in_evaluation
from tunewright.planning.memory import in_training

Item = TypeVar("Item")

LONGEST_COUNTED = 48  # tokens; a polynomial needs no long text
LONGEST_COUNTED_WRITTEN = 96  # enough for a few targets
SHARE_COUNTED_ON = 256  # examples


@dataclass(frozen=True)
class Work:
    """Operations of a text of n tokens: each + linear n + square n²."""

    each: float = 0.0
    linear: float = 0.0
    square: float = 0.0

    def flops(self, lengths: np.ndarray) -> float:
        """Of all these texts."""
        n = lengths.astype(np.float64)
        return float(self.each * len(n) + self.linear * n.sum() + self.square * (n * n).sum())


@dataclass(frozen=True)
class Works:
    """The three kinds of work of a run."""

    training: Work  # forward and backward above the boundary
    scoring: Work  # forward above the boundary
    caching: Work  # forward below it; nothing where there is no boundary


def count(forward: Forward, objective: Objective, dataset: Examples, lengths: np.ndarray, k: int) -> Works:
    """Count on cuts of the longest text. Draws nothing and leaves no gradient."""
    if isinstance(dataset, ComparisonDataset):
        return _count_comparisons(forward, objective, dataset, k)
    longest = int(np.argmax(lengths))
    share = _share_learnt(dataset)
    cut = LONGEST_COUNTED if share is None else LONGEST_COUNTED_WRITTEN
    ids = torch.from_numpy(np.asarray(dataset.tokens(longest), dtype=np.int64)[:cut])
    device = next(forward.model.parameters()).device
    label = torch.from_numpy(np.ascontiguousarray(dataset.labels[[longest]])).to(device)
    sizes = sorted({max(1, len(ids) // 4), max(1, len(ids) // 2), len(ids)})
    marks = [None if share is None else _marks(n, share, device) for n in sizes]
    batches = [
        Batch(Texts(ids[:n].to(device), (n,)), label, np.array([longest]), mark)
        for n, mark in zip(sizes, marks, strict=True)
    ]

    def train(batch: Batch) -> None:
        objective.loss_of(forward, batch, zeros(forward, batch.texts, k)).backward()

    def score(batch: Batch) -> None:
        with torch.no_grad(), in_evaluation(forward.model):
            if share is None:
                forward.logits(batch.texts, zeros(forward, batch.texts, k))
            else:
                objective.loss_of(forward, batch, zeros(forward, batch.texts, k))

    def cache(batch: Batch) -> None:
        with torch.no_grad(), in_evaluation(forward.model):
            forward.states(batch.texts, k)

    with undisturbed(forward.model), _unrounded(forward):
        counted = [_work(step, batches, sizes) for step in (train, score, *([cache] if k else []))]
    return Works(*counted, *([] if k else [Work()]))


def _count_comparisons(forward: Forward, objective: Objective, dataset: ComparisonDataset, k: int) -> Works:
    """The same on cuts of the largest prompt, each of whose texts is shortened."""
    device, longest = next(forward.model.parameters()).device, int(np.argmax(dataset.lengths))
    whole = min(1.0, LONGEST_COUNTED * int(dataset.num_texts[longest]) / int(dataset.lengths[longest]))
    shortened = (dataset.shortened(longest, share * whole) for share in (0.25, 0.5, 1.0))
    by_size = {cut.num_tokens: cut for cut in shortened}
    sizes, cuts = list(by_size), list(by_size.values())

    def loss(cut: ComparisonDataset) -> torch.Tensor:
        batch, texts = collate(cut, np.array([0]), device), lay_end_to_end(_texts(cut), device)
        return replace(objective, dataset=cut).loss_of(forward, batch, zeros(forward, texts, k))  # type: ignore[type-var]

    def score(cut: ComparisonDataset) -> None:
        with torch.no_grad(), in_evaluation(forward.model):
            loss(cut)

    def cache(cut: ComparisonDataset) -> None:
        with torch.no_grad(), in_evaluation(forward.model):
            forward.states(lay_end_to_end(_texts(cut), device), k)

    def train(cut: ComparisonDataset) -> None:
        loss(cut).backward()

    with undisturbed(forward.model), _unrounded(forward):
        counted = [_work(step, cuts, sizes) for step in (train, score, *([cache] if k else []))]
    return Works(*counted, *([] if k else [Work()]))


def _texts(cut: ComparisonDataset) -> list[np.ndarray]:
    texts = cut.each_text()
    return [texts.tokens(i) for i in range(len(texts))]


def _share_learnt(dataset: Examples) -> float | None:
    """Of all tokens, those that are targets, where texts are written: a language model's head runs there alone."""
    if not isinstance(dataset, WrittenExamples):
        return None
    some = range(min(SHARE_COUNTED_ON, len(dataset.labels)))
    return float(np.concatenate([dataset.is_target(i) for i in some]).mean())


def _marks(length: int, share: float, device: torch.device) -> torch.Tensor:
    """bool [length]: a prompt, then its targets."""
    targets = min(max(1, round(share * length)), max(1, length - 1))
    return torch.arange(length, device=device) >= length - targets


@contextlib.contextmanager
def undisturbed(model: Any) -> Generator[None]:
    """Training mode inside; random state, mode and gradients are afterwards as they were before."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), in_training(model):
        try:
            yield
        finally:
            model.zero_grad(set_to_none=True)


@contextlib.contextmanager
def _unrounded(forward: Forward) -> Generator[None]:
    """Every token counts as itself: short cuts would all round up to one size, and teach nothing of longer texts."""
    rounding, forward.rounding = forward.rounding, 1
    try:
        yield
    finally:
        forward.rounding = rounding


def zeros(forward: Forward, texts: Texts, k: int) -> Boundary | None:
    """Stands for what a cache would hold of these texts."""
    if not k:
        return None
    rows = len(texts.lengths) if keeps_one_vector(forward, k) else texts.num_tokens
    kept = torch.bfloat16 if forward.precision == "bf16" else torch.float32
    return Boundary(k, torch.zeros(rows, forward.config.hidden_size, device=texts.device, dtype=kept))


def _work(step: Callable[[Item], None], batches: Sequence[Item], sizes: Sequence[int]) -> Work:
    """The polynomial through the counts."""
    counts = [_flops(step, batch) for batch in batches]
    high_first = np.polyfit(sizes, counts, len(sizes) - 1) if len(sizes) > 1 else [0.0, counts[0]]
    each, linear, square = [*reversed([float(c) for c in high_first]), 0.0, 0.0][:3]
    return Work(each, linear, square)


def _flops(step: Callable[[Item], None], batch: Item) -> float:
    with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter:
        step(batch)
    return float(counter.get_total_flops())


def _forward_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _backward_attention(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# torch counts attention on GPUs only.
_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_attention,
}
