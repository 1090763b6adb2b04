"""The objective of a language model: the next token, at the places that are targets.

Losses are sums over target tokens, in nats; the loop divides by the targets of the whole step, so cutting a step into
micro-batches or ranks changes nothing (the mistake of 2024: a mean per micro-batch). Masks come from the data; the
first token of a text has nothing before it and is never a target. Shapes: N tokens of all texts, T targets, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from tunewright.data.batching import Batch, Examples, WrittenExamples
from tunewright.models.forward import Boundary, Forward
from tunewright.models.language_head import LanguageHead, target_loss_sum
from tunewright.models.likelihoods import next_tokens


@dataclass(frozen=True)
class LanguageModeling:
    """Next-token loss at target positions; the head runs nowhere else."""

    caches: ClassVar[bool] = True  # layers below the trained ones may run once and be kept

    def loss_of(self, forward: Forward, batch: Batch, boundary: Boundary | None) -> Tensor:
        """Sum of −log p of the micro-batch's targets, in nats."""
        places, targets = next_tokens(batch)
        hidden = forward.hidden(batch.texts, boundary)
        return target_loss_sum(hidden[places], LanguageHead.of(forward.model), targets)

    def weight_of(self, dataset: Examples, indices: np.ndarray) -> float:
        """Targets of these examples."""
        assert isinstance(dataset, WrittenExamples)
        return float(sum(int(dataset.is_target(int(i))[1:].sum()) for i in indices))
