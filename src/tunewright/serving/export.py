"""A run's model as files for other tools: one merged model, or the adapter alone.

Written beside the target and renamed once; what was merged is compared with what was not before anyone sees it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError

from tunewright.data.written import PROMPT_FORMAT
from tunewright.errors import MachineError, ModelError, TunewrightError, UsageError
from tunewright.models import packaged
from tunewright.models.calibrated import FILE as CALIBRATION
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.loading import load_saved
from tunewright.models.quiet import quiet
from tunewright.models.saving import rewrite_adapter_base
from tunewright.models.writers import probe_logits
from tunewright.scanning.models import copy_model, scan_model
from tunewright.serving.reward_model import REWARD

TOLERANCE = 1e-4  # fp32, relative to the largest logit: merging adds the same numbers in another order
PROBE_TEXTS, PROBE_TOKENS = 6, 16


def export(model_folder: Path, to: Literal["adapter", "merged"], output: Path) -> Path:
    """Write the folder and return it. Raises UsageError if it is taken, ModelError if merging changed the answers."""
    model_folder, output = Path(model_folder), Path(output)
    target = output.absolute()
    has_adapter = _check(model_folder, to, target)
    scan_model(model_folder)
    writing = target.with_name(f".{target.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    try:
        if to == "merged" and has_adapter:
            _merge(model_folder, writing)
        else:
            copy_model(model_folder, writing)
        if to == "adapter":
            # A path of this machine means nothing elsewhere; without a known Hub id it stays, and works here.
            rewrite_adapter_base(writing, packaged.hub_id_of)
        if target.is_dir():
            target.rmdir()
        writing.rename(target)
    except TunewrightError:
        raise
    except (OSError, SafetensorError) as error:  # safetensors has its own words for a full disk
        reason = getattr(error, "strerror", None) or error
        raise MachineError(f"can't be written ({reason})", where=str(output)) from None
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    return output


def _check(model_folder: Path, to: str, target: Path) -> bool:
    """Whether there is an adapter; raises before anything is written."""
    if to not in ("adapter", "merged"):
        raise UsageError(f'"{to}" is nothing to export to; expected adapter or merged', field="--to")
    if not model_folder.is_dir():
        raise ModelError("there is no such model folder; finish the run first", where=str(model_folder))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError("is there already; name a new folder", where=str(target), field="-o")
    has_adapter = (model_folder / "adapter_config.json").exists()
    if to == "adapter" and not has_adapter:
        raise UsageError("there is no adapter, the whole model was trained; use --to merged", field="--to")
    return has_adapter


def _merge(model_folder: Path, folder: Path) -> None:
    """One model without PEFT, equal to the two parts."""
    loaded = load_saved(model_folder)
    probe = _probe(loaded.model.get_input_embeddings().weight.shape[0], loaded.max_length)
    answers = probe_logits if loaded.labels is None else predict_logits
    before = answers(Forward(loaded.model), probe)
    with quiet():
        loaded.model.merge_and_unload().save_pretrained(str(folder))
        loaded.tokenizer.save_pretrained(str(folder))
    _keep_format(model_folder, folder)
    after = answers(Forward(load_saved(folder).model), probe)
    difference = float(np.abs(before - after).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(before).max())):
        raise ModelError(f"the merged model answers differently (by {difference:.2g})", where=str(model_folder))


def _keep_format(model_folder: Path, folder: Path) -> None:
    """How prompts are made, how sure answers are, where scores have their zero: they go where the model goes."""
    for name in (PROMPT_FORMAT, CALIBRATION, REWARD):
        if (model_folder / name).is_file():
            shutil.copy2(model_folder / name, folder / name)


def _probe(vocabulary: int, max_length: int | None) -> list[list[int]]:
    """Texts of arbitrary tokens and several lengths."""
    longest = min(max_length or PROBE_TOKENS, PROBE_TOKENS)
    lengths = [max(1, longest * (i + 1) // PROBE_TEXTS) for i in range(PROBE_TEXTS)]
    return [[(7 * i + j + 1) % vocabulary for j in range(length)] for i, length in enumerate(lengths)]
