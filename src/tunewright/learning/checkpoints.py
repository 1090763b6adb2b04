"""Checkpoints that survive any kill: whole or absent, and verified before they are trusted.

A checkpoint is written to a temporary folder, fsynced file by file, given a manifest of sizes and SHA-256, renamed
once, and its parent fsynced. `newest` believes a manifest, never a name. Weights, optimizer and random state are
safetensors, the rest is JSON: nothing here can run code. At least two are kept, and the best.

    checkpoints/step-000500/  weights.safetensors  optimizer.safetensors  state.json  manifest.json
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunewright.errors import MachineError, ModelError, UsageError

VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint on disk."""

    path: Path
    step: int
    state: Mapping[str, Any]  # the loop's state.json, with `identity`

    def weights(self) -> dict[str, Tensor]:
        """Trainable parameters by name."""
        return load_file(self.path / "weights.safetensors")

    def optimizer(self) -> dict[str, Tensor]:
        """Moments and step counts by parameter name, and the random state."""
        return load_file(self.path / "optimizer.safetensors")


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run."""

    folder: Path
    identity: Mapping[str, Any]  # what a resumed run must share: recipe, data, base, versions, world
    keep: int = 2

    def save(
        self, step: int, weights: dict[str, Tensor], optimizer: dict[str, Tensor], state: Mapping[str, Any]
    ) -> Path:
        """Write the checkpoint of this step; an equal one that is already whole is left alone. Raises MachineError."""
        final = self.folder / f"step-{step:06d}"
        temporary = self.folder / f".writing-step-{step:06d}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            save_file(_contiguous(weights), temporary / "weights.safetensors")
            save_file(_contiguous(optimizer), temporary / "optimizer.safetensors")
            body = {"version": VERSION, "step": step, "identity": dict(self.identity), **state}
            (temporary / "state.json").write_text(json.dumps(body, indent=1), encoding="utf-8")
            for file in sorted(temporary.iterdir()):
                _fsync(file)
            manifest = {file.name: _entry(file) for file in sorted(temporary.iterdir())}
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            _fsync(temporary / "manifest.json")
            _fsync(temporary)
            replaced = self.folder / f".replaced-step-{step:06d}"
            if final.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                final.rename(replaced)
            temporary.rename(final)
            _fsync(self.folder)
            shutil.rmtree(replaced, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise MachineError(
                f"checkpoint of step {step} can't be written ({_reason(error)}); the one before it is whole: "
                "make room, then start with --resume",
                where=str(self.folder),
            ) from None
        return final

    def prune(self, best_step: int | None) -> None:
        """Remove all but the newest `keep` and the best. Called only after a newer one is whole."""
        steps = sorted(_steps(self.folder))
        for step in steps[: -self.keep]:
            if step != best_step:
                shutil.rmtree(self.folder / f"step-{step:06d}", ignore_errors=True)

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that verifies, and a sentence for each newer one that doesn't."""
        said = []
        for step in sorted(_steps(self.folder), reverse=True):
            try:
                return self.load(step), said
            except ModelError as error:
                said.append(f"{error}; using the one before")
        return None, said

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of this step. Raises ModelError if it is torn."""
        path = self.folder / f"step-{step:06d}"
        verify(path)
        return Checkpoint(path, step, json.loads((path / "state.json").read_text(encoding="utf-8")))

    def check_identity(self, checkpoint: Checkpoint) -> None:
        """Raises UsageError naming the first thing that changed since the checkpoint was written."""
        then = checkpoint.state.get("identity", {})
        for name, now in self.identity.items():
            if then.get(name) != now:
                raise UsageError(
                    f"can't resume: {name} was {_short(then.get(name))} and is now {_short(now)}; "
                    "continuing would not be the same run. Restore it, or start a new run",
                    where=str(checkpoint.path),
                    field=name,
                )


def verify(path: Path) -> None:
    """Raises ModelError unless every file is there with the size and SHA-256 of the manifest."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        wanted = {"weights.safetensors", "optimizer.safetensors", "state.json"}
        if not isinstance(manifest, dict) or set(manifest) != wanted:
            raise ValueError("manifest.json doesn't list the checkpoint's files")
        for name, entry in manifest.items():
            if _entry(path / name) != entry:
                raise ValueError(f"{name} isn't what was written")
    except (OSError, ValueError) as error:
        raise ModelError(f"checkpoint is damaged ({_reason(error)})", where=str(path)) from None


# ---- the state of a model and an optimizer, as named tensors ----


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the trainable parameters by name, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def load_trainable(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put saved parameters back in place. Raises ModelError if the names differ."""
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())[0]
        raise ModelError(f"checkpoint and model don't have the same trainable parameters ({odd})")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put these parameters in place, whichever require a gradient now. Raises ModelError for an unknown name."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in weights.items():
            if name not in own or own[name].shape != tensor.shape:
                raise ModelError(f"checkpoint and model don't fit ({name})")
            own[name].copy_(tensor)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name, and the random state of the CPU and the device."""
    tensors = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach().cpu().clone()
    return tensors


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the optimizer's and the random state back."""
    named = dict(model.named_parameters())
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition("/")
        if key != "random":
            parameter = named[name]
            device = parameter.device if key != "step" else optimizer.state[parameter].get("step", tensor).device
            optimizer.state[parameter][key] = tensor.to(device).clone()
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])


# ---- files ----


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(p.name[5:]) for p in folder.iterdir() if p.name.startswith("step-") and p.name[5:].isdigit()]


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _entry(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0] if str(error) else type(error).__name__


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
