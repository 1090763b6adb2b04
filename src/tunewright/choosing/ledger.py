"""trials.json: what was asked of a comparison, what was decided once, and how far each trial is.

Written whole after each change, so that a start after any stop goes on from the last one; the trials themselves resume
from their own checkpoints. One comparison has a folder, and one process at a time works in it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright import durable, locking
from tunewright.choosing.work import Tell
from tunewright.errors import MachineError, UsageError
from tunewright.recording import ACTIVE, read_json_object, write_atomically
from tunewright.runs import read_summary, run_folders

FILE = "trials.json"
VERSION = 1
LONGEST_WAIT = 120.0  # seconds for the process of an earlier start to save and end


@dataclass
class Ledger:
    """The file, as a mapping that is kept."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, **fields: Any) -> None:
        """Set fields and write the file."""
        with self._lock:
            self.values |= fields
            write_atomically(self.folder / FILE, json.dumps(self.values, indent=1, ensure_ascii=False, default=str))

    def get(self, name: str, otherwise: Any = None) -> Any:
        return self.values.get(name, otherwise)

    def trial(self, name: str) -> dict[str, Any]:
        """What is known of a trial; nothing yet of a new one."""
        return dict(self.values.get("trials", {}).get(name, {}))

    def put_trial(self, name: str, **fields: Any) -> None:
        """Set fields of a trial and write the file."""
        with self._lock:
            trials = dict(self.values.get("trials", {}))
            trials[name] = {**trials.get(name, {}), **fields}
            self.put(trials=trials)

    @property
    def trials(self) -> dict[str, dict[str, Any]]:
        """All of them, in the order in which they were begun."""
        return dict(self.values.get("trials", {}))


@contextmanager
def opened(folder: Path, request: Mapping[str, Any]) -> Generator[Ledger]:
    """The ledger of this folder, new or found again. UsageError where it is in use, or was asked something else."""
    with durable.storing(folder, "the comparison's folder can't be written"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = locking.hold(folder / "lock")
    if lock is None:
        raise UsageError(f"in use by {locking.owner(folder / 'lock')}; wait for it, or give another --name",
                         where=str(folder))  # fmt: skip
    try:
        lock.sign()
        durable.remove_leftovers(folder)
        yield _read(folder, json.loads(json.dumps(request, default=str)))
    finally:
        lock.release()


def _read(folder: Path, request: Mapping[str, Any]) -> Ledger:
    if not (folder / FILE).exists():
        ledger = Ledger(folder)
        ledger.put(version=VERSION, request=dict(request))
        return ledger
    values = read_json_object(folder / FILE)
    then = values.get("request", {})
    changed = next((key for key in request if then.get(key) != request[key]), None)
    if values.get("version") != VERSION or changed is not None:
        was = f'"{changed}" was {then.get(changed)!r:.80} and is now {request[changed]!r:.80}' if changed else "another"
        raise UsageError(f"holds another comparison ({was}); give another --name, or remove the folder",
                         where=str(folder), field=changed)  # fmt: skip
    return Ledger(folder, values)


def run_of(name: str, folder: Path, tell: Tell = lambda words: None) -> Path | None:
    """The newest run of this name, once nobody else works on it. Raises MachineError where somebody does for long."""
    found = [path for path in run_folders(folder) if read_summary(path).get("name") == name]
    newest = max(found, key=lambda path: path.name, default=None)
    deadline = time.monotonic() + LONGEST_WAIT
    while newest is not None and read_summary(newest).get("state") in ACTIVE:
        if time.monotonic() > deadline:
            raise MachineError("a process of an earlier start still works on it; stop that one", where=str(newest))
        tell("waiting for a process of an earlier start to save and end")
        time.sleep(0.5)
    return newest
