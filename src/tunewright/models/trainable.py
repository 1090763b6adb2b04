"""Which parameters learn: all of them, the new head alone, or low-rank adapters beside the head.

The one seam of this choice: nothing else asks which it was. PEFT implements LoRA and its file format.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from tunewright.errors import ModelError, did_you_mean
from tunewright.models import architectures
from tunewright.models.heads import head_modules, is_in
from tunewright.models.starting import add_beside, has_start
from tunewright.models.writers import kind_of_model


@dataclass(frozen=True)
class TrainableSpec:
    """The recipe's choice, with nothing left to decide."""

    method: str  # full, head, lora
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] | str = "all-linear"
    last_layers: int | None = None  # None: all


@dataclass(frozen=True)
class TrainableReport:
    """How many parameters learn, and from which layer up."""

    trainable: int
    total: int
    names: tuple[str, ...]
    lowest_layer: int  # lowest layer with a trainable parameter; number of layers if only the head is

    @property
    def fraction(self) -> float:
        return self.trainable / self.total


@dataclass(frozen=True)
class Trainable:
    """The model, wrapped where adapters were added, and what learns in it."""

    model: Any
    report: TrainableReport
    said: tuple[str, ...] = ()


def choose(model: Any, spec: TrainableSpec, head: tuple[str, ...]) -> Trainable:
    """Freeze and wrap. Raises ModelError when targets or layers don't exist in this model.

    `head`: the modules that learn whole. A language model's `head` is its output layer, besides.
    """
    said: tuple[str, ...] = ()
    assert spec.method == "lora" or not has_start(model), "a starting adapter stands beside another adapter alone"
    if spec.last_layers is not None:
        _check_layers(_plain(model), spec.last_layers)
    if spec.method == "head" and kind_of_model(model):
        said = _give_own_head(model)
        head = (*head, _output_name(model))
    if spec.method == "lora":
        model = _with_adapters(model, spec, head)
    else:
        lowest = _first_layer(model, spec.last_layers)
        for name, parameter in model.named_parameters():
            inside = _layer_of(model, name)
            learns = spec.last_layers is None or (inside is not None and inside >= lowest)
            parameter.requires_grad_(is_in(name, head) or (spec.method == "full" and learns))
    return Trainable(model, report(model), said)


# ---- the head of a language model ----


def _output_name(model: Any) -> str:
    """Dotted name of the layer that turns a hidden state into words."""
    output = model.get_output_embeddings()
    return next(name for name, module in model.named_modules() if module is output)


def _give_own_head(model: Any) -> tuple[str, ...]:
    """An output layer of its own where it is tied to the embedding, which would learn along. Says what it costs."""
    output = model.get_output_embeddings()
    if output.weight is not model.get_input_embeddings().weight:
        return ()
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"the head of this {model.config.model_type} model is its embedding, which learns with the layers; "
            "use lora or full",
            field="trainable.method",
        )
    for name, parameter in list(output.named_parameters(recurse=False)):  # a bias is tied as well
        setattr(output, name, nn.Parameter(parameter.detach().clone()))
    model.config.tie_word_embeddings = False
    size = output.weight.numel()
    return (
        f"head: the output layer gets its own copy of the embedding and learns alone; the saved model grows by "
        f"{size:,} parameters ({4 * size / 1e6:,.0f} MB)",
    )


def lora_arithmetic(d: int, k: int, rank: int) -> int:
    """Parameters of one adapter: B is d x r, A is r x k (Hu et al. 2021), instead of d x k."""
    return rank * (d + k)


def report(model: Any) -> TrainableReport:
    """Count what requires a gradient, and what there is: the base's parameters and the adapters'."""
    parameters = dict(model.named_parameters())
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    # PEFT keeps the untouched head beside the trained copy; counting both would count the head twice.
    total = sum(p.numel() for name, p in parameters.items() if ".original_module." not in name)
    return TrainableReport(
        sum(p.numel() for p in trainable.values()), total, tuple(trainable), _lowest_layer(_plain(model), trainable)
    )


def _plain(model: Any) -> Any:
    """The model that adapters were put into."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _lowest_layer(model: Any, trainable: Iterable[str]) -> int:
    """0 where the layers aren't described or something below them learns."""
    if architectures.find(model) is None:
        return 0
    head = head_modules(model)
    inside = {name: _layer_of(model, name) for name in trainable}
    if any(layer is None and not is_in(name.removeprefix("base_model.model."), head) for name, layer in inside.items()):
        return 0
    return min((layer for layer in inside.values() if layer is not None), default=len(_layers(model)))


def _layers(model: Any) -> nn.ModuleList:
    row = architectures.find(model)
    if row is None:
        raise ModelError(
            f"layers of {model.config.model_type} aren't described here; use layers: all", field="trainable.layers"
        )
    return getattr(model, model.base_model_prefix).get_submodule(row.layers)


def _layer_of(model: Any, name: str) -> int | None:
    """Index of the layer a parameter lies in, or None."""
    row = architectures.find(model)
    if row is None:
        return None
    _, found, rest = name.partition(f"{model.base_model_prefix}.{row.layers}.")
    return int(rest.split(".")[0]) if found else None


def _check_layers(model: Any, last_layers: int) -> None:
    there = len(_layers(model))
    if last_layers > there:
        raise ModelError(
            f"trainable.layers is last {last_layers}; this model has {there} layers", field="trainable.layers"
        )


def _first_layer(model: Any, last_layers: int | None) -> int:
    return 0 if last_layers is None else len(_layers(model)) - last_layers


# ---- adapters ----


PEFT_TASKS = {None: "SEQ_CLS", "causal": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM", "masked": None}


def _with_adapters(model: Any, spec: TrainableSpec, head: tuple[str, ...]) -> Any:
    from peft import LoraConfig, get_peft_model

    inner = _plain(model)
    targets = _targets(inner, spec, head)
    config = LoraConfig(
        task_type=PEFT_TASKS[kind_of_model(model)],
        # GPT-2 stores its weights transposed.
        fan_in_fan_out=all(isinstance(_own_layer(inner.get_submodule(name)), Conv1D) for name in targets),
        r=spec.rank,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]  # PEFT takes fractions too
        lora_dropout=spec.dropout,
        target_modules=targets,
        modules_to_save=list(head) or None,
    )
    if has_start(model):
        return add_beside(model, config)
    wrapped: Any = get_peft_model(model, config)
    wrapped.peft_config["default"].modules_to_save = list(head) or None  # PEFT adds suffixes that also match elsewhere
    return wrapped


def _targets(model: Any, spec: TrainableSpec, head: tuple[str, ...]) -> list[str]:
    """Full names of the linear layers that get an adapter: exact, so that no suffix matches elsewhere."""
    linear = _linear_layers(model, head)
    if spec.last_layers is not None:
        lowest = _first_layer(model, spec.last_layers)
        linear = [name for name in linear if (_layer_of(model, f"{name}.weight") or 0) >= lowest]
    chosen: list[str] = []
    if spec.targets == "all-linear":
        described = architectures.find(model) is not None
        chosen = [name for name in linear if not described or _layer_of(model, f"{name}.weight") is not None]
    for target in spec.targets if isinstance(spec.targets, list) else []:
        matches = [name for name in linear if name == target or name.endswith(f".{target}")]
        if kind_of_model(model) and target == _output_name(model):
            says = f'"{target}" gives the words and takes no adapter; method head trains it'
            raise ModelError(says, field="trainable.targets")
        if not matches:
            raise _unknown_target(target, linear)
        chosen += matches
    if not chosen:
        raise ModelError("there is no linear layer to adapt; name some as targets", field="trainable.targets")
    return list(dict.fromkeys(chosen))


def _linear_layers(model: Any, head: tuple[str, ...]) -> list[str]:
    """Full names. Left out are the head's own, which learn whole, and what gives the words: often the embedding.

    A layer that has an adapter already counts as the linear layer it is; the adapter's own matrices don't.
    """
    output = model.get_output_embeddings() if kind_of_model(model) else None
    adapted = [name for name, module in model.named_modules() if hasattr(module, "base_layer")]
    return [
        name
        for name, module in model.named_modules()
        if isinstance(_own_layer(module), (nn.Linear, Conv1D))
        and not (is_in(f"{name}.", head) or is_in(name, adapted) or module is output)
    ]


def _own_layer(module: Any) -> Any:
    """What a layer is beneath its adapters."""
    return getattr(module, "base_layer", module)


def _unknown_target(target: str, linear: list[str]) -> ModelError:
    there = sorted({name.split(".")[-1] for name in linear})
    return ModelError(
        f'no linear layer is called "{target}"; there are {", ".join(there)}.{did_you_mean(target, there)}',
        field="trainable.targets",
    )
