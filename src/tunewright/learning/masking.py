"""Masked words: what an encoder must guess when it learns from plain text. Pure function of tensors.

Stands between stored tokens and the objective of `task: continue` on BERT-like models. Doesn't know tokenizers: which
tokens may be masked, and where words begin, is handed in.
"""

from __future__ import annotations

import torch
from torch import Tensor

NOT_A_TARGET = -100  # as in transformers' labels
MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen tokens; the rest stays as it was


def masked_tokens(
    ids: Tensor,
    special_mask: Tensor,
    vocab: int | Tensor,
    mask_id: int,
    generator: torch.Generator,
    probability: float = 0.15,
    whole_word_starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose tokens to guess; 80 % of them become [MASK], 10 % a random word, 10 % stay (Devlin et al. 2019, 3.1).

    ids int64 of any shape, tokens along the last axis; special_mask bool like ids, True = never chosen (special tokens,
    padding). vocab: the ids to draw random words from, or how many there are (BERT's code draws from all of them).
    whole_word_starts bool like ids, True = first token of a word: words are chosen then, with the same probability, and
    all tokens of one are targets, each masked, swapped or kept by itself, as BERT's code does.

    -> ids with the chosen ones replaced, and targets like ids: the true id where chosen, else NOT_A_TARGET. At least
    one token is chosen where any may be. How much is drawn depends on the shape alone, so a resumed run goes on alike;
    with a generator on the CPU the masks are the same whatever device ids are on.
    """
    assert 0 < probability <= 1, probability
    words = vocab if isinstance(vocab, Tensor) else torch.arange(vocab)
    draws = torch.rand(2, *ids.shape, generator=generator, device=generator.device).to(ids.device)
    places = torch.randint(len(words), ids.shape, generator=generator, device=generator.device)
    swapped = words.to(ids)[places.to(ids.device)]
    luck, fate = draws[0], draws[1]
    if whole_word_starts is not None:
        luck = _by_word(luck, special_mask, whole_word_starts)
    luck = luck.masked_fill(special_mask, 1.0)  # rand stays below 1
    chosen = luck < probability
    if not chosen.any() and luck.numel():
        chosen = (luck == luck.min()) & ~special_mask
    targets = torch.where(chosen, ids, NOT_A_TARGET)
    replaced = torch.where(chosen & (fate < MASKED_SHARE + RANDOM_SHARE), swapped, ids)
    return torch.where(chosen & (fate < MASKED_SHARE), mask_id, replaced), targets


def _by_word(luck: Tensor, special_mask: Tensor, starts: Tensor) -> Tensor:
    """Every token gets the number drawn for the first one of its word."""
    # A special token ends the word before it; what follows one without starting a word was cut from its beginning.
    begins = starts | special_mask
    place = torch.arange(luck.shape[-1], device=luck.device).expand_as(luck)
    first = torch.where(begins, place, 0).cummax(dim=-1).values
    return luck.gather(-1, first)
