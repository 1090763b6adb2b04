"""The start of a run: its folder, new or found again, its recipe, and what SIGINT and SIGTERM mean to it.

First arrow of the pipeline. A resumed run keeps the recipe it began with; what is asked otherwise is refused by name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from tunewright import recipe_files
from tunewright.errors import StoppedError, UsageError
from tunewright.progress import Listener
from tunewright.recipe import Recipe
from tunewright.recording import Recorder, new_folder, start_summary
from tunewright.runs import find_run


def open_run(
    recipe: Recipe | None, runs: Path, resume: str | None, listener: Listener
) -> tuple[Recorder, Recipe, bool]:
    """The run's folder, new or found again, its recipe, and whether it continues."""
    is_main = os.environ.get("RANK", "0") == "0"
    if resume is None:
        if recipe is None:
            raise UsageError("nothing to train: give a recipe or a data file")
        name = recipe.name or _name_of(recipe)
        recorder = Recorder(_new_folder(runs, name), listener, writes=is_main)
        folder = recorder.folder
        recorder.update(**start_summary(folder, name, recipe.task))
        recorder.write("recipe.yaml", recipe_files.dump(recipe))
        return recorder, recipe, False
    recorder = Recorder(find_run(resume, runs).folder, listener, writes=is_main)
    try:
        return recorder, _continued(recorder, recipe), True
    except BaseException:
        recorder.close()
        raise


def _continued(recorder: Recorder, recipe: Recipe | None) -> Recipe:
    """The recipe that a stopped run began with. Raises UsageError when it has finished, or when other is asked for."""
    folder = recorder.folder
    if recorder.summary.get("state") == "succeeded":
        raise UsageError(f"{folder.name} has finished; start a new run to train further", where=str(folder))
    path = folder / "recipe.resolved.yaml"
    stored = recipe_files.load_recipe(path if path.exists() else folder / "recipe.yaml")
    if recipe is not None:
        _refuse_changes(recipe, stored, folder)
    times = recorder.summary.get("resumed", 0) + 1
    recorder.update(pid=os.getpid(), host=socket.gethostname(), error=None, finished=None, resumed=times)
    return stored


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


def _refuse_changes(recipe: Recipe, stored: Recipe, folder: Path) -> None:
    """A resumed run keeps its recipe; whatever was asked for otherwise is refused by name."""
    for part, fields in recipe.model_dump(exclude_unset=True).items():
        for name, value in fields.items() if isinstance(fields, dict) else [(None, fields)]:
            then = getattr(getattr(stored, part), name) if name else getattr(stored, part)
            path = f"{part}.{name}" if name else part
            if path in ("data.train", "data.validation", "name") or value == "auto":
                continue
            if value != then:
                raise UsageError(
                    f"can't resume: {path} was {then!r} and is now {value!r}; leave it out, or start a new run",
                    where=str(folder),
                    field=path,
                )


@contextlib.contextmanager
def signals() -> Generator[Callable[[], int]]:
    """SIGINT and SIGTERM ask to stop after the step in hand; before training, and at a second SIGINT, at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    asked: list[int] = []
    armed: list[bool] = []

    def handle(number: int, _frame: Any) -> None:
        if not armed or asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise StoppedError("stopped before the first step", signal_number=number)
        asked.append(number)

    def stop_signal() -> int:
        armed.append(True) if not armed else None
        return asked[0] if asked else 0

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop_signal
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
