"""Runs on disk: found by any of their names, listed with the truth, and worked with."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess

import pytest
import torch

from tests import whole
from tests.faults import failing
from tunewright import locking, opening
from tunewright.errors import ModelError, UsageError
from tunewright.runs import Run, RunRef, Table, find_run, list_runs, read_summary, remove_run


def make(runs, name, **fields):
    folder = runs / name
    folder.mkdir(parents=True)
    body = {
        "id": name,
        "name": name.split("-", 2)[2],
        "state": "succeeded",
        "created": f"2026-{len(list(runs.iterdir())):02}",
    }
    (folder / "run.json").write_text(json.dumps(body | fields))
    return folder


@pytest.fixture
def runs(tmp_path):
    for name in ("20261101-1000-reviews", "20261101-1000-reviews-2", "20261102-0900-tickets"):
        make(tmp_path, name)
    return tmp_path


@pytest.mark.parametrize(
    "name, found",
    [
        ("20261102-0900-tickets", "20261102-0900-tickets"),
        ("20261102", "20261102-0900-tickets"),
        ("tickets", "20261102-0900-tickets"),
        ("20261101-1000-reviews", "20261101-1000-reviews"),  # exact, though also a prefix
        ("latest", "20261102-0900-tickets"),
    ],
)
def test_names(runs, name, found):
    assert find_run(name, runs) == RunRef(runs / found)
    assert find_run(f"{name}:best", runs) == RunRef(runs / found, "best")
    assert find_run(f"{name}:step-40", runs) == RunRef(runs / found, "step-40")


def test_paths(runs):
    path = runs / "20261102-0900-tickets"
    assert find_run(path).folder == path and find_run(f"{path}:best").checkpoint == "best"


@pytest.mark.parametrize(
    "name, words",
    [
        ("20261101", "could be 20261101-1000-reviews, 20261101-1000-reviews-2; write more"),
        ("tickts", 'Did you mean "tickets"?'),
        ("20261102-0900-ticket:last", "no run"),
        ("", "could be"),
        ("../x", "no run"),
    ],
)
def test_names_that_are_none(runs, name, words):
    with pytest.raises(UsageError) as caught:
        find_run(name, runs)
    assert words in str(caught.value)


def test_no_runs_at_all(tmp_path):
    assert list_runs(tmp_path / "none") == []
    with pytest.raises(UsageError, match=r"no runs in .* yet"):
        find_run("latest", tmp_path / "none")


def _dead_process() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_the_dead_are_shown_as_interrupted(tmp_path):
    here = socket.gethostname()
    make(tmp_path, "1-1-dead", state="running", pid=_dead_process(), host=here)
    make(tmp_path, "1-1-recycled", state="running", pid=os.getpid(), host=here)  # its number is another's now: ours
    for name in ("dead", "recycled"):
        (tmp_path / f"1-1-{name}" / "lock").write_text("process 1 on here")
    alive = make(tmp_path, "1-1-alive", state="running", pid=_dead_process(), host=here)
    held = locking.hold(alive / "lock")
    make(tmp_path, "1-1-elsewhere", state="saving", pid=1, host="another")
    make(tmp_path, "1-1-odd", state="evaluating", pid="x", host=here)
    make(tmp_path, "1-1-failed", state="failed", pid=_dead_process(), host=here)
    (make(tmp_path, "1-1-torn") / "run.json").write_text("{")
    (make(tmp_path, "1-1-list") / "run.json").write_text("[]")
    states = {row["id"].split("-")[2]: row["state"] for row in list_runs(tmp_path)}
    assert states == {"dead": "interrupted", "alive": "running", "elsewhere": "saving", "odd": "interrupted",
                      "recycled": "interrupted", "failed": "failed", "torn": "unreadable",
                      "list": "unreadable"}  # fmt: skip
    assert held is not None
    held.release()
    assert read_summary(alive)["state"] == "interrupted"
    stored = json.loads((tmp_path / "1-1-dead" / "run.json").read_text())
    assert stored["state"] == "running"  # reading writes nothing


def test_a_living_run_is_not_removed(tmp_path):
    alive = make(tmp_path, "1-1-alive", state="running", pid=os.getpid(), host=socket.gethostname())
    held = locking.hold(alive / "lock")
    assert held is not None
    held.sign()
    with pytest.raises(UsageError, match="is running; stop it first"):
        remove_run(RunRef(alive))
    (alive / "run.json").write_text('{"state": "interrupted"}')  # someone is just starting to resume it
    with pytest.raises(UsageError, match=f"is in use by process {os.getpid()} on .*; stop it first"):
        remove_run(RunRef(alive))
    done = make(tmp_path, "1-1-done")
    remove_run(RunRef(done))
    assert alive.exists() and not done.exists()
    held.release()


def test_a_removal_that_is_killed_leaves_no_half_run(tmp_path, monkeypatch):
    folder = make(tmp_path, "1-1-done")
    with (
        failing(monkeypatch, lambda point: point.startswith("before remove"), KeyboardInterrupt()),
        pytest.raises(KeyboardInterrupt),
    ):
        remove_run(RunRef(folder))
    assert list_runs(tmp_path) == []
    opening.remove_abandoned(tmp_path)
    assert not list(tmp_path.iterdir())


def test_oldest_first(runs):
    assert [row["id"] for row in list_runs(runs)] == sorted(p.name for p in runs.iterdir())


def test_a_run_without_a_model_says_its_state(tmp_path):
    folder = make(tmp_path, "1-1-x", state="failed")
    with pytest.raises(ModelError, match=r"has no model \(state: failed\); continue it with --resume"):
        _ = RunRef(folder).model_folder
    with pytest.raises(ModelError, match="no best checkpoint"):
        _ = RunRef(folder, "best").step
    assert Run(folder).metrics == {} and Run(folder).evaluations == [] and len(Run(folder).table.rows) == 0


# ---- checkpoints as models ----


def test_checkpoints_answer_as_they_did_then():
    run = whole.finished("single", "full")
    prompts = whole.SETTINGS["evaluation.prompts"]
    rows = [row for row in whole.lines(run.folder, "samples.jsonl") if not row.get("final")]
    for name in ("best", "step-12"):
        ref = find_run(f"{run.folder}:{name}")
        step = ref.step
        then = [row["probabilities"] for row in rows if row["step"] == step]
        told = ref.load().predict(prompts)
        assert [dict(said.probabilities) for said in told] == [pytest.approx(p, abs=1e-4) for p in then]


def test_a_checkpoint_that_is_missing_or_damaged(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole.finished().folder, folder)
    there = sorted(p.name for p in (folder / "checkpoints").iterdir())
    with pytest.raises(ModelError, match=f"no checkpoint of step 3; there are {', '.join(there)}"):
        _ = RunRef(folder, "step-3").weights
    (folder / "checkpoints" / there[-1] / "state.json").write_text("{}")
    with pytest.raises(ModelError, match="damaged"):
        find_run(f"{folder}:{there[-1].replace('step-0000', 'step-')}").load()


# ---- a Run ----


def test_a_run_is_what_its_folder_says():
    run = whole.finished()
    assert run.id == run.folder.name and run.state == "succeeded" and run.report_path.exists()
    assert run.metrics == read_summary(run.folder)["metrics"]
    assert repr(run) == f"Run({str(run.folder)!r}, state='succeeded')"
    table = run.table
    assert table.columns == ("epoch", "step", "train loss", "validation loss", "accuracy") and len(table.rows) == 3
    assert [row[0].endswith(" *") for row in table.rows].count(True) == 1
    assert table.rows[0][2] == "-" and table.rows[0][4] == f"{run.evaluations[0]['validation/accuracy']:.3f}"
    lines = str(table).splitlines()
    assert lines[0].split()[:2] == ["epoch", "step"] and len({len(line.rstrip()) for line in lines[1:]}) <= 2


def test_predict_compare_and_the_plain_object():
    import peft

    run = whole.finished()
    texts = ["a good film", "a dull plot", "the"]
    assert [said.prediction in ("negative", "positive") for said in run.predict(texts)] == [True] * 3
    comparison = run.compare(texts)
    assert [row[0] for row in comparison.rows] == texts and str(comparison).count("\n") == 3
    assert isinstance(run.model(), peft.PeftModel)
    assert run.predictor is run.predictor
    ids = run.predictor.tokenizer("a good film", return_tensors="pt")
    with torch.inference_mode():
        logits = run.model()(**ids).logits[0]
    assert torch.softmax(logits, -1).tolist() == pytest.approx(
        list(run.predict(texts)[0].probabilities.values()), abs=1e-5
    )


def test_tables_do_not_run_what_texts_say():
    table = Table(("a",), (("<script>alert(1)</script>",),))
    assert "<script>" not in table._repr_html_() and "&lt;script&gt;" in table._repr_html_()
    comparison = whole.finished().compare(["<b>bold</b>"])
    assert "<b>" not in comparison._repr_html_()
