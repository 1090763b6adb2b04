"""The start of a run: its folder, new or found again, its recipe, and what SIGINT and SIGTERM mean to it.

First arrow of the pipeline. A resumed run keeps the recipe it began with; what is asked otherwise is refused by name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import Any

from tunewright import durable, locking, recipe_files
from tunewright.errors import ModelError, StoppedError, UsageError
from tunewright.progress import Listener
from tunewright.recipe import Recipe
from tunewright.recording import Recorder, clock_words, new_folder, read_json_object, read_jsonl, start_summary
from tunewright.runs import find_run, run_folders

# Not part of what is learnt: the checkpoint's identity decides whether another value may go on.
OF_THE_MACHINE = ("training.threads", "training.device")


def open_run(
    recipe: Recipe | None, runs: Path, resume: str | None, listener: Listener, *, force: bool = False
) -> tuple[Recorder, Recipe, bool]:
    """The run's folder, new or found again, its recipe, and whether it continues."""
    is_main = os.environ.get("RANK", "0") == "0"
    if resume is None:
        if recipe is None:
            raise UsageError("nothing to train: give a recipe or a data file")
        if force:
            raise UsageError("force continues a run on other versions, threads or another device; name one to resume")
        return _new_run(recipe, runs, listener, is_main), recipe, False
    recorder = Recorder(find_run(resume, runs).folder, listener, writes=is_main)
    try:
        return recorder, _continued(recorder, recipe), True
    except BaseException:
        recorder.close()
        raise


def _new_run(recipe: Recipe, runs: Path, listener: Listener, is_main: bool) -> Recorder:
    """A folder of its own. It is a run once it has a run.json, which comes last."""
    name, made_parent = recipe.name or _name_of(recipe), not runs.exists()
    if is_main:
        remove_abandoned(runs)
    recorder = Recorder(_new_folder(runs, name), listener, writes=is_main)
    recorder.made_parent = made_parent
    with recorder.closing_on_failure():
        recorder.write("recipe.yaml", recipe_files.dump(recipe))
        recorder.update(**start_summary(recorder.folder, name, recipe.task))
        if (behind := _behind_newest(runs, recorder.folder)) > 0:
            recorder.say(clock_words(behind, "since the newest run here was made"), "warning")
    return recorder


def remove_abandoned(runs: Path) -> None:
    """Folders of starts that were killed before they were a run, and of removals that were."""
    with contextlib.suppress(OSError):  # another's folder, a read-only disk: no reason not to start
        for lock in runs.glob("*/lock"):
            folder = lock.parent
            if (folder / "run.json").exists() or (held := locking.hold(lock, wait_seconds=0)) is None:
                continue
            if not (folder / "run.json").exists() and {p.name for p in folder.iterdir()} <= _FIRST_FILES:
                durable.remove_folder(folder)
            held.release()
        durable.remove_leftovers(runs)


_FIRST_FILES = {"lock", "recipe.yaml", ".recipe.yaml.writing", ".run.json.writing"}


def _behind_newest(runs: Path, own: Path) -> float:
    """Seconds by which the clock stands before the newest of the other runs."""
    newest = max((folder for folder in run_folders(runs) if folder != own), default=None, key=lambda p: p.name)
    if newest is None or newest.name[:13] < own.name[:13]:
        return 0.0
    with contextlib.suppress(ModelError, TypeError, ValueError):
        created = datetime.fromisoformat(read_json_object(newest / "run.json")["created"])
        return max(0.0, created.timestamp() - time.time())
    return 0.0


def _continued(recorder: Recorder, recipe: Recipe | None) -> Recipe:
    """The recipe that a stopped run began with. Raises UsageError when it has finished, or when other is asked for."""
    folder = recorder.folder
    if recorder.summary.get("state") == "succeeded":
        raise UsageError(f"{folder.name} has finished; start a new run to train further", where=str(folder))
    path = folder / "recipe.resolved.yaml"
    stored = recipe_files.load_recipe(path if path.exists() else folder / "recipe.yaml")
    if recipe is not None:
        stored = _with_machine(_refuse_changes(recipe, stored, folder), stored)
    times = recorder.summary.get("resumed", 0)
    recorder.update(
        pid=os.getpid(),
        host=socket.gethostname(),
        error=None,
        finished=None,
        resumed=(times if isinstance(times, int) else 0) + 1,
    )
    if (behind := _behind_own_past(folder)) > 0:
        recorder.say(clock_words(behind, "since this run was stopped"), "warning")
    return stored


def _behind_own_past(folder: Path, tolerance_seconds: float = 2.0) -> float:
    """Seconds by which the clock stands before the last event of this run."""
    last = None
    for last in read_jsonl(folder / "events.jsonl"):  # noqa: B007 - the last one is wanted
        pass
    with contextlib.suppress(TypeError, ValueError, KeyError):
        behind = datetime.fromisoformat((last or {})["time"]).timestamp() - time.time()
        return behind if behind > tolerance_seconds else 0.0
    return 0.0


def _new_folder(runs: Path, name: str) -> Path:
    """A free folder; ranks that torchrun started together share one through its run id."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return new_folder(runs, name)
    folder = runs / f"{name}-{os.environ.get('TORCHELASTIC_RUN_ID', 'none')}-{os.environ.get('MASTER_PORT', '0')}"
    if os.environ.get("RANK") == "0" and (folder / "run.json").exists():
        raise UsageError("an earlier run has this folder; choose another --name", where=str(folder))
    return folder


def _name_of(recipe: Recipe) -> str:
    stem = Path(recipe.data.train).name.split(".")[0] or "run"
    clean = "".join(c if c.isalnum() or c in "_-" else "-" for c in stem).strip("-_")
    return clean[:60] if clean[:1].isalnum() and clean.isascii() else "run"


def _refuse_changes(recipe: Recipe, stored: Recipe, folder: Path) -> dict[str, Any]:
    """A resumed run keeps its recipe: what was asked for otherwise is refused by name, but for the machine's."""
    machine: dict[str, Any] = {}
    for part, fields in recipe.model_dump(exclude_unset=True).items():
        for name, value in fields.items() if isinstance(fields, dict) else [(None, fields)]:
            then = getattr(getattr(stored, part), name) if name else getattr(stored, part)
            path = f"{part}.{name}" if name else part
            if path in ("data.train", "data.validation", "name") or value == "auto":
                continue
            if path in OF_THE_MACHINE:
                machine[str(name)] = value
            elif value != then:
                raise UsageError(
                    f"can't resume: {path} was {then!r} and is now {value!r}; leave it out, or start a new run",
                    where=str(folder),
                    field=path,
                )
    return machine


def _with_machine(machine: dict[str, Any], stored: Recipe) -> Recipe:
    return stored.model_copy(update={"training": stored.training.model_copy(update=machine)}) if machine else stored


class StopSignal:
    """What SIGINT and SIGTERM ask for: called by the loop, the number of the signal that asked to stop, or 0."""

    def __init__(self) -> None:
        self.asked = 0
        self._armed = False  # the loop listens: it saves a checkpoint, then stops
        self._at_once = False  # all that was learnt is saved: stop wherever it is

    def __call__(self) -> int:
        self._armed = True
        return self.asked

    def at_once(self) -> None:
        """After the last step there is nothing left to save first. Raises StoppedError if it was asked for by now."""
        self._at_once = True
        if self.asked:
            raise self._stopped(self.asked)

    def handle(self, number: int, _frame: Any) -> None:
        """The handler of both signals."""
        again, self.asked = bool(self.asked), self.asked or number
        if self._at_once:
            raise self._stopped(number)
        if self._armed and not again:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        where = "at once, at the second signal" if self._armed else "before the first step"
        raise StoppedError(f"stopped {where}; continue with --resume", signal_number=number)

    @staticmethod
    def _stopped(number: int) -> StoppedError:
        return StoppedError("stopped after the last step; continue with --resume", signal_number=number)


@contextlib.contextmanager
def signals() -> Generator[StopSignal]:
    """SIGINT and SIGTERM ask to stop after the step in hand; before and after training, and asked twice, at once."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
