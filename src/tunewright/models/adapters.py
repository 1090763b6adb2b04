"""What an adapter's folder says before anything is loaded: its base, the shapes of its weights, its labels.

`loading` builds the model from it. Reads JSON and the headers of safetensors, no weights.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tunewright.errors import ModelError
from tunewright.models import packaged
from tunewright.models.finding import BaseModel, from_hub, resolve_base

WEIGHTS = "adapter_model.safetensors"
OUTPUTS = (".score.weight", ".classifier.weight", ".classifier.out_proj.weight")  # one row per class
Shapes = Mapping[str, tuple[int, ...]]


def adapter_base(path: Path, endpoint: str | None) -> BaseModel:
    """The base an adapter names: a folder, a packaged model by its Hub id, or a Hub model at its revision."""
    if not (path / WEIGHTS).is_file():
        raise ModelError(f"no {WEIGHTS} beside adapter_config.json", where=str(path))
    config = _adapter_config(path)
    name = config["base_model_name_or_path"]
    if Path(name).is_dir():
        if Path(name).resolve() == path.resolve():
            raise ModelError("adapter_config.json names its own folder as the base model", where=str(path))
        return BaseModel(name, name, "folder")
    moved = packaged.by_path(name)
    if moved:  # saved in another environment
        return resolve_base(moved)
    known = packaged.by_hub_id(name)
    if known:
        with contextlib.suppress(OSError):  # not installed: the Hub has it too
            return resolve_base(known)
    if name.startswith(("/", ".")):
        raise ModelError(f"its base model {name} is gone; put it back, or edit adapter_config.json", where=str(path))
    return from_hub(name, config.get("revision"), endpoint)


def _adapter_config(path: Path) -> dict[str, Any]:
    from peft import PeftType

    try:
        config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        name, method = config["base_model_name_or_path"], config.get("peft_type")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise ModelError("adapter_config.json names no base model", where=str(path)) from None
    if not isinstance(name, str) or not name:
        raise ModelError("adapter_config.json names no base model", where=str(path))
    # These put virtual tokens before the text, where a pooled token and a text's length no longer mean what they say.
    if method in (PeftType.PROMPT_TUNING, PeftType.P_TUNING, PeftType.PREFIX_TUNING, PeftType.MULTITASK_PROMPT_TUNING):
        raise ModelError(f"{method} adapters can't be used here; LoRA and its kin can", where=str(path))
    return config


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


def check_head(new_parameters: Iterable[str], shapes: Shapes, path: Path) -> None:
    """What the base doesn't bring has to come with the adapter, or the answers would be random."""
    for name in sorted(new_parameters):
        if f"base_model.model.{name}" not in shapes:
            raise ModelError(
                f"no classifier: {name} is neither in the adapter nor in its base; give the folder of a trained one",
                where=str(path),
            )
