"""The objective of an encoder that learns from plain text: some words are masked, and it guesses them.

Which tokens are masked is drawn anew for every step from torch's own random state: a checkpoint keeps that, so a
resumed run masks the same tokens. The masks of a step are drawn for the whole step at once, before it is cut, so that
the gradient is the same however it is cut, into micro-batches or over ranks whose random states agree. The sum of the
losses is divided by exactly the tokens that were chosen. Since what is read changes with every step, nothing below the
trained layers can be cached: `boundary` must be None.

Shapes: N tokens of all texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batching import Batch, Examples, Texts, WrittenExamples, lay_end_to_end
from tunewright.data.segments import control_tokens
from tunewright.data.word_starts import word_starts
from tunewright.errors import ModelError
from tunewright.learning.masking import NOT_A_TARGET, masked_tokens
from tunewright.models.forward import Boundary, Forward
from tunewright.models.guesses import guess_likelihoods, masked_guesses
from tunewright.models.likelihoods import MAX_TOKENS, Likelihoods, MeasuredExamples
from tunewright.runtime import Runtime

PROBABILITY = 0.15  # Devlin et al. 2019


@dataclass(frozen=True)
class Masking:
    """How tokens are chosen and what stands in their place."""

    mask_id: int
    words: Tensor  # int64 [words], what a chosen token may be swapped for
    special: Tensor  # bool [V], True = never chosen
    starts: Tensor | None = None  # bool [V], True = begins a word: whole words are chosen then
    probability: float = PROBABILITY

    @classmethod
    def of(cls, tokenizer: Any, vocabulary: int, *, whole_word: bool = False) -> Masking:
        """What a tokenizer says of its tokens; `vocabulary`: rows of the embedding. ModelError without a mask token."""
        if tokenizer.mask_token_id is None:
            found = "the tokenizer has no mask token, so no word can be masked"
            raise ModelError(f"{found}; choose an encoder such as BERT, or a model that writes the next word")
        special = torch.zeros(vocabulary, dtype=torch.bool)
        special[sorted(set(control_tokens(tokenizer).values()))] = True
        special[len(tokenizer) :] = True  # rows of the embedding without a token
        starts = torch.ones(vocabulary, dtype=torch.bool)
        begins = torch.from_numpy(word_starts(tokenizer))
        starts[: len(begins)] = begins
        words = (~special).nonzero()[:, 0]
        return cls(tokenizer.mask_token_id, words, special, starts if whole_word else None)

    def of_texts(self, texts: Texts, counts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What is read, and the ids to guess (−100 elsewhere): int64 [N] each. `counts` bool [N]: may be chosen."""
        ids = texts.input_ids
        starts = None
        if self.starts is not None:
            starts = self.starts.to(ids.device)[ids]
            starts[torch.tensor((0, *texts.lengths[:-1])).cumsum(0)] = True  # a word ends with its text
        never = self.special.to(ids.device)[ids] | ~counts
        words = self.words.to(ids.device)
        return masked_tokens(ids, never, words, self.mask_id, generator, self.probability, starts)


@dataclass(frozen=True)
class MaskedLanguageModeling:
    """Loss at masked places; the head runs nowhere else."""

    caches: ClassVar[bool] = False  # whether layers below the trained ones may run once and be kept
    masking: Masking
    # The step that is under way: example -> what is read, what is to guess. Drawn in `weight_of`, taken in `loss_of`.
    drawn: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    def loss_of(self, forward: Forward, batch: Batch, boundary: Boundary | None) -> Tensor:
        """Sum of −log p of the micro-batch's masked tokens, in nats."""
        assert boundary is None, "what is below a masked word changes with every step"
        read, targets = self._masks_of(batch)
        return masked_guesses(forward, Texts(read, batch.texts.lengths), targets).loss_sum()

    def weight_of(self, dataset: Examples, indices: np.ndarray) -> float:
        """Draws the masks of these examples, a whole step; how many tokens they hide."""
        texts = lay_end_to_end([dataset.tokens(int(i)) for i in indices])
        read, targets = self.masking.of_texts(texts, _may_count(dataset, indices), torch.default_generator)
        parts = zip(indices.tolist(), read.split(texts.lengths), targets.split(texts.lengths), strict=True)
        self.drawn.clear()
        self.drawn.update({index: (ids, true) for index, ids, true in parts})
        return float(max(1, int((targets != NOT_A_TARGET).sum())))

    def _masks_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The masks drawn for the step; new ones where a batch is looked at outside of any step."""
        device, indices = batch.texts.device, batch.indices.tolist()
        found = [self.drawn.pop(index) for index in indices if index in self.drawn]
        if [len(ids) for ids, _ in found] == list(batch.texts.lengths):
            return torch.cat([ids for ids, _ in found]).to(device), torch.cat([true for _, true in found]).to(device)
        counts = batch.is_target if batch.is_target is not None else torch.ones_like(batch.texts.input_ids).bool()
        return self.masking.of_texts(batch.texts, counts, torch.default_generator)


def masked_likelihoods(
    forward: Forward,
    dataset: MeasuredExamples,
    masking: Masking,
    *,
    seed: int,
    max_tokens: int = MAX_TOKENS,
    runtime: Runtime | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> Likelihoods:
    """Nats, masked tokens and hits of each example. The masks are a function of seed and example: equal every time."""
    device = next(forward.model.parameters()).device

    def guess(indices: np.ndarray) -> Any:
        read, targets = zip(*(_fixed_mask(dataset, int(i), masking, seed) for i in indices), strict=True)
        lengths = tuple(len(ids) for ids in read)
        return masked_guesses(forward, Texts(torch.cat(read).to(device), lengths), torch.cat(targets).to(device))

    return guess_likelihoods(
        forward, dataset.lengths, guess, max_tokens=max_tokens, runtime=runtime, before_batch=before_batch
    )


def _fixed_mask(dataset: Examples, index: int, masking: Masking, seed: int) -> tuple[Tensor, Tensor]:
    number = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator().manual_seed(number)
    chosen = np.array([index])
    return masking.of_texts(lay_end_to_end([dataset.tokens(index)]), _may_count(dataset, chosen), generator)


def _may_count(dataset: Examples, indices: np.ndarray) -> Tensor:
    """bool [N]: every token, or those to be learnt of texts that are written."""
    if isinstance(dataset, WrittenExamples):
        return torch.from_numpy(np.concatenate([dataset.is_target(int(i)) for i in indices]))
    return torch.ones(sum(len(dataset.tokens(int(i))) for i in indices), dtype=torch.bool)
