"""A source as token ids, made once: flat memory-mapped arrays in a folder named after all that decided them.

Between the survey and the batches. The source is streamed in chunks, so a million rows cost no memory; a second start
with the same data, tokenizer and settings opens the first one's folder. `encoding` turns texts into ids and
`array_folder` stores them; here they meet the rows and their labels. It pads nothing and needs no torch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewright.data.array_folder import stored_arrays
from tunewright.data.encoding import Encoder, Side, chunks, encode_texts
from tunewright.data.examples import Row, Source
from tunewright.data.labels import LabelSpec
from tunewright.data.survey import usable_texts, value_of
from tunewright.errors import DataError

if TYPE_CHECKING:
    from tunewright.data.columns import Columns

__all__ = ["TokenizedDataset", "encode_texts", "token_lengths", "tokenize"]

VERSION = 1  # of the stored arrays; raise it when they change meaning

_PER_ROW = ("starts", "lengths", "full_lengths", "rows", "labels")


@dataclass(frozen=True, eq=False)
class TokenizedDataset:
    """N token sequences in one flat array. A subset shares that array and copies some 32 bytes per row."""

    input_ids: np.ndarray  # int32, all tokens end to end; memory-mapped, read-only
    starts: np.ndarray  # int64 [N] where each sequence begins in input_ids
    lengths: np.ndarray  # int32 [N] tokens of each sequence, special tokens included
    full_lengths: np.ndarray  # int32 [N] the same before cutting
    rows: np.ndarray  # int64 [N] position in the source
    labels: np.ndarray  # int64 [N] class | float32 [N] number | float32 [N, K] 1 per label | float32 [N, 0] unknown
    fingerprint: str  # of all that decided these arrays

    def __len__(self) -> int:
        return len(self.starts)

    def tokens(self, index: int) -> np.ndarray:
        """The ids of one sequence, a view."""
        start = int(self.starts[index])
        return self.input_ids[start : start + int(self.lengths[index])]

    def subset(self, indices: np.ndarray | Sequence[int]) -> TokenizedDataset:
        """These sequences, in this order."""
        chosen = np.arange(len(self))[indices]
        fingerprint = hashlib.sha256(self.fingerprint.encode() + chosen.tobytes()).hexdigest()
        return replace(self, **{name: getattr(self, name)[chosen] for name in _PER_ROW}, fingerprint=fingerprint)

    @property
    def num_tokens(self) -> int:
        """Tokens that are left, special ones included."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def truncated_rows(self) -> int:
        """Sequences that were cut."""
        return int(np.count_nonzero(self.full_lengths > self.lengths))

    @property
    def truncated_tokens(self) -> int:
        """Tokens lost to cutting."""
        return int(self.full_lengths.sum(dtype=np.int64)) - self.num_tokens


def tokenize(
    source: Source,
    columns: Columns,
    labels: LabelSpec | None,
    tokenizer: Any,
    *,
    max_length: int,
    truncate: Side,
    cache: Path,
) -> TokenizedDataset:
    """The usable rows of a source as token ids; taken from `cache` where an earlier start left them."""
    encoder = Encoder.of(tokenizer, max_length, truncate)
    fingerprint = _fingerprint(source, columns, labels, encoder)
    arrays = stored_arrays(
        Path(cache) / fingerprint[:32],
        fingerprint,
        lambda: _parts(source, columns, labels, encoder),
    )
    return TokenizedDataset(**arrays, fingerprint=fingerprint)


def token_lengths(source: Source, columns: Columns, tokenizer: Any, limit: int = 2_000) -> np.ndarray:
    """Tokens of the first usable texts, special tokens included, nothing cut: int32 [limit at most]."""
    encoder = Encoder.of(tokenizer)
    texts = (text for _, text in itertools.islice(usable_texts(source, columns), limit))
    lengths = [encoder.encode(chunk).full_lengths for chunk in chunks(texts, len)]
    return np.concatenate(lengths) if lengths else np.zeros(0, np.int32)


def _fingerprint(source: Source, columns: Columns, labels: LabelSpec | None, encoder: Encoder) -> str:
    decided_by = {
        "version": VERSION,
        "source": source.fingerprint(),
        "columns": [columns.text, columns.label],
        "labels": asdict(labels) if labels else None,
        "encoder": encoder.fingerprint(),
    }
    return hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()


def _parts(
    source: Source, columns: Columns, labels: LabelSpec | None, encoder: Encoder
) -> Iterator[dict[str, np.ndarray]]:
    """The stored arrays of one chunk of rows after the other; `starts` counts on through all of them."""
    num_tokens = 0
    for chunk in chunks(usable_texts(source, columns), lambda pair: len(pair[1])):
        rows = [row for row, _ in chunk]
        ids, lengths, full_lengths = encoder.encode([text for _, text in chunk])
        _refuse_texts_without_tokens(rows, lengths, columns.text)
        yield {
            "input_ids": ids,
            "starts": num_tokens + np.cumsum(lengths, dtype=np.int64) - lengths,
            "lengths": lengths,
            "full_lengths": full_lengths,
            "rows": np.array([row.number for row in rows], np.int64),
            "labels": _label_array(rows, columns.label, labels),
        }
        num_tokens += len(ids)
    if not num_tokens:
        raise DataError("no row has a text; expected at least one.", where=source.name)


def _label_array(rows: list[Row], column: str | None, labels: LabelSpec | None) -> np.ndarray:
    if labels is None or column is None:
        return np.zeros((len(rows), 0), np.float32)
    encoded = [labels.encode(value_of(row, column), row.where, column) for row in rows]
    if labels.kind == "multi":
        hot = np.zeros((len(rows), labels.num_outputs), np.float32)
        for row, indices in enumerate(encoded):
            hot[row, list(indices)] = 1  # type: ignore[arg-type]
        return hot
    return np.array(encoded, np.int64 if labels.kind == "single" else np.float32)


def _refuse_texts_without_tokens(rows: list[Row], lengths: np.ndarray, column: str) -> None:
    for index in np.flatnonzero(lengths == 0):
        raise DataError(
            f'"{column}" gives no token at all; expected a text that the base model can read. '
            f"Remove the row or choose another model.",
            where=rows[index].where,
            field=column,
        )
