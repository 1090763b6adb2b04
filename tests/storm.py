"""The kill storm: runs are killed again and again, at random moments and fault points, and must end as if nothing was.

    python -m tests.storm --kills 1000 --seed 1

A parent that imported everything and ran nothing forks victims, so that a kill costs a fraction of a second. A victim
trains a tiny real model (dropout, accumulation, checkpoints every few steps, evaluations, saving). It dies by SIGKILL:

- `delay`: after a random time, wherever it is;
- `point`: at a random fault point of `tunewright.durable`, before or after a write, sync, rename or removal;
- `power`: the same, and what was written but not synced by then is torn, as when the power goes.

Then the run is resumed, and may be killed again, until it succeeds. Its model's tensors, metrics, samples and
predictions must equal those of a run that was never killed, and nothing half written may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = {"delay": 0.4, "point": 0.4, "power": 0.2}
MOST_KILLS_PER_RUN = 6
METHODS = {
    "lora": {"trainable.rank": 4, "trainable.dropout": 0.1},
    "full": {"trainable.method": "full"},  # with the base's own dropout
    "last 1": {"trainable.rank": 4, "trainable.layers": "last 1", "trainable.dropout": 0.1},  # with a boundary cache
}
SETTINGS: dict[str, Any] = {
    "training.threads": 1,
    "training.precision": "fp32",
    "training.device": "cpu",
    "training.epochs": 2.0,
    "training.batch_size": 8,
    "training.micro_batch_tokens": 48,  # several micro-batches a step
    "training.learning_rate": 1e-2,
    "training.checkpoint_every": 2,
    "evaluation.every": 3,
    "evaluation.bootstrap_samples": 100,
    "evaluation.prompts": ["a really good film", "the dull plot"],
}
ROWS = ("metrics.jsonl", "samples.jsonl", "predictions/validation.jsonl")


# ---- a victim: what it shares with its parent, and how it dies ----


class Watch:
    """Fault points passed, and whether a save is going on: memory that outlives the victim."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 24)

    def reset(self) -> None:
        self._memory[:] = bytes(24)

    @property
    def points(self) -> int:
        return struct.unpack_from("q", self._memory, 0)[0]

    @property
    def points_saving(self) -> int:
        return struct.unpack_from("q", self._memory, 8)[0]

    @property
    def saving(self) -> bool:
        return self._memory[16] == 1

    def count(self, point: str) -> None:
        if point.startswith(("begin save", "end save")):
            self._memory[16] = point.startswith("begin")
        struct.pack_into("qq", self._memory, 0, self.points + 1, self.points_saving + self.saving)


@dataclass
class Doom:
    """How a victim dies. `moment`: seconds for a delay, else the number of a fault point, or of one inside a save."""

    kind: str
    moment: float
    saving: bool = False
    seed: int = 0

    def has_come(self, watch: Watch) -> bool:
        """Whether this is the fault point."""
        at = watch.points_saving if self.saving else watch.points
        return self.kind != "delay" and at == int(self.moment) and (watch.saving or not self.saving)

    def __str__(self) -> str:
        return f"{self.kind} {self.moment:.3f}" if self.kind == "delay" else f"{self.kind} {self.moment:.0f}"


class Disk:
    """Which files have bytes that a power cut would take: all that was written, renamed or not, but not synced.

    Follows fault points as the disk would. Of a file that lines are appended to, what was synced stays.
    """

    def __init__(self) -> None:
        self.safe: dict[str, int] = {}  # bytes by path
        self.written: set[str] = set()

    def follow(self, point: str) -> None:
        when, verb, path = point.split(" ", 2)
        if when != "after":
            return
        if verb in ("write", "append"):
            self.written.add(path)
            if verb == "write":
                self.safe.pop(path, None)
        elif verb == "rename":
            self._rename(*path.split(" to "))

    def synced(self, path: str) -> None:
        """Not from a fault point but from the system call, which alone makes it so."""
        if os.path.isfile(path):
            self.safe[path] = os.path.getsize(path)

    def _rename(self, source: str, target: str) -> None:
        """A file's or a folder's bytes now lie under another name."""
        files = [target] if os.path.isfile(target) else [str(p) for p in Path(target).rglob("*") if p.is_file()]
        for path in files:
            before = source + path[len(target) :]
            self.written.add(path)
            self.safe.pop(path, None)
            if before in self.safe:
                self.safe[path] = self.safe.pop(before)

    def cut_power(self, generator: random.Random) -> None:
        for name in sorted(self.written):
            with contextlib.suppress(OSError):
                size = os.path.getsize(name)
                os.truncate(name, generator.randint(min(size, self.safe.get(name, 0)), size))


def victim(work: Callable[[], Any], watch: Watch, doom: Doom | None) -> int:
    """Fork, work, die as doomed; the exit status. The parent stays clean: it never ran what it imported."""
    watch.reset()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        _live(work, watch, doom)
    if doom is not None and doom.kind == "delay":
        _kill_later(process, doom.moment)
    _, status = os.waitpid(process, 0)
    return status


def _kill_later(process: int, seconds: float) -> None:
    handle = os.pidfd_open(process)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return  # it has finished; its number may not be ours to kill
            time.sleep(min(0.002, max(0.0, deadline - time.monotonic())))
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)


def _live(work: Callable[[], Any], watch: Watch, doom: Doom | None) -> None:
    from tunewright import durable

    disk, really = Disk(), os.fsync

    def fsync(handle: int) -> None:
        really(handle)
        disk.synced(os.readlink(f"/proc/self/fd/{handle}"))

    def reached(point: str) -> None:
        watch.count(point)
        disk.follow(point)
        if doom is not None and doom.has_come(watch):
            if doom.kind == "power":
                disk.cut_power(random.Random(doom.seed))
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        durable.reached, os.fsync = reached, fsync
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


# ---- a run, from its start through its deaths to its end ----


@dataclass
class Reference:
    """The run that nothing happened to."""

    folder: Path
    points: int
    points_saving: int
    seconds: float


@dataclass
class Storm:
    """The numbers of a storm."""

    seed: int
    kills: int = 0
    inside_save: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    starts: int = 0
    slowest_truth_seconds: float = 0.0  # from a death until `runs ls` calls it interrupted
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


class Place:
    """Folders and inputs of a storm, and the references by method."""

    def __init__(self, folder: Path, watch: Watch) -> None:
        self.folder, self.watch = folder, watch
        self.base, self.data = folder / "base", folder / "reviews.jsonl"
        os.environ["TUNEWRIGHT_CACHE"] = str(folder / "cache")
        _finish(victim(self._make_inputs, watch, None))
        self.references = {method: self._reference(method) for method in METHODS}

    def _make_inputs(self) -> None:
        from tests import tiny

        tiny.save("bert", self.base)
        self.data.write_text("".join(json.dumps(row) + "\n" for row in tiny.sentences(46)), encoding="utf-8")

    def _reference(self, method: str) -> Reference:
        runs, begin = self.folder / "reference" / method.replace(" ", "-"), time.monotonic()
        _finish(victim(self.start(runs, method), self.watch, None))
        watch = self.watch
        return Reference(_only_run(runs), watch.points, watch.points_saving, time.monotonic() - begin)

    def start(self, runs: Path, method: str) -> Callable[[], Any]:
        from tunewright.library import train

        settings = SETTINGS | METHODS[method]
        return lambda: train(str(self.base), str(self.data), settings=settings, runs=runs)

    def go_on(self, runs: Path) -> Callable[[], Any]:
        from tunewright.library import train

        return lambda: train(resume="latest", runs=runs)


def _finish(status: int) -> None:
    if status:
        raise SystemExit(f"a run that nobody killed ended with status {status}")


def _only_run(runs: Path) -> Path:
    (found,) = (path.parent for path in runs.glob("*/run.json"))
    return found


def one_run(place: Place, storm: Storm, generator: random.Random, most: int) -> None:
    """Start a run, kill it up to `most` times, let it end, compare."""
    method = generator.choice(sorted(METHODS))
    runs, reference = place.folder / f"run-{storm.runs}", place.references[method]
    storm.runs += 1
    story: list[str] = [method]
    deaths = 0
    while True:
        there = any(runs.glob("*/run.json"))
        doom = _doom(generator, reference, storm, deaths) if deaths < most else None
        storm.starts += 1
        status = victim(place.go_on(runs) if there else place.start(runs, method), place.watch, doom)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            deaths += 1
            _count_death(storm, story, doom, place.watch)
            states = _truth(runs, storm)
            if not states <= {"interrupted", "succeeded"}:
                return _fail(storm, story, f"listed as {states} after its death")
            if states != {"succeeded"}:  # else it was killed behind its last word
                continue
        elif status:
            return _fail(storm, story, f"ended with status {status}")
        break
    if problem := difference(_only_run(runs), reference.folder, runs):
        return _fail(storm, story, problem)
    shutil.rmtree(runs)


def _doom(generator: random.Random, reference: Reference, storm: Storm, deaths: int) -> Doom:
    """A random death, mostly inside a save while fewer than half were. What a resumed run has left is shorter."""
    kind = generator.choices(list(KINDS), KINDS.values())[0]
    left = 0.8**deaths
    if kind == "delay":
        return Doom(kind, generator.uniform(0, reference.seconds * left))
    saving = storm.inside_save * 2 < storm.kills and generator.random() < 0.8
    points = reference.points_saving if saving else reference.points
    return Doom(kind, generator.randint(1, max(1, int(points * left))), saving, generator.getrandbits(32))


def _count_death(storm: Storm, story: list[str], doom: Doom | None, watch: Watch) -> None:
    assert doom is not None
    storm.kills += 1
    storm.inside_save += watch.saving
    storm.by_kind[doom.kind] = storm.by_kind.get(doom.kind, 0) + 1
    story.append(f"{doom} (point {watch.points}{', saving' if watch.saving else ''})")


def _truth(runs: Path, storm: Storm) -> set[str]:
    """What `runs ls` says right after the death."""
    from tunewright.runs import list_runs

    begin = time.monotonic()
    states = {str(row["state"]) for row in list_runs(runs)}
    storm.slowest_truth_seconds = max(storm.slowest_truth_seconds, time.monotonic() - begin)
    return states


def _fail(storm: Storm, story: list[str], problem: str) -> None:
    storm.failures.append(f"seed {storm.seed}, run {storm.runs - 1}: {problem}; {' → '.join(story)}")


# ---- what must be equal ----


def difference(run: Path, reference: Path, runs: Path) -> str | None:
    """What tells a run from the uninterrupted one, or None."""
    if json.loads((run / "run.json").read_text(encoding="utf-8"))["state"] != "succeeded":
        return "it has not succeeded"
    if different := _different_tensors(run / "model", reference / "model"):
        return f"{different} differs"
    for name in ROWS:
        if _lines(run / name) != _lines(reference / name):
            return f"{name} differs"
    if (run / "evaluation.json").read_bytes() != (reference / "evaluation.json").read_bytes():
        return "evaluation.json differs"
    left = [p for p in runs.rglob(".*")] + [p for p in (run / "cache", run / "untrained.writing") if p.exists()]
    if left:
        return f"left behind: {', '.join(str(p.relative_to(runs)) for p in left)}"
    names = [{p.name for p in folder.iterdir()} for folder in (run, reference)]
    extra = [p.name for p in runs.iterdir() if p != run]
    return f"other files: {names[0] ^ names[1] or extra}" if names[0] != names[1] or extra else None


def _lines(path: Path) -> list[Any]:
    """Rows but for what a clock wrote; a torn line as it is."""
    rows: list[Any] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append({k: v for k, v in json.loads(line).items() if k not in ("time", "train/tokens_per_second")})
        except ValueError:
            rows.append(line)
    return rows


def _different_tensors(one: Path, other: Path) -> str | None:
    """The first safetensors file whose tensors differ by a byte, by name and content; their order may."""
    for path in sorted(other.glob("*.safetensors")):
        if not (one / path.name).exists() or _tensor_bytes(one / path.name) != _tensor_bytes(path):
            return f"model/{path.name}"
    return None


def _tensor_bytes(path: Path) -> dict[str, tuple[Any, bytes]]:
    """Read by hand: the parent must not run torch."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    body = content[8 + length :]
    return {
        name: ((entry["dtype"], entry["shape"]), body[slice(*entry["data_offsets"])]) for name, entry in header.items()
    }


# ---- the storm ----


def preload() -> None:
    """Import what a victim needs; run none of it."""
    import peft.tuners.lora  # noqa: F401
    import transformers.models.bert.modeling_bert  # noqa: F401
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401
    from transformers.utils import logging

    import tests.tiny  # noqa: F401
    import tunewright.evaluation.report
    import tunewright.models.saving
    import tunewright.pipeline  # noqa: F401

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def storm(kills: int, seed: int, folder: Path, on_run: Callable[[Storm], None] = lambda s: None) -> Storm:
    """Kill until enough were killed; stops at the third failure."""
    preload()
    result, generator = Storm(seed), random.Random(seed)
    place = Place(folder, Watch())
    begin = time.monotonic()
    while result.kills < kills and len(result.failures) < 3:
        one_run(place, result, generator, min(MOST_KILLS_PER_RUN, kills - result.kills))
        result.seconds = round(time.monotonic() - begin, 1)
        on_run(result)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill runs and see whether it shows.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="0: a new one each time")
    arguments = parser.parse_args()
    for name, value in (("HF_HUB_OFFLINE", "1"), ("OMP_NUM_THREADS", "1"), ("TOKENIZERS_PARALLELISM", "false")):
        os.environ.setdefault(name, value)
    seed = arguments.seed or random.SystemRandom().randrange(1, 1 << 31)
    folder = Path(tempfile.mkdtemp(prefix="storm-"))

    def tell(s: Storm) -> None:
        sys.stderr.write(f"\r{s.kills} kills, {s.inside_save} inside a save, {s.runs} runs, {len(s.failures)} failures")

    result = storm(arguments.kills, seed, folder, tell if sys.stderr.isatty() else lambda s: None)
    print(json.dumps({**vars(result), "kills_per_second": round(result.kills / max(result.seconds, 1e-9), 2)}))
    if result.failures:
        print(f"kept for a look: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
