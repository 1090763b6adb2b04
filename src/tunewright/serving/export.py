"""A run's model as files for other tools: one merged model, or the adapter alone.

Written beside the target and renamed once; what was merged is compared with what was not before anyone sees it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np

from tunewright.errors import MachineError, ModelError, UsageError
from tunewright.models import packaged
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.loading import load_saved, quiet
from tunewright.models.saving import rewrite_adapter_base

TOLERANCE = 1e-4  # relative to the largest logit: merging adds the same numbers in another order


def export(model_folder: Path, to: Literal["adapter", "merged"], output: Path) -> Path:
    """Write the folder and return it. Raises UsageError if it is taken, ModelError if merging changed the answers."""
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError("is there already; name a new folder", where=str(output), field="-o")
    has_adapter = (model_folder / "adapter_config.json").exists()
    if to == "adapter" and not has_adapter:
        raise UsageError("this run trained no adapter; use --to merged", where=str(model_folder), field="--to")
    writing = output.with_name(f".{output.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    try:
        if to == "merged" and has_adapter:
            _merge(model_folder, writing)
        else:
            shutil.copytree(model_folder, writing)
        if to == "adapter":
            _point_to_hub(writing)
        if output.is_dir():
            output.rmdir()
        writing.rename(output)
    except (OSError, shutil.Error) as error:
        if isinstance(error, ModelError):
            raise
        raise MachineError(f"can't be written ({getattr(error, 'strerror', None) or error})", where=str(output)) from None
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    return output


def _merge(model_folder: Path, folder: Path) -> None:
    """One model without PEFT, equal to the two parts."""
    loaded = load_saved(model_folder)
    longest = min(loaded.max_length or 16, 16)
    vocabulary = loaded.model.config.vocab_size
    probe = [[(7 * i + j) % vocabulary for j in range(1, 4 + i % longest)] for i in range(6)]
    before = predict_logits(Forward(loaded.model), probe)
    with quiet():
        merged = loaded.model.merge_and_unload()
        merged.save_pretrained(str(folder))
        loaded.tokenizer.save_pretrained(str(folder))
    after = predict_logits(Forward(load_saved(folder).model), probe)
    difference = float(np.abs(before - after).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(before).max())):
        raise ModelError(f"the merged model answers differently (by {difference:.2g})", where=str(model_folder))


def _point_to_hub(folder: Path) -> None:
    """An exported adapter names its base by Hub id where that is known; a path of this machine means nothing elsewhere."""
    rewrite_adapter_base(folder, packaged.hub_id_of)
