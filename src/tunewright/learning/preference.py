"""The objective of a reward model: of two completions of a prompt, the better one gets the higher score.

Bradley and Terry (1952) make a difference of scores the log-odds that people prefer one; InstructGPT (Ouyang et al.
2022, eq. 1) learns from all pairs of a prompt at once, each prompt weighing 1. Losses are sums over prompts, in nats;
the loop divides by the prompts of the whole step. Shapes: B prompts, K completions of a prompt, P comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tunewright.data.batching import Batch, Examples, Texts, collate, cut_by_tokens
from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.models.boundary import BoundaryCache
from tunewright.models.forward import Boundary, Forward, in_evaluation
from tunewright.models.inference import MAX_TOKENS
from tunewright.runtime import Runtime


def preference_losses(differences_P: Tensor, weights_P: Tensor, margins_P: Tensor | None = None) -> Tensor:
    """−[p log σ(d − m) + (1 − p) log σ(m − d)] of each comparison, in nats: [P] -> [P].

    d: score of the better one − that of the worse one. p: probability that the better one is better; 1 gives the
    log-sigmoid loss of Christiano et al. (2017), 0.5 a tie. m: by how much it is better (Llama 2, Touvron et al. 2023,
    eq. 2).
    """
    excess = differences_P.float() - (0.0 if margins_P is None else margins_P)
    return -(weights_P * F.logsigmoid(excess) + (1 - weights_P) * F.logsigmoid(-excess))


def centring_losses(better_P: Tensor, worse_P: Tensor) -> Tensor:
    """(score of the better one + score of the worse one)², which keeps scores near 0 (Eisenstein et al. 2023, §4)."""
    return (better_P.float() + worse_P.float()) ** 2


@dataclass(frozen=True)
class Compared:
    """The comparisons of B prompts whose texts lie end to end."""

    better: Tensor  # int64 [P], places among all texts
    worse: Tensor  # int64 [P]
    weights: Tensor  # float32 [P], probability that the better one is better
    margins: Tensor  # float32 [P]
    shares: Tensor  # float32 [P], 1 / comparisons of the prompt

    @classmethod
    def of(
        cls, dataset: ComparisonDataset, indices: Sequence[int] | np.ndarray, device: torch.device | str
    ) -> Compared:
        """Those of these prompts, in this order."""
        chosen = [int(i) for i in indices]
        counts = dataset.num_texts[chosen]
        before = np.cumsum(counts) - counts
        pairs = np.concatenate([dataset.pairs(i) + start for i, start in zip(chosen, before, strict=True)])
        each = {
            "weights": np.concatenate([dataset.weights(i) for i in chosen]),
            "margins": np.concatenate([dataset.margins(i) for i in chosen]),
            "shares": np.concatenate([np.full(n, 1 / n, np.float32) for n in dataset.num_pairs[chosen]]),
        }
        places = torch.from_numpy(pairs.astype(np.int64)).to(device)
        return cls(places[:, 0], places[:, 1], **{name: torch.from_numpy(v).to(device) for name, v in each.items()})

    def losses(self, scores: Tensor, centring: float = 0.0) -> Tensor:
        """Of each comparison, [P], not yet shared out: from the scores of all texts."""
        better, worse = scores[self.better], scores[self.worse]
        losses = preference_losses(better - worse, self.weights, self.margins)
        return losses + centring * centring_losses(better, worse) if centring else losses


@dataclass(frozen=True)
class Preference:
    """Loss of comparisons. Holds the prompts that it is asked about: a batch knows their numbers, not their pairs."""

    caches: ClassVar[bool] = True  # the boundary cache holds a prompt's texts end to end, as a batch does
    dataset: ComparisonDataset
    centring: float = 0.0

    def loss_of(self, forward: Forward, batch: Batch, boundary: Boundary | None) -> Tensor:
        """Sum over prompts of the mean loss of their comparisons."""
        compared = Compared.of(self.dataset, batch.indices, batch.texts.device)
        scores = forward.logits(texts_of(self.dataset, batch), boundary)[:, 0].float()
        return (compared.shares * compared.losses(scores, self.centring)).sum()

    def weight_of(self, dataset: Examples, indices: np.ndarray) -> float:
        """The number of prompts."""
        return float(len(indices))


def text_scores(
    forward: Forward,
    dataset: ComparisonDataset,
    *,
    max_tokens: int = MAX_TOKENS,
    cache: BoundaryCache | None = None,
    runtime: Runtime | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """The score of every text, float64, those of the first prompt first. With several ranks each computes its share.

    Without gradients, dropout off. `before_batch` is called before each batch and may raise to stop.
    """
    lengths, device = np.asarray(dataset.lengths, np.int64), next(forward.model.parameters()).device
    starts = np.cumsum(dataset.num_texts, dtype=np.int64) - dataset.num_texts
    batches = cut_by_tokens(np.argsort(lengths, kind="stable"), lengths, max_tokens)
    rank, world_size = (runtime.rank, runtime.world_size) if runtime else (0, 1)
    found = torch.zeros(int(dataset.num_texts.sum()), dtype=torch.float64)
    with torch.inference_mode(), in_evaluation(forward.model):
        for indices in batches[rank::world_size]:
            before_batch()
            texts = texts_of(dataset, collate(dataset, indices, device))
            scores = forward.logits(texts, cache.boundary(indices, device) if cache else None)[:, 0]
            places = np.concatenate([starts[i] + np.arange(int(dataset.num_texts[i])) for i in indices])
            found[torch.from_numpy(places)] = scores.double().cpu()
    return (runtime.sum(found) if runtime else found).numpy()


def texts_of(dataset: ComparisonDataset, batch: Batch) -> Texts:
    """A batch of prompts as a batch of texts: the same tokens, each text of its own length."""
    lengths = np.concatenate([dataset.text_lengths(int(i)) for i in batch.indices])
    return Texts(batch.texts.input_ids, tuple(map(int, lengths)))
