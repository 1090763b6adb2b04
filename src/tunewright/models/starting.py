"""Where alignment starts: a tuned adapter kept frozen and active, a new one beside it, and the reference they share.

    base --"start", frozen--> the starting model = the reference
                     └--"default", learns--> the policy

The reference of PPO, GRPO and DPO is exactly the starting model (Ouyang et al. 2022, §3.5). With adapters it costs no
second model: `reference_of` switches off what learns, and nothing else. A model that learns whole needs a frozen copy.
Used by the task of alignment, its objectives and its scorer; `joining` makes one adapter of both when it is saved.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from tunewright.models.adapters import adapter_shapes
from tunewright.models.finding import BaseModel
from tunewright.models.forward import Forward
from tunewright.models.opened import Loaded
from tunewright.models.quiet import quiet
from tunewright.models.writers import kind_of, load_writer, saved_writer
from tunewright.scanning.models import scan_model
from tunewright.scanning.settings import read_json

START, NEW = "start", "default"  # names of the two adapters; PEFT writes "default" at the top of a folder
# Settings of a LoRA adapter that leave it B·A·scale on some linear layers. Any other, when it is set, makes it more.
_PLAIN = frozenset(
    {
        *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
        *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout", "inference_mode"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
        *("loftq_config", "megatron_core", "qalora_group_size", "runtime_config"),  # nothing without a switch
        *("bias", "init_lora_weights"),  # looked at by value
    }
)
_INITS = (True, False, None, "gaussian")  # others change the base's own weights while they are loaded


# ---- loading ----


def load_policy(source: BaseModel, *, seed: int, dropout: float | None, beside: bool) -> Loaded:
    """A model that writes, to be aligned. `beside`: a new adapter will learn beside one that this folder may hold.

    Then a LoRA adapter stays as "start", frozen and active; adapters of other kinds, and all without `beside`, are
    merged into their base. A base without an adapter is loaded as ever. Raises ModelError.
    """
    path = Path(source.path)
    kind = kind_of(path) if beside and (path / "adapter_config.json").exists() else None
    if kind is None:  # nothing to keep, or nothing that writes: whoever loads it says so
        return load_writer(source, None, seed=seed, dropout=dropout)
    said = () if source.kind == "packaged" else scan_model(path)
    if odd := _more_than_lora(path):
        loaded = load_writer(source, None, seed=seed, dropout=dropout)
        return replace(loaded, said=(*loaded.said, _merged_words(odd)))
    loaded = saved_writer(path, kind, dropout=dropout, name=START)
    if isinstance(loaded.model.get_output_embeddings(), BaseTunerLayer):  # the head is read without its adapter
        return replace(loaded, model=loaded.model.merge_and_unload(), said=(*said, _merged_words("adapts the head")))
    loaded.model.requires_grad_(False)
    kept = f"{source.name} starts it: its adapter stays as it is, and a new one learns beside it"
    return replace(loaded, said=(*said, kept))


def _merged_words(reason: str) -> str:
    return f"the starting adapter {reason}, so it is merged into its base, and a new one learns on top"


def _more_than_lora(path: Path) -> str | None:
    """What an adapter has that a low-rank product on linear layers hasn't, in words; None: nothing."""
    config = read_json(path / "adapter_config.json")
    if config.get("peft_type") != "LORA":
        return f"is of the kind {config.get('peft_type')}"
    if config.get("bias", "none") != "none" or config.get("init_lora_weights") not in _INITS:
        return "changes weights of the base" if config.get("bias", "none") == "none" else "trains biases"
    if more := sorted(name for name, value in config.items() if value and name not in _PLAIN):
        return f"uses {more[0]}"
    others = sorted(n for n in adapter_shapes(path) if not n.endswith((".lora_A.weight", ".lora_B.weight")))
    return f"brings {others[0].removeprefix('base_model.model.')}" if others else None


def has_start(model: Any) -> bool:
    """Whether a frozen starting adapter is active in this model."""
    return START in getattr(model, "peft_config", {})


def add_beside(model: Any, config: Any) -> Any:
    """The new adapter of this LoraConfig beside "start": both active, only the new one learns. Returns the model."""
    assert has_start(model) and not config.modules_to_save, "only adapters can stand beside each other"
    with quiet():
        model.add_adapter(NEW, config)
        model.set_adapter(NEW)  # what PEFT calls the active one, of which it can only name one
    for layer in _adapted(model):
        leave_frozen(layer, START)
        layer.set_adapter([name for name in (START, NEW) if name in layer.lora_A])
        if START in layer.lora_A:
            layer.lora_dropout[START] = nn.Identity()  # it was tuned with dropout, and now it only answers
    return model


def leave_frozen(layer: Any, name: str) -> None:
    """Nothing of PEFT's that switches adapters off and on shall make this one learn."""
    layer.frozen_peft_weight_names = {**layer.frozen_peft_weight_names, name: layer.adapter_layer_names}


# ---- the reference ----


@contextlib.contextmanager
def reference_of(model: Any) -> Generator[None]:
    """Inside, the model answers as it did when training began: the adapter that learns is off, "start" stays on.

    Costs no memory, may be nested, and leaves alone what requires a gradient. Only for models with adapters; one that
    learns whole needs `reference_model`, and `Reference` serves both.
    """
    assert hasattr(model, "peft_config"), "a model that learns whole holds no reference"
    layers = [(layer, layer.active_adapters) for layer in _adapted(model)]
    wholes = [(m, m.disable_adapters) for m in model.modules() if isinstance(m, AuxiliaryTrainingWrapper)]
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    try:
        for layer, active in layers:
            layer.set_adapter([name for name in active if name != NEW], inference_mode=True)
        for whole, _ in wholes:
            whole.enable_adapters(False)
        yield
    finally:
        for layer, active in layers:
            layer.set_adapter(active, inference_mode=True)
        for whole, was_off in wholes:
            whole.enable_adapters(not was_off)
        learn_only(model, learns)


def _adapted(model: Any) -> Iterable[Any]:
    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def learn_only(model: Any, names: Collection[str]) -> None:
    """These parameters require a gradient, and no other."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def reference_model(model: Any) -> Any:
    """A frozen deep copy, in evaluation: the reference of a model that learns whole. As large as the model."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@dataclass(frozen=True)
class Reference:
    """The starting model as a forward to call: the policy's own with the new adapter off, or that of a frozen copy."""

    policy: Forward
    copied: Forward | None = None  # None: the policy has adapters

    @classmethod
    def of(cls, policy: Forward) -> Reference:
        """Of a policy that hasn't learned yet: call it before a checkpoint is read into the model."""
        if hasattr(policy.model, "peft_config"):
            return cls(policy)
        return cls(policy, replace(policy, model=reference_model(policy.model), notes=[]))

    @contextlib.contextmanager
    def running(self) -> Generator[Forward]:
        """The forward that answers as the reference inside. Gradients are the caller's to switch off."""
        if self.copied is not None:
            yield self.copied
            return
        with reference_of(self.policy.model):
            yield self.policy
