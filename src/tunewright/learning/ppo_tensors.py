"""What learns in PPO, policy and value head, with the one optimizer of both; and their tensors in a checkpoint.

The policy's parameters lie in `weights.safetensors` as `fit` leaves them, so that the best ones become the model. All
that only the loop needs is in `optimizer.safetensors` under names of its own: `value_head/…` and `rollout/…`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunewright.errors import ModelError
from tunewright.learning.checkpoints import Checkpoint, CheckpointStore
from tunewright.learning.optimization import make_optimizer
from tunewright.learning.rollouts import Rollouts
from tunewright.learning.tensors import (
    load_optimizer,
    load_trainable,
    load_weights,
    optimizer_tensors,
    trainable_tensors,
)
from tunewright.models.value_head import ValueHead

EPSILON = 1e-5  # of AdamW, not torch's 1e-8: as OpenAI's PPO (Huang et al. 2022, "37 details", detail 3)
HEAD, ROLLOUT, WEIGHTS = "value_head/", "rollout/", "weights/"


@dataclass(frozen=True)
class Learner:
    """The policy, its value head where there is one, and the optimizer of both."""

    policy: Any
    value_head: ValueHead | None
    optimizer: torch.optim.AdamW

    @classmethod
    def of(cls, policy: Any, value_head: ValueHead | None, weight_decay: float) -> Learner:
        """The head goes to where the policy is."""
        both = [policy] if value_head is None else [policy, value_head.to(next(policy.parameters()).device)]
        optimizer = make_optimizer(nn.ModuleList(both), weight_decay)
        for group in optimizer.param_groups:
            group["eps"] = EPSILON
        return cls(policy, value_head, optimizer)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that learns."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def save(
        self, checkpoints: CheckpointStore, step: int, state: Mapping[str, Any], rollouts: Rollouts | None
    ) -> None:
        """Write the checkpoint of this step. Raises MachineError."""
        tensors = optimizer_tensors(self.policy, self.optimizer)
        if self.value_head is not None:
            head = {f"{WEIGHTS}{name}": tensor for name, tensor in trainable_tensors(self.value_head).items()}
            head |= {n: t for n, t in optimizer_tensors(self.value_head, self.optimizer).items() if not _is_random(n)}
            tensors |= {f"{HEAD}{name}": tensor for name, tensor in head.items()}
        if rollouts is not None:
            tensors |= {f"{ROLLOUT}{name}": tensor for name, tensor in rollouts.tensors().items()}
        checkpoints.save(step, trainable_tensors(self.policy), tensors, state)

    def load(self, checkpoint: Checkpoint) -> Rollouts | None:
        """Put everything back in place; the rollouts that were being learnt from. Raises ModelError."""
        tensors = checkpoint.optimizer()
        head, rollout = _below(tensors, HEAD), _below(tensors, ROLLOUT)
        rest = {n: t for n, t in tensors.items() if not n.startswith((HEAD, ROLLOUT))}
        load_trainable(self.policy, checkpoint.weights())
        load_optimizer(self.policy, self.optimizer, rest)
        if self.value_head is not None:
            moments = {n: t for n, t in head.items() if not n.startswith(WEIGHTS)}
            load_weights(self.value_head, _below(head, WEIGHTS))
            load_optimizer(self.value_head, self.optimizer, moments | {n: rest[n] for n in rest if _is_random(n)})
        try:
            return Rollouts(**rollout) if rollout else None
        except TypeError as error:
            raise ModelError(f"checkpoint doesn't hold whole rollouts ({error})", where=str(checkpoint.path)) from None


def _is_random(name: str) -> bool:
    return name.startswith("random/")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
