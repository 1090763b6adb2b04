"""The value head of PPO: how much reward is still to come, read from the policy's own hidden states.

Stands beside the language head on the same body; exists while PPO trains and isn't part of the model that is saved.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """V = w·h/rms(h) + b in fp32, whatever the body computes in: [..., D] -> [...].

    States have the length that a last layer norm without weights would give them. Gemma's are five times longer: first
    values would be as many times too large, and clipping lets them move by `value_clip_range` an iteration.
    """

    def __init__(self, width: int, *, seed: int) -> None:
        """w from a normal distribution of std 1/√(D + 1), b = 0 (Huang et al. 2024, detail 9)."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        std = 1.0 / math.sqrt(width + 1)
        self.weight = nn.Parameter(torch.randn(1, width, generator=generator) * std)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Values, float32."""
        hidden = nn.functional.rms_norm(hidden.float(), hidden.shape[-1:])
        return nn.functional.linear(hidden, self.weight, self.bias)[..., 0]
