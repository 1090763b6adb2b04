"""How fast a run is, and how long it will still take. Wall time only; nothing here reaches the weights."""

from __future__ import annotations

import time

import numpy as np


class Clock:
    """Real tokens per second and a robust time left: the median of the last 20 steps."""

    def __init__(self, keep: int = 20) -> None:
        self.keep = keep
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.last = time.perf_counter()

    def restart(self) -> None:
        """Don't count what happened between two steps (an evaluation, a save)."""
        self.last = time.perf_counter()

    def step(self, tokens: int) -> None:
        now = time.perf_counter()
        self.seconds, self.tokens = [*self.seconds, now - self.last][-self.keep :], [*self.tokens, tokens][-self.keep :]
        self.last = now

    @property
    def tokens_per_second(self) -> float:
        return sum(self.tokens) / max(sum(self.seconds), 1e-9)

    @property
    def seconds_per_token(self) -> float:
        rates = [s / max(t, 1) for s, t in zip(self.seconds, self.tokens, strict=True)]
        return float(np.median(rates)) if rates else 0.0
