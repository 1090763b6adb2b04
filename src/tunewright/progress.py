"""What a run tells whoever watches it: small frozen events, handed to one callable.

The library never prints. The command hands in a screen, a notebook its own callable, a test a list's `append`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Said:
    """A sentence worth reading: a guess that was made, a warning with its number."""

    message: str
    level: str = "info"  # info | warning


@dataclass(frozen=True)
class Phase:
    """A stretch of work began: loading, tokenising, evaluating, caching, training, saving."""

    name: str


@dataclass(frozen=True)
class Header:
    """What will happen, known before the first step; rows of (name, sentence)."""

    title: str
    rows: tuple[tuple[str, str], ...]
    folder: Path | None = None


@dataclass(frozen=True)
class Stepped:
    """An optimizer step was taken."""

    step: int
    total_steps: int
    epoch: float
    loss: float  # nats per example, mean since the last event
    tokens_per_second: float  # real tokens, padding not counted
    memory_bytes: int
    seconds_left: float


@dataclass(frozen=True)
class Evaluated:
    """An evaluation ended: one row of the per-epoch table."""

    step: int
    epoch: float
    metrics: Mapping[str, float]  # "train/loss", "validation/loss", "validation/accuracy", …
    metric: str  # name of the one that decides
    best: bool  # best so far
    seconds: float  # since the previous evaluation


@dataclass(frozen=True)
class Finished:
    """The run ended well."""

    folder: Path
    summary: Mapping[str, Any] = field(default_factory=dict)  # run.json


Event = Said | Phase | Header | Stepped | Evaluated | Finished
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener of library calls."""
