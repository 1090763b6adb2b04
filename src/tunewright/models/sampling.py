"""Which token comes next: the settings of generation, and the choice from a row of logits.

Pure functions under `generation`. A choice takes one number from [0, 1) per row, so that a row's text hangs on its own
numbers alone, whoever shares the batch. Shapes: B rows, V vocabulary, K candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tunewright.errors import UsageError

CANDIDATES = 1024  # looked at first for top_p; their mass nearly always suffices, and sorting 262,144 words is slow
CHUNK = 1 << 20  # logits at once on a CPU: larger temporaries are new pages each time, which costs more than the sums
BLOCK = 512  # words summed before one is searched among them


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How completions are written. Temperature 0 takes the most probable token each time."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0  # the fewest most probable tokens that hold this much probability
    top_k: int = 0  # this many most probable tokens; 0: all
    stop: tuple[str, ...] = ()  # a completion ends with the token that completes one of these
    eos_ids: frozenset[int] = frozenset()  # a completion ends with one of these
    seed: int = 0

    def __post_init__(self) -> None:
        def require(holds: bool, name: str, expected: str) -> None:
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)!r}; expected {expected}", field=name)

        require(self.max_new_tokens >= 1, "max_new_tokens", "1 or more")
        require(0 <= self.temperature < math.inf, "temperature", "0 (most probable token) or more")
        require(0 < self.top_p <= 1, "top_p", "more than 0, at most 1")
        require(self.top_k >= 0, "top_k", "0 (all) or more")
        require(not isinstance(self.stop, str) and all(self.stop), "stop", "texts that aren't empty")
        require(self.seed >= 0, "seed", "0 or more")

    @property
    def is_greedy(self) -> bool:
        """Whether no chance is involved."""
        return self.temperature == 0 or self.top_k == 1


@dataclass(frozen=True)
class Choice:
    """The next token of each row."""

    tokens: list[int]  # B
    logprobs: list[float]  # B, nats, under the model itself: temperature 1, nothing cut off


def choose(logits: Tensor, settings: Sampling, uniforms: list[float]) -> Choice:
    """The next token of each row of logits [B, V]; `uniforms` are B numbers from [0, 1), unread where greedy."""
    rows = len(logits) if logits.is_cuda else max(1, CHUNK // logits.shape[1])
    tokens, logprobs = [], []
    for start in range(0, len(logits), rows):
        part = logits[start : start + rows].float()
        if settings.is_greedy:
            chosen = part.argmax(-1)
        else:
            uniform = torch.tensor(uniforms[start : start + rows], dtype=torch.float64, device=logits.device)
            chosen = draw(part, settings, uniform)
        tokens.append(chosen)
        logprobs.append(part.gather(1, chosen[:, None])[:, 0] - part.logsumexp(-1))
    return Choice(torch.cat(tokens).tolist(), torch.cat(logprobs).tolist())


def draw(logits: Tensor, settings: Sampling, uniform: Tensor) -> Tensor:
    """Tokens [B] drawn from logits [B, V] after temperature, then top_k, then top_p; uniform [B] in float64."""
    scaled = (logits - logits.amax(-1, keepdim=True)) / settings.temperature
    if settings.top_k == 0 and settings.top_p == 1:
        return _draw_from_all(scaled.exp(), uniform)
    weights, words = _candidates(scaled, settings)
    cumulated = weights.double().cumsum(-1)
    place = torch.searchsorted(cumulated, uniform[:, None] * cumulated[:, -1:], right=True)
    return words.gather(1, place.clamp(max=weights.shape[1] - 1))[:, 0]


def _candidates(scaled: Tensor, settings: Sampling) -> tuple[Tensor, Tensor]:
    """Weights (0 where cut off) and words of the candidates, most probable first: [B, K] twice."""
    vocabulary = scaled.shape[1]
    count = min(settings.top_k or CANDIDATES, vocabulary)
    values, words = scaled.topk(count)
    weights = values.exp()
    if settings.top_p == 1:
        return weights, words
    whole = weights.sum(-1, keepdim=True) if settings.top_k else scaled.exp().sum(-1, keepdim=True)
    if not settings.top_k and bool((weights.sum(-1) < settings.top_p * whole[:, 0]).any()):
        values, words = scaled.sort(descending=True)
        weights = values.exp()
    before = weights.cumsum(-1) - weights
    return weights.masked_fill(before >= settings.top_p * whole, 0), words


def _draw_from_all(weights: Tensor, uniform: Tensor) -> Tensor:
    """Words [B] with probability proportional to weights [B, V]: a block of words first, then one in it."""
    rest = -weights.shape[1] % BLOCK
    blocks = torch.nn.functional.pad(weights, (0, rest)).unflatten(1, (-1, BLOCK))  # [B, V / BLOCK, BLOCK]
    cumulated = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    target = uniform[:, None] * cumulated[:, -1:]
    block = torch.searchsorted(cumulated, target, right=True).clamp(max=cumulated.shape[1] - 1)
    rows = torch.arange(len(weights), device=weights.device)
    chosen = blocks[rows, block[:, 0]].double()
    target = target - (cumulated.gather(1, block) - chosen.sum(-1, keepdim=True))
    word = torch.searchsorted(chosen.cumsum(-1), target.clamp(min=0), right=True)[:, 0]
    return (block[:, 0] * BLOCK + word.clamp(max=BLOCK - 1)).clamp(max=weights.shape[1] - 1)
