"""Prompts in, completions out: the one engine for samples, prediction, chat, evaluation and rollouts.

    prompts ─longest first─▶ admitted while there is room ─▶ a token per row and step ─finished rows leave─▶ Generated

Rows leave the batch when they are finished and waiting prompts take their room. What a model keeps between steps is in
`cached_decoding` and `padded_decoding`, which token is next in `sampling`. Templates, tokenising and decoding to text
are elsewhere.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from tunewright.errors import DataError, ModelError, UsageError
from tunewright.models import architectures
from tunewright.models.cached_decoding import CachedDecoder
from tunewright.models.forward import in_evaluation
from tunewright.models.padded_decoding import PaddedDecoder
from tunewright.models.sampling import Sampling, choose
from tunewright.models.stopping import StopStrings

MAX_TOKENS_IN_FLIGHT = 16_384
PREFILL_TOKENS = 2048  # of prompts read in one pass; large enough to be all products, small enough for memory
MAX_LOGITS = 1 << 25  # rows × vocabulary at once: 128 MB, or 128 rows of 262,144 words


@dataclass(frozen=True, slots=True)
class Generated:
    """One completion."""

    ids: tuple[int, ...]  # with the token that ended it: eos, or the one that completed a stop string
    stopped: Literal["eos", "stop", "length"]
    logprobs: tuple[float, ...]  # of each token in nats, under the model itself: temperature 1, nothing cut off


class Decoder(Protocol):
    """A model with what it keeps of the rows in flight."""

    def running(self) -> contextlib.AbstractContextManager[None]: ...

    def admit(self, prompts: Sequence[Sequence[int]], capacity: int) -> Tensor: ...

    def advance(self, tokens: Sequence[int]) -> Tensor: ...

    def drop(self, finished: Iterable[int]) -> list[int]: ...


def generate(
    model: Any,
    prompts: Sequence[list[int]],
    settings: Sampling,
    *,
    on_token: Callable[[int, int], None] | None = None,
    max_tokens_in_flight: int = MAX_TOKENS_IN_FLIGHT,
    tokenizer: Any = None,
    numbers: Sequence[int] | None = None,
    precision: str = "fp32",
) -> list[Generated]:
    """A completion for each prompt, in their order, from a causal or encoder–decoder model, plain or wrapped by PEFT.

    `on_token(row, token)` is called as tokens come and may raise to stop. `tokenizer` is needed for stop strings.
    `numbers` are the rows' own numbers (0, 1, …): a row's text hangs on the seed, its number and its prompt, not on
    the other rows. `max_tokens_in_flight` bounds the tokens kept, and with them memory; one row is always let in.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    limits = _checked_limits(inner, prompts, settings)
    if settings.stop and tokenizer is None:
        raise UsageError("stop strings need a tokenizer to see them in; give tokenizer=")
    described = architectures.find(inner) is not None and not inner.config.is_encoder_decoder
    flight = Flight(
        decoder=CachedDecoder(model) if described else PaddedDecoder(model),
        prompts=prompts,
        limits=limits,
        settings=settings,
        stops=StopStrings(tokenizer, settings.stop),
        numbers=range(len(prompts)) if numbers is None else numbers,
        on_token=on_token or (lambda row, token: None),
        max_tokens=max_tokens_in_flight,
        max_rows=max(1, MAX_LOGITS // inner.config.get_text_config(decoder=True).vocab_size),
    )
    device = inner.get_input_embeddings().weight.device
    wanted = precision == "bf16"
    products = torch.autocast(device.type, torch.bfloat16) if wanted else contextlib.nullcontext()
    with torch.inference_mode(), in_evaluation(model), products, flight.decoder.running():
        return flight.land()


@dataclass
class _Row:
    """A completion on its way."""

    index: int  # of the prompt
    capacity: int  # tokens reserved for it
    chance: np.random.Generator | None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(kw_only=True)
class Flight:
    """All prompts of one call, from waiting to written."""

    decoder: Decoder
    prompts: Sequence[list[int]]
    limits: Sequence[int]  # new tokens at most, per prompt
    settings: Sampling
    stops: StopStrings
    numbers: Sequence[int]
    on_token: Callable[[int, int], None]
    max_tokens: int
    max_rows: int

    def __post_init__(self) -> None:
        # Taken from the end: long rows first, so that memory fails early or not at all, and neighbours are alike.
        self.waiting = sorted(range(len(self.prompts)), key=lambda i: (len(self.prompts[i]), self.prompts[i], -i))
        self.rows: list[_Row] = []
        self.done: dict[int, Generated] = {}

    def land(self) -> list[Generated]:
        """Every completion, in the order of the prompts."""
        while self.waiting or self.rows:
            arriving = self._next_rows()
            if arriving:
                self.rows += arriving
                prompts = [self.prompts[row.index] for row in arriving]
                self._settle(self.decoder.admit(prompts, arriving[0].capacity), len(arriving))
            else:
                self._settle(self.decoder.advance([row.ids[-1] for row in self.rows]), len(self.rows))
        return [self.done[i] for i in range(len(self.prompts))]

    def _next_rows(self) -> list[_Row]:
        """Waiting prompts for one pass, if there is room worth one: a quarter of the whole, or all of it."""
        free = self.max_tokens - sum(row.capacity for row in self.rows)
        if not self.waiting or (self.rows and free < self.max_tokens / 4):
            return []
        first = self.waiting[-1]
        capacity = len(self.prompts[first]) + self.limits[first]
        count = max(free // capacity, 0 if self.rows else 1)
        count = min(count, self.max_rows - len(self.rows), len(self.waiting))
        arriving, tokens = [], 0
        for _ in range(count):
            tokens += len(self.prompts[self.waiting[-1]])
            if arriving and tokens > PREFILL_TOKENS:
                break
            arriving.append(self._new_row(self.waiting.pop(), capacity))
        return arriving

    def _new_row(self, index: int, capacity: int) -> _Row:
        chance = None if self.settings.is_greedy else np.random.default_rng([self.settings.seed, self.numbers[index]])
        return _Row(index, capacity, chance)

    def _settle(self, logits: Tensor, count: int) -> None:
        """Give the last `count` rows their next token; those that are finished leave."""
        start = len(self.rows) - count
        rows = self.rows[start:]
        uniforms = [row.chance.random() for row in rows if row.chance is not None]
        choice = choose(logits, self.settings, uniforms)
        if any(math.isnan(logprob) for logprob in choice.logprobs):
            raise ModelError("the model's logits are not numbers (NaN): its weights are damaged, or training diverged")
        finished = []
        for place, (row, token, logprob) in enumerate(zip(rows, choice.tokens, choice.logprobs, strict=True), start):
            row.ids.append(token)
            row.logprobs.append(logprob)
            self.on_token(row.index, token)
            stopped = self._stopped(row)
            if stopped is not None:
                self.done[row.index] = Generated(tuple(row.ids), stopped, tuple(row.logprobs))
                finished.append(place)
        if finished:
            self.rows = [self.rows[place] for place in self.decoder.drop(finished)]

    def _stopped(self, row: _Row) -> Literal["eos", "stop", "length"] | None:
        if row.ids[-1] in self.settings.eos_ids:
            return "eos"
        if self.stops.reached(row.ids):
            return "stop"
        return "length" if len(row.ids) >= self.limits[row.index] else None


def _checked_limits(inner: Any, prompts: Sequence[list[int]], settings: Sampling) -> list[int]:
    """How many new tokens each prompt may get, within what the model can read."""
    config = inner.config.get_text_config(decoder=True)
    longest = getattr(config, "max_position_embeddings", None) or math.inf
    words = inner.get_input_embeddings().weight.shape[0]
    limits = []
    for number, prompt in enumerate(prompts, 1):
        where = f"prompt {number}"
        if not prompt:
            raise DataError("it has no tokens; a model needs one at least to go on from", where=where)
        if min(prompt) < 0 or max(prompt) >= words:
            wrong = next(token for token in prompt if not 0 <= token < words)
            raise DataError(f"token {wrong} is none of the model's {words:,}; is the tokenizer its own?", where=where)
        room = longest if inner.config.is_encoder_decoder else longest - len(prompt)
        if room < 1 or len(prompt) > longest:
            raise DataError(
                f"it has {len(prompt):,} tokens, and the model reads {longest:,} with its answer; shorten it",
                where=where,
            )
        limits.append(int(min(settings.max_new_tokens, room)))
    return limits
