"""How a run starts, stops and goes on: the same bytes as an uninterrupted run, and every refusal by name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

import tunewright
from tests import whole
from tunewright import opening, stages
from tunewright.errors import MachineError, StoppedError, UsageError
from tunewright.learning.checkpoints import CheckpointStore
from tunewright.recipe_files import build_recipe
from tunewright.recording import Recorder
from tunewright.runs import Run, read_summary

ROWS = ("metrics.jsonl", "samples.jsonl", "predictions/validation.jsonl")


def same(one: Run, other: Run) -> None:
    """Equal but for times: tensors of the model, rows of every file, the summary's numbers."""
    a, b = whole.tensors(one.folder / "model"), whole.tensors(other.folder / "model")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    for name in ROWS:
        assert whole.lines(one.folder, name) == whole.lines(other.folder, name), name
    for key in ("metrics", "intervals", "comparison", "best", "steps", "train_tokens_seen"):
        assert one.summary[key] == other.summary[key], key
    assert (one.folder / "evaluation.json").read_bytes() == (other.folder / "evaluation.json").read_bytes()


def stopped(monkeypatch, runs: Path, step: int, number: int = signal.SIGTERM, **arguments) -> tuple[Path, StoppedError]:
    with monkeypatch.context() as patch:
        whole.stop_after(patch, step, number)
        with pytest.raises(StoppedError) as caught:
            whole.start(runs, **arguments)
    (folder,) = (path.parent for path in runs.glob("*/run.json"))
    return folder, caught.value


# A signal is heeded one step later: inside an epoch, before an evaluation that is due, and while scoring.
@pytest.mark.parametrize(
    "method, step", [("lora", 4), ("lora", 5), ("lora", 6), ("last 1", 5), ("last 1", 8), ("head", 4), ("full", 7)]
)
def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, method, step):
    folder, error = stopped(monkeypatch, tmp_path, step, method=method)
    summary = read_summary(folder)
    assert error.exit_code == 143 and summary["state"] == "interrupted" and summary["error"]["code"] == "stopped"
    assert max(row["step"] for row in whole.lines(folder, "metrics.jsonl")) >= step
    run = tunewright.train(resume=folder.name, runs=tmp_path)
    assert run.state == "succeeded" and run.summary["error"] is None and run.summary["resumed"] == 1
    assert not (folder / "cache").exists()
    same(run, whole.finished("single", method))


def test_several_labels_and_interrupts_and_a_checkpoint_every_step(tmp_path, monkeypatch):
    settings = {"training.checkpoint_every": 1}
    folder, error = stopped(monkeypatch, tmp_path, 3, signal.SIGINT, labels="multi", settings=settings)
    assert error.exit_code == 130
    with monkeypatch.context() as patch:
        whole.stop_after(patch, 9)
        with pytest.raises(StoppedError):
            tunewright.train(resume=folder, runs=tmp_path)
    run = tunewright.train(resume=folder, runs=tmp_path)
    assert run.summary["resumed"] == 2
    same(run, whole.finished("multi", "lora"))


CHILD = """
import os, signal, sys
from tunewright import judging
from tunewright.cli.app import main
real = judging.Judge.stepped
def stepped(self, state, loss, tokens):
    real(self, state, loss, tokens)
    if state.step == 5:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
judging.Judge.stepped = stepped
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGKILL", -9)])
def test_a_process_that_is_stopped_or_killed_goes_on(tmp_path, name, code):
    command = [whole.PYTHON, "-c", CHILD, name, *whole.train_command(tmp_path)]
    done = subprocess.run(command, env=whole.child_environment(), capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    (folder,) = (path.parent for path in tmp_path.glob("*/run.json"))
    assert read_summary(folder)["state"] == "interrupted"  # a dead process too
    if code > 0:
        assert done.stderr.count("error[stopped]") == 1 and "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error[stopped] stopped at step 6")
    else:
        assert json.loads((folder / "run.json").read_text())["state"] == "running"
    same(tunewright.train(resume="latest", runs=tmp_path), whole.finished("single", "lora"))


def test_an_evaluation_that_was_written_but_not_saved_is_not_doubled(tmp_path, monkeypatch):
    """Stopped before the evaluation of step 6, resumed, then killed between its rows and its checkpoint."""
    folder, _ = stopped(monkeypatch, tmp_path, 5)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", lambda *_: (_ for _ in ()).throw(MachineError("made up")))
        with pytest.raises(MachineError):
            tunewright.train(resume=folder, runs=tmp_path)
    assert read_summary(folder)["error"]["code"] == "environment"
    same(tunewright.train(resume=folder, runs=tmp_path), whole.finished("single", "lora"))


def test_a_damaged_checkpoint_costs_only_its_steps(tmp_path, monkeypatch):
    folder, _ = stopped(monkeypatch, tmp_path, 9)
    (folder / "checkpoints" / "step-000010" / "weights.safetensors").write_bytes(b"torn")
    run = tunewright.train(resume=folder, runs=tmp_path)
    assert any("damaged" in note and note.endswith("using step 6 instead") for note in run.summary["notes"])
    assert not (folder / "checkpoints" / "step-000010").exists()
    same(run, whole.finished("single", "lora"))


def test_from_the_keyboard_before_the_first_step(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stages, "load_base", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            whole.start(tmp_path)
    (folder,) = (path.parent for path in tmp_path.glob("*/run.json"))
    summary = read_summary(folder)
    assert summary["state"] == "cancelled" and summary["error"]["code"] == "stopped" and summary["finished"]


def test_without_any_checkpoint_it_starts_again(tmp_path, monkeypatch):
    folder, _ = stopped(monkeypatch, tmp_path, 4)
    shutil.rmtree(folder / "checkpoints")
    run = tunewright.train(resume=folder, runs=tmp_path)
    assert any("no complete checkpoint" in note for note in run.summary["notes"])
    same(run, whole.finished("single", "lora"))


def test_stopped_before_the_first_step(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stages, "load_base", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError, match="before the first step") as caught:
            whole.start(tmp_path)
    assert caught.value.exit_code == 143
    (folder,) = (path.parent for path in tmp_path.glob("*/run.json"))
    assert read_summary(folder)["state"] == "interrupted" and not (folder / "recipe.resolved.yaml").exists()
    run = tunewright.train(resume=folder, runs=tmp_path)
    assert (folder / "recipe.resolved.yaml").exists()
    same(run, whole.finished("single", "lora"))


def test_stopped_while_scoring(tmp_path, monkeypatch):
    from tunewright import judging

    real, calls = judging.stopping, []

    def stopping(signal_of, runtime):
        look = real(signal_of, runtime)

        def stop():
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            look()

        return stop

    with monkeypatch.context() as patch:
        patch.setattr(judging, "stopping", stopping)
        with pytest.raises(StoppedError, match="during an evaluation"):
            whole.start(tmp_path)
    same(tunewright.train(resume="latest", runs=tmp_path), whole.finished("single", "lora"))


CHANGES = {
    "training.seed": 1,
    "training.learning_rate": 0.5,
    "trainable.rank": 8,
    "data.max_length": 9,
    "evaluation.metric": "mcc",
    "training.epochs": 3.0,
    "model": "other",
}


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """A run that was stopped at step 4; tests don't change it."""
    runs = tmp_path_factory.mktemp("halfway")
    with pytest.MonkeyPatch.context() as patch:
        return stopped(patch, runs, 4)[0]


@pytest.mark.parametrize("path, value", CHANGES.items())
def test_a_changed_recipe_is_refused_by_name(halfway, path, value):
    before = (halfway / "run.json").read_bytes()
    recipe = build_recipe({"data": {"train": str(whole.data_file())}}, [f"{path}={value}"])
    with pytest.raises(UsageError, match=f"can't resume: {path} was .* and is now ") as caught:
        tunewright.train(recipe, resume=halfway, runs=halfway.parent)
    assert caught.value.field == path and caught.value.where == str(halfway)
    assert json.loads(before)["state"] == "interrupted" == read_summary(halfway)["state"]


@pytest.mark.parametrize("what", ["data", "base", "threads"])
def test_a_changed_world_is_refused_by_name(halfway, tmp_path, monkeypatch, what):
    folder = tmp_path / "run"
    shutil.copytree(halfway, folder)
    resolved = folder / "recipe.resolved.yaml"
    text = resolved.read_text()
    if what == "data":
        other = tmp_path / "reviews.jsonl"
        other.write_text(whole.data_file().read_text().replace("good", "great"), encoding="utf-8")
        resolved.write_text(text.replace(str(whole.data_file()), str(other)))
    elif what == "base":
        monkeypatch.setattr(stages, "_weights_fingerprint", lambda folder: "other weights")
    else:
        resolved.write_text(text.replace("threads: 1 ", "threads: 2 "))
    with pytest.raises(UsageError, match=f"can't resume: {what} was") as caught:
        tunewright.train(resume=folder, runs=tmp_path)
    assert caught.value.field == what
    after = read_summary(folder)  # refused, the run is as it was
    assert after["state"] == "interrupted" and after["error"]["param"] == what


def test_data_from_memory_must_be_given_again(tmp_path, monkeypatch):
    folder, _ = stopped(monkeypatch, tmp_path, 4, data=whole.rows())
    with pytest.raises(UsageError, match="in memory") as caught:
        tunewright.train(resume=folder, runs=tmp_path)
    assert caught.value.field == "data.train"
    run = tunewright.train(resume=folder, data=whole.rows(), runs=tmp_path)
    assert run.state == "succeeded"


def test_what_has_finished_stays_finished(tmp_path):
    run = whole.finished()
    before = (run.folder / "run.json").read_bytes()
    with pytest.raises(UsageError, match="has finished; start a new run"):
        tunewright.train(resume=run.folder)
    assert (run.folder / "run.json").read_bytes() == before
    with pytest.raises(UsageError, match='no run "nothing"'):
        tunewright.train(resume="nothing", runs=tmp_path)
    with pytest.raises(UsageError, match="nothing to train"):
        opening.open_run(None, tmp_path, None, print)


def test_two_processes_on_one_folder(halfway):
    code = f"from pathlib import Path; from tunewright import recording as r; r = r.Recorder(Path({str(halfway)!r}), 0)"
    code += "; print('held', flush=True); input()"
    holder = subprocess.Popen(
        [whole.PYTHON, "-c", code],
        env=whole.child_environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"in use by process {holder.pid} on ") as caught:
            tunewright.train(resume=halfway, runs=halfway.parent)
        assert caught.value.where == str(halfway)
    finally:
        holder.communicate("\n")
    Recorder(halfway, print).close()  # free again


@pytest.mark.parametrize(
    "train, name",
    [("a/reviews.jsonl.gz", "reviews"), ("owner/some data", "some-data"), ("(in memory)", "in-memory"),
     ("/", "run"), ("données.csv", "run"), ("-x-.csv", "x"), ("a" * 90, "a" * 60), ("..", "run")],
)  # fmt: skip
def test_a_run_is_named_after_its_data(train, name):
    assert opening._name_of(build_recipe({"data": {"train": train}})) == name


def test_signals_are_given_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with opening.signals() as stop_signal:
        assert stop_signal() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_signal() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):  # whoever asks twice means it
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_ranks_do_not_write_over_an_earlier_run(tmp_path, monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("TORCHELASTIC_RUN_ID", "none"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    folder = opening._new_folder(tmp_path, "a")
    monkeypatch.setenv("RANK", "1")
    assert opening._new_folder(tmp_path, "a") == folder
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="choose another --name"):
        opening._new_folder(tmp_path, "a")
