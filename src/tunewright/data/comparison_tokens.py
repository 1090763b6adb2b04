"""Comparisons as token ids: the completions of a prompt as texts end to end, and which of them is better than which.

What `written_tokens` is for texts that are written, this is for texts that are compared: `comparisons` reads the rows,
`segments` cuts and tokenises, `array_folder` stores. An example is one prompt with its K completions, each of which
stands behind its own copy of the prompt, so that a step sees all comparisons of a prompt at once (InstructGPT, 3.5).
The reward model and DPO learn from it. Decides nothing about batches or loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tunewright.data.written_tokens import WrittenDataset

VERSION = 1  # of the stored arrays; raise it when they change meaning

_PER_PROMPT = ("first_text", "num_texts", "first_pair", "num_pairs")


@dataclass(frozen=True, eq=False)
class ComparisonDataset(WrittenDataset):
    """N prompts. `tokens(i)` are the K texts of prompt i end to end, `lengths` their tokens together.

    `is_target(i)` marks the completion tokens of each text, an EOS included: True = counts. `rows` is the row where a
    prompt first stands, `labels` is empty, `full_lengths` counts what was cut. A subset shares the flat arrays.
    """

    first_text: np.ndarray  # int64 [N] where a prompt's texts begin in sizes
    num_texts: np.ndarray  # int32 [N] K of each prompt, 2 at least
    first_pair: np.ndarray  # int64 [N] where its comparisons begin in the arrays below
    num_pairs: np.ndarray  # int32 [N] P of each prompt, 1 at least
    sizes: np.ndarray  # int32, tokens of every text
    pair_texts: np.ndarray  # int32 [comparisons, 2], (better, worse): numbers of texts within their prompt, from 0
    pair_weights: np.ndarray  # float32 [comparisons]
    pair_margins: np.ndarray  # float32 [comparisons]
    pair_annotators: np.ndarray  # int32 [comparisons], numbers of names in `Comparisons.annotators`; -1: unknown

    def text_lengths(self, index: int) -> np.ndarray:
        """int32 [K], tokens of each text of a prompt, summing to `lengths[index]`; a view."""
        start = int(self.first_text[index])
        return self.sizes[start : start + int(self.num_texts[index])]

    def pairs(self, index: int) -> np.ndarray:
        """int32 [P, 2], (better, worse) as numbers of texts within the prompt; a view."""
        return self.pair_texts[self._pairs_of(index)]

    def weights(self, index: int) -> np.ndarray:
        """float32 [P], probability that the better one is better: 1 where nobody doubts, 0.5 for a tie; a view."""
        return self.pair_weights[self._pairs_of(index)]

    def margins(self, index: int) -> np.ndarray:
        """float32 [P], by how much the score of the better one should be higher; 0 where nobody says; a view."""
        return self.pair_margins[self._pairs_of(index)]

    def annotators(self, index: int) -> np.ndarray:
        """int32 [P], who compared: numbers of names in `Comparisons.annotators`, -1 where nobody says; a view."""
        return self.pair_annotators[self._pairs_of(index)]

    def subset(self, indices: Any) -> ComparisonDataset:
        """These prompts, in this order, each with all its texts."""
        chosen = np.arange(len(self))[indices]
        return replace(super().subset(indices), **{name: getattr(self, name)[chosen] for name in _PER_PROMPT})  # type: ignore[return-value]

    def each_text(self) -> WrittenDataset:
        """Every text as an example of its own, those of the first prompt first; shares the tokens."""
        ...

    def _pairs_of(self, index: int) -> slice:
        start = int(self.first_pair[index])
        return slice(start, start + int(self.num_pairs[index]))
