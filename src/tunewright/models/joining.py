"""Two adapters as one: the frozen start and what was learned beside it, saved as a plain LoRA adapter of their base.

    s₁·B₁A₁ + s₂·B₂A₂ = s₂·[B₁·s₁/s₂  B₂]·[A₁; A₂]

Ranks add up, nothing is approximated. The new adapter's part is last and unchanged, so a checkpoint of the run, which
holds that part alone, still finds its place in the saved model (`load_learnt`). Called by `saving`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor

from tunewright.errors import ModelError
from tunewright.models.adapters import WEIGHTS
from tunewright.models.starting import NEW, START


def save_joined(model: Any, folder: Path) -> None:
    """PEFT's two files of the joined adapter, on the base that the start was made for."""
    save_file(joined_tensors(model), str(folder / WEIGHTS), metadata={"format": "pt"})
    joined_config(model).save_pretrained(str(folder))


def joined_tensors(model: Any) -> dict[str, Tensor]:
    """A [R, in] and B [out, R] of every adapted layer by PEFT's names, on the CPU; R is the sum of both ranks."""
    tensors: dict[str, Tensor] = {}
    for name, layer in _layers(model).items():
        scale = layer.scaling[_adapters(layer)[-1]]
        downs = [layer.lora_A[adapter].weight.detach() for adapter in _adapters(layer)]
        ups = [layer.lora_B[a].weight.detach() * (layer.scaling[a] / scale) for a in _adapters(layer)]
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.cat(downs).cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.cat(ups, 1).cpu().contiguous()
    return tensors


def joined_config(model: Any) -> LoraConfig:
    """What PEFT needs to load them: rank and alpha of most layers, and patterns for those that differ."""
    start, new = model.peft_config[START], model.peft_config[NEW]
    ranks, alphas = {}, {}
    for name, layer in _layers(model).items():
        ranks[name] = sum(layer.r[adapter] for adapter in _adapters(layer))
        alphas[name] = _whole(layer.scaling[_adapters(layer)[-1]] * ranks[name])
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return LoraConfig(
        task_type=new.task_type,
        base_model_name_or_path=start.base_model_name_or_path,
        revision=start.revision,
        inference_mode=True,
        fan_in_fan_out=new.fan_in_fan_out,
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT takes fractions too
        lora_dropout=new.lora_dropout,
        target_modules=sorted(ranks),
        rank_pattern={name: value for name, value in ranks.items() if value != rank},
        alpha_pattern={name: value for name, value in alphas.items() if value != alpha},
    )


def check_joined(model: Any, reloaded: Any) -> None:
    """Raises ModelError where a reloaded adapter isn't what both are in memory: every tensor bit by bit, every scale.

    Logits alone wouldn't tell in bf16, which rounds after each adapter's product.
    """
    wanted, layers = joined_tensors(model), _layers(model)
    found = {name: layer for name, layer in _layers(reloaded).items() if NEW in layer.lora_A}
    for name in sorted(layers.keys() | found.keys()):
        if name not in found or name not in layers or not _holds(found[name], layers[name], name, wanted):
            raise ModelError(f"the saved adapter is not the one in memory ({name})")


def _holds(found: Any, layer: Any, name: str, wanted: Mapping[str, Tensor]) -> bool:
    scale = layer.scaling[_adapters(layer)[-1]]
    sides = {"A": found.lora_A[NEW].weight, "B": found.lora_B[NEW].weight}
    same = all(
        torch.equal(tensor, wanted[f"base_model.model.{name}.lora_{side}.weight"]) for side, tensor in sides.items()
    )
    return same and math.isclose(found.scaling[NEW], scale, rel_tol=1e-12)


def load_learnt(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Put a checkpoint of the new adapter into a saved model, whose adapter may be joined: its part comes last there.

    Raises ModelError for a name or shape that doesn't fit.
    """
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in weights.items():
            place = _place(own.get(name), tensor, name)
            if place is None:
                raise ModelError(f"checkpoint and model don't fit ({name})")
            place.copy_(tensor)


def _place(parameter: Tensor | None, tensor: Tensor, name: str) -> Tensor | None:
    """The part of a parameter that a checkpoint's tensor is for: all of it, or the last ranks."""
    if parameter is None or parameter.ndim != tensor.ndim:
        return None
    if ".lora_A." in name:
        parameter = parameter[-len(tensor) :]
    elif ".lora_B." in name:
        parameter = parameter[:, -tensor.shape[1] :]
    return parameter if parameter.shape == tensor.shape else None


def _layers(model: Any) -> dict[str, Any]:
    """Layers that one of both adapts, by their names in the base model."""
    layers = ((name, m) for name, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer))
    return {name: layer for name, layer in layers if _adapters(layer)}


def _adapters(layer: Any) -> list[str]:
    """Those of this layer, the new one last."""
    return [name for name in (START, NEW) if name in layer.lora_A]


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value
