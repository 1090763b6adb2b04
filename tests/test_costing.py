"""The estimate in a run: stored, said, compared at the end; it changes no weight; what can't fit is refused first."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests import whole
from tunewright import costing
from tunewright.errors import MachineError
from tunewright.planning.counting import Work
from tunewright.planning.time import SCORING_SHARE
from tunewright.progress import Header, Said


def test_a_run_says_its_estimate_and_how_far_it_was():
    events: list[object] = []
    run = whole.start(whole.scratch() / "estimates", progress=events.append)
    estimate = run.summary["estimate"]
    assert estimate["measured"]["seconds"] == run.summary["seconds"] and not estimate["probed"]
    expected = estimate["time"]["seconds"] / run.summary["seconds"] - 1
    assert estimate["measured"]["seconds_error"] == pytest.approx(expected, abs=1e-3)
    (header,) = [event for event in events if isinstance(event, Header)]
    assert "of memory" in dict(header.rows)["estimate"]
    assert [e for e in events if isinstance(e, Said) and e.message.startswith("estimated time ")]


@pytest.mark.parametrize("method", ["lora", "full", "head", "last 1"])
def test_a_probe_changes_no_byte(method, monkeypatch):
    """Dropout is on, so a probe that drew from the run's random state would show."""
    plain = whole.start(whole.scratch() / "unprobed", method=method)
    monkeypatch.setattr(costing, "_worthwhile", lambda *_: True)
    probed = whole.start(whole.scratch() / "probed", method=method)
    assert probed.summary["estimate"]["probed"] and not plain.summary["estimate"]["probed"]
    a, b = whole.tensors(plain.folder / "model"), whole.tensors(probed.folder / "model")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert whole.lines(plain.folder, "metrics.jsonl") == whole.lines(probed.folder, "metrics.jsonl")


def test_what_cannot_fit_is_refused_before_the_first_step(monkeypatch):
    monkeypatch.setattr(costing, "memory_free", lambda device: 1)
    with pytest.raises(MachineError, match=r"this run needs .* of memory .* beside the .* it holds; ") as caught:
        whole.start(whole.scratch() / "too-large")
    assert caught.value.exit_code == 5


def test_a_full_disk_is_foreseen(monkeypatch):
    monkeypatch.setattr(costing, "_free_disk", lambda folder: 1000)
    with pytest.raises(MachineError, match=r"this run writes .*, and 1\.0 kB are free .*make room"):
        whole.start(whole.scratch() / "full-disk")


def test_the_refusal_names_settings_that_fit(monkeypatch):
    monkeypatch.setattr(costing, "what_would_fit", lambda *_, **__: costing_change())
    monkeypatch.setattr(costing, "memory_free", lambda device: 1)
    with pytest.raises(MachineError, match=r"with -s 'trainable.layers=last 1' it needs 9\.0 MB"):
        whole.start(whole.scratch() / "advised")


def costing_change():
    from tunewright.planning.components import Change

    return Change(("trainable.layers=last 1",), 9_000_000)


def test_a_resumed_run_keeps_its_first_estimate(monkeypatch):
    from tunewright.errors import StoppedError

    whole.stop_after(monkeypatch, 3)
    runs = whole.scratch() / "stopped"
    with pytest.raises(StoppedError):
        whole.start(runs)
    (folder,) = runs.iterdir()
    first = json.loads((folder / "run.json").read_text())["estimate"]
    from tunewright.library import train

    run = train(resume=folder.name, runs=runs)
    assert run.summary["estimate"] == first  # and nothing is compared: the run was measured in part only


def test_answers_in_text_are_part_of_the_time():
    """As many rounds as evaluations, one before and one at the end; the more tokens, the longer."""
    from tests import writing
    from tunewright.planning.time import Answers, Speeds

    parts = {part["name"]: part["seconds"] for part in writing.finished("lora").summary["estimate"]["time"]["parts"]}
    assert parts["answering in text, 5 times"] > 0
    classifier = whole.finished().summary["estimate"]["time"]["parts"]
    assert not [part for part in classifier if "answering" in part["name"]]
    course = SimpleNamespace(works=SimpleNamespace(scoring=Work(0.0, 10.0, 0.0)), model_bytes=400)
    speeds = Speeds(gemm=100.0 / SCORING_SHARE, bandwidth=200.0)
    # 20 tokens at 10 operations and 100 a second, then 3 tokens that move 400 bytes at 200 a second.
    assert Answers(np.array([12, 8]), 3).seconds(course, speeds) == pytest.approx(2.0 + 6.0)
