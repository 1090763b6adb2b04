"""A language model's head: logits, and what they say of the targets alone, without ever holding all of them.

Stands between the last hidden states (`forward`) and the objective or the evaluation. A vocabulary of 262,144 words
makes a [T, V] tensor of 1 MB per target; here a chunk of targets at a time gives loss and gradient, and is forgotten.
Equal to the plain loss and its gradients within rounding. Knows nothing of prompts, masks or batches.

Shapes: T targets, D model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 96 << 20  # of fp32 logits at once; on a CPU smaller ones lose speed and larger ones gain none


@dataclass(frozen=True)
class LanguageHead:
    """What turns a hidden state into logits: softcap(scale · (W h + b))."""

    weight: Tensor  # [V, D]
    bias: Tensor | None = None  # [V]
    softcap: float | None = None  # Gemma 2's final_logit_softcapping
    scale: float = 1.0  # Granite's and Cohere's logit scale

    @classmethod
    def of(cls, model: Any) -> LanguageHead:
        """The head of a language model, plain or wrapped by PEFT, as its own forward computes it."""
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        module = inner.get_output_embeddings()
        saved = getattr(module, "modules_to_save", None)
        if saved is not None and not module.disable_adapters:
            module = saved[module.active_adapters[0]]
        config = inner.config
        scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(module.weight, getattr(module, "bias", None), softcap, float(scale))

    def logits(self, hidden: Tensor) -> Tensor:
        """[T, D] -> float32 [T, V]."""
        bias = self.bias.to(hidden.dtype) if self.bias is not None else None
        logits = torch.nn.functional.linear(hidden, self.weight.to(hidden.dtype), bias).float()
        logits = logits * self.scale if self.scale != 1.0 else logits
        return torch.tanh(logits / self.softcap) * self.softcap if self.softcap else logits


def target_loss_sum(hidden: Tensor, head: LanguageHead, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ_t w_t · −log p(target_t), in nats: hidden [T, D], targets int64 [T], weights [T] -> scalar with gradients."""
    if not len(targets):
        return hidden.sum() * 0.0 + head.weight[0].sum() * 0.0  # no target teaches nothing, but backward may be called
    return _TargetLoss.apply(hidden, head.weight, head.bias, head, targets, weights)  # type: ignore[return-value]


@torch.no_grad()
def target_losses(hidden: Tensor, head: LanguageHead, targets: Tensor) -> tuple[Tensor, Tensor]:
    """−log p of each target in nats, float32 [T], and whether it was the likeliest word, bool [T]."""
    losses, hits = [hidden.new_zeros(0, dtype=torch.float32)], [targets.new_zeros(0, dtype=torch.bool)]
    for part, wanted in zip(hidden.split(_chunk(head)), targets.split(_chunk(head)), strict=True):
        logits = head.logits(part)
        losses.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
        hits.append(logits.argmax(1) == wanted)
    return torch.cat(losses), torch.cat(hits)


def target_logprobs(
    hidden: Tensor, head: LanguageHead, targets: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log p of each target and the entropy of its whole distribution, in nats: float32 [T] each.

    hidden [T, D], targets int64 [T]; of softmax(logits / temperature). Gradients flow through log p; the entropy is a
    measurement and has none. Beside a frozen head backward multiplies [T, D] once and reads no logits again.
    """
    found = _TargetLogprobs.apply(hidden, head.weight, head.bias, head, targets, temperature)
    return found  # type: ignore[return-value]


def _chunk(head: LanguageHead) -> int:
    """Targets computed at once."""
    return max(1, CHUNK_BYTES // (4 * head.weight.shape[0]))


class _TargetLoss(torch.autograd.Function):
    """Loss and gradient in one pass: what autograd would keep, the logits, is the very thing that doesn't fit."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: LanguageHead,
        targets: Tensor,
        weights: Tensor | None,
    ) -> Tensor:
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias and bias is not None else None
        total = torch.zeros((), device=hidden.device)
        size = _chunk(head)
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            share = weights[part] if weights is not None else None
            loss, grad = _loss_and_gradient(head, hidden[part], targets[part], share)
            total += loss
            if grad_hidden is not None:
                grad_hidden[part] = grad.to(weight.dtype) @ weight
            if grad_weight is not None:
                _add_product(grad_weight, grad.T, hidden[part])
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (weight.dtype, bias.dtype if bias is not None else None)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grad_outputs
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        return (
            grad_hidden * scale if grad_hidden is not None else None,
            grad_weight.mul_(scale).to(ctx.dtypes[0]) if grad_weight is not None else None,
            (grad_bias * scale).to(ctx.dtypes[1]) if grad_bias is not None else None,
            None,
            None,
            None,
        )


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in place where the formats allow it: the weight's gradient is as large as the weight."""
    if right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += (left.to(right.dtype) @ right).float()


def _loss_and_gradient(
    head: LanguageHead, hidden: Tensor, targets: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the losses of a chunk, and its gradient by W h + b: float32 [t, V], made in the logits' place."""
    logits = head.logits(hidden)
    slope = None if not head.softcap else 1 - (logits / head.softcap) ** 2
    chosen = logits.gather(1, targets[:, None])[:, 0]
    normaliser = logits.logsumexp(1)
    losses = normaliser - chosen
    grad = logits.sub_(normaliser[:, None]).exp_()
    grad[torch.arange(len(targets), device=grad.device), targets] -= 1
    if slope is not None:
        grad *= slope
    if weights is not None:
        losses, grad = losses * weights, grad.mul_(weights[:, None])
    return losses.sum(), grad.mul_(head.scale) if head.scale != 1.0 else grad


class _TargetLogprobs(torch.autograd.Function):
    """A target's log p hangs on its own hidden state alone, so its gradient there is one row of [T, D].

    The rows are made in the forward pass, while the probabilities are at hand. The gradient of a head that learns sums
    over targets with weights that only backward knows; there the logits are made again, chunk by chunk.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: LanguageHead,
        targets: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        slopes = torch.empty_like(hidden) if wants_hidden else None
        logprobs, entropies = (hidden.new_empty(len(targets), dtype=torch.float32) for _ in range(2))
        size = _chunk(head)
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            chunk = _Distribution(head, hidden[part], targets[part], temperature)
            logprobs[part], entropies[part] = chunk.logprobs, chunk.entropies()
            if slopes is not None:
                slopes[part] = chunk.gradient().to(weight.dtype) @ weight
        again = (hidden, weight, bias, targets) if wants_weight or wants_bias else (None,) * 4
        ctx.save_for_backward(slopes, *again)
        ctx.settings = (head.softcap, head.scale, temperature)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        slopes, hidden, weight, bias, targets = ctx.saved_tensors
        shares = grad_outputs[0]
        grad_hidden = slopes * shares[:, None].to(slopes.dtype) if slopes is not None else None
        if hidden is None:
            return grad_hidden, None, None, None, None, None
        softcap, scale, temperature = ctx.settings
        head = LanguageHead(weight, bias, softcap, scale)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        size = _chunk(head)
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            grad = _Distribution(head, hidden[part], targets[part], temperature).gradient().mul_(shares[part, None])
            if grad_weight is not None:
                _add_product(grad_weight, grad.T, hidden[part])
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        return (
            grad_hidden,
            grad_weight.to(weight.dtype) if grad_weight is not None else None,
            grad_bias.to(bias.dtype) if grad_bias is not None else None,
            None,
            None,
            None,
        )


class _Distribution:
    """A chunk of targets, and what their logits say of them; two [t, V] tensors at most."""

    def __init__(self, head: LanguageHead, hidden: Tensor, targets: Tensor, temperature: float) -> None:
        self.head, self.targets, self.temperature = head, targets, temperature
        logits = head.logits(hidden)
        self.slope = 1 - (logits / head.softcap) ** 2 if head.softcap else None
        self.shifted = logits.div_(temperature) if temperature != 1.0 else logits
        self.shifted -= self.shifted.amax(1, keepdim=True)
        self.weights = self.shifted.exp()  # probabilities times `total`
        self.total = self.weights.sum(1)
        self.logprobs = self.shifted.gather(1, targets[:, None])[:, 0] - self.total.log()

    def entropies(self) -> Tensor:
        """log Z − Σ p z, float32 [t]."""
        return self.total.log() - torch.einsum("tv,tv->t", self.weights, self.shifted) / self.total

    def gradient(self) -> Tensor:
        """Of the log probabilities by W h + b: float32 [t, V], made in the weights' place."""
        grad = self.weights.div_(-self.total[:, None])
        grad[torch.arange(len(self.targets), device=grad.device), self.targets] += 1
        if self.slope is not None:
            grad *= self.slope
        factor = self.head.scale / self.temperature
        return grad.mul_(factor) if factor != 1.0 else grad
