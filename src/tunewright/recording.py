"""The one writer of a run folder: state, events, metrics, samples. Append-only lines, one flush each; the rest atomic.

The pipeline writes through this (`durable` does it), `runs` reads. It holds the folder's lock, so that there is one
writer and everyone can see whether it lives. Ranks above 0 get a recorder that writes nothing.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import durable, locking
from tunewright.errors import MachineError, ModelError, StoppedError, TunewrightError, UsageError
from tunewright.progress import Listener, Phase, Said

if TYPE_CHECKING:
    from torch import Tensor

ACTIVE = ("validating", "preparing", "running", "evaluating", "saving")


class Recorder:
    """Writes one run's folder and tells the listener the same."""

    def __init__(self, folder: Path, listener: Listener, *, writes: bool = True) -> None:
        self.folder, self.listener, self.writes = folder, listener, writes
        self.summary: dict[str, Any] = {}
        self.before: dict[str, Any] | None = None  # run.json as a resumed run found it; None in a new one
        self.trained = False  # whether this process got as far as training
        self.made_parent = False  # whether the folder of all runs was made for this one
        self._lock: locking.Lock | None = None
        self._clock = WallClock()
        self._begin, self._spent_before = time.perf_counter(), 0.0
        if writes:
            self._open()

    def _open(self) -> None:
        with durable.storing(self.folder, "run folder can't be written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = locking.hold(self.folder / "lock")
            if self._lock is not None:
                self._lock.sign()
        if self._lock is None:
            raise UsageError(
                f"the run is in use by {locking.owner(self.folder / 'lock')}; "
                "stop that process or choose another --name",
                where=str(self.folder),
            )
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        """What an earlier process wrote, and what a kill left halfway."""
        path = self.folder / "run.json"
        if not path.exists():
            return
        self.summary = read_json_object(path)
        self.before = dict(self.summary)
        self._spent_before = _number(self.summary.get("seconds"))
        with durable.storing(self.folder, "run folder can't be written"):
            durable.remove_leftovers(self.folder)
            durable.remove_leftovers(self.folder / "predictions")

    @property
    def seconds(self) -> float:
        """Time of this process, and of those before it that wrote down theirs."""
        return round(self._spent_before + time.perf_counter() - self._begin, 3)

    # ---- what the pipeline says ----

    def update(self, **fields: Any) -> None:
        """Set fields of run.json and replace it atomically."""
        self.summary |= fields
        if self.writes and fields.get("state", ACTIVE[0]) not in ACTIVE:
            self._settle()
        self.write("run.json", json.dumps(self.summary, indent=1, ensure_ascii=False))

    def _settle(self) -> None:
        """Rows are on the disk before a word that nobody will check again."""
        for name in ("metrics.jsonl", "samples.jsonl", "events.jsonl"):
            if (path := self.folder / name).exists():
                with durable.storing(path):
                    durable.sync_file(path)

    def state(self, state: str, phase: str | None = None) -> None:
        """Enter a state; `phase` is what a person sees."""
        self.trained = self.trained or state == "running"
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
            self._refuse_to_write_elsewhere()
            write_atomically(self.folder / name, text)

    def write_rows(self, name: str, rows: Iterator[dict[str, Any]]) -> None:
        """A whole JSONL file, replaced atomically."""
        if self.writes:
            self._refuse_to_write_elsewhere()
            write_atomically(self.folder / name, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """A whole safetensors file, replaced atomically."""
        if self.writes:
            self._refuse_to_write_elsewhere()
            with durable.storing(self.folder / name):
                (self.folder / name).parent.mkdir(exist_ok=True)
                durable.write_tensors(self.folder / name, tensors)

    def _refuse_to_write_elsewhere(self) -> None:
        """A folder that was removed must not come back with half its files, nor another run's be written into."""
        if self._lock is not None and not self._lock.guards(self.folder / "lock"):
            raise MachineError(
                "the run's folder was removed or moved while it ran; start a new run", where=str(self.folder)
            )

    def drop_rows_after(self, step: int, evaluated_step: int) -> None:
        """On resume: rows that the checkpoint doesn't know of go, so that the files equal an uninterrupted run's."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            rows = list(read_jsonl(self.folder / name))
            known = (r for r in rows if r["step"] <= (step if "train/grad_norm" in r else evaluated_step))
            self.write_rows(name, (r for r in known if not r.get("final")))

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        self._refuse_to_write_elsewhere()
        with durable.storing(self.folder / name):
            durable.append_line(self.folder / name, json.dumps(row, ensure_ascii=False))
        if behind := self._clock.went_back():
            self.say(clock_words(behind, "while the run was going"), "warning")

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

    @contextmanager
    def closing_on_failure(self) -> Generator[None]:
        """For the start of a new run, before `recording`: no folder stays behind, and no lock."""
        try:
            yield
        except BaseException:
            with suppress(OSError):
                self.discard()
            self.close()
            raise

    def close(self) -> None:
        """Leave the folder to others."""
        if self._lock is not None:
            self._lock.release()

    def _end(self, state: str, error: TunewrightError) -> None:
        """Write down how it ended; a run that failed before it learnt anything leaves things as they were."""
        if self.summary.get("state") == "succeeded":
            return
        refused = state == "failed" and error.code != "bug" and not self.trained
        try:
            if refused and self.before is None:
                self.discard()
                return
            if refused and self.before is not None:
                self.summary, then = dict(self.before), self.before.get("state")
                state = "interrupted" if then in ACTIVE or not isinstance(then, str) else then
            body = {"code": error.code, "message": str(error), "param": error.field}
            self.update(state=state, error=body, finished=now(), seconds=self.seconds)
            self.event("ended", str(error), "error")
        except OSError:
            self.writes = False  # the disk is full or gone; the error itself is still raised

    def discard(self) -> None:
        """Remove the folder: there is nothing in it that the error doesn't say."""
        if self.writes and self._lock is not None and self._lock.guards(self.folder / "lock"):
            durable.remove_folder(self.folder)
            if self.made_parent:
                with suppress(OSError):  # another run may be there by now
                    self.folder.parent.rmdir()
        self.writes = False


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
    with durable.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_text(path, text)


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that must hold an object. Raises ModelError."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} can't be read ({durable.reason(error)})", where=str(path.parent)) from None
    if not isinstance(found, dict):
        raise ModelError(f"{path.name} isn't an object", where=str(path.parent))
    return found


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e12 else 0.0


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; a torn last line is forgiven."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row


class WallClock:
    """Notices when the time of day goes back; nothing but the times that people read depends on it."""

    def __init__(self) -> None:
        self._wall, self._steady = time.time(), time.monotonic()

    def went_back(self, tolerance_seconds: float = 2.0) -> float:
        """Seconds it went back since it was last asked, 0 if it didn't."""
        wall, steady = time.time(), time.monotonic()
        behind = (steady - self._steady) - (wall - self._wall)
        self._wall, self._steady = wall, steady
        return behind if behind > tolerance_seconds else 0.0


def clock_words(seconds: float, when: str) -> str:
    """The sentence about a clock that went back."""
    return (
        f"the clock went back by {seconds:,.0f} seconds {when}: times written before and after can't be compared, "
        "and `latest` goes by them; nothing else does"
    )


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
