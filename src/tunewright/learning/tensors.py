"""The state of a model and its optimizer as named tensors, and back: what a checkpoint holds, without its files.

Everything a step depends on is here or in the loop's own numbers: weights, moments, step counts, random state.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tunewright.errors import ModelError


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the trainable parameters by name, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def load_trainable(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put saved parameters back in place. Raises ModelError if the names or shapes differ."""
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())[0]
        raise ModelError(f"checkpoint and model don't have the same trainable parameters ({odd})")
    load_weights(model, weights)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put these parameters in place, whichever require a gradient now. Raises ModelError for an unknown name."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in weights.items():
            if name not in own or own[name].shape != tensor.shape:
                raise ModelError(f"checkpoint and model don't fit ({name})")
            own[name].copy_(tensor)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name, and the random state of the CPU and the device."""
    tensors = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach().cpu().clone()
    return tensors


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the optimizer's and the random state back. Raises ModelError where they don't fit the model."""
    named = dict(model.named_parameters())
    if "random/cpu" not in tensors:
        raise ModelError("checkpoint holds no random state")
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition("/")
        if key == "random":
            continue
        if name not in named:
            raise ModelError(f"checkpoint and model don't fit ({name})")
        parameter = named[name]
        device = parameter.device if key != "step" else optimizer.state[parameter].get("step", tensor).device
        optimizer.state[parameter][key] = tensor.to(device).clone()
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
