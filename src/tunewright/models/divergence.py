"""How far a policy has moved from its reference on the texts it wrote: KL at each token, over the whole vocabulary.

Used by the scorer of alignment. Each position's divergence is summed over every word that might have come, not only the
one that did: the same mean as log π − log π_ref of the sampled words, with far less noise, and never below 0 (Amini et
al. 2025, "Better estimation of the KL divergence between language models"). Sampled rollouts have their own, in `ppo`.

Shapes: N texts, C completion tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batching import Texts, cut_by_tokens, lay_end_to_end
from tunewright.models.forward import Forward, in_evaluation
from tunewright.models.language_head import CHUNK_BYTES, LanguageHead
from tunewright.models.likelihoods import MAX_TOKENS
from tunewright.models.starting import Reference


@dataclass(frozen=True)
class Divergence:
    """Of each text's completion."""

    kl: np.ndarray  # float64 [N], Σ over the completion's tokens of KL(policy ‖ reference), nats
    ref_nats: np.ndarray  # float64 [N], Σ of −log p of the tokens by the reference


def divergences(
    policy: Forward,
    reference: Reference,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    max_tokens: int = MAX_TOKENS,
    before_batch: Callable[[], None] = lambda: None,
) -> Divergence:
    """Of completions with the token that ended each, at the temperature they were sampled at, for both models.

    Perplexity is a model's own, so `ref_nats` are at temperature 1. `before_batch` may raise to stop.
    """
    texts = [np.array([*asked, *said], np.int64) for asked, said in zip(prompts, completions, strict=True)]
    lengths = np.array([len(text) for text in texts], np.int64)
    told = np.array([len(said) for said in completions], np.int64)
    found = np.zeros((2, len(texts)))
    order = np.argsort(lengths, kind="stable")
    device = next(policy.model.parameters()).device
    with torch.inference_mode(), in_evaluation(policy.model):
        for batch in cut_by_tokens(order[told[order] > 0], lengths, max_tokens):
            before_batch()
            laid = lay_end_to_end([texts[i] for i in batch], device)
            found[:, batch] = _of_batch(policy, reference, laid, told[batch], temperature)
    return Divergence(found[0], found[1])


def _of_batch(policy: Forward, reference: Reference, texts: Texts, told: np.ndarray, temperature: float) -> np.ndarray:
    """KL and reference nats of one batch, float64 [2, B]."""
    places, owner = _places(texts, told)
    hidden, head = policy.hidden(texts)[places], LanguageHead.of(policy.model)
    with reference.running() as forward, in_evaluation(forward.model):
        ref_hidden, ref_head = forward.hidden(texts)[places], LanguageHead.of(forward.model)
        targets, parts = texts.input_ids[places + 1], list[Tensor]()
        rows = max(1, CHUNK_BYTES // (8 * head.weight.shape[0]))  # logits of both models at once
        for own, ref, wanted in zip(hidden.split(rows), ref_hidden.split(rows), targets.split(rows), strict=True):
            parts.append(_per_token(head.logits(own), ref_head.logits(ref), wanted, temperature))
    per_token = torch.cat(parts, dim=1).double().cpu().numpy()
    return np.stack([np.bincount(owner, row, len(told)) for row in per_token])


def _places(texts: Texts, told: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Where the completions' tokens are predicted, int64 [C of all], and whose they are."""
    ends = np.cumsum(texts.lengths)
    places = np.concatenate([np.arange(end - count - 1, end - 1) for end, count in zip(ends, told, strict=True)])
    return torch.from_numpy(places).to(texts.device), np.repeat(np.arange(len(told)), told)


def _per_token(logits: Tensor, ref_logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """float32 [2, C]: Σ_v p(v) (log p(v) − log p_ref(v)) at each place [C, V], and −log p_ref of the target."""
    ref_nats = torch.nn.functional.cross_entropy(ref_logits, targets, reduction="none")
    logprobs = (logits / temperature).log_softmax(-1)
    difference = logprobs - (ref_logits / temperature).log_softmax(-1)
    return torch.stack([(logprobs.exp() * difference).sum(-1).clamp(min=0), ref_nats])
