"""Guessing words at a few places: what masked language models and encoder–decoder models share, beside the next token.

Stands between `forward` and the objectives that fill in masked words or write a sequence for a sequence. The model's
own code runs up to its last projection, which is left out, so that logits exist only for a chunk of targets at a time
(see `language_head`). Chooses no masks and builds no batches.

Shapes: N tokens of all texts, B texts, T targets, D width of what the last projection reads, V vocabulary.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunewright.data.batching import Batch, Texts, cut_by_tokens
from tunewright.errors import ModelError
from tunewright.models.forward import Forward, in_evaluation
from tunewright.models.language_head import LanguageHead, target_loss_sum, target_losses
from tunewright.models.likelihoods import MAX_TOKENS, Likelihoods
from tunewright.runtime import Runtime


@dataclass(frozen=True)
class Guesses:
    """What the last projection reads at the targets of a batch."""

    hidden: Tensor  # [T, D]
    targets: Tensor  # int64 [T], the true ids
    owner: Tensor  # int64 [T], which text of the batch each belongs to
    head: LanguageHead

    def loss_sum(self) -> Tensor:
        """Sum of −log p of the targets in nats, with gradients."""
        return target_loss_sum(self.hidden, self.head, self.targets)

    def sums_per_text(self, num_texts: int) -> np.ndarray:
        """Nats, targets and hits of each text: float64 [3, B]."""
        losses, hits = target_losses(self.hidden, self.head, self.targets)
        owner = self.owner.cpu().numpy()
        columns = (losses.cpu().numpy(), np.ones(len(owner)), hits.cpu().numpy())
        return np.stack([np.bincount(owner, column, num_texts) for column in columns])


# ---- masked words ----


def masked_guesses(forward: Forward, texts: Texts, targets: Tensor) -> Guesses:
    """Of texts in which words are masked: `targets` int64 [N] is the true id at a place to guess, else negative."""
    places = (targets >= 0).nonzero()[:, 0]
    hidden = forward.hidden(texts)[places]
    with forward.computing(texts), _base_gives(forward.base, hidden[None]):
        read = _read_by_last_projection(forward.inner, lambda: forward.inner(input_ids=texts.input_ids[None, :1]))
    owner = torch.repeat_interleave(torch.tensor(texts.lengths, device=texts.device))
    return Guesses(read[0], targets[places], owner[places], _head(forward))


@contextlib.contextmanager
def _base_gives(base: nn.Module, hidden: Tensor) -> Generator[None]:
    """The body of a model gives these last hidden states [1, T, D] and runs nothing."""
    from transformers.modeling_outputs import BaseModelOutput

    with _runs(base, lambda *_args, **_settings: BaseModelOutput(last_hidden_state=hidden)):  # type: ignore[arg-type]
        yield


# ---- a sequence for a sequence ----


def pair_guesses(forward: Forward, batch: Batch) -> Guesses:
    """Of pairs laid end to end: a text's tokens that aren't targets are read, its targets are written."""
    assert batch.is_target is not None
    lengths = batch.texts.lengths
    parts = zip(batch.texts.input_ids.split(lengths), batch.is_target.split(lengths), strict=True)
    sources, written = zip(*((ids[~counts], ids[counts]) for ids, counts in parts), strict=True)
    pad = forward.config.pad_token_id or 0
    ids, mask = _side_by_side(list(sources), pad)
    labels, counts = _side_by_side(list(written), pad)
    inputs = {"input_ids": ids, "attention_mask": mask.long(), "decoder_input_ids": _shifted(forward.inner, labels)}
    known = inspect.signature(forward.inner.forward).parameters
    with forward.computing(batch.texts):
        read = _read_by_last_projection(
            forward.inner, lambda: forward.inner(**inputs, **({"use_cache": False} if "use_cache" in known else {}))
        )
    return Guesses(read[counts], labels[counts], counts.nonzero()[:, 0], _head(forward))


def _side_by_side(rows: list[Tensor], pad: int) -> tuple[Tensor, Tensor]:
    """Ids [B, T] padded behind, and which of them count [B, T]."""
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    return ids, torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]


def _shifted(inner: Any, labels: Tensor) -> Tensor:
    """What the decoder reads to write the labels [B, T]: a start token before them, the last one left out."""
    if hasattr(inner, "prepare_decoder_input_ids_from_labels"):
        return inner.prepare_decoder_input_ids_from_labels(labels=labels)
    start = inner.config.decoder_start_token_id
    if start is None:
        found = f"this {inner.config.model_type} model doesn't say with which token it starts"
        raise ModelError(f"{found}; expected decoder_start_token_id in config.json")
    return torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], 1)


# ---- the last projection ----


def _read_by_last_projection(inner: Any, run: Callable[[], Any]) -> Tensor:
    """What the model hands to its output embeddings while `run` runs; they themselves compute nothing."""
    read: list[Tensor] = []

    def take(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        read.append(hidden)
        # As wide as logits, since a model may still add a bias or count them; nobody looks at these.
        return hidden.new_zeros(1, 1, _num_words(inner))

    with _runs(inner.get_output_embeddings(), take):
        run()
    return read[-1]


def _num_words(inner: Any) -> int:
    return inner.config.get_text_config(decoder=True).vocab_size


@contextlib.contextmanager
def _runs(module: nn.Module, instead: Callable[..., Any]) -> Generator[None]:
    """The module called, and this run in its place."""
    own = vars(module).get("forward")  # where someone else stands in its place already
    module.forward = instead
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _head(forward: Forward) -> LanguageHead:
    """The last projection with its bias, which BART and its relatives keep outside."""
    head, outside = LanguageHead.of(forward.model), getattr(forward.inner, "final_logits_bias", None)
    return head if outside is None else replace(head, bias=outside[0])


def check_guesses(forward: Forward) -> None:
    """Guesses must be the model's own logits, on a probe. ModelError for a model that makes its words otherwise."""
    try:
        with torch.no_grad(), in_evaluation(forward.model):
            found, plain = _probed(forward)
        difference = (found - plain).abs().max() / plain.abs().max().clamp(min=1e-3)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError):
        difference = torch.inf
    if not difference < 1e-3:
        found = f"this {forward.config.model_type} model makes its words in a way that isn't known here"
        raise ModelError(f"{found}; choose another base model")


def _probed(forward: Forward) -> tuple[Tensor, Tensor]:
    """Logits of a short text, as guessed and as the model gives them: [T, V] each."""
    inner, device = forward.inner, next(forward.model.parameters()).device
    never = {getattr(inner.config, f"{name}_token_id", None) for name in ("pad", "bos", "eos")}
    ids = torch.tensor([i for i in range(min(100, _num_words(inner))) if i not in never][-8:], device=device)
    if inner.config.is_encoder_decoder:
        counts = torch.arange(8, device=device) >= 4
        guesses = pair_guesses(forward, Batch(Texts(ids, (8,)), ids.new_zeros(1, 0), np.zeros(1, np.int64), counts))
        plain = inner(input_ids=ids[None, :4], decoder_input_ids=_shifted(inner, ids[None, 4:])).logits
    else:
        guesses = masked_guesses(forward, Texts(ids, (8,)), ids)
        plain = inner(input_ids=ids[None]).logits
    return guesses.head.logits(guesses.hidden), plain[0].float()


# ---- likelihoods ----


def guess_likelihoods(
    forward: Forward,
    lengths: np.ndarray,
    guess: Callable[[np.ndarray], Guesses],
    *,
    max_tokens: int = MAX_TOKENS,
    runtime: Runtime | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> Likelihoods:
    """Nats, targets and hits for each of N examples, guessed in batches of these indices, sorted by length.

    With several ranks each computes its share. `before_batch` is called before each batch and may raise to stop.
    """
    lengths = np.asarray(lengths, np.int64)
    batches = cut_by_tokens(np.argsort(lengths, kind="stable"), lengths, max_tokens)
    rank, world_size = (runtime.rank, runtime.world_size) if runtime else (0, 1)
    found = np.zeros((3, len(lengths)))
    with torch.inference_mode(), in_evaluation(forward.model):
        for indices in batches[rank::world_size]:
            before_batch()
            found[:, indices] = guess(indices).sums_per_text(len(indices))
    if runtime is not None and world_size > 1:
        found = runtime.sum(torch.from_numpy(found).to(runtime.device)).cpu().numpy()
    nats, tokens, hits = found
    return Likelihoods(nats, tokens.astype(np.int64), hits.astype(np.int64))
