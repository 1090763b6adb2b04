"""One body for two models: a scorer that was tuned on the policy's own base answers from the policy's layers.

A reward model with adapters on the same base is its adapters, its norm and its head; all else is there already. Its
adapters move into the policy's layers under a name of their own, inactive, and are switched on for the length of an
answer (`SharedBody.answering`), while the policy's are off. Saves the memory of a whole model. What learns and what is
saved of the policy doesn't change. Used by `tasks.rewards`; what doesn't fit is left as it is (`share_body`: None).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from tunewright.models.attention import packed_attention_in
from tunewright.models.forward import Forward
from tunewright.models.quiet import quiet
from tunewright.models.starting import START, has_start, learn_only

LOOKED_AT = 1024  # numbers at either end of a tensor


@dataclass(frozen=True)
class SharedBody:
    """A scorer whose layers are the policy's."""

    policy: Forward
    forward: Forward  # of the scorer; call it while it is `answering`
    name: str  # of its adapters in the policy's layers
    own: dict[str, nn.Module]  # modules of the body that are its own, by name: a norm behind the layers

    @contextlib.contextmanager
    def answering(self) -> Generator[None]:
        """Inside, the layers are the scorer's, and gradients are nobody's; afterwards the policy's, as it was."""
        model, body = self.policy.model, self.policy.base
        layers = [(layer, layer.active_adapters) for layer in _adapted(body).values()]
        theirs = {name: body.get_submodule(name) for name in self.own}
        learns = {name for name, p in model.named_parameters() if p.requires_grad}
        was_training = model.training
        try:
            for layer, _ in layers:
                layer.set_adapter([self.name] if self.name in layer.lora_A else [], inference_mode=True)
            for name, module in self.own.items():
                body.set_submodule(name, module)
            with torch.no_grad(), packed_attention_in(self.policy.config):
                yield
        finally:
            for name, module in theirs.items():
                body.set_submodule(name, module)
            for layer, active in layers:
                layer.set_adapter(active, inference_mode=True)
            learn_only(model, learns)
            model.train(was_training)  # whoever scores puts the body back into the mode of the scorer


def share_body(policy: Forward, scorer: Any) -> SharedBody | None:
    """Let a classifier or reward model with LoRA adapters use the policy's body, and forget its own.

    None where that can't be, and nothing has changed then: another base, other weights, adapters of another kind, a
    policy without adapters, an architecture that isn't described. Call it once the policy computes in its precision.
    """
    if not (_has_lora(policy.model) and _has_lora(scorer)) or not policy.packed:
        return None
    shell = scorer.get_base_model()
    prefix = shell.base_model_prefix
    old: Any = getattr(shell, prefix, None)
    if old is None or not Forward(scorer).packed:
        return None
    if not _same_weights(old, policy.base, entirely=_base_named(scorer) != _base_named(policy.model)):
        return None
    own = {name: module for name, module in old.named_modules() if hasattr(module, "modules_to_save")}
    if any(".layers." in f".{name}." or isinstance(module, LoraLayer) for name, module in own.items()):
        return None
    name = f"scorer_{sum(other.startswith('scorer_') for other in policy.model.peft_config)}"
    _move_adapters(_adapted(old), policy, name)
    setattr(shell, prefix, policy.base)
    return SharedBody(policy, Forward(shell, precision=policy.precision), name, own)


def _has_lora(model: Any) -> bool:
    """Whether all its adapters are plain LoRA, none of them merged."""
    layers = _adapted(model).values()
    plain = all(not (layer.merged or layer.lora_variant or any(layer.lora_bias.values())) for layer in layers)
    return hasattr(model, "peft_config") and bool(layers) and plain


def _adapted(model: Any) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _base_named(model: Any) -> str | None:
    """The base that a model's adapters were made for, as PEFT wrote it down."""
    return model.peft_config[START if has_start(model) else "default"].base_model_name_or_path


def _same_weights(scorer: Any, policy: Any, *, entirely: bool) -> bool:
    """Whether two bodies hold the same base, in the policy's number format.

    Of one file it is enough to look at the beginning and end of each tensor, where merging another adapter would show:
    what isn't looked at is never read from the disk.
    """
    own, other = dict(_base_weights(scorer)), dict(_base_weights(policy))
    if {name: p.shape for name, p in own.items()} != {name: p.shape for name, p in other.items()}:
        return False
    return all(
        torch.equal(mine.to(theirs), theirs)
        for name in own
        for mine, theirs in zip(_parts(own[name], entirely), _parts(other[name], entirely), strict=True)
    )


def _parts(tensor: Tensor, entirely: bool) -> list[Tensor]:
    flat = tensor.detach().reshape(-1)
    return [flat] if entirely or len(flat) <= 2 * LOOKED_AT else [flat[:LOOKED_AT], flat[-LOOKED_AT:]]


def _base_weights(body: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters of the base by their names in it, without what adapters put in and around."""
    for name, parameter in body.named_parameters():
        if ".lora_" not in name and ".modules_to_save." not in name:
            yield name.replace(".base_layer.", ".").replace(".original_module.", "."), parameter


def _move_adapters(layers: dict[str, Any], policy: Forward, name: str) -> None:
    """The scorer's adapters into the policy's layers, inactive and frozen."""
    model = policy.model
    inside = next(path for path, module in policy.inner.named_modules() if module is policy.base)
    learns = {path for path, p in model.named_parameters() if p.requires_grad}
    active = {path: layer.active_adapters for path, layer in _adapted(policy.base).items()}
    ranks = {f"{inside}.{path}": layer.r["default"] for path, layer in layers.items()}
    first = next(iter(layers.values()))
    config = LoraConfig(
        task_type=model.peft_config["default"].task_type,
        target_modules=list(ranks),
        r=first.r["default"],
        rank_pattern=ranks,
        fan_in_fan_out=first.fan_in_fan_out,
    )
    with quiet():
        model.add_adapter(name, config)
    for path, layer in _adapted(policy.base).items():
        if path in layers:
            for side in ("lora_A", "lora_B"):
                getattr(layer, side)[name].weight.data = getattr(layers[path], side)["default"].weight.data
            layer.scaling[name] = layers[path].scaling["default"]
        layer.set_adapter(active.get(path, []))
    learn_only(model, learns)
