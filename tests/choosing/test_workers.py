"""Processes that do the work: what they say comes back, and neither a signal nor a death leaves one behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import whole
from tests.choosing import small
from tests.choosing.test_trying import board_of
from tunewright.choosing.board import write_recipe
from tunewright.choosing.trying import try_models
from tunewright.choosing.work import Job, Result, error_of
from tunewright.choosing.workers import Processes, log_to
from tunewright.errors import DataError, MachineError, StoppedError, TunewrightError
from tunewright.planning.trials import given_values


def _recipe(folder: Path, **changes: Any) -> str:
    return str(write_recipe(folder / "recipe.yaml", given_values(small.labelled("one", **changes))))


def test_a_trial_in_a_process_of_its_own(tmp_path):
    said: list[str] = []
    log = tmp_path / "log.txt"
    found = Processes(threads=1, log=log).do(Job("train", _recipe(tmp_path), str(tmp_path / "runs")), said.append)
    assert found.state == "succeeded" and found.run is not None, log.read_text()
    assert json.loads((tmp_path / "runs" / found.run / "speed.json").read_text())["rows_per_second"] > 0
    assert "loading the model" in said and any(words.startswith("step ") for words in said)


def test_an_error_there_is_the_same_error_here(tmp_path):
    recipe = _recipe(tmp_path, data={"train": str(tmp_path / "none.jsonl")})
    found = Processes(threads=1).do(Job("train", recipe, str(tmp_path / "runs")), lambda words: None)
    assert found.state == "failed"
    with pytest.raises(DataError, match=r"none\.jsonl"):
        found.raise_error()


@pytest.mark.parametrize("error", [MachineError("full", where="/x"), StoppedError("x", signal_number=15),
                                   DataError("bad", where="a:1", field="text")])  # fmt: skip
def test_errors_survive_the_way(error):
    from tunewright.choosing.work import _plain

    again = error_of(json.loads(json.dumps(_plain(error))))
    assert (type(again), str(again), again.exit_code, again.field) == (type(error), str(error), error.exit_code,
                                                                       error.field)  # fmt: skip


def test_a_process_that_is_killed_is_said(tmp_path, monkeypatch):
    real = subprocess.Popen

    def killed(command: list[str], **settings: Any) -> Any:
        return real([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], **settings)

    monkeypatch.setattr(subprocess, "Popen", killed)
    with pytest.raises(MachineError, match="killed by signal 9; is there enough memory"):
        Processes().do(Job("train", "x", "y"), lambda words: None)


def test_a_crash_there_is_kept_in_the_log(tmp_path):
    workers = Processes(threads=1)
    log_to(workers, tmp_path / "workers.log")
    (tmp_path / "recipe.yaml").write_text("data: {train: x.jsonl}")
    found = workers.do(Job("nonsense", str(tmp_path / "recipe.yaml"), "runs"), lambda words: None)  # type: ignore[arg-type]
    assert found.state == "failed"
    with pytest.raises(TunewrightError, match="KeyError"):
        found.raise_error()
    assert "Traceback" in (tmp_path / "workers.log").read_text()


def test_results_are_plain():
    with pytest.raises(TunewrightError, match="boom"):
        Result("failed", error={"code": "bug", "message": "boom", "where": None, "field": None, "exit_code": 1}
               ).raise_error()  # fmt: skip
    Result("paused").raise_error()


# ---- real kills ----

COMMAND = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.choosing import small
from tunewright.choosing.trying import try_models
from tunewright.choosing.workers import Processes
from tunewright.errors import TunewrightError
def tell(words):
    print(words, flush=True)
try:
    request = small.request(small.labelled(model={model!r}, data={data!r}))
    try_models(request, Path({runs!r}), Processes(threads=1), tell)
except TunewrightError as error:
    print(error.line(), flush=True)
    sys.exit(error.exit_code)
"""


def _start(runs: Path, model: Path, data: dict[str, Any]) -> subprocess.Popen[str]:
    code = COMMAND.format(root=str(whole.ROOT), model=str(model), data=data, runs=str(runs))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=whole.child_environment())  # fmt: skip


def _until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line)
        if words in line:
            return
    raise AssertionError("".join(told))


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _gone(pids: list[int], seconds: float = 60) -> bool:
    import psutil

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != "zombie"]:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.timeout(900)
def test_killed_twice_the_board_is_the_same(tmp_path):
    """SIGKILL while a trial learns, SIGTERM while another does: the third start ends as one that was left alone."""
    recipe = small.labelled()
    whole_one = try_models(small.request(recipe), tmp_path / "alone", small.Watched())
    model, data = Path(recipe.model), {"train": recipe.data.train, "validation": recipe.data.validation}

    first = _start(tmp_path / "runs", model, data)
    _until(first, "trial 2 of 4: bert lora, seed 1: step")
    children = _children(first.pid)
    assert children
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert _gone(children), "a trial's process outlives whoever asked for it"

    second = _start(tmp_path / "runs", model, data)
    _until(second, "trial 3 of 4: bert head, seed 2: ")
    time.sleep(3)
    second.send_signal(signal.SIGTERM)
    output, _ = second.communicate(timeout=300)
    assert second.returncode in (143, 0), output

    found = try_models(small.request(recipe), tmp_path / "runs", small.Watched())
    assert board_of(found) == board_of(whole_one)
    assert found.facts["tokens"] == whole_one.facts["tokens"]
    assert os.listdir(tmp_path / "runs") == ["noisy-try"]
