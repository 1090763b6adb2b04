"""Named arrays in a folder, written once, part by part, and memory-mapped ever after.

Holds the tokenised data; knows nothing of tokens. A folder is complete and has the fingerprint it was asked for, or it
is built anew: beside its place, synced to disk, renamed once. Any kill on the way leaves nothing that looks complete.
"""

from __future__ import annotations

import contextlib
import json
import math
import uuid
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from tunewright import durable, locking

Arrays = dict[str, np.ndarray]

MANIFEST = "manifest.json"

_TYPES = {"int32": np.int32, "int64": np.int64, "float32": np.float32, "bool": np.bool_}  # all that a manifest may name


def stored_arrays(folder: Path, fingerprint: str, parts: Callable[[], Iterable[Arrays]]) -> Arrays:
    """The arrays of a folder, read-only. Where there are none yet, `parts()` gives them: the same names in each part,
    laid end to end along the first axis, with one part in memory at a time."""
    if (arrays := open_arrays(folder, fingerprint)) is None:
        with _new_folder(folder) as building:
            _write(building, parts(), fingerprint)
            _publish(building, folder, fingerprint)
        arrays = open_arrays(folder, fingerprint)
    assert arrays is not None, f"{folder} was written but can't be opened"
    return arrays


def open_arrays(folder: Path, fingerprint: str) -> Arrays | None:
    """The arrays of a complete folder; None where it is missing, torn or another's."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["fingerprint"] != fingerprint:
            return None
        return {name: _map(folder / f"{name}.bin", **entry) for name, entry in manifest["arrays"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _map(path: Path, dtype: str, shape: list[int]) -> np.ndarray:
    """A file as a read-only array; ValueError where its size isn't the manifest's."""
    kind = np.dtype(_TYPES[dtype])
    if path.stat().st_size != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{path} is torn")
    if not math.prod(shape):  # an empty file can't be mapped
        return np.zeros(shape, kind)
    return np.asarray(np.memmap(path, kind, mode="r", shape=tuple(shape)))


def _write(folder: Path, parts: Iterable[Arrays], fingerprint: str) -> None:
    """Append each part's arrays to their files, then write the manifest."""
    entries: dict[str, dict[str, Any]] = {}
    files: dict[str, IO[bytes]] = {}
    with contextlib.ExitStack() as stack:
        for part in parts:
            with _storing(folder):
                for name, array in part.items():
                    if name not in files:
                        files[name] = stack.enter_context((folder / f"{name}.bin").open("wb"))
                        entries[name] = {"dtype": array.dtype.name, "shape": [0, *array.shape[1:]]}
                    files[name].write(array.tobytes())
                    entries[name]["shape"][0] += len(array)
        with _storing(folder):
            for file in files.values():
                file.flush()
    with _storing(folder):
        durable.sync_tree(folder)
        durable.write_text(folder / MANIFEST, json.dumps({"fingerprint": fingerprint, "arrays": entries}))


@contextlib.contextmanager
def _new_folder(folder: Path) -> Generator[Path]:
    """A folder beside the final one to build in, gone afterwards; also removes what killed starts left behind."""
    building, lock = _locked_folder(folder.parent)
    try:
        with _storing(folder.parent):
            _remove_abandoned(folder.parent)
        yield building
    finally:
        with contextlib.suppress(OSError):
            durable.remove_folder(building)
        if lock is not None:
            lock.release()


def _locked_folder(cache: Path) -> tuple[Path, locking.Lock | None]:
    """A new folder, and the lock that tells other starts that it is being built. No lock where the disk has none."""
    with _storing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        while True:
            building = cache / f"{_BUILDING}{uuid.uuid4().hex}"
            building.mkdir()
            try:
                return building, locking.hold(building)
            except FileNotFoundError:  # swept away by another start before it was locked
                continue
            except OSError:
                return building, None


_BUILDING = ".building-"


def _remove_abandoned(cache: Path) -> None:
    """What killed starts left: nobody holds it. One that can't be asked stays."""
    for left in cache.glob(f"{_BUILDING}*"):
        with contextlib.suppress(OSError):
            if (lock := locking.hold(left, wait_seconds=0)) is not None:
                durable.remove_folder(left)
                lock.release()
    durable.remove_leftovers(cache)


def _publish(building: Path, folder: Path, fingerprint: str) -> None:
    """Rename into place. A torn folder there is replaced; a complete one, by a start beside this one, stays."""
    with _storing(folder.parent):
        if folder.exists() and open_arrays(folder, fingerprint) is None:
            durable.remove_folder(folder)
        try:
            durable.rename(building, folder)
        except OSError:
            if open_arrays(folder, fingerprint) is None:
                raise
        durable.sync_folder(folder.parent)


def _storing(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Turns a failed write into a sentence."""
    where = folder.parent if folder.name.startswith(_BUILDING) else folder
    return durable.storing(where, "can't be written", "; make room, or name another folder with TUNEWRIGHT_CACHE")
