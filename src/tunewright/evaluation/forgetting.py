"""What a model knows of general text, measured before training and after it: the two halves of what it forgot.

    documents ──▶ measure(model) ──▶ Snapshot (on disk, survives a kill) ──┐
                  measure(model) ──▶ Snapshot ─────────────────────────────┴─▶ forgetting ──▶ run.json

A model that writes is asked how likely the text is; one without a head for words, where its hidden states point. The
same documents are cut the same way both times. What the numbers mean is in `retention`.

Shapes: N documents, T tokens, D model width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batching import collate, cut_by_tokens
from tunewright.data.columns import find_columns
from tunewright.data.encoding import Encoder
from tunewright.data.sources import open_data
from tunewright.data.survey import text_of
from tunewright.errors import DataError
from tunewright.evaluation import retention
from tunewright.models.context import context_length
from tunewright.models.forward import Forward, in_evaluation
from tunewright.models.likelihoods import MAX_TOKENS, Likelihoods, MeasuredExamples, target_likelihoods
from tunewright.runtime import Runtime

GENERAL = "general"  # what `evaluation.retain` calls the text that comes with us
MOST_DOCUMENTS = 64  # of a person's own text: enough for an interval, and soon measured
MOST_TOKENS = 256  # of one document
ROWS_LOOKED_AT = 2_000
STATES_PER_DOCUMENT = 32

Kind = Literal["perplexity", "masked perplexity", "drift"]
Score = Callable[[Forward, MeasuredExamples], Likelihoods]


def documents(retain: str = GENERAL) -> list[str]:
    """The text that comes with us, or a person's own: a .txt file by paragraph, or the text column of a data file.

    Of a large file, documents spread evenly over its first rows. DataError when there is none.
    """
    if retain == GENERAL:
        return general_documents()
    source = open_data(retain).train
    column = find_columns(source, need_label=False).text
    rows = itertools.islice(source.rows(), ROWS_LOOKED_AT)
    found = [text for row in rows if (text := text_of(row, column).strip())]
    if not found:
        raise DataError("holds no text to measure forgetting on", where=source.name, field="evaluation.retain")
    return [found[i] for i in np.linspace(0, len(found) - 1, min(len(found), MOST_DOCUMENTS)).round().astype(int)]


def general_documents() -> list[str]:
    """Short paragraphs of plain English on many subjects, free to use."""
    text = files("tunewright.evaluation").joinpath("general_text.txt").read_text(encoding="utf-8")
    return [part.strip() for part in text.split("\n\n") if part.strip() and not part.startswith("#")]


@dataclass(frozen=True)
class Snapshot:
    """What a model makes of the documents, once."""

    kind: Kind
    values: np.ndarray  # nats float64 [N]; of drift, directions of hidden states float16 [all T, D]
    tokens: np.ndarray  # int64 [N], how many tokens of each document were measured

    def tensors(self) -> dict[str, Tensor]:
        """To be stored."""
        return {self.kind: torch.from_numpy(self.values), "tokens": torch.from_numpy(self.tokens)}

    @classmethod
    def of_tensors(cls, stored: dict[str, Tensor]) -> Snapshot:
        """As stored."""
        kind = next(name for name in stored if name != "tokens")
        return cls(cast("Kind", kind), stored[kind].numpy(), stored["tokens"].numpy())


def measure(
    forward: Forward,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    masked: Score | None = None,
    runtime: Runtime | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> Snapshot:
    """The model's mind now. `masked` scores masked words, for an encoder with a head for them.

    `before_batch` is called before each batch and may raise to stop.
    """
    examples = _Documents.of(texts, tokenizer, min(MOST_TOKENS, context_length(forward.config)))
    if masked is not None:
        found = masked(forward, examples)
        return Snapshot("masked perplexity", found.nats, found.tokens)
    if _predicts_next_words(forward):
        found = target_likelihoods(forward, examples, runtime=runtime, before_batch=before_batch)
        return Snapshot("perplexity", found.nats, found.tokens)
    return _directions(forward, examples, before_batch)


def forgetting(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """What run.json says: kind, before, after, change, interval, verdict, words, sentence, documents, tokens."""
    if before.kind != after.kind or not np.array_equal(before.tokens, after.tokens):
        raise DataError(
            "the general text isn't the one that the untrained model was measured on; put the old one back, or start "
            "the run anew",
            field="evaluation.retain",
        )
    if before.kind == "drift":
        ends = np.cumsum(before.tokens)[:-1]
        pairs = zip(np.split(before.values, ends), np.split(after.values, ends), strict=True)
        return retention.drift([retention.document_drift(old, new) for old, new in pairs]).to_json()
    masked = before.kind == "masked perplexity"
    return retention.retained(before.values, after.values, before.tokens, masked=masked).to_json()


# --- parts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Documents:
    """Tokenised documents; all that is text counts, and no special token."""

    ids: list[np.ndarray]
    masks: list[np.ndarray]

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Any, max_length: int) -> _Documents:
        encoder = Encoder.of(tokenizer, max_length, "right")
        encoded = encoder.encode(texts)
        ids = np.split(encoded.input_ids, np.cumsum(encoded.lengths)[:-1])
        before, after = len(encoder.prefix), len(encoder.suffix)
        masks = [(places >= before) & (places < len(places) - after) for places in map(np.arange, encoded.lengths)]
        return cls(ids, masks)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(ids) for ids in self.ids], np.int64)

    @property
    def labels(self) -> np.ndarray:
        return np.zeros((len(self.ids), 0), np.float32)

    def tokens(self, index: int) -> np.ndarray:
        return self.ids[index]

    def is_target(self, index: int) -> np.ndarray:
        return self.masks[index]

    def places(self, index: int) -> np.ndarray:
        """Some of the tokens that count, evenly spread."""
        there = np.flatnonzero(self.masks[index])
        wanted = min(len(there), STATES_PER_DOCUMENT)
        return there[np.linspace(0, len(there) - 1, wanted).round().astype(int)] if wanted else there


def _predicts_next_words(forward: Forward) -> bool:
    """A masked language model has a head too, but it reads what it predicts; an encoder–decoder needs a source."""
    masked = "MaskedLM" in type(forward.inner).__name__
    return forward.writes and not masked and not forward.config.is_encoder_decoder


def _directions(forward: Forward, examples: _Documents, before_batch: Callable[[], None]) -> Snapshot:
    """Unit vectors of some hidden states: their lengths say nothing, and without them 16 bits are enough."""
    places = [examples.places(i) for i in range(len(examples.ids))]
    found: list[np.ndarray] = [np.zeros((0, 0), np.float16)] * len(places)
    lengths = examples.lengths
    order = np.argsort(lengths, kind="stable")
    device = next(forward.model.parameters()).device
    with torch.inference_mode(), in_evaluation(forward.model):
        for batch in cut_by_tokens(order[lengths[order] > 0], lengths, MAX_TOKENS):
            before_batch()
            hidden = _hidden(forward, collate(examples, batch, device).texts).float()
            units = torch.nn.functional.normalize(hidden, dim=1).half().cpu().numpy()
            for i, states in zip(batch, np.split(units, np.cumsum(lengths[batch])[:-1]), strict=True):
                found[i] = states[places[i]]
    kept = [states for states in found if states.size] or [np.zeros((0, 1), np.float16)]
    return Snapshot("drift", np.concatenate(kept), np.array([len(own) for own in places], np.int64))


def _hidden(forward: Forward, texts: Any) -> Tensor:
    """Last hidden states [N, D]; of an encoder–decoder, the encoder's."""
    if not forward.config.is_encoder_decoder:
        return forward.hidden(texts)
    encoder = forward.inner.get_encoder()
    parts = texts.input_ids.split(list(texts.lengths))
    return torch.cat([encoder(input_ids=ids[None]).last_hidden_state[0] for ids in parts])
