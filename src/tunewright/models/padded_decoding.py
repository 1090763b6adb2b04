"""The decoder for models whose layers aren't described, and for those that read with an encoder.

Same three verbs as `cached_decoding`, with transformers' own cache and attention: rows that came in together are padded
to one length on the left, or behind an encoder on the right, and advance block by block. An encoder runs once.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tunewright.errors import ModelError
from tunewright.models.products import onednn_products


class Block(Protocol):
    """Rows that came in together."""

    size: int

    def start(self) -> Tensor:
        """Logits [b, V] after the prompts."""
        ...

    def advance(self, tokens: Tensor) -> Tensor:
        """Logits [b, V] after one more token [b] in every row."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Only these rows stay."""
        ...


class PaddedDecoder:
    """Any causal or encoder–decoder model of transformers that takes a cache. Rows are ordered block by block."""

    def __init__(self, model: Any) -> None:
        self.inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.device = self.inner.get_input_embeddings().weight.device
        self.parameters = frozenset(inspect.signature(self.inner.forward).parameters)
        self.blocks: list[Block] = []
        if "past_key_values" not in self.parameters:
            raise ModelError(f"a {self.inner.config.model_type} model keeps no keys and values; it can't write here")

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Afterwards nothing is kept."""
        try:
            with onednn_products(self.inner):
                yield
        finally:
            self.blocks = []

    def admit(self, prompts: Sequence[Sequence[int]], capacity: int) -> Tensor:
        """Logits [b, V] after these prompts; they become the last rows."""
        block = (ReadBlock if self.inner.config.is_encoder_decoder else LeftPaddedBlock)(self, prompts)
        logits = block.start()
        self.blocks.append(block)
        return logits

    def advance(self, tokens: Sequence[int]) -> Tensor:
        """Logits [B, V] after one more token in every row."""
        parts = torch.tensor(tokens, device=self.device).split([block.size for block in self.blocks])
        return torch.cat([block.advance(part) for block, part in zip(self.blocks, parts, strict=True)])

    def drop(self, finished: Iterable[int]) -> list[int]:
        """These rows leave. Returns which old row stands at each place now."""
        gone, order, start = set(finished), [], 0
        for block in self.blocks:
            kept = [row for row in range(block.size) if start + row not in gone]
            order += [start + row for row in kept]
            start += block.size
            if len(kept) < block.size:
                block.keep(torch.tensor(kept, dtype=torch.long, device=self.device))
        self.blocks = [block for block in self.blocks if block.size]
        return order

    def padded(self, prompts: Sequence[Sequence[int]], side: str) -> tuple[Tensor, Tensor]:
        """Ids and a mask (1 = belongs) [b, T]."""
        rows = [torch.tensor(prompt, device=self.device) for prompt in prompts]
        pad = self.inner.config.pad_token_id or 0
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad, padding_side=side)
        ones = [torch.ones_like(row) for row in rows]
        return ids, torch.nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side=side)


class LeftPaddedBlock:
    """Rows of a causal model, padded on the left."""

    def __init__(self, decoder: PaddedDecoder, prompts: Sequence[Sequence[int]]) -> None:
        from transformers import DynamicCache

        self.decoder = decoder
        self.size = len(prompts)
        self.cache = DynamicCache(config=decoder.inner.config)
        self.ids, self.mask = decoder.padded(prompts, "left")

    def start(self) -> Tensor:
        return self._forward(self.ids, (self.mask.cumsum(-1) - 1).clamp(min=0))

    def advance(self, tokens: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(self.size, 1)], 1)
        return self._forward(tokens[:, None], self.mask.sum(-1, keepdim=True) - 1)

    def keep(self, rows: Tensor) -> None:
        self.size, self.mask = len(rows), self.mask[rows]
        self.cache.batch_select_indices(rows)

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        offered = {"position_ids": positions, "logits_to_keep": 1}
        known = {name: value for name, value in offered.items() if name in self.decoder.parameters}
        output = self.decoder.inner(
            input_ids=ids, attention_mask=self.mask, past_key_values=self.cache, use_cache=True, **known
        )
        return output.logits[:, -1]


class ReadBlock:
    """Rows of an encoder–decoder model: what the encoder read, and completions of one length."""

    def __init__(self, decoder: PaddedDecoder, prompts: Sequence[Sequence[int]]) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.inner = decoder.inner
        self.size = len(prompts)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        ids, self.mask = decoder.padded(prompts, "right")
        self.read: Tensor = self.inner.get_encoder()(input_ids=ids, attention_mask=self.mask)[0]

    def start(self) -> Tensor:
        first = _start_token(self.inner)
        return self.advance(torch.full((self.size,), first, device=self.mask.device))

    def advance(self, tokens: Tensor) -> Tensor:
        output = self.inner(
            encoder_outputs=(self.read,),
            attention_mask=self.mask,
            decoder_input_ids=tokens[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        self.size, self.mask, self.read = len(rows), self.mask[rows], self.read[rows]
        self.cache.batch_select_indices(rows)


def _start_token(inner: Any) -> int:
    """What a completion begins with, unseen."""
    for settings in (getattr(inner, "generation_config", None), inner.config):
        token = getattr(settings, "decoder_start_token_id", None)
        if token is not None:
            return int(token)
    raise ModelError(
        f"this {inner.config.model_type} model doesn't say with which token it starts; expected "
        "decoder_start_token_id in config.json"
    )
