"""The head of a classifier: everything after the last layer, and whatever loading had to invent.

`head` and `lora` train and save all of it. Which layer is last comes from the table of architectures.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from tunewright.models import architectures


def head_modules(model: Any, new_parameters: Iterable[str] = ()) -> tuple[str, ...]:
    """Dotted names of the head's modules, in the model's order, none inside another.

    BERT: bert.pooler, classifier. DistilBERT: pre_classifier, classifier. Llama: model.norm, score.
    """
    body = f"{model.base_model_prefix}."
    outside = [name for name, child in model.named_children() if f"{name}." != body and _has_parameters(child)]
    behind = [f"{body}{name}" for name in _behind_layers(model)]
    new = [name.rpartition(".")[0] for name in new_parameters]
    wanted = {*outside, *behind, *new}
    found = [name for name, _ in model.named_modules() if name in wanted]
    return tuple(name for name in found if not any(name.startswith(f"{other}.") for other in found))


def _behind_layers(model: Any) -> list[str]:
    """Modules of the body that come after its layers: a pooler, a final norm."""
    row = architectures.find(model)
    base = getattr(model, model.base_model_prefix)
    if row is None:
        return [name for name, child in base.named_children() if name == "pooler" and child is not None]
    names = [name for name, child in base.named_children() if child is not None and _has_parameters(child)]
    stack = row.layers.split(".")[0]
    return names[names.index(stack) + 1 :]


def _has_parameters(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())


def is_in(parameter: str, modules: Iterable[str]) -> bool:
    """Whether a parameter's name lies in one of these modules."""
    return any(parameter.startswith(f"{module}.") for module in modules)
