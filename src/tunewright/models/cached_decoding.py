"""Prompts in, then a token per row and step, with keys and values kept: no padding, rows of any length side by side.

    admit: prompts end to end [1, N] --model's own layers, our attention--> logits of each last token, a new block
    advance: one token per row [1, B] ----"---- reads and extends the blocks ----> logits [B, V]
    drop: finished rows leave; the last row of a block takes their place

Rows that come in together have similar lengths and share a block: one rectangle of keys and one of values per layer. A
layer with a sliding window keeps its last tokens in a ring; keys carry their positions, so their order is free. For
described architectures (see `architectures`); `padded_decoding` serves the others. Which token is next is chosen
elsewhere. Shapes: N tokens of all prompts, B rows, H heads, G key heads, T tokens kept, d head width, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from tunewright.models.attention import packed_attention
from tunewright.models.products import onednn_products

NAME = "tunewright_cached"


class CachedDecoder:
    """A decoder whose layers are described, plain or wrapped by PEFT. Rows are ordered block by block."""

    def __init__(self, model: Any) -> None:
        self.inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.device = self.inner.get_input_embeddings().weight.device
        self.blocks: list[Block] = []
        self._step: Prefill | Advance

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """The model's attention is ours inside; afterwards nothing is kept."""
        AttentionInterface.register(NAME, cached_attention)
        config = self.inner.config
        own = config._attn_implementation
        config._attn_implementation_internal = NAME
        try:
            with onednn_products(self.inner):
                yield
        finally:
            config._attn_implementation_internal = own
            self.blocks = []

    def admit(self, prompts: Sequence[Sequence[int]], capacity: int) -> Tensor:
        """Logits [b, V] after these prompts; they become the last rows, with room for `capacity` tokens each."""
        block = Block(prompts, capacity, self.device)
        self._step = Prefill(block)
        texts = block.texts
        ids = torch.tensor([token for text in texts for token in text], device=self.device)
        positions = torch.cat([torch.arange(len(text), device=self.device) for text in texts])
        logits = self._forward(ids, positions, self._step.last_tokens())
        self.blocks.append(block)
        return logits

    def advance(self, tokens: Sequence[int]) -> Tensor:
        """Logits [B, V] after one more token in every row."""
        self._step = Advance(self.blocks, self.device)
        logits = self._forward(torch.tensor(tokens, device=self.device), self._step.positions, 0)
        for block in self.blocks:
            block.lengths = [length + 1 for length in block.lengths]
        return logits

    def drop(self, finished: Iterable[int]) -> list[int]:
        """These rows leave. Returns which old row stands at each place now."""
        gone, order, start = set(finished), [], 0
        for block in self.blocks:
            own = {row - start for row in gone if start <= row < start + len(block.lengths)}
            kept = [start + row for row in block.drop(own)]
            order, start = order + kept, start + len(kept) + len(own)
        self.blocks = [block for block in self.blocks if block.lengths]
        return order

    def _forward(self, ids: Tensor, positions: Tensor, keep: Tensor | int) -> Tensor:
        output = self.inner(
            input_ids=ids[None],
            position_ids=positions[None],
            attention_mask=None,
            use_cache=False,
            logits_to_keep=keep,
            decoding=self._step,
        )
        return output.logits[0]


class Block:
    """Rows that came in together: keys and values [b, G, T, d] per layer."""

    def __init__(self, prompts: Sequence[Sequence[int]], capacity: int, device: torch.device) -> None:
        places: dict[tuple[int, ...], int] = {}  # a prompt asked for several times is read once
        self.sources = [places.setdefault(tuple(prompt), len(places)) for prompt in prompts]
        self.texts = list(places)
        self.lengths = [len(prompt) for prompt in prompts]
        self.capacity = capacity
        self.device = device
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def make_room(self, layer: int, key: Tensor, value: Tensor, window: int | None) -> int:
        """Storage for this layer, like key and value [1, G, N, d]; returns how many tokens it keeps per row."""
        size = min(self.capacity, window or self.capacity)
        # Zeros: what a mask hides is still multiplied by 0, and garbage may be NaN.
        for storage, like in ((self.keys, key), (self.values, value)):
            storage[layer] = like.new_zeros(len(self.lengths), like.shape[1], size, like.shape[3])
        return size

    def drop(self, finished: set[int]) -> list[int]:
        """Rows leave, the last ones move into the holes. Returns which old row stands at each place."""
        order = list(range(len(self.lengths)))
        for hole in sorted(finished, reverse=True):
            last = len(order) - 1
            if hole != last:
                for tensor in (*self.keys.values(), *self.values.values()):
                    used = min(self.lengths[last], tensor.shape[2])
                    tensor[hole, :, :used] = tensor[last, :, :used]
                order[hole], self.lengths[hole] = order[last], self.lengths[last]
            order.pop()
            self.lengths.pop()
        self._shrink()
        return order

    def _shrink(self) -> None:
        """Give back memory once half of the rows are gone."""
        rows = len(self.lengths)
        for storage in (self.keys, self.values):
            for layer, tensor in storage.items():
                if 2 * rows <= len(tensor):
                    storage[layer] = tensor[:rows].clone()


class Prefill:
    """The attention of one pass over prompts laid end to end, and where their keys and values go."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.lengths = tuple(len(text) for text in block.texts)
        self.starts = [0]
        for length in self.lengths:
            self.starts.append(self.starts[-1] + length)
        self._places: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # by tokens kept per row

    def last_tokens(self) -> Tensor:
        """Where each row's last token stands among all tokens: [b]."""
        return torch.tensor([self.starts[source + 1] - 1 for source in self.block.sources], device=self.block.device)

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, settings: dict[str, Any]) -> Tensor:
        size = self.block.make_room(module.layer_idx, value, value, settings["sliding_window"])
        if size not in self._places:
            self._places[size] = self._find_places(size)
        tokens, rows, places = self._places[size]
        for storage, new in ((self.block.keys, key), (self.block.values, value)):
            storage[module.layer_idx][rows, :, places] = new[0].transpose(0, 1)[tokens].to(value.dtype)
        return packed_attention(module, query, key, value, None, sequence_lengths=self.lengths, **settings)[0]

    def _find_places(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """For every token that is kept: where it stands among all, its row, its place there."""
        tokens, rows, places = [], [], []
        for row, source in enumerate(self.block.sources):
            length = self.lengths[source]
            kept = torch.arange(max(0, length - size), length)
            tokens.append(kept + self.starts[source])
            rows.append(torch.full_like(kept, row))
            places.append(kept % size)
        device = self.block.device
        return torch.cat(tokens).to(device), torch.cat(rows).to(device), torch.cat(places).to(device)


class Advance:
    """The attention of one step: every row's new token over what its block keeps."""

    def __init__(self, blocks: Sequence[Block], device: torch.device) -> None:
        self.blocks = blocks
        self.positions = torch.tensor([length for block in blocks for length in block.lengths], device=device)
        sizes = [len(block.lengths) for block in blocks]
        self.rows = [torch.arange(size, device=device) for size in sizes]
        self._block_positions = self.positions.split(sizes)
        self._views: dict[tuple[int, int], tuple[Tensor | int, int, Tensor | None]] = {}

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, settings: dict[str, Any]) -> Tensor:
        outputs, start = [], 0
        for number, block in enumerate(self.blocks):
            end = start + len(block.lengths)
            q, k, v = (tensor[0, :, start:end].transpose(0, 1).to(value.dtype) for tensor in (query, key, value))
            outputs.append(self._attend(number, module.layer_idx, q, k, v, settings))
            start = end
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs))[None]

    def _attend(self, number: int, layer: int, q: Tensor, k: Tensor, v: Tensor, settings: dict[str, Any]) -> Tensor:
        """q [b, H, d], k and v [b, G, d] -> [b, H, d]."""
        keys, values = self.blocks[number].keys[layer], self.blocks[number].values[layer]
        place, seen, mask = self._view(number, keys.shape[2])
        if isinstance(place, int):
            keys[: len(q), :, place], values[: len(q), :, place] = k, v
        else:
            keys[self.rows[number], :, place], values[self.rows[number], :, place] = k, v
        q = q.unflatten(1, (keys.shape[1], -1))  # [b, G, H/G, d]: heads that share keys are several queries of one head
        out = _mix(q, keys[: len(q), :, :seen], values[: len(q), :, :seen], mask, settings)
        return out.flatten(1, 2)

    def _view(self, number: int, size: int) -> tuple[Tensor | int, int, Tensor | None]:
        """Where the new token goes in each row, how far rows reach, and a mask [b, 1, 1, T] if they differ."""
        if (number, size) not in self._views:
            lengths = self.blocks[number].lengths
            seen = [min(length + 1, size) for length in lengths]
            if len(set(lengths)) == 1:
                self._views[number, size] = lengths[0] % size, seen[0], None
            else:
                positions, mask = self._block_positions[number], None
                if len(set(seen)) > 1:
                    ends = (positions + 1).clamp(max=size)
                    mask = (torch.arange(max(seen), device=positions.device) < ends[:, None])[:, None, None]
                self._views[number, size] = positions % size, max(seen), mask
        return self._views[number, size]


def cached_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    decoding: Prefill | Advance,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What a model's own code calls: query [1, H, N, d], key and value [1, G, N, d] -> [1, N, H, d]."""
    settings = {"scaling": scaling, "sliding_window": sliding_window, "softcap": softcap}
    return decoding.attend(module, query, key, value, settings), None


def _mix(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, settings: dict[str, Any]) -> Tensor:
    """q [b, G, H/G, d] over k and v [b, G, T, d] -> [b, G, H/G, d]."""
    scaling, softcap = settings["scaling"], settings["softcap"]
    if softcap is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
    scores = (q * (scaling if scaling is not None else q.shape[-1] ** -0.5)) @ k.transpose(-2, -1)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v
