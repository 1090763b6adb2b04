"""The final model on disk: what plain transformers and PEFT load, and proof that it answers as the one in memory.

safetensors and JSON only. The tokenizer carries how long a text may be and on which side it is cut.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file

from tunewright import durable
from tunewright.data.labels import LabelSpec
from tunewright.errors import MachineError, ModelError, TunewrightError
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.joining import check_joined, save_joined
from tunewright.models.loading import BaseModel, load_saved
from tunewright.models.quiet import quiet
from tunewright.models.starting import NEW, has_start, reference_of
from tunewright.models.writers import kind_of_model, probe_logits

TOLERANCE = 1e-5  # fp32: GEMM rows change their last bits with the shape of a batch
JOINED_TOLERANCE = 0.1  # bf16 rounds after each of two adapters, and once after a joined one; measured: up to 0.02


@dataclass(frozen=True)
class SavedModel:
    """What was written."""

    bytes: int  # of the weights
    files: tuple[str, ...]


def save_model(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    base: BaseModel,
    labels: LabelSpec | None,
    max_length: int,
    truncate: str,
    check: Callable[[Path], None] = lambda written: None,
) -> SavedModel:
    """Write the model folder whole, `check` it, then put it in place. Raises MachineError, and what `check` raises."""
    writing = folder.with_name(f".writing-{folder.name}")
    durable.reached(f"begin save {folder}")
    try:
        durable.make_folder(writing)
        with quiet():
            if hasattr(model, "peft_config"):
                _save_adapter(model, writing, base)
            else:
                model.save_pretrained(str(writing))
            _save_tokenizer(tokenizer, writing, max_length, truncate)
        check(writing)
        durable.sync_tree(writing)
        durable.put_in_place(writing, folder)
    except BaseException as error:
        _give_up(writing, folder, error)
        raise
    durable.reached(f"end save {folder}")
    files = tuple(sorted(p.name for p in folder.iterdir()))
    return SavedModel(sum((folder / f).stat().st_size for f in files if f.endswith(".safetensors")), files)


def _give_up(writing: Path, folder: Path, error: BaseException) -> None:
    """Nothing half written stays; a full disk is one sentence, whether the system or safetensors says it."""
    with contextlib.suppress(OSError):
        durable.remove_folder(writing)
    if isinstance(error, SafetensorError):
        error = durable.as_os_error(error)
    if isinstance(error, OSError) and not isinstance(error, TunewrightError):
        raise MachineError(f"model can't be written ({durable.reason(error)})", where=str(folder)) from None


def _save_adapter(model: Any, folder: Path, base: BaseModel) -> None:
    """PEFT's files, and the config with the labels' names beside them. With a start beside it, both as one adapter."""
    if has_start(model):
        save_joined(model, folder)
    else:
        _save_only_adapter(model, folder, base)
    _sort_lists(folder / "adapter_config.json")
    inner = model.get_base_model()
    if kind_of_model(model):
        inner.config.architectures = [type(inner).__name__]  # PEFT has no word for a model that fills gaps
    inner.config.save_pretrained(str(folder))


def _save_only_adapter(model: Any, folder: Path, base: BaseModel) -> None:
    config = model.peft_config["default"]
    own = config.base_model_name_or_path, config.revision
    config.base_model_name_or_path = base.hub_id if base.kind == "hub" else base.path
    config.revision = base.revision
    try:
        model.save_pretrained(
            str(folder), safe_serialization=True, save_embedding_layers=False, selected_adapters=[NEW]
        )
    finally:
        config.base_model_name_or_path, config.revision = own
    _drop_readme(folder)


def _drop_readme(folder: Path) -> None:
    """PEFT writes an empty card; ours is written when there is something to say."""
    (folder / "README.md").unlink(missing_ok=True)


def _sort_lists(path: Path) -> None:
    """PEFT writes sets in any order; sorted, two runs of one recipe write the same file."""
    body = json.loads(path.read_text(encoding="utf-8"))
    for name in ("target_modules", "modules_to_save"):
        if isinstance(body.get(name), list):
            body[name] = sorted(body[name])
    path.write_text(json.dumps(body, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def rewrite_adapter_base(folder: Path, hub_id_of: Callable[[str], str | None]) -> bool:
    """Put a Hub id in the place of a base model's local path; returns whether the adapter now names one."""
    path = folder / "adapter_config.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    name = str(body["base_model_name_or_path"])
    if not Path(name).is_absolute():
        return True
    hub_id = hub_id_of(name)
    if hub_id is None:
        return False
    path.write_text(json.dumps(body | {"base_model_name_or_path": hub_id}, indent=2, sort_keys=True) + "\n")
    return True


def _save_tokenizer(tokenizer: Any, folder: Path, max_length: int, truncate: str) -> None:
    tokenizer.save_pretrained(str(folder))
    # transformers writes neither from the attributes of a loaded tokenizer.
    path = folder / "tokenizer_config.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    body |= {"model_max_length": max_length, "truncation_side": truncate}
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def verify_saved(forward: Forward, folder: Path, probe: Sequence[list[int]]) -> None:
    """Reload the folder and compare logits on a probe; an adapter must also change what the base says.

    One that was joined from two is compared tensor by tensor as well.
    Raises ModelError: a model that doesn't answer as the one in memory is not a model we hand out.
    """
    reloaded = Forward(load_saved(folder).model)
    if has_start(forward.model):
        check_joined(forward.model, reloaded.model)
    reloaded.compute_in(forward.precision)
    answers = probe_logits if kind_of_model(forward.model) else predict_logits
    with _on_cpu(forward.model):
        expected = answers(forward, probe)
    found = answers(reloaded, probe)
    difference = float(np.abs(expected - found).max())
    if not difference <= _tolerance(forward) * max(1.0, float(np.abs(expected).max())):
        raise ModelError(
            f"the saved model answers differently from the one in memory (by {difference:.2g})", where=str(folder)
        )
    if hasattr(reloaded.model, "peft_config") and _was_trained(folder):
        with reloaded.model.disable_adapter():
            _keep_trained_head(reloaded.model)
            without = answers(reloaded, probe)
        if np.array_equal(found, without) or _learned_nothing(forward, expected, probe):
            raise ModelError(
                "the saved adapter changes nothing: it is dead; if training.learning_rate is high, lower it",
                where=str(folder),
            )


def _tolerance(forward: Forward) -> float:
    """How far logits of the saved model may be off, as a share of the largest."""
    return JOINED_TOLERANCE if has_start(forward.model) and forward.precision == "bf16" else TOLERANCE


def _learned_nothing(forward: Forward, expected: np.ndarray, probe: Sequence[list[int]]) -> bool:
    """Whether what stands beside a starting adapter was trained, and yet the model answers as at the start."""
    if not has_start(forward.model):
        return False
    trained = any(bool(p.any()) for name, p in forward.model.named_parameters() if f".lora_B.{NEW}." in name)
    with _on_cpu(forward.model), reference_of(forward.model):
        return trained and np.array_equal(expected, probe_logits(forward, probe))


@contextlib.contextmanager
def _on_cpu(model: Any) -> Generator[None]:
    """Compared where the reloaded one is, then put back: the run still judges the model."""
    device = next(model.parameters()).device
    model.to("cpu")
    try:
        yield
    finally:
        model.to(device)


def _was_trained(folder: Path) -> bool:
    tensors = load_file(folder / "adapter_model.safetensors")
    return any(bool(tensor.any()) for name, tensor in tensors.items() if "lora_B" in name)


def _keep_trained_head(model: Any) -> None:
    """PEFT also puts the untrained head back; the trained one must stay, or a new head would pass for an adapter."""
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.enable_adapters(True)
