"""The judge: what it writes down is what the metrics say of the model now."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests import whole
from tunewright.evaluation.metrics import majority_baseline, metrics
from tunewright.judging import Judge
from tunewright.learning.loop import FitState
from tunewright.progress import Evaluated, Stepped


@pytest.mark.parametrize("labels", whole.LABELS)
def test_kept_logits_give_the_final_metrics(labels):
    run = whole.finished(labels, "lora")
    rows = whole.lines(run.folder, "predictions/validation.jsonl")
    names = run.summary["data"]["labels"]
    truth = np.array([
        row["label"] if labels == "number" else names.index(row["label"]) if labels == "single"
        else [float(name in row["label"]) for name in names] for row in rows
    ])  # fmt: skip
    for name, found in (("validation", run.metrics), ("before", run.summary["comparison"]["before"])):
        logits = load_file(run.folder / "predictions" / f"{name}-logits.safetensors")["logits"]
        assert metrics(logits, truth, labels) == pytest.approx(found, abs=1e-6)
    source = whole.rows(labels)
    places = {int(row["row"].split(":")[1]) - 1 for row in rows}
    rest = [row["label"] for i, row in enumerate(source) if i not in places]
    if labels == "single":
        counted = np.array([names.index(label) for label in rest])
        assert run.summary["baseline"] == pytest.approx(majority_baseline(counted, truth, "single"))
    evaluation = json.loads((run.folder / "evaluation.json").read_text())
    assert evaluation["metrics"] == pytest.approx(run.metrics)


def test_fixed_and_broke_are_counted_on_the_same_rows():
    run = whole.finished("single", "full")
    rows = whole.lines(run.folder, "predictions/validation.jsonl")
    fixed = sum(row["before"] != row["label"] == row["prediction"] for row in rows)
    broke = sum(row["before"] == row["label"] != row["prediction"] for row in rows)
    comparison = run.summary["comparison"]
    assert (comparison["fixed"], comparison["broke"]) == (fixed, broke)
    assert comparison["after"]["accuracy"] == pytest.approx(np.mean([r["label"] == r["prediction"] for r in rows]))


def test_several_labels_and_numbers_are_told_in_their_own_words():
    several = whole.lines(whole.finished("multi", "lora").folder, "predictions/validation.jsonl")
    for row in several:
        assert isinstance(row["label"], list) and isinstance(row["before"], list)
        assert row["prediction"] == [name for name, share in row["probabilities"].items() if share >= 0.5]
    for row in whole.lines(whole.finished("number", "lora").folder, "predictions/validation.jsonl"):
        assert isinstance(row["prediction"], float) and row["probabilities"] == {}
        assert row["loss"] == pytest.approx((row["prediction"] - row["label"]) ** 2, abs=1e-4)


def test_probabilities_sum_to_one_and_name_the_prediction():
    for row in whole.lines(whole.finished().folder, "predictions/validation.jsonl"):
        shares = row["probabilities"]
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
        assert row["prediction"] == max(shares, key=shares.__getitem__)
        assert row["loss"] == pytest.approx(-np.log(shares[row["label"]]), abs=1e-3)


class _Quiet(Judge):
    """A judge without a model, for its words alone."""

    def __init__(self, total=100, evaluate_every=10):
        from types import SimpleNamespace

        from tunewright.learning.clock import Clock

        self.plan = SimpleNamespace(total_steps=total, steps_per_epoch=10, evaluate_every=evaluate_every, metric="m")
        self.told: list[object] = []
        self.recorder = SimpleNamespace(tell=self.told.append, metrics=lambda row: None)
        self.recipe = SimpleNamespace(evaluation=SimpleNamespace(keep="best"))
        self.clock, self.loss_shown, self.last_shown, self.last_row = Clock(), [], 0.0, 0.0
        self.last_evaluation_seconds = 2.0


def test_steps_are_shown_now_and_then_with_the_mean_since(monkeypatch):
    from tunewright import judging

    now = [1000.0]
    monkeypatch.setattr(judging.time, "perf_counter", lambda: now[0])
    judge = _Quiet()
    for step, loss in enumerate((4.0, 1.0, 2.0, 3.0, 9.0), 1):
        now[0] += 0.08
        judge.stepped(FitState(step=step, tokens=50 * step), loss, 50)
    shown = [event for event in judge.told if isinstance(event, Stepped)]
    assert [event.step for event in shown] == [1, 4] and [event.loss for event in shown] == [4.0, 2.0]
    assert shown[1].epoch == pytest.approx(0.4) and shown[1].total_steps == 100


def test_time_left_counts_steps_and_evaluations():
    judge = _Quiet(total=100, evaluate_every=10)
    judge.clock.seconds, judge.clock.tokens = [1.0, 1.0], [50, 50]
    state = FitState(step=50, tokens=50 * 50)
    assert judge._seconds_left(state) == pytest.approx(50 * 1.0 + 5 * 2.0)
    assert judge._seconds_left(FitState(step=100, tokens=5000)) == 0.0


def test_an_evaluation_is_told_with_its_row():
    judge = _Quiet()
    row = {"step": 10, "epoch": 1.0, "m": 0.5}
    judge.logits = np.zeros((1, 2), np.float32)
    judge.evaluated(row, best=False)
    (event,) = judge.told
    assert isinstance(event, Evaluated) and (event.step, event.metrics, event.metric, event.best) == (
        10,
        row,
        "m",
        False,
    )
