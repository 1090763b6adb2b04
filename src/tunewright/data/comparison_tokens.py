"""Comparisons as token ids: the completions of a prompt as texts end to end, and which of them is better than which.

What `written_tokens` is for texts that are written, this is for texts that are compared: `comparisons` reads the rows,
`segments` cuts and tokenises, `array_folder` stores. An example is one prompt with its K completions, each of which
stands behind its own copy of the prompt, so that a step sees all comparisons of a prompt at once (InstructGPT, 3.5).
The reward model and DPO learn from it. Decides nothing about batches or loss.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tunewright.data.array_folder import stored_arrays
from tunewright.data.comparison_reading import COMPLETION, Pair
from tunewright.data.comparisons import Comparisons, Group
from tunewright.data.encoding import chunks
from tunewright.data.examples import Row
from tunewright.data.segments import Tokens
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
    full_sizes: np.ndarray  # int32, the same before cutting
    pair_texts: np.ndarray  # int32 [comparisons, 2], (better, worse): numbers of texts within their prompt, from 0
    pair_weights: np.ndarray  # float32 [comparisons]
    pair_margins: np.ndarray  # float32 [comparisons]
    pair_annotators: np.ndarray  # int32 [comparisons], numbers of names in `Comparisons.annotators`; -1: unknown

    def text_lengths(self, index: int) -> np.ndarray:
        """int32 [K], tokens of each text of a prompt, summing to `lengths[index]`; a view."""
        return self.sizes[self._texts_of(index)]

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

    def subset(self, indices: np.ndarray | Sequence[int]) -> ComparisonDataset:
        """These prompts, in this order, each with all its texts."""
        chosen = np.arange(len(self))[indices]
        part = super().subset(indices)
        assert isinstance(part, ComparisonDataset)
        return replace(part, **{name: getattr(self, name)[chosen] for name in _PER_PROMPT})

    def each_text(self) -> WrittenDataset:
        """Every text as an example of its own, those of the first prompt first; shares the tokens."""
        texts = [np.arange(len(self.sizes))[self._texts_of(i)] for i in range(len(self))]
        flat = np.concatenate(texts) if texts else np.zeros(0, np.int64)
        owners = np.repeat(np.arange(len(self)), self.num_texts)
        lengths = self.sizes[flat]
        # Within its prompt a text begins where those before it end.
        ends = np.cumsum(lengths, dtype=np.int64)
        before = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])[owners]
        return WrittenDataset(
            input_ids=self.input_ids,
            starts=self.starts[owners] + ends - lengths - before,
            lengths=lengths,
            full_lengths=self.full_sizes[flat],
            rows=self.rows[owners],
            labels=np.zeros((len(flat), 0), np.float32),
            fingerprint=f"texts of {self.fingerprint}",
            targets=self.targets,
        )

    def shortened(self, index: int, share: float) -> ComparisonDataset:
        """One prompt alone, with this share of the tokens of each text, one at least: for planning."""
        texts = self.subset([index]).each_text()
        kept = [max(1, round(share * int(n))) for n in texts.lengths]
        parts = [(texts.tokens(i)[-n:], texts.is_target(i)[-n:]) for i, n in enumerate(kept)]
        sizes, total = np.array(kept, np.int32), np.array([sum(kept)], np.int32)
        return replace(
            self.subset([index]),
            input_ids=np.concatenate([ids for ids, _ in parts]),
            targets=np.concatenate([mask for _, mask in parts]),
            starts=np.zeros(1, np.int64),
            lengths=total,
            full_lengths=total,
            first_text=np.zeros(1, np.int64),
            sizes=sizes,
            full_sizes=sizes,
        )

    @property
    def num_comparisons(self) -> int:
        """All pairs of all prompts."""
        return int(self.num_pairs.sum(dtype=np.int64))

    def _texts_of(self, index: int) -> slice:
        start = int(self.first_text[index])
        return slice(start, start + int(self.num_texts[index]))

    def _pairs_of(self, index: int) -> slice:
        start = int(self.first_pair[index])
        return slice(start, start + int(self.num_pairs[index]))


class CompletionEncoder(Protocol):
    """Prompts with completions as ids: `scored_rows.ScoredRows` for a reward model, `WrittenRows` for a writer."""

    def encode(self, rows: Sequence[Row]) -> list[Tokens]:
        """Each row's prompt and completion, cut and counted. DataError naming the row."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the ids and the mask, as JSON."""
        ...


def tokenize_comparisons(comparisons: Comparisons, encoder: CompletionEncoder, cache: Path) -> ComparisonDataset:
    """Every prompt; taken from `cache` where an earlier start left it. Raises DataError naming the row."""
    decided_by = {
        "version": VERSION,
        "source": comparisons.source.fingerprint(),
        "comparisons": comparisons.signature,
        **encoder.fingerprint(),
    }
    fingerprint = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()
    arrays = stored_arrays(Path(cache) / fingerprint[:32], fingerprint, lambda: _parts(comparisons, encoder))
    return ComparisonDataset(**arrays, fingerprint=fingerprint)


def _parts(comparisons: Comparisons, encoder: CompletionEncoder) -> Iterator[dict[str, np.ndarray]]:
    """The stored arrays of one chunk of prompts after the other; places count on through all of them."""
    tokens = texts = pairs = 0
    for chunk in chunks(comparisons.groups(), _characters):
        part = _arrays(chunk, comparisons, encoder)
        part["starts"] += tokens
        part["first_text"] += texts
        part["first_pair"] += pairs
        yield part
        tokens += len(part["input_ids"])
        texts += len(part["sizes"])
        pairs += len(part["pair_texts"])


def _arrays(chunk: list[Group], comparisons: Comparisons, encoder: CompletionEncoder) -> dict[str, np.ndarray]:
    encoded = encoder.encode([row for group in chunk for row in group.rows])
    sizes = np.array([len(one.ids) for one in encoded], np.int32)
    full = sizes + np.array([one.context_cut + one.target_cut for one in encoded], np.int32)
    num_texts = np.array([len(group.rows) for group in chunk], np.int32)
    num_pairs = np.array([len(group.pairs) for group in chunk], np.int32)
    first_text = np.cumsum(num_texts, dtype=np.int64) - num_texts
    lengths = np.add.reduceat(sizes, first_text)
    return {
        "input_ids": np.concatenate([np.array(one.ids, np.int32) for one in encoded]),
        "targets": np.concatenate([np.array(one.is_target, np.bool_) for one in encoded]),
        "starts": np.cumsum(lengths, dtype=np.int64) - lengths,
        "lengths": lengths,
        "full_lengths": np.add.reduceat(full, first_text),
        "rows": np.array([group.number for group in chunk], np.int64),
        "labels": np.zeros((len(chunk), 0), np.float32),
        "first_text": first_text,
        "num_texts": num_texts,
        "first_pair": np.cumsum(num_pairs, dtype=np.int64) - num_pairs,
        "num_pairs": num_pairs,
        "sizes": sizes,
        "full_sizes": full,
        **_pair_arrays(list(itertools.chain.from_iterable(group.pairs for group in chunk)), comparisons),
    }


def _pair_arrays(pairs: list[Pair], comparisons: Comparisons) -> dict[str, np.ndarray]:
    numbers = comparisons.annotator_numbers
    return {
        "pair_texts": np.array([(pair.better, pair.worse) for pair in pairs], np.int32),
        "pair_weights": np.array([pair.weight for pair in pairs], np.float32),
        "pair_margins": np.array([pair.margin for pair in pairs], np.float32),
        "pair_annotators": np.array([numbers[pair.annotator] for pair in pairs], np.int32),
    }


def _characters(group: Group) -> int:
    return sum(
        len(str(value)) for row in group.rows for value in (row.values.get(COMPLETION), row.values.get("prompt"))
    )
