"""Checkpoints that survive any kill: whole or absent, and verified before they are trusted.

A checkpoint is written to a temporary folder, synced file by file, given a manifest of sizes and SHA-256, renamed
once, and its parent synced (`durable`). `newest` believes a manifest, never a name. Weights, optimizer and random state
are safetensors, the rest is JSON: nothing here can run code. At least two are kept, and the best. What they hold of a
model is `learning.tensors`; what a resumed run must share with them is `learning.identity`.

    checkpoints/step-000500/  weights.safetensors  optimizer.safetensors  state.json  manifest.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tunewright import durable
from tunewright.errors import MachineError, ModelError, UsageError
from tunewright.learning.identity import HARMLESS, differences
from tunewright.scanning.files import scan_run
from tunewright.scanning.headers import check_headers

VERSION = 2
MAX_JSON_BYTES = 16 << 20  # of state.json and manifest.json; ours have some kilobytes

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint on disk."""

    path: Path
    step: int
    state: Mapping[str, Any]  # the loop's state.json, with `identity`

    def weights(self) -> dict[str, Tensor]:
        """Trainable parameters by name. Raises ModelError."""
        return _tensors(self.path / "weights.safetensors")

    def optimizer(self) -> dict[str, Tensor]:
        """Moments and step counts by parameter name, and the random state. Raises ModelError."""
        return _tensors(self.path / "optimizer.safetensors")

    def fit(self, kind: type[T]) -> T:
        """The loop's own state. Raises ModelError where it isn't one."""
        try:
            return kind(**self.state["fit"])
        except (KeyError, TypeError) as error:
            raise ModelError(f"state.json doesn't hold a loop's state ({error})", where=str(self.path)) from None


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run."""

    folder: Path
    identity: Mapping[str, Any]  # what a resumed run must share: recipe, data, base, versions, world
    keep: int = 2
    beside: tuple[Path, ...] = ()  # files that must be on the disk before a checkpoint that knows of their rows

    # ---- writing ----

    def save(
        self, step: int, weights: dict[str, Tensor], optimizer: dict[str, Tensor], state: Mapping[str, Any]
    ) -> Path:
        """Write the checkpoint of this step in place of one that is there. Raises MachineError."""
        final, temporary = self._path(step), self.folder / f".writing-step-{step:06d}"
        durable.reached(f"begin save {final}")
        self._make_room()
        try:
            for path in self.beside:
                if path.exists():
                    durable.sync_file(path)
            durable.make_folder(temporary)
            durable.write_tensors(temporary / "weights.safetensors", weights)
            durable.write_tensors(temporary / "optimizer.safetensors", optimizer)
            body = {"version": VERSION, "step": step, "identity": dict(self.identity), **state}
            durable.write_text(temporary / "state.json", json.dumps(body, indent=1))
            manifest = {file.name: _entry(file) for file in sorted(temporary.iterdir())}
            durable.write_text(temporary / "manifest.json", json.dumps(manifest, indent=1))
            durable.put_in_place(temporary, final)
        except OSError as error:
            raise self._failed(step, temporary, error) from None
        durable.reached(f"end save {final}")
        return final

    def _make_room(self) -> None:
        """The folder of the checkpoints, in a run folder that must still be there."""
        try:
            self.folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            raise MachineError(
                "the run's folder was removed or moved while it ran; start a new run", where=str(self.folder.parent)
            ) from None
        except OSError as error:
            raise MachineError(f"can't be written ({durable.reason(error)})", where=str(self.folder)) from None

    def _failed(self, step: int, temporary: Path, error: OSError) -> MachineError:
        """The sentence; what was half written goes, so that there is room to say more."""
        with suppress(OSError):  # the next start removes it
            durable.remove_folder(temporary)
        there = max((s for s in self.steps() if s != step), default=None)
        kept = f"the one of step {there} is whole" if there is not None else "there is none before it"
        return MachineError(
            f"checkpoint of step {step} can't be written ({durable.reason(error)}); {kept}: "
            "mend that, then continue with --resume",
            where=str(self.folder),
        )

    def prune(self, best_step: int | None) -> None:
        """Remove all but the newest `keep` and the best. Called only after a newer one is whole."""
        for step in self.steps()[: -self.keep]:
            if step != best_step:
                durable.remove_folder(self._path(step))

    # ---- reading ----

    def tidy(self) -> None:
        """At a start: undo what a kill left halfway."""
        for path in sorted(self.folder.glob(".replaced-step-*")):
            durable.put_back(self.folder / path.name.removeprefix(".replaced-"))
        durable.remove_leftovers(self.folder)

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint to be trusted, and a sentence for each newer one that isn't; None where there is none.

        Raises ModelError where there are some and every one is damaged: that is for a person to decide.
        """
        damaged: list[str] = []
        for step in reversed(self.steps()):
            try:
                found = self.load(step)
                self._verify_best(found)
            except ModelError as error:
                damaged.append(str(error))
                continue
            return found, [f"{sentence}; using step {step} instead" for sentence in damaged]
        if damaged:
            raise ModelError(
                f"no checkpoint can be trusted, the newest because: {damaged[0]}. Put one back from a copy, or remove "
                "this folder to start again from the base model",
                where=str(self.folder),
            )
        return None, []

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of this step. Raises ModelError if it is torn."""
        path = self._path(step)
        verify(path)
        return Checkpoint(path, step, _state(path, step))

    def _verify_best(self, checkpoint: Checkpoint) -> None:
        """The best one's weights become the model at the end, so one that names a damaged best is of no use."""
        fit = checkpoint.state.get("fit")
        best = fit.get("best_step") if isinstance(fit, dict) else None
        if isinstance(best, int) and best != checkpoint.step:
            verify(self._path(best))

    def remove_after(self, step: int) -> None:
        """Damaged ones newer than the one that is continued: they would count as the newest when others are pruned."""
        for later in self.steps():
            if later > step:
                durable.remove_folder(self._path(later))

    def check_identity(self, checkpoint: Checkpoint, *, force: bool = False) -> list[str]:
        """Raises UsageError naming what changed since; with `force` the harmless comes back, a sentence each."""
        then = checkpoint.state.get("identity")
        found = differences(then if isinstance(then, dict) else {}, self.identity)
        refused = [d for d in found if not (force and d.harmless)]
        if not refused:
            return [f"{d}: near the uninterrupted run, but not the same bytes" for d in found]
        others = f", and {', '.join(d.name for d in refused[1:4])}" if refused[1:] else ""
        way_out = (
            "Restore it, or accept results that are near but not the same bytes with --resume --force"
            if refused[0].harmless
            else "continuing would not be the same run. Restore it, or start a new run"
        )
        raise UsageError(
            f"can't resume: {refused[0]}{others}; {way_out}", where=str(checkpoint.path), field=refused[0].name
        )

    def steps(self) -> list[int]:
        """Steps that have a checkpoint by name, oldest first."""
        if not self.folder.is_dir():
            return []
        names = [p.name[5:] for p in self.folder.iterdir() if p.name.startswith("step-")]
        return sorted(int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 12)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


FILES = ("optimizer.safetensors", "state.json", "weights.safetensors")


def verify(path: Path) -> None:
    """Raises ModelError unless every file is there with the size and SHA-256 of the manifest."""
    scan_run(path)
    try:
        manifest = _json(path / "manifest.json")
        if not isinstance(manifest, dict) or sorted(manifest) != sorted(FILES):
            raise ValueError("manifest.json doesn't list the checkpoint's files")
        for name, entry in manifest.items():
            if _entry(path / name) != entry:
                raise ValueError(f"{name} isn't what manifest.json says")
    except FileNotFoundError as error:
        raise ModelError(f"checkpoint is damaged ({_name(error)} is missing)", where=str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"checkpoint is damaged ({durable.reason(error)})", where=str(path)) from None
    check_headers(path)


def _state(path: Path, step: int) -> Mapping[str, Any]:
    try:
        state = _json(path / "state.json")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"checkpoint is damaged ({durable.reason(error)})", where=str(path)) from None
    if not isinstance(state, dict) or state.get("step") != step:
        raise ModelError(f"checkpoint is damaged (state.json isn't that of step {step})", where=str(path))
    if state.get("version") != VERSION:
        raise ModelError(
            f"checkpoint has format {json.dumps(state.get('version'))[:20]}, this tunewright reads {VERSION}; "
            "continue with the version that wrote it",
            where=str(path),
        )
    return state


def _json(path: Path) -> Any:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path.name} is far too long")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{path.name} is no JSON") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"can't be read ({durable.reason(error)})", where=str(path)) from None


def _entry(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _name(error: FileNotFoundError) -> str:
    return Path(str(error.filename)).name


__all__ = ["HARMLESS", "Checkpoint", "CheckpointStore", "verify"]
