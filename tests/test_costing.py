"""The estimate in a run: stored, said, compared at the end; it changes no weight; what can't fit is refused first."""

from __future__ import annotations

import json

import pytest
import torch

from tests import whole
from tunewright import costing
from tunewright.errors import MachineError
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
