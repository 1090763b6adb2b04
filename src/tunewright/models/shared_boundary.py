"""Boundary caches that several runs share: trials of a head on the same frozen base and rows compute it once.

A cache lies under a name made of all that decides its numbers: the base's weights, the rows' tokens, the layer, the
number format. Whoever needs it first builds it, others wait and map the same file. `choosing` owns the folder and
removes it at the end.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunewright import durable, locking
from tunewright.data.tokenizing import TokenizedDataset
from tunewright.errors import MachineError
from tunewright.models.boundary import BoundaryCache, build, keeps_one_vector
from tunewright.models.forward import Forward

VERSION = 1
LONGEST_WAIT = 6 * 3600.0  # seconds for another run that is building the same


@dataclass
class SharedCaches:
    """A folder of them, and the base that all of them are of."""

    folder: Path
    base: str  # fingerprint of its weights
    seconds: float = 0.0  # that whoever built the caches asked for here spent on them

    def kept(
        self,
        forward: Forward,
        part: TokenizedDataset,
        k: int,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> BoundaryCache:
        """The cache of these rows below layer k: found, or built now."""
        path = self.folder / f"{self._key(forward, part, k)}.npy"
        with durable.storing(path, "boundary cache can't be written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = locking.hold(path.with_suffix(".lock"), LONGEST_WAIT)
        if lock is None:
            raise MachineError("another run has been building this cache for hours; stop it", where=str(path))
        try:
            found = _opened(path, forward, part, k) or _built(path, forward, part, k, on_progress)
        finally:
            lock.release()
        self.seconds += float(_note(path)["seconds"])
        return found

    def _key(self, forward: Forward, part: TokenizedDataset, k: int) -> str:
        rows = hashlib.sha256(np.ascontiguousarray(part.rows).tobytes() + part.lengths.tobytes()).hexdigest()
        precision = forward.precision
        decided_by = [VERSION, self.base, part.fingerprint, rows, k, precision, keeps_one_vector(forward, k)]
        return hashlib.sha256(json.dumps(decided_by).encode()).hexdigest()[:32]


def _opened(path: Path, forward: Forward, part: TokenizedDataset, k: int) -> BoundaryCache | None:
    """The file that is there; its note is written last, so one without is half a file."""
    if not path.with_suffix(".json").is_file():
        return None
    sizes = np.ones_like(part.lengths) if keeps_one_vector(forward, k) else part.lengths
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    states = np.load(path, mmap_mode="r", allow_pickle=False)
    return BoundaryCache(k, states, offsets, str(_note(path)["fingerprint"]))


def _note(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def _built(
    path: Path, forward: Forward, part: TokenizedDataset, k: int, on_progress: Callable[[int, int], None]
) -> BoundaryCache:
    begin, writing = time.perf_counter(), path.with_name(f".{path.name}.writing")
    made = build(forward, part, part.lengths, k, writing, on_progress)
    with durable.storing(path, "boundary cache can't be written"):
        durable.rename(writing, path)
        note = {"fingerprint": made.fingerprint, "seconds": round(time.perf_counter() - begin, 3)}
        durable.write_text(path.with_suffix(".json"), json.dumps(note))
    return replace(made, states=np.load(path, mmap_mode="r", allow_pickle=False))
