"""Long documents cut into windows that a model can read at once, for learning from raw text.

Between `written_tokens` and batching; no token of a document is lost. For next tokens (`windows`) a window begins with
the last token of the one before it, so every token is predicted exactly once, and a short document stays as it is. For
masked tokens (`masked_windows`) every window gets the special tokens that the encoder expects around a text. Texts lie
end to end in a batch: nothing is padded and no attention crosses from one document into another. Copies no tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tunewright.data.encoding import Encoder
from tunewright.data.written_tokens import WrittenDataset
from tunewright.errors import RecipeError


@dataclass(frozen=True, eq=False)
class WindowedDataset(WrittenDataset):
    """Windows of documents, each a sequence of its own. `lengths` count what is put around the framed ones."""

    before: tuple[int, ...]  # ids put before a framed window
    after: tuple[int, ...]  # ids put behind it
    framed: np.ndarray  # bool [N]
    repeats: bool  # whether a framed window begins with a token that the one before it has predicted

    def tokens(self, index: int) -> np.ndarray:
        """The ids of one window; a view where nothing is put around it."""
        own = self.input_ids[self._own(index)]
        if not (self.framed[index] and (self.before or self.after)):
            return own
        return np.concatenate([np.array(self.before, np.int32), own, np.array(self.after, np.int32)])

    def is_target(self, index: int) -> np.ndarray:
        """The mask of one window. What is put around it doesn't count, nor the token that it repeats."""
        own = self.targets[self._own(index)]
        if not self.framed[index]:
            return own
        own = own.copy()
        own[: int(self.repeats)] = False
        return np.concatenate([np.zeros(len(self.before), np.bool_), own, np.zeros(len(self.after), np.bool_)])

    def subset(self, indices: np.ndarray | Sequence[int]) -> WindowedDataset:
        """These windows, in this order."""
        part = super().subset(indices)
        assert isinstance(part, WindowedDataset)
        return replace(part, framed=self.framed[np.arange(len(self))[indices]])

    def _own(self, index: int) -> slice:
        """Where the window's tokens lie in the flat arrays."""
        start, around = int(self.starts[index]), len(self.before) + len(self.after)
        return slice(start, start + int(self.lengths[index]) - (around if self.framed[index] else 0))


def windows(dataset: WrittenDataset, max_length: int, bos: int | None = None) -> WindowedDataset:
    """Every document of more than max_length tokens as full windows and a last one with what is left.

    `bos`: put before each later window, for a model that expects one (its tokenizer puts it before a document itself).
    Windows keep the row of their document. RecipeError when max_length leaves no room for a token to predict.
    """
    before = () if bos is None else (bos,)
    step = max_length - 1 - len(before)  # tokens that a later window predicts
    _check_room(step, max_length)
    lengths = dataset.lengths.astype(np.int64)
    # The first window has no token to repeat: it ends at max_length, and each later one `step` tokens further on.
    document, number, _ = _counted(1 + np.maximum(0, -((max_length - lengths) // step)))
    begin = np.where(number > 0, max_length - 1 + (number - 1) * step, 0)
    end = np.minimum(lengths[document], max_length + number * step)
    return _made(dataset, document, begin, end, before, (), number > 0, repeats=True)


def masked_windows(dataset: WrittenDataset, max_length: int, tokenizer: Any) -> WindowedDataset:
    """Documents for an encoder: at most max_length tokens with [CLS] and [SEP] or their like around every window.

    The windows of a document are equally long, so that no word is guessed from a mere handful. RecipeError when
    max_length leaves no room; ModelError for a tokenizer without fixed special tokens.
    """
    encoder = Encoder.of(tokenizer)
    before, after = encoder.prefix, encoder.suffix
    room = max_length - len(before) - len(after)
    _check_room(room, max_length)
    first, last = _bare(dataset, before, after)
    sizes = last - first
    document, number, count = _counted(-(-np.maximum(sizes, 1) // room))
    begin = first[document] + sizes[document] * number // count
    end = first[document] + sizes[document] * (number + 1) // count
    framed = np.ones(len(document), np.bool_)
    return _made(dataset, document, begin, end, before, after, framed, repeats=False)


def _check_room(room: int, max_length: int) -> None:
    if room < 1:
        found = f"data.max_length is {max_length}, too short for a window with one token to learn"
        raise RecipeError(f"{found}; expected at least {max_length + 1 - room}.", field="data.max_length")


def _counted(count: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For so many windows per document: each one's document, its number in there from 0, and how many there are."""
    document = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(document)) - np.repeat(np.cumsum(count) - count, count)
    return document, number, count[document]


def _bare(dataset: WrittenDataset, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Where each document begins and ends without its special tokens, from its own start: int64 [documents] each."""
    first, last = np.zeros(len(dataset), np.int64), dataset.lengths.astype(np.int64)
    for index in range(len(dataset)):
        ids = dataset.tokens(index)
        if before and tuple(ids[: len(before)]) == before:
            first[index] = len(before)
        if after and last[index] - first[index] >= len(after) and tuple(ids[-len(after) :]) == after:
            last[index] -= len(after)
    return first, last


def _made(
    dataset: WrittenDataset,
    document: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    before: tuple[int, ...],
    after: tuple[int, ...],
    framed: np.ndarray,
    *,
    repeats: bool,
) -> WindowedDataset:
    """Windows from `begin` to `end` inside their documents."""
    lengths = (end - begin + np.where(framed, len(before) + len(after), 0)).astype(np.int32)
    is_first = np.diff(document, prepend=-1) > 0
    cut = np.where(is_first, (dataset.full_lengths - dataset.lengths)[document], 0)  # lost before, said once
    bounds = hashlib.sha256(begin.tobytes() + end.tobytes()).hexdigest()
    decided_by = f"{dataset.fingerprint} {bounds} {before} {after} {repeats}"
    return WindowedDataset(
        input_ids=dataset.input_ids,
        starts=dataset.starts[document] + begin,
        lengths=lengths,
        full_lengths=(lengths + cut).astype(np.int32),
        rows=dataset.rows[document],
        labels=dataset.labels[document],
        fingerprint=hashlib.sha256(decided_by.encode()).hexdigest(),
        targets=dataset.targets,
        before=before,
        after=after,
        framed=framed,
        repeats=repeats,
    )
