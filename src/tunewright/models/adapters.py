"""What an adapter's folder says before anything is loaded: its base, the shapes of its weights, its labels.

`loading` builds the model from it. Reads JSON and the headers of safetensors, no weights. The folder was scanned by
whoever loads it; the base that it names is scanned here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from tunewright.errors import ModelError, did_you_mean
from tunewright.models import packaged
from tunewright.models.finding import BaseModel, from_hub, gguf_again, resolve_base
from tunewright.scanning.models import scan_model
from tunewright.scanning.settings import read_json

WEIGHTS = "adapter_model.safetensors"
OUTPUTS = (".score.weight", ".classifier.weight", ".classifier.out_proj.weight")  # one row per class
# PEFT's names of what an adapter's model does, where it writes.
TASKS: dict[str, Literal["causal", "encoder-decoder"]] = {"CAUSAL_LM": "causal", "SEQ_2_SEQ_LM": "encoder-decoder"}
Shapes = Mapping[str, tuple[int, ...]]
# Of PEFT's methods those that change weights. Not here: virtual tokens before the text, where a pooled token and a
# text's length no longer mean what they say, and XLORA and SHADOW, which fetch models that nobody has scanned.
METHODS = frozenset(
    {
        *("LORA", "ADALORA", "ADAMSS", "BOFT", "IA3", "BEFT", "LILY", "LOHA", "LOKR"),
        *("OFT", "LN_TUNING", "VERA", "FROD", "PVERA", "FOURIERFT", "GLORA", "HRA", "VBLORA"),
        *("UNILORA", "MISS", "RANDLORA", "ROAD", "TRAINABLE_TOKENS", "HIRA", "SHIRA", "C3A", "WAVEFT"),
        *("OSF", "DELORA", "GRALORA", "TINYLORA", "PSOFT", "PEANUT", "DEFT"),
    }
)


def adapter_base(path: Path, endpoint: str | None, below: tuple[Path, ...] = ()) -> BaseModel:
    """The base an adapter names: a folder, a packaged model by its Hub id, or a Hub model at its revision.

    `below`: the adapters that stand on this one. A base may be an adapter too, but none of those.
    """
    if not (path / WEIGHTS).is_file():
        raise ModelError(f"no {WEIGHTS} beside adapter_config.json", where=str(path))
    base = _named_base(path, _adapter_config(path), endpoint)
    if base.kind != "packaged":
        scan_model(Path(base.path))
    if (Path(base.path) / "adapter_config.json").exists():
        chain = (*below, path.resolve())
        if Path(base.path).resolve() in chain:
            raise ModelError("adapters name each other as base models, in a circle", where=str(path))
        adapter_base(Path(base.path), endpoint, chain)
    return base


def _named_base(path: Path, config: Mapping[str, Any], endpoint: str | None) -> BaseModel:
    name = config["base_model_name_or_path"]
    if ".." in Path(name).parts or name.startswith("~") or not name.isprintable():
        raise ModelError(
            f"its base model {name!r} is no path that an adapter may name; edit adapter_config.json", where=str(path)
        )
    if Path(name).is_dir():
        if Path(name).resolve() == path.resolve():
            raise ModelError("adapter_config.json names its own folder as the base model", where=str(path))
        return BaseModel(name, name, "folder")
    moved = packaged.by_path(name)
    if moved:  # saved in another environment
        return resolve_base(moved)
    if converted := gguf_again(name):  # the cache is elsewhere, or was emptied
        return converted
    known = packaged.by_hub_id(name)
    if known:
        with contextlib.suppress(OSError):  # not installed: the Hub has it too
            return resolve_base(known)
    if name.startswith(("/", ".")):
        raise ModelError(f"its base model {name} is gone; put it back, or edit adapter_config.json", where=str(path))
    return from_hub(name, config.get("revision"), endpoint)


def _adapter_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path / "adapter_config.json")
        name, method = config["base_model_name_or_path"], config.get("peft_type")
    except (ModelError, LookupError, TypeError, AttributeError):
        raise ModelError("adapter_config.json names no base model", where=str(path)) from None
    if not isinstance(name, str) or not name:
        raise ModelError("adapter_config.json names no base model", where=str(path))
    if method not in METHODS:
        raise ModelError(
            f"adapter can't be loaded: {str(method)[:60]} adapters can't be used here; LoRA and its kin can."
            f"{did_you_mean(str(method), METHODS)}",
            where=str(path / "adapter_config.json"),
            field="peft_type",
        )
    return config


def adapter_task(path: Path) -> str | None:
    """What PEFT says an adapter's model is for (SEQ_CLS, CAUSAL_LM, …), where it says something."""
    with contextlib.suppress(ModelError, AttributeError):  # whoever loads it says what is wrong
        task = read_json(path / "adapter_config.json").get("task_type")
        return task if isinstance(task, str) else None
    return None


def adapter_shapes(path: Path) -> Shapes:
    """Shape of every tensor of an adapter, by name as PEFT writes it."""
    try:
        with safe_open(path / WEIGHTS, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"adapter can't be loaded ({error})", where=str(path)) from None


def count_labels(config: Any, shapes: Shapes) -> None:
    """As many labels in the config as the adapter's head has outputs: plain PEFT saves no config of its own."""
    for name, shape in shapes.items():
        if name.endswith(OUTPUTS):
            config.num_labels = shape[0]


def check_tensors(model: Any, shapes: Shapes, path: Path, name: str = "default") -> None:
    """The adapter brings what its config promises and nothing else; PEFT would fill up and leave out without a word."""
    from peft import get_peft_model_state_dict

    wanted = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    missing, unknown = sorted(wanted - set(shapes)), sorted(n for n in set(shapes) - wanted if "embed" not in n)
    if missing or unknown:
        found = f"{missing[0]} is missing" if missing else f"{unknown[0]} belongs to nothing in the model"
        more = f" (and {len(missing or unknown) - 1} more)" if len(missing or unknown) > 1 else ""
        raise ModelError(
            f"adapter can't be loaded: {found}{more}; it was made for another base or config", where=str(path / WEIGHTS)
        )


def check_head(new_parameters: Iterable[str], shapes: Shapes, path: Path, what: str = "classifier") -> None:
    """What the base doesn't bring has to come with the adapter, or the answers would be random."""
    for name in sorted(new_parameters):
        if f"base_model.model.{name}" not in shapes:
            raise ModelError(
                f"no {what}: {name} is neither in the adapter nor in its base; give the folder of a trained one",
                where=str(path),
            )
