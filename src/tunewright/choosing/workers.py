"""Whoever does the work of a comparison: processes on this machine, or this process itself.

`trying` and `searching` hand out jobs, one or several at a time, and stop all of them when a signal asks to. What a job
does is in `work`; a cluster's processes are in `ray_workers`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tunewright.choosing.work import Job, Result, Tell, run
from tunewright.errors import MachineError, StoppedError


class Workers(Protocol):
    """Able to do jobs."""

    def do(self, job: Job, tell: Tell) -> Result:
        """Do one and wait for it; called from several threads where several are done at once."""
        ...

    def stop(self) -> bool:
        """Have those that are being done save and end soon; whether there were any."""
        ...


def log_to(workers: Workers, path: Path) -> None:
    """Where processes complain, unless somebody named a file: a crash of theirs says more than one line."""
    if isinstance(workers, Processes) and workers.log is None:
        workers.log = path


@dataclass
class Here:
    """This process: for notebooks that want to see into it, and for tests."""

    def do(self, job: Job, tell: Tell) -> Result:
        return run(job, tell)

    def stop(self) -> bool:
        return False


@dataclass
class Processes:
    """A process for each job, with so many threads (None: as the recipe says)."""

    threads: int | None = None
    log: Path | None = None  # what the processes complain about
    _alive: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: bool = False

    def do(self, job: Job, tell: Tell) -> Result:
        with tempfile.TemporaryDirectory(prefix="tunewright-") as scratch:
            path = Path(scratch) / "job.json"
            path.write_text(json.dumps(asdict(job)), encoding="utf-8")
            with self._started(path) as process:
                return self._followed(process, tell)

    def stop(self) -> bool:
        with self._lock:
            self._stopping = True
            for process in self._alive:
                with contextlib.suppress(OSError):
                    process.send_signal(signal.SIGTERM)
            return bool(self._alive)

    # ---- parts ----

    @contextlib.contextmanager
    def _started(self, job: Path) -> Generator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "tunewright.choosing.work", str(job)]
        # A session of its own: a Ctrl-C is for us, and we pass it on once. It ends with us, for its input does.
        with open(self.log or os.devnull, "a", encoding="utf-8") as complaints:
            process = subprocess.Popen(  # noqa: S603 - our own module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True,
                encoding="utf-8", errors="replace", start_new_session=True, env=self._environment(),
            )  # fmt: skip
        with self._lock:
            self._alive.append(process)
            if self._stopping:
                process.send_signal(signal.SIGTERM)
        try:
            yield process
        finally:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            with self._lock:
                self._alive.remove(process)

    def _environment(self) -> dict[str, str]:
        threads = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        return {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", **threads}

    def _followed(self, process: subprocess.Popen[str], tell: Tell) -> Result:
        """What it says, until it ends."""
        result: Result | None = None
        assert process.stdout is not None
        for line in process.stdout:
            found = _read(line)
            if "say" in found:
                tell(str(found["say"]))
            if "result" in found:
                result = Result(**found["result"])
        status = process.wait()
        if result is not None:
            return result
        if self._stopping or status in (-signal.SIGTERM, -signal.SIGINT):
            return Result("stopped")
        why = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        hint = "; is there enough memory?" if status == -signal.SIGKILL else f"; see {self.log}" if self.log else ""
        raise MachineError(f"a trial's process {why}{hint}")


def _read(line: str) -> dict[str, Any]:
    """A line of JSON; whatever else a library prints is nobody's business."""
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        return found if isinstance(found, dict) else {}
    return {}


class Wish:
    """A signal's wish to stop, as an answer to `stopping`."""

    def __init__(self) -> None:
        self.number = 0

    def check(self) -> None:
        """Raises StoppedError where one was heard."""
        if self.number:
            raise StoppedError("stopped; start the same command again to go on", signal_number=self.number)


@contextlib.contextmanager
def stopping(workers: Workers) -> Generator[Wish]:
    """SIGINT and SIGTERM have every job save and end; between jobs, and asked twice, they stop at once."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def handle(number: int, _frame: Any) -> None:
        again, wish.number = bool(wish.number), wish.number or number
        if not workers.stop() or again:
            wish.check()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
