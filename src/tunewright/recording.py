"""The one writer of a run folder: state, events, metrics, samples. Append-only lines, one flush each; the rest atomic.

The pipeline writes through this; `runs` reads. Ranks above 0 get a recorder that writes nothing.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from tunewright.errors import MachineError, StoppedError, TunewrightError, UsageError
from tunewright.progress import Listener, Phase, Said

ACTIVE = ("validating", "preparing", "running", "evaluating", "saving")


class Recorder:
    """Writes one run's folder and tells the listener the same."""

    def __init__(self, folder: Path, listener: Listener, *, writes: bool = True) -> None:
        self.folder, self.listener, self.writes = folder, listener, writes
        self.summary: dict[str, Any] = {}
        self._lock: IO[str] | None = None
        self._begin, self._spent_before = time.perf_counter(), 0.0
        if writes:
            self._open()

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder / "lock")
        except OSError as error:
            if isinstance(error, TunewrightError):
                raise
            raise MachineError(f"run folder can't be written ({error.strerror})", where=str(self.folder)) from None
        if (self.folder / "run.json").exists():
            self.summary = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
            self._spent_before = self.summary.get("seconds", 0.0)

    @property
    def seconds(self) -> float:
        """Time of this process, and of those before it that wrote down theirs."""
        return round(self._spent_before + time.perf_counter() - self._begin, 3)

    # ---- what the pipeline says ----

    def update(self, **fields: Any) -> None:
        """Set fields of run.json and replace it atomically."""
        self.summary |= fields
        if self.writes:
            write_atomically(self.folder / "run.json", json.dumps(self.summary, indent=1, ensure_ascii=False))

    def state(self, state: str, phase: str | None = None) -> None:
        """Enter a state; `phase` is what a person sees."""
        self.update(state=state)
        self.event("state", state)
        if phase:
            self.tell(Phase(phase))

    def say(self, message: str, level: str = "info") -> None:
        """A sentence worth reading: to the listener, events.jsonl and run.json's notes."""
        self.summary.setdefault("notes", [])
        if message not in self.summary["notes"]:
            self.summary["notes"].append(message)
        self.event("said", message, level)
        self.tell(Said(message, level))

    def tell(self, event: Any) -> None:
        """Hand an event to whoever watches."""
        if self.writes:
            self.listener(event)

    def event(self, event: str, message: str, level: str = "info") -> None:
        self._append("events.jsonl", {"time": now(), "level": level, "event": event, "message": message})

    def metrics(self, row: Mapping[str, Any]) -> None:
        self._append("metrics.jsonl", {"time": now(), **row})

    def samples(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self._append("samples.jsonl", row)

    def write(self, name: str, text: str) -> None:
        """A whole file of the folder, replaced atomically."""
        if self.writes:
            write_atomically(self.folder / name, text)

    def write_rows(self, name: str, rows: Iterator[dict[str, Any]]) -> None:
        """A whole JSONL file, replaced atomically."""
        if self.writes:
            write_atomically(self.folder / name, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def drop_rows_after(self, step: int, evaluated_step: int) -> None:
        """On resume: rows that the checkpoint doesn't know of go, so that the files equal an uninterrupted run's."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            rows = list(read_jsonl(self.folder / name))
            known = (r for r in rows if r["step"] <= (step if "train/grad_norm" in r else evaluated_step))
            self.write_rows(name, (r for r in known if not r.get("final")))

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        try:
            with (self.folder / name).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise MachineError(f"can't be written ({error.strerror})", where=str(self.folder / name)) from None

    @contextmanager
    def recording(self) -> Generator[None]:
        """Whatever ends the run is written down before it is passed on."""
        try:
            yield
        except StoppedError as error:
            self._end("interrupted", error)
            raise
        except TunewrightError as error:
            self._end("failed", error)
            raise
        except KeyboardInterrupt:
            self._end("cancelled", StoppedError("stopped from the keyboard"))
            raise
        except BaseException as error:
            self._end("failed", TunewrightError(f"{type(error).__name__}: {error}"))
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Leave the folder to others."""
        if self._lock is not None:
            self._lock.close()

    def _end(self, state: str, error: TunewrightError) -> None:
        body = {"code": error.code, "message": str(error), "param": error.field}
        if not self.folder.is_dir():
            return
        try:
            self.update(state=state, error=body, finished=now(), seconds=self.seconds)
            self.event("ended", str(error), "error")
        except OSError:
            self.writes = False  # the disk is full or gone; the error itself is still raised


def new_folder(runs: Path, name: str) -> Path:
    """A new folder of its own: 20261123-1412-reviews, then …-2."""
    stem = f"{datetime.now().strftime('%Y%m%d-%H%M')}-{name}"
    for number in range(1, 1000):
        folder = runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise MachineError(f"run folder can't be made ({error.strerror})", where=str(folder)) from None
        return folder
    raise MachineError(f"{runs} has a thousand runs of that name and minute")


def start_summary(folder: Path, name: str, task: str) -> dict[str, Any]:
    """The first run.json."""
    return {
        "id": folder.name,
        "name": name,
        "state": "validating",
        "task": task,
        "error": None,
        "created": now(),
        "started": now(),
        "finished": None,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "notes": [],
    }


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_atomically(path: Path, text: str | Iterator[str]) -> None:
    """The whole file or the old one, never half. Raises MachineError."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            stream.writelines([text] if isinstance(text, str) else text)
        temporary.replace(path)
    except OSError as error:
        raise MachineError(f"can't be written ({error.strerror})", where=str(path)) from None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; a torn last line is forgiven."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def _locked(path: Path) -> IO[str]:
    """Hold the folder for this process; another one is refused by name."""
    import fcntl

    stream = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.seek(0)
        owner = stream.read().strip() or "another process"
        stream.close()
        raise UsageError(
            f"the run is in use by {owner}; stop that process or choose another --name", where=str(path.parent)
        ) from None
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()}")
    stream.flush()
    return stream


class Stopwatch:
    """Seconds since it was made, and per name."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.spent: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    @contextmanager
    def timing(self, name: str) -> Generator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - begin


Say = Callable[[str], None]
