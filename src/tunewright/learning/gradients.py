"""The gradient of one optimizer step, whatever it is cut into: micro-batches, ranks, or a retry with less memory.

Called by the loop once a step. The sum of losses is divided by the weight of the whole step before backward, so the
gradient of (batch 8) equals that of (8 x 1), (3 uneven parts) and (2 ranks).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batching import Batch, Examples, collate, micro_batches
from tunewright.errors import MachineError
from tunewright.models.boundary import BoundaryCache
from tunewright.models.forward import Boundary, Forward
from tunewright.runtime import Runtime


class Objective(Protocol):
    """What is minimised."""

    caches: ClassVar[bool]  # whether layers below the trained ones may run once and be kept

    def loss_of(self, forward: Forward, batch: Batch, boundary: Boundary | None) -> Tensor:
        """Sum of the losses of a micro-batch."""
        ...

    def weight_of(self, dataset: Examples, indices: np.ndarray) -> float:
        """What the sum over these examples is divided by."""
        ...


@dataclass(frozen=True)
class Training:
    """What the loop learns from."""

    dataset: Examples
    lengths: np.ndarray  # int [examples], tokens of each
    cache: BoundaryCache | None = None


@dataclass(frozen=True)
class Term:
    """One of the losses that a step adds up: the mean over its examples, times a coefficient."""

    objective: Objective
    training: Training
    indices: np.ndarray
    coefficient: float = 1.0


@dataclass
class Budget:
    """Most tokens computed at once; halved when a GPU runs out of memory."""

    tokens: int


def step_gradient(
    forward: Forward,
    objective: Objective,
    training: Training,
    indices: np.ndarray,
    budget: Budget,
    runtime: Runtime,
    stop_signal: int,
    say: Callable[[str], None],
    *,
    beside: Sequence[Term] = (),
    parameters: Sequence[torch.nn.Parameter] | None = None,
) -> tuple[float, int]:
    """The step's gradient in place, its mean loss over all ranks, and the highest stop signal of any rank.

    `beside`: further losses of the same step. `parameters`: what learns, where it isn't the model's own alone.
    """
    learning = [p for p in forward.model.parameters() if p.requires_grad] if parameters is None else list(parameters)
    terms = [Term(objective, training, indices), *beside]
    random = torch.get_rng_state() if runtime.device == "cuda" else None
    while True:
        try:
            losses = [_accumulate(forward, term, budget.tokens, runtime) for term in terms]
            break
        except torch.OutOfMemoryError:
            lengths = np.concatenate([term.training.lengths[term.indices] for term in terms])
            budget.tokens = _halved(budget.tokens, lengths)
            for parameter in learning:
                parameter.grad = None
            if random is not None:
                torch.set_rng_state(random)
                torch.cuda.empty_cache()
            say(f"out of memory: micro-batches now hold {budget.tokens} tokens; the step stays the same")
    return _sum_over_ranks(learning, torch.stack(losses).sum(), stop_signal, runtime)


def _accumulate(forward: Forward, term: Term, max_tokens: int, runtime: Runtime) -> Tensor:
    """Forward and backward over this rank's share of a step; the gradient is that of the whole step's mean."""
    objective, training, indices = term.objective, term.training, term.indices
    weight = objective.weight_of(training.dataset, indices) / term.coefficient
    device = next(forward.model.parameters()).device
    total = torch.zeros((), device=device)
    parts = micro_batches(indices, training.lengths, max_tokens, rank=runtime.rank, world_size=runtime.world_size)
    for part in parts:
        batch = collate(training.dataset, part, device)
        boundary = training.cache.boundary(part, device) if training.cache else None
        loss = objective.loss_of(forward, batch, boundary) / weight
        loss.backward()
        total += loss.detach()
    return total


# What a rank adds to the sum: any number of SIGINTs stays below one SIGTERM.
_WISHES = {0: 0.0, signal.SIGINT: 1.0, signal.SIGTERM: 1e6}


def _sum_over_ranks(
    parameters: list[torch.nn.Parameter], loss: Tensor, stop: int, runtime: Runtime
) -> tuple[float, int]:
    """One exchange for gradient, loss and the wish to stop, so that all ranks stop at the same step."""
    if runtime.world_size == 1:
        return loss.item(), stop
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients] + [loss.float().reshape(1), loss.new_tensor([_WISHES[stop]])])
    runtime.sum(flat)
    start = 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = flat[start : start + gradient.numel()].view_as(gradient).clone()
        start += gradient.numel()
    wish = flat[-1].item()
    return flat[-2].item(), signal.SIGTERM if wish >= _WISHES[signal.SIGTERM] else signal.SIGINT if wish else 0


def _halved(tokens: int, lengths: np.ndarray) -> int:
    """Half the budget of what a micro-batch really held. Raises when it holds a single text already."""
    held = min(tokens, int(lengths.sum()))
    if held <= int(lengths.max()):
        raise MachineError("out of memory with a single text; lower data.max_length", field="data.max_length") from None
    return max(int(lengths.max()), held // 2)
