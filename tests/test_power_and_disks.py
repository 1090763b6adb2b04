"""Disks that are full, read-only or taken away, runs that die, clocks that lie: one line each, and the run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import pytest

import tunewright
from tests import whole
from tests.faults import failing, passed
from tests.test_opening import same, stopped
from tunewright import locking, opening, stages
from tunewright.cli.app import main
from tunewright.errors import MachineError, ModelError, StoppedError, UsageError
from tunewright.learning.checkpoints import CheckpointStore
from tunewright.progress import Said
from tunewright.recording import Recorder
from tunewright.runs import list_runs, read_summary

FULL = OSError(28, "No space left on device")
READ_ONLY = OSError(30, "Read-only file system")


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "16m") -> Generator[Path]:
    """A disk of its own, where this process may mount one; else the injected failures have to do."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def only(runs: Path) -> Path:
    (path,) = runs.glob("*/run.json")
    return path.parent


# ---- the disk is full ----


@pytest.mark.parametrize("method", ["lora", "last 1"])
def test_a_full_disk_at_any_save_costs_nothing(tmp_path, monkeypatch, method):
    """ENOSPC at fault points spread over a whole run: exit 5, one line, and resumed it ends as if nothing was."""
    whole.finished("single", method)
    points = passed(monkeypatch, lambda: whole.start(tmp_path / "count", method=method))
    for number in range(7, len(points), len(points) // 6):
        runs = tmp_path / str(number)
        with failing(monkeypatch, number, FULL) as struck, pytest.raises((MachineError, OSError)) as caught:
            whole.start(runs, method=method)
        assert struck == [point.replace("/count/", f"/{number}/") for point in points[number : number + 1]]
        if points[number].startswith(("begin", "end")):
            continue
        assert isinstance(caught.value, MachineError) and caught.value.exit_code == 5
        assert "(No space left on device)" in str(caught.value), points[number]
        if list(runs.glob("*/run.json")):
            assert read_summary(only(runs))["state"] in ("failed", "interrupted")
            same(tunewright.train(resume="latest", runs=runs), whole.finished("single", method))


@pytest.mark.parametrize("room", [0, 20, 60, 100])
def test_a_disk_that_really_fills_up(tmp_path, monkeypatch, capfd, room):
    """Somebody else fills it after a few steps, but for some kilobytes; then makes room."""
    from tunewright.judging import Judge

    whole.finished()
    real = Judge.stepped
    with small_disk(tmp_path / "disk") as disk:

        def stepped(self, state, loss, tokens):
            if state.step == 7:
                fill(disk / "filler", room)
            real(self, state, loss, tokens)

        with monkeypatch.context() as patch:
            patch.setattr(Judge, "stepped", stepped)
            assert main(whole.train_command(disk)) == 5
        err = capfd.readouterr().err
        assert err.count("error[") == 1 and "Traceback" not in err and "No space left on device" in err
        assert [row["state"] for row in list_runs(disk)] in (["failed"], ["interrupted"])
        assert CheckpointStore(only(disk) / "checkpoints", {}).newest()[0].step == (12 if room == 100 else 6)
        (disk / "filler").unlink()
        assert main(["train", "--resume", "--runs", str(disk)]) == 0
        shutil.copytree(only(disk), tmp_path / "run")
    same(tunewright.Run(tmp_path / "run"), whole.finished())


def fill(path: Path, room: int) -> None:
    """Take all that is left of a disk but some kilobytes."""
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(bytes(4096)) == 4096:
            pass
    path.write_bytes(bytes(max(0, path.stat().st_size - room * 1024)))


# ---- read-only, taken away ----


def test_a_read_only_folder_of_runs(tmp_path, capfd):
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert main(whole.train_command(disk)) == 5
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error[")]
    assert line.startswith("error[environment] ") and line.endswith("run folder can't be made (Read-only file system)")


def test_a_run_that_became_read_only(tmp_path, monkeypatch, capfd):
    with small_disk(tmp_path / "disk") as disk:
        folder, _ = stopped(monkeypatch, disk, 4)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert main(["train", "--resume", "--runs", str(disk)]) == 5
        assert [row["state"] for row in list_runs(disk)] == ["interrupted"]
        assert main(["runs", "rm", folder.name, "--yes", "--runs", str(disk)]) == 5
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error[")]
    assert [e.split(": ")[-1] for e in errors] == [
        "run folder can't be written (Read-only file system)", "can't be removed (Read-only file system)",
    ]  # fmt: skip


def test_read_only_while_it_runs(tmp_path, monkeypatch):
    def first(point: str) -> bool:
        return point.startswith("before sync") and "step-000006" in point

    with failing(monkeypatch, first, READ_ONLY), pytest.raises(MachineError, match="checkpoint of step 6") as caught:
        whole.start(tmp_path)
    assert "(Read-only file system); the one of step 0 is whole" in str(caught.value) and caught.value.exit_code == 5


def test_a_folder_removed_while_it_runs(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        whole.raise_at_step(patch, 3, lambda: shutil.rmtree(only(tmp_path)) or MachineError("stop"))
        with pytest.raises(MachineError, match="stop"):
            whole.start(tmp_path)
    assert not list(tmp_path.iterdir())

    from tunewright.judging import Judge

    real = Judge.stepped

    def stepped(self, state, loss, tokens):
        if state.step == 3:
            shutil.rmtree(only(tmp_path))
        real(self, state, loss, tokens)

    monkeypatch.setattr(Judge, "stepped", stepped)
    with pytest.raises(MachineError, match="was removed or moved while it ran; start a new run"):
        whole.start(tmp_path)
    assert not list(tmp_path.iterdir())


# ---- death ----


WAIT = """
import sys, time
from tunewright import judging
judging.Judge.stepped = lambda *_: (print("on", flush=True), time.sleep(60))
from tunewright.cli.app import main
main(sys.argv[1:])
"""


def test_runs_ls_tells_the_truth_within_five_seconds(tmp_path, capsys):
    command = [whole.PYTHON, "-c", WAIT]
    child = subprocess.Popen(
        [*command, *whole.train_command(tmp_path)], env=whole.child_environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "on\n"
    assert [row["state"] for row in list_runs(tmp_path)] == ["running"]
    with pytest.raises(UsageError, match=f"in use by process {child.pid}"):
        tunewright.train(resume="latest", runs=tmp_path)
    assert read_summary(only(tmp_path))["state"] == "running"  # the one that was refused changed nothing
    os.kill(child.pid, signal.SIGKILL)
    begin = time.monotonic()
    child.wait()
    assert main(["runs", "ls", "--runs", str(tmp_path)]) == 0
    assert time.monotonic() - begin < 5
    assert "interrupted" in capsys.readouterr().out
    child.stdout.close()


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("where", ["save_model", "judge", "write_report", "last step"])
def test_the_first_signal_after_the_last_step_is_honoured(tmp_path, monkeypatch, number, code, where):
    from tunewright.evaluation import report
    from tunewright.models import saving
    from tunewright.tasks import classify_scoring

    def then(real):
        return lambda *a, **k: os.kill(os.getpid(), number) or real(*a, **k)

    with monkeypatch.context() as patch:
        if where == "last step":  # between the last look of the loop and its end
            patch.setattr(stages, "keep_best", then(stages.keep_best))
        else:
            owner = {"save_model": saving, "judge": classify_scoring, "write_report": report}[where]
            patch.setattr(owner, where, then(getattr(owner, where)))
        with pytest.raises(StoppedError, match="after the last step; continue with --resume") as caught:
            whole.start(tmp_path)
    assert caught.value.exit_code == code and read_summary(only(tmp_path))["state"] == "interrupted"
    same(tunewright.train(resume="latest", runs=tmp_path), whole.finished())


def test_whatever_has_succeeded_has_a_report(tmp_path, monkeypatch):
    points = passed(monkeypatch, lambda: whole.start(tmp_path))
    last = max(i for i, point in enumerate(points) if "run.json" in point and point.startswith("before write"))
    assert any("report.html" in point for point in points[:last])
    assert not any("report.html" in point for point in points[last:])


def test_starts_that_were_killed_before_they_were_a_run_are_swept_away(tmp_path):
    dead, alive, other = (tmp_path / name for name in ("1-1-dead", "1-1-alive", "mine"))
    for folder in (dead, alive, other):
        folder.mkdir()
        (folder / "lock").touch()
        (folder / "recipe.yaml").touch()
    (other / "notes.txt").touch()  # somebody's
    held = locking.hold(alive / "lock")
    opening.remove_abandoned(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"1-1-alive", "mine"} and held is not None
    held.release()


def test_a_start_that_fails_in_its_first_write_leaves_nothing(tmp_path, monkeypatch):
    for number in range(len(passed(monkeypatch, lambda: begun(tmp_path / "count").close()))):
        runs = tmp_path / str(number)
        with failing(monkeypatch, number, FULL), pytest.raises(MachineError, match="No space left"):
            begun(runs)
        assert not runs.exists(), number


def begun(runs: Path, events: list[object] | None = None) -> Recorder:
    from tunewright.recipe_files import build_recipe

    listener = events.append if events is not None else lambda event: None
    return opening.open_run(build_recipe({"data": {"train": "a.jsonl"}}), runs, None, listener)[0]


# ---- damage ----


FILES = ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_any_damage_to_the_newest_checkpoint_costs_only_its_steps(halfway, tmp_path, name, damage):
    folder = tmp_path / "run"
    shutil.copytree(halfway, folder)
    file = folder / "checkpoints" / "step-000008" / name
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "flip":
        content[len(content) // 3] ^= 4
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) // 2])
    said: list[object] = []
    run = tunewright.train(resume=folder, runs=tmp_path, progress=said.append)
    [warning] = [e.message for e in said if isinstance(e, Said) and e.level == "warning" and "damaged" in e.message]
    assert name in warning and warning.endswith("; using step 6 instead")
    same(run, whole.finished())


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """A run that was stopped at step 8; tests don't change it."""
    runs = tmp_path_factory.mktemp("halfway")
    with pytest.MonkeyPatch.context() as patch:
        return stopped(patch, runs, 7)[0]


def test_where_every_checkpoint_is_damaged_it_does_not_silently_begin_again(halfway, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(halfway, folder)
    for path in folder.glob("checkpoints/*/manifest.json"):
        path.unlink()
    before = read_summary(folder)
    assert main(["train", "--resume", str(folder)]) == 4
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error[")]
    assert (
        line.startswith("error[model] ")
        and "no checkpoint can be trusted" in line
        and "manifest.json is missing" in line
    )
    assert read_summary(folder)["state"] == before["state"] == "interrupted"
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == sorted(
        p.name for p in (halfway / "checkpoints").iterdir()
    )
    shutil.rmtree(folder / "checkpoints")  # what the line says
    same(tunewright.train(resume=folder, runs=tmp_path), whole.finished())


def test_a_best_checkpoint_that_is_damaged_is_found_again(tmp_path, monkeypatch):
    """It is only read at the end; from before it, the same best is trained again."""
    with monkeypatch.context() as patch:
        patch.setattr(stages, "keep_best", lambda *_: (_ for _ in ()).throw(ModelError("damaged")))
        with pytest.raises(ModelError):
            whole.start(tmp_path, settings={"training.keep_checkpoints": 5})
    folder = only(tmp_path)
    best = json.loads((folder / "checkpoints" / "step-000012" / "state.json").read_text())["fit"]["best_step"]
    (folder / "checkpoints" / f"step-{best:06d}" / "weights.safetensors").write_bytes(b"torn")
    same(tunewright.train(resume=folder, runs=tmp_path), whole.finished())


# ---- another world ----


@pytest.mark.parametrize("name", ["torch", "transformers", "peft", "tunewright"])
def test_another_version_is_refused_and_can_be_forced(halfway, tmp_path, monkeypatch, capfd, name):
    folder = tmp_path / "run"
    shutil.copytree(halfway, folder)
    real = stages.versions()
    monkeypatch.setattr(stages, "versions", lambda: real | {name: "99.0"})
    assert main(["train", "--resume", str(folder)]) == 2
    err = capfd.readouterr().err
    assert err.count("error[") == 1 and f'can\'t resume: {name} was "{real[name]}" and is now "99.0"' in err
    assert "--resume --force" in err
    assert main(["train", "--resume", str(folder), "--force"]) == 0
    out = capfd.readouterr()
    said = " ".join((out.out + out.err).split())
    assert f'{name} was "{real[name]}" and is now "99.0": near the uninterrupted run, but not the same bytes' in said


def test_threads_can_be_forced_and_the_rest_cannot(halfway, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(halfway, folder)
    command = ["train", "--resume", str(folder), "-s", "training.threads=2"]
    assert main(command) == 2
    assert "can't resume: threads was 1 and is now 2 (-s training.threads=" in capfd.readouterr().err
    assert main(["train", "--resume", str(folder), "-s", "training.seed=9", "--force"]) == 2
    assert "can't resume: training.seed was" in capfd.readouterr().err
    assert main([*command, "--force"]) == 0


def test_force_alone_makes_no_sense(capfd, tmp_path):
    assert main([*whole.train_command(tmp_path), "--force"]) == 2
    assert "--force goes with --resume" in capfd.readouterr().err


# ---- the clock ----


def test_a_clock_that_stands_before_the_newest_run(tmp_path, monkeypatch):
    whole.scratch()
    later = tmp_path / "29991231-2359-later"
    later.mkdir()
    (later / "run.json").write_text(json.dumps({"created": "2999-12-31T23:59:00+00:00", "state": "succeeded"}))
    events: list[object] = []
    begun(tmp_path, events).close()
    [said] = [e.message for e in events if isinstance(e, Said)]
    assert said.startswith("the clock went back by ") and "since the newest run here was made" in said
    assert "`latest` goes by them" in said


def test_a_clock_that_stands_before_the_runs_own_past(halfway, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(halfway, folder)
    with (folder / "events.jsonl").open("a") as stream:
        stream.write(json.dumps({"time": "2999-01-01T00:00:00+00:00", "event": "said", "message": "x"}) + "\n")
    events: list[object] = []
    run = tunewright.train(resume=folder, runs=tmp_path, progress=events.append)
    assert any(isinstance(e, Said) and "since this run was stopped" in e.message for e in events)
    same(run, whole.finished())
