"""A working folder with a finished run, a pipeline that answers with it, and the command run in this process."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from tests.cli.finished_run import EVENTS, RUN, write_run
from tunewright.cli import app
from tunewright.runs import Run


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """A working folder with one finished run in ./runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "RANK", "TUNEWRIGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    write_run(Path("runs"))
    return Path("runs")


@pytest.fixture
def calls(runs, monkeypatch) -> list[dict]:
    """Stands for the pipeline: remembers how it was called, tells the events, returns the finished run."""
    made: list[dict] = []

    def fine_tune(recipe, *, runs, resume, listener, force=False):
        made.append({"recipe": recipe, "runs": runs, "resume": resume})
        for event in EVENTS:
            listener(event)
        return Run(Path("runs") / RUN)

    module = types.ModuleType("tunewright.pipeline")
    module.fine_tune = fine_tune
    monkeypatch.setitem(sys.modules, "tunewright.pipeline", module)
    return made


@pytest.fixture
def tunewright(capsys):
    """Run the command in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = app.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
