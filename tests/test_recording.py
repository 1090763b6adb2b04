"""What is written survives: whole files or none, torn lines forgiven, every end written down, one writer."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import torch

from tests import whole
from tunewright import locking, recording
from tunewright.errors import DataError, DivergedError, MachineError, ModelError, StoppedError, UsageError
from tunewright.progress import Phase, Said
from tunewright.recording import Recorder, Stopwatch, new_folder, read_jsonl, start_summary, write_atomically


@pytest.fixture
def events():
    return []


@pytest.fixture
def recorder(tmp_path, events):
    made = Recorder(tmp_path / "run", events.append)
    made.update(**start_summary(made.folder, "a", "classify"))
    yield made
    made.close()


def summary(recorder):
    return json.loads((recorder.folder / "run.json").read_text())


def test_states_and_sentences(recorder, events):
    recorder.state("running", "training")
    recorder.say("be warned", "warning")
    recorder.say("be warned", "warning")
    assert summary(recorder)["state"] == "running"
    assert events == [Phase("training"), Said("be warned", "warning"), Said("be warned", "warning")]
    recorder.update(steps=3)
    assert summary(recorder)["notes"] == ["be warned"] and summary(recorder)["steps"] == 3
    rows = list(read_jsonl(recorder.folder / "events.jsonl"))
    assert [(r["event"], r["message"], r["level"]) for r in rows][:2] == [
        ("state", "running", "info"), ("said", "be warned", "warning"),
    ]  # fmt: skip
    assert all(r["time"].endswith("+00:00") for r in rows)


@pytest.mark.parametrize(
    "error, state, code",
    [
        (StoppedError("stopped at step 3", signal_number=15), "interrupted", "stopped"),
        (DataError("bad", where="a:1", field="label"), "failed", "data"),
        (DivergedError("nan"), "failed", "diverged"),
        (KeyboardInterrupt(), "cancelled", "stopped"),
        (ZeroDivisionError("ours"), "failed", "bug"),
        (SystemExit(1), "failed", "bug"),
    ],
)
def test_every_end_is_written_down_and_passed_on(recorder, error, state, code):
    recorder.state("running")
    with pytest.raises(type(error)), recorder.recording():
        raise error
    found = summary(recorder)
    assert (found["state"], found["error"]["code"]) == (state, code) and found["finished"] and found["seconds"] >= 0
    assert set(found["error"]) == {"code", "message", "param"} and found["error"]["message"]
    assert found["error"]["param"] == getattr(error, "field", None)
    last = list(read_jsonl(recorder.folder / "events.jsonl"))[-1]
    assert (last["event"], last["level"]) == ("ended", "error")
    Recorder(recorder.folder, print).close()  # the folder is free again


def test_a_full_disk_does_not_hide_the_error(recorder, monkeypatch):
    def full(*_):
        raise MachineError("can't be written (No space left on device)")

    recorder.state("running")
    monkeypatch.setattr(recording, "write_atomically", full)
    with pytest.raises(DivergedError), recorder.recording():
        raise DivergedError("nan")


def test_a_new_run_that_fails_before_training_leaves_nothing(recorder):
    with pytest.raises(DataError), recorder.recording():
        raise DataError("bad")
    assert not recorder.folder.exists() and recorder.folder.parent.exists()
    assert not list(recorder.folder.parent.iterdir())


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), StoppedError("asked"), KeyboardInterrupt()])
def test_our_own_bugs_and_stops_are_kept(recorder, error):
    with pytest.raises(type(error)), recorder.recording():
        raise error
    assert summary(recorder)["error"]["message"]


@pytest.mark.parametrize(
    "then, after", [("running", "interrupted"), ("failed", "failed"), ("interrupted",) * 2, (7, "interrupted")]
)
def test_a_resume_that_is_refused_leaves_the_run_as_it_was(recorder, then, after):
    recorder.update(state=then, steps=5, resumed=1)
    recorder.close()
    again = Recorder(recorder.folder, print)
    with pytest.raises(UsageError), again.recording():
        again.update(state="preparing", resumed=2)
        raise UsageError("can't resume", field="data")
    found = summary(recorder)
    assert (found["state"], found["resumed"], found["steps"], found["error"]["param"]) == (after, 1, 5, "data")


def test_a_folder_that_was_removed_does_not_come_back(recorder):
    recorder.state("running")
    shutil.rmtree(recorder.folder)
    for write in (
        lambda: recorder.metrics({"step": 1}),
        lambda: recorder.update(state="saving"),
        lambda: recorder.write_rows("predictions/validation.jsonl", iter([{}])),
        lambda: recorder.write_tensors("a.safetensors", {"a": torch.zeros(1)}),
    ):
        with pytest.raises(MachineError, match="was removed or moved while it ran; start a new run") as caught:
            write()
        assert caught.value.where == str(recorder.folder)
    with pytest.raises(MachineError, match="was removed"), recorder.recording():
        recorder.event("a", "b")
    assert not recorder.folder.exists()


def test_nothing_is_written_into_another_run_of_the_same_name(recorder):
    shutil.rmtree(recorder.folder)
    other = Recorder(recorder.folder, print)
    with pytest.raises(MachineError, match="was removed"):
        recorder.metrics({"step": 1})
    assert not (recorder.folder / "metrics.jsonl").exists()
    other.close()


def test_what_a_kill_left_half_written_goes_at_the_next_start(recorder):
    recorder.close()
    (recorder.folder / "predictions").mkdir()
    for name in (".run.json.writing", ".report.html.writing", "predictions/.validation.jsonl.writing"):
        (recorder.folder / name).write_text("ha")
    (recorder.folder / ".writing-model").mkdir()
    Recorder(recorder.folder, print).close()
    assert not list(recorder.folder.rglob(".*"))


@pytest.mark.parametrize("body", ["", "{", "[]", "[" * 100_000, "\xff", "7"])
def test_a_run_json_that_is_none_is_one_sentence(recorder, body):
    recorder.close()
    (recorder.folder / "run.json").write_bytes(body.encode("latin-1"))
    with pytest.raises(ModelError, match=r"run\.json (can't be read|isn't an object)"):
        Recorder(recorder.folder, print)
    Recorder(recorder.folder, print, writes=False)
    assert locking.hold(recorder.folder / "lock") is not None  # let go


def test_a_line_that_was_torn_stays_by_itself(recorder):
    recorder.event("one", "1")
    with (recorder.folder / "events.jsonl").open("a") as stream:
        stream.write('{"event": "tor')
    recorder.event("two", "2")
    assert [row["event"] for row in read_jsonl(recorder.folder / "events.jsonl")] == ["one", "two"]


def test_a_clock_that_goes_back_is_said_once(recorder, events, monkeypatch):
    real = time.time
    recorder.metrics({"step": 1})
    monkeypatch.setattr(recording.time, "time", lambda: real() - 3600)
    for step in (2, 3):
        recorder.metrics({"step": step})
    [said] = [event for event in events if isinstance(event, Said)]
    assert said.message.startswith("the clock went back by 3,600 seconds while the run was going: ")
    assert said.level == "warning"
    monkeypatch.setattr(recording.time, "time", lambda: real() + 10**6)  # a suspended laptop
    recorder.metrics({"step": 4})
    assert len([event for event in events if isinstance(event, Said)]) == 1


def test_one_writer(recorder):
    with pytest.raises(UsageError, match="in use by process"):
        Recorder(recorder.folder, print)
    Recorder(recorder.folder, print, writes=False)  # a rank that writes nothing needs no lock


def test_ranks_above_0_write_and_say_nothing(tmp_path, events):
    quiet = Recorder(tmp_path / "run", events.append, writes=False)
    quiet.update(state="running")
    quiet.say("x")
    quiet.metrics({"step": 1})
    quiet.write("a", "b")
    with pytest.raises(DataError), quiet.recording():
        raise DataError("x")
    assert not (tmp_path / "run").exists() and events == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="can't be written") as caught:
        Recorder(tmp_path / "file" / "run", print)
    assert caught.value.exit_code == 5
    with pytest.raises(MachineError, match="can't be made"):
        new_folder(tmp_path / "file", "a")


def test_torn_and_foreign_lines_are_forgiven(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"step": 1, "t": "é\u2028"}\n\n[1]\nnull\n{"step": 2}\n{"step": 3, "x'.encode())
    assert [row["step"] for row in read_jsonl(path)] == [1, 2]
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []


def test_whole_or_old(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_atomically(path, "one")

    def broken():
        yield "tw"
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match="No space left"):
        write_atomically(path, broken())
    assert path.read_text() == "one"


LOG = {"train/grad_norm": 1.0}
EVALUATION = {"validation/loss": 1.0}


def test_rows_that_the_checkpoint_does_not_know_go(recorder):
    for step in range(1, 7):
        recorder.metrics({"step": step, **LOG})
        if step in (2, 4, 6):
            recorder.metrics({"step": step, **EVALUATION})
            recorder.samples([{"step": step, "prompt": "p"}])
    recorder.samples([{"step": 2, "prompt": "p", "final": True}])
    recorder.drop_rows_after(4, 2)  # stopped at 4, before its evaluation was done
    rows = list(read_jsonl(recorder.folder / "metrics.jsonl"))
    assert [r["step"] for r in rows if "train/grad_norm" in r] == [1, 2, 3, 4]
    assert [r["step"] for r in rows if "validation/loss" in r] == [2]
    assert [r["step"] for r in read_jsonl(recorder.folder / "samples.jsonl")] == [2]
    recorder.drop_rows_after(-1, -1)
    assert list(read_jsonl(recorder.folder / "metrics.jsonl")) == []


def test_new_folders_are_never_shared(tmp_path):
    folders = [new_folder(tmp_path / "runs", "a") for _ in range(4)]
    assert len(set(folders)) == 4 and all(folder.is_dir() for folder in folders)
    assert all("-a" in folder.name for folder in folders)


def test_seconds_add_up_over_processes(recorder):
    recorder.update(seconds=100.0)
    recorder.close()
    again = Recorder(recorder.folder, print)
    assert 100.0 <= again.seconds < 110.0
    again.close()


def test_stopwatch():
    watch = Stopwatch()
    for _ in range(2):
        with watch.timing("a"):
            pass
    with pytest.raises(KeyError), watch.timing("b"):
        raise KeyError
    assert 0 <= watch.spent["a"] <= watch.seconds and "b" in watch.spent


def test_text_of_any_script_is_kept(recorder):
    recorder.samples([{"step": 0, "prompt": "naïve 日本 🎬 \x85"}])
    text = (recorder.folder / "samples.jsonl").read_text(encoding="utf-8")
    assert "日本 🎬" in text and whole.lines(recorder.folder, "samples.jsonl")[0]["prompt"].startswith("naïve")
