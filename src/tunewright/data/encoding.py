"""A tokenizer as the rest needs it: texts in, ids out, cut on the named side, special tokens around, losses counted.

`tokenizing` stores what this gives for training, `predict` uses it as it is; both get the ids of transformers' own
`tokenizer(text, truncation=True, max_length=…)`. Reads and writes no files, pads nothing, needs no torch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from tunewright.data.values import refuse_half_characters
from tunewright.errors import DataError, ModelError, RecipeError

Side = Literal["left", "right"]
Item = TypeVar("Item")

CHUNK_TEXTS = 1_000
CHUNK_CHARACTERS = 4_000_000  # books come in smaller chunks than tweets
PROBES = ("tea", "It was good.", "a b 1")


class Encoded(NamedTuple):
    """N texts as ids, end to end."""

    input_ids: np.ndarray  # int32, all tokens
    lengths: np.ndarray  # int32 [N] tokens of each text, special tokens included
    full_lengths: np.ndarray  # int32 [N] the same before cutting


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with what it puts around a text, and how much of the text is kept."""

    tokenizer: Any
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    max_length: int | None  # None: nothing is cut
    truncate: Side

    @classmethod
    def of(cls, tokenizer: Any, max_length: int | None = None, truncate: Side = "right") -> Encoder:
        """Finds the special tokens by trying the tokenizer on a few texts."""
        prefix, suffix = _special_tokens(tokenizer)
        if max_length is not None and max_length <= (special := len(prefix) + len(suffix)):
            raise RecipeError(
                f"data.max_length is {max_length}, and this tokenizer adds {special} special tokens to every text; "
                f"expected at least {special + 1}.",
                field="data.max_length",
            )
        return cls(tokenizer, prefix, suffix, max_length, truncate)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Tokenise whole, cut, add the special tokens."""
        texts_ids = _ids(self.tokenizer, texts, special=False)
        sizes = np.fromiter(map(len, texts_ids), np.int64, len(texts_ids))
        flat = np.fromiter(itertools.chain.from_iterable(texts_ids), np.int32, int(sizes.sum()))
        special = len(self.prefix) + len(self.suffix)
        kept = sizes if self.max_length is None else np.minimum(sizes, self.max_length - special)
        begins = np.cumsum(sizes) - (kept if self.truncate == "left" else sizes)
        ids = self._with_special_tokens(flat[_ranges(begins, kept)], kept)
        return Encoded(ids, (kept + special).astype(np.int32), (sizes + special).astype(np.int32))

    def _with_special_tokens(self, flat: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        before, after = len(self.prefix), len(self.suffix)
        ends = np.cumsum(sizes + before + after)
        begins = ends - after - sizes  # of the text itself
        ids = np.empty(len(flat) + len(sizes) * (before + after), np.int32)
        ids[_ranges(begins, sizes)] = flat
        for offset, token in enumerate(self.prefix):
            ids[begins - before + offset] = token
        for offset, token in enumerate(self.suffix):
            ids[ends - after + offset] = token
        return ids

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the ids, as JSON."""
        import tokenizers

        return {
            "tokenizer": _tokenizer_hash(self.tokenizer),
            "tokenizers": tokenizers.__version__,
            "special": [self.prefix, self.suffix],
            "max_length": self.max_length,
            "truncate": self.truncate,
        }


def encode_texts(texts: Iterable[str], tokenizer: Any, max_length: int | None, truncate: Side) -> list[list[int]]:
    """The ids of each text, as in training. A text without a single token gets one, so that it can be answered."""
    encoder = Encoder.of(tokenizer, max_length, truncate)
    spare = next(
        (i for i in (tokenizer.unk_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) if i is not None), 0
    )
    encoded: list[list[int]] = []
    for chunk in chunks(map(_readable, texts, itertools.count(1)), len):
        ids, lengths, _ = encoder.encode(chunk)
        encoded += (part.tolist() or [spare] for part in np.split(ids, np.cumsum(lengths)[:-1]))
    return encoded


def _readable(text: str, number: int) -> str:
    if not isinstance(text, str):
        raise DataError(f"found {type(text).__name__} {text!r:.60}; expected a text.", where=f"text {number}")
    refuse_half_characters({"text": text}, f"text {number}")
    return text


def chunks(items: Iterable[Item], num_characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in order, at most CHUNK_TEXTS or about CHUNK_CHARACTERS at a time."""
    chunk: list[Item] = []
    characters = 0
    for item in items:
        chunk.append(item)
        characters += num_characters(item)
        if len(chunk) == CHUNK_TEXTS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _ranges(begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """begins[0], begins[0] + 1, … (sizes[0] of them), begins[1], …: int64 [sum of sizes]."""
    before = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum())) + np.repeat(begins - before, sizes)


def _ids(tokenizer: Any, texts: Sequence[str], *, special: bool) -> list[list[int]]:
    """Ids without cutting or padding, whatever the tokenizer's own file asks for (MiniLM's asks for 128 tokens)."""
    if not texts:
        return []
    return tokenizer(
        list(texts),
        add_special_tokens=special,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # no warning that a text is longer than the model reads: it is cut after this
    )["input_ids"]


def _special_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and after every text."""
    around: list[set[tuple[tuple[int, ...], tuple[int, ...]]]] = []
    for bare, full in zip(_ids(tokenizer, PROBES, special=False), _ids(tokenizer, PROBES, special=True), strict=True):
        end = len(bare)
        places = (i for i in range(len(full) - end + 1) if full[i : i + end] == bare)
        around.append({(tuple(full[:i]), tuple(full[i + end :])) for i in places})
    found = set.intersection(*around)
    if len(found) != 1:
        raise ModelError(
            f"{type(tokenizer).__name__} doesn't put the same special tokens around every text; "
            f"expected a tokenizer for single texts. Choose another base model."
        )
    return found.pop()


def _tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer's rules and words, without the cutting and padding that its last call left in it."""
    if getattr(tokenizer, "is_fast", False):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules |= {"truncation": None, "padding": None}
    else:
        rules = {"class": type(tokenizer).__name__, "words": tokenizer.get_vocab(), "settings": repr(tokenizer)}
    rules["split_special_tokens"] = bool(getattr(tokenizer, "split_special_tokens", False))
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
