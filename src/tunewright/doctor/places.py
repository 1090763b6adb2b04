"""The folders that runs write to, and the packaged base model.

Part of `examination`. Leaves no file behind, and makes no folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tunewright.doctor.check import Check
from tunewright.errors import TunewrightError

LEAST_DISK, LITTLE_DISK = 300_000_000, 3_000_000_000


def place(name: str, folder: Path) -> Check:
    """Whether a file can be written and synced where the folder is, or will be made, and how much room there is."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    values: dict[str, Any] = {"folder": str(folder), "exists": folder.exists()}
    setting = {"runs folder": "--runs DIR", "cache folder": "TUNEWRIGHT_CACHE", "hub cache": "HF_HOME"}[name]
    try:
        with tempfile.TemporaryFile(dir=there) as stream:
            stream.write(b"tunewright")
            stream.flush()
            os.fsync(stream.fileno())
        free = shutil.disk_usage(there).free
    except OSError as error:
        reason = error.strerror or type(error).__name__
        fix = f"make it writable, or name another with {setting}"
        return Check(name, "bad", f"{folder} can't be written ({reason[:1].lower()}{reason[1:]})", fix, values)
    values |= {"free_bytes": free}
    found = f"{folder}, {free / 1e9:,.1f} GB free"
    if free < LITTLE_DISK:
        return Check(
            name, "bad" if free < LEAST_DISK else "warn", found, f"make room, or name another with {setting}", values
        )
    return Check(name, "ok", found, "", values)


def base_model(name: str = "minilm") -> Check:
    """The packaged model is there and unchanged."""
    from tunewright.models import packaged

    try:
        folder = packaged.locate(name)
    except TunewrightError as error:
        fix = f"{packaged.PACKAGED[name].install}, or always give a model of your own with --model"
        return Check("base model", "bad", str(error), fix, {"model": name, "folder": None})
    wanted = packaged.PACKAGED[name]
    return Check(
        "base model",
        "ok",
        f"{name} ({wanted.package} {wanted.version}), unchanged",
        "",
        {"model": name, "folder": str(folder)},
    )
