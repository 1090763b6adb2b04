"""Ray's processes as workers (extra `ray`): trials of a search on the machines of a cluster.

Every machine must see the same folders: the data, the comparison's folder and the bases. A job runs in a fresh process
there, as on this machine, so that memory is measured alike; on a stop, its process saves a checkpoint and ends.
"""

from __future__ import annotations

import os
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from tunewright.choosing.work import Job, Result, Tell
from tunewright.choosing.workers import Processes
from tunewright.errors import MachineError


def load_ray() -> Any:
    """The package, told to report to nobody. MachineError with what to install."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # type: ignore[import-not-found]
    except ImportError:
        says = "trials on a cluster need the package ray; run: pip install 'tunewright[ray]', or leave --on out"
        raise MachineError(says, field="--on") from None
    return ray


class _There:
    """On the other machine: one job, in a process of its own."""

    def __init__(self, threads: int) -> None:
        self.processes = Processes(threads)

    def do(self, values: dict[str, Any]) -> dict[str, Any]:
        values["limits"] = tuple(map(tuple, values["limits"]))
        return asdict(self.processes.do(Job(**values), lambda words: None))

    def stop(self) -> bool:
        return self.processes.stop()


@dataclass
class RayWorkers:
    """A cluster, joined by its address; without one, this machine as a cluster of its own."""

    threads: int = 1
    address: str | None = None
    _alive: list[Any] = field(default_factory=list[Any])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: bool = False

    def __post_init__(self) -> None:
        self.ray = load_ray()
        if not self.ray.is_initialized():
            self.ray.init(address=self.address, log_to_driver=False, include_dashboard=False)
        options = {"num_cpus": self.threads, "max_concurrency": 2}  # the second one is `stop`, while `do` works
        self._kind = self.ray.remote(**options)(_There)

    def do(self, job: Job, tell: Tell) -> Result:
        actor = self._kind.remote(self.threads)
        with self._lock:
            self._alive.append(actor)
            if self._stopping:
                actor.stop.remote()
        try:
            return Result(**self.ray.get(actor.do.remote(asdict(job))))
        except self.ray.exceptions.RayError as error:
            raise MachineError(f"a trial's process on the cluster ended ({str(error).splitlines()[0]})") from None
        finally:
            with self._lock:
                self._alive.remove(actor)
            self.ray.kill(actor)

    def stop(self) -> bool:
        with self._lock:
            self._stopping = True
            for actor in self._alive:
                actor.stop.remote()
            return bool(self._alive)
