"""Whole runs: every kind of label with every choice of what learns, and the folder each leaves."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tunewright
from tests import whole
from tunewright.errors import DataError, ModelError, RecipeError, TunewrightError
from tunewright.progress import Evaluated, Finished, Header, Phase, Said, Stepped
from tunewright.recipe_files import load_recipe

FILES = {
    "run.json",
    "recipe.yaml",
    "recipe.resolved.yaml",
    "environment.json",
    "metrics.jsonl",
    "samples.jsonl",
    "predictions",
    "evaluation.json",
    "events.jsonl",
    "untrained.safetensors",
    "model",
    "checkpoints",
    "report.html",
    "lock",
}
MODEL_KEYS = (
    "name path hub_id revision model_type method parameters trainable trainable_fraction base_bytes saved_bytes"
)
DATA_KEYS = (
    "train validation train_rows validation_rows train_tokens validation_tokens truncated_rows truncated_tokens "
    "max_length truncate labels kind text_column label_column label_counts"
)
RUN_KEYS = (
    "id name state task error created started finished seconds pid host model data steps epochs best metrics baseline "
    "intervals comparison notes overfitting peak_memory_bytes train_seconds tokens_per_second"
)
METRIC = {"single": "accuracy", "multi": "micro_f1", "number": "rmse"}
EVERY = [(labels, "lora") for labels in whole.LABELS] + [
    (labels, method) for method in ("full", "head", "last 1") for labels in whole.LABELS
]


@pytest.fixture(params=EVERY, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def run(request):
    labels, method = request.param
    return labels, method, whole.finished(labels, method)


def test_the_folder_is_what_its_readers_expect(run):
    labels, method, run = run
    there = {path.name for path in run.folder.iterdir()}
    assert there == FILES, there ^ FILES
    summary = json.loads((run.folder / "run.json").read_text())
    assert not set(RUN_KEYS.split()) - summary.keys()
    assert not set(MODEL_KEYS.split()) - summary["model"].keys()
    assert not set(DATA_KEYS.split()) - summary["data"].keys()
    assert summary["state"] == "succeeded" and summary["error"] is None and run.state == "succeeded"
    assert summary["id"] == run.folder.name and summary["finished"] > summary["created"]
    data, model = summary["data"], summary["model"]
    assert data["kind"] == labels and data["train_rows"] + data["validation_rows"] == 46
    assert data["labels"] == {"single": ["negative", "positive"], "multi": ["long", "negative", "positive"]}.get(
        labels, []
    )
    assert 0 < model["trainable"] <= model["parameters"] and (model["trainable"] == model["parameters"]) == (
        method == "full"
    )
    assert model["trainable_fraction"] == pytest.approx(model["trainable"] / model["parameters"])
    assert summary["steps"] == 2 * math.ceil(data["train_rows"] / 8) and summary["epochs"] == 2.0
    assert summary["best"]["metric"] == f"validation/{METRIC[labels]}"


def test_evaluations_start_before_the_first_step(run):
    _, _, run = run
    rows = run.evaluations
    per_epoch = run.summary["steps"] // 2
    assert [row["step"] for row in rows] == [0, per_epoch, 2 * per_epoch]
    assert [row["epoch"] for row in rows] == [0.0, 1.0, 2.0]
    assert "train/loss" not in rows[0] and rows[1]["train/loss"] > 0
    logs = [row for row in whole.lines(run.folder, "metrics.jsonl") if "train/grad_norm" in row]
    assert [row["step"] for row in logs] == list(range(1, 2 * per_epoch + 1))
    assert logs[-1]["train/tokens"] == 2 * run.summary["data"]["train_tokens"]
    epoch = [row["train/loss"] for row in logs[:per_epoch]]
    assert rows[1]["train/loss"] == pytest.approx(np.mean(epoch), rel=1e-6)


def test_the_kept_model_is_the_best_evaluation(run):
    labels, _, run = run
    best = run.summary["best"]
    rows = {row["step"]: row for row in run.evaluations}
    better = min if labels == "number" else max
    assert rows[best["step"]][best["metric"]] == best["value"]
    assert best["value"] == better(row[best["metric"]] for step, row in rows.items() if step)
    for name, value in run.metrics.items():
        assert rows[best["step"]][f"validation/{name}"] == pytest.approx(value, abs=1e-9), name
        assert run.summary["comparison"]["after"][name] == value
    for name, value in run.summary["comparison"]["before"].items():
        assert rows[0][f"validation/{name}"] == pytest.approx(value, abs=1e-9), name
    for name, (low, high) in run.summary["intervals"].items():
        assert low - 1e-9 <= run.metrics[name] <= high + 1e-9, name


def test_samples_hold_before_and_after(run):
    labels, _, run = run
    rows = whole.lines(run.folder, "samples.jsonl")
    prompts = whole.SETTINGS["evaluation.prompts"]
    assert [row["prompt"] for row in rows[:2]] == prompts and [row["step"] for row in rows[:2]] == [0, 0]
    last = rows[-2:]
    assert all(row["final"] and row["step"] == run.summary["best"]["step"] for row in last)
    for row, said in zip(last, run.predict(prompts), strict=True):
        assert row["prompt_id"] in (0, 1)
        if labels == "number":
            assert row["prediction"] == pytest.approx(said.prediction, abs=1e-4) and row["probabilities"] == {}
        else:
            assert row["prediction"] == said.prediction
            assert row["probabilities"] == pytest.approx(dict(said.probabilities), abs=1e-4)


def test_predictions_are_the_validation_rows_in_order(run):
    labels, _, run = run
    rows = whole.lines(run.folder, "predictions/validation.jsonl")
    source = whole.rows(labels)
    assert len(rows) == run.summary["data"]["validation_rows"]
    places = [int(row["row"].removeprefix("reviews.jsonl:")) for row in rows]
    assert places == sorted(places)
    for place, row in zip(places, rows, strict=True):
        assert row["text"] == source[place - 1]["text"]
        wanted = source[place - 1]["label"]
        assert row["label"] == (sorted(wanted) if labels == "multi" else pytest.approx(wanted, abs=1e-6))
        assert row["before"] is not None and row["loss"] >= 0
    assert np.mean([row["loss"] for row in rows]) == pytest.approx(run.metrics["loss"], abs=1e-5)
    told = run.predict([row["text"] for row in rows])
    assert [said.prediction for said in told] == [
        pytest.approx(row["prediction"], abs=1e-4) if labels == "number" else row["prediction"] for row in rows
    ]

    for row, said in zip(rows, told, strict=True):  # the saved model is the one whose logits were kept
        assert dict(said.probabilities) == pytest.approx(row["probabilities"], abs=1e-4)


def test_some_of_these_runs_were_best_before_their_end():
    """Or the tests above would not see that the best weights are put back."""
    runs = [whole.finished(*pair) for pair in EVERY]
    assert any(run.summary["best"]["step"] < run.summary["steps"] for run in runs)


def test_the_untrained_model_comes_back(run):
    """untrained.safetensors and the base give what step 0 said."""
    labels, _, run = run
    first = whole.lines(run.folder, "samples.jsonl")[:2]
    before = [row[1] for row in run.compare([row["prompt"] for row in first]).rows]
    for row, said in zip(first, before, strict=True):
        if labels == "number":
            assert said.prediction == pytest.approx(row["prediction"], abs=1e-4)
        else:
            assert dict(said.probabilities) == pytest.approx(row["probabilities"], abs=1e-4)


def test_training_changed_what_it_should_and_nothing_else(run):
    _, method, run = run
    model = run.model()
    base = load_file(whole.base() / "model.safetensors")
    changed = {
        name
        for name, parameter in model.named_parameters()
        for key, tensor in base.items()
        if name.replace("base_layer.", "").endswith(f"bert.{key}")
        and "modules_to_save" not in name
        and not torch.equal(parameter, tensor)
    }
    if method == "full":
        assert any("layer.0" in name for name in changed)
    elif method == "head":
        assert all("pooler" in name for name in changed)
    else:
        assert all("pooler" in name for name in changed), changed


def test_a_run_learns(tmp_path):
    run = whole.start(tmp_path, method="full", data=whole.rows(n=120), settings={"training.epochs": 8.0})
    assert run.summary["comparison"]["before"]["accuracy"] < 0.8 < run.metrics["accuracy"]
    assert run.summary["comparison"]["fixed"] > run.summary["comparison"]["broke"]


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "modernbert", "gpt2", "llama", "gemma"])
def test_every_architecture_walks_the_whole_line(tmp_path, kind):
    events: list[object] = []
    run = whole.start(tmp_path, method="last 1", kind=kind, data=whole.rows(), progress=events.append)
    assert run.state == "succeeded" and run.summary["model"]["model_type"].startswith(kind[:4])
    assert len(run.predict(["a good film"])) == 1


@pytest.mark.parametrize("kind", ["deberta-v2", "albert"])
def test_architectures_without_described_layers_train_too(tmp_path, kind):
    run = whole.start(tmp_path, kind=kind, data=whole.rows())
    assert run.state == "succeeded" and any("plain forward" in note or "layer" in note for note in run.summary["notes"])
    with pytest.raises(ModelError, match=f"layers of {kind} aren't described here; use layers: all"):
        whole.start(tmp_path, method="last 1", kind=kind, data=whole.rows())


def test_events_in_order():
    events: list[object] = []
    run = whole.start(whole.scratch() / "events", method="last 1", progress=events.append)
    kinds = [type(event) for event in events]
    assert kinds.index(Header) < kinds.index(Evaluated) < kinds.index(Stepped) < kinds.index(Finished)
    assert kinds.count(Evaluated) == 3 and kinds[-1] is Finished
    assert any(isinstance(e, Said) and "text column" in e.message for e in events)
    assert any(isinstance(e, Phase) and "1 frozen layers once" in e.name for e in events)
    steps = [event for event in events if isinstance(event, Stepped)]
    assert steps[-1].step == steps[-1].total_steps == run.summary["steps"] and steps[-1].seconds_left == 0.0
    assert not (run.folder / "cache").exists()


@pytest.mark.parametrize("method", ["last 1", "head"])
def test_the_boundary_cache_changes_nothing(tmp_path, monkeypatch, method):
    from tunewright import stages

    with_cache = whole.finished("single", method)
    monkeypatch.setattr(stages, "CACHE_SHARE", 0.0)
    without = whole.start(tmp_path, method=method)
    assert any("running every layer instead" in note for note in without.summary["notes"])
    for one, other in zip(with_cache.evaluations, without.evaluations, strict=True):
        assert one["validation/loss"] == pytest.approx(other["validation/loss"], abs=1e-4)


def test_the_resolved_recipe_repeats_the_run(tmp_path):
    first = whole.finished("single", "lora")
    recipe = load_recipe(first.folder / "recipe.resolved.yaml")
    again = tunewright.train(recipe, runs=tmp_path)
    for name in ("metrics.jsonl", "samples.jsonl", "predictions/validation.jsonl"):
        assert whole.lines(again.folder, name) == whole.lines(first.folder, name), name
    assert again.metrics == first.metrics
    one, other = (whole.tensors(run.folder / "model") for run in (first, again))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    text = (first.folder / "recipe.resolved.yaml").read_text()
    assert "rank: 4  # given" in text and "alpha: 8.0  # auto: 2 x rank" in text
    assert all("  # " in line for line in text.splitlines() if not line.endswith(":"))


def test_another_seed_is_another_run(tmp_path):
    other = whole.start(tmp_path, settings={"training.seed": 7})
    assert other.evaluations[0]["validation/loss"] != whole.finished().evaluations[0]["validation/loss"]


def test_keep_last_keeps_the_last(tmp_path):
    run = whole.start(tmp_path, settings={"evaluation.keep": "last"})
    last = run.evaluations[-1]
    assert run.summary["best"]["step"] == last["step"] == run.summary["steps"]
    assert run.metrics["loss"] == pytest.approx(last["validation/loss"])


def test_without_a_look_before(tmp_path):
    run = whole.start(tmp_path, settings={"evaluation.before": False, "evaluation.prompts": []})
    assert run.summary["comparison"] is None and [row["epoch"] for row in run.evaluations] == [1.0, 2.0]
    assert all(row["before"] is None for row in whole.lines(run.folder, "predictions/validation.jsonl"))
    assert run.compare(["good"]).rows[0][1] is not None  # the head as it was is still there


def test_early_stopping_and_max_steps(tmp_path):
    run = whole.start(
        tmp_path,
        settings={
            "training.epochs": "auto",
            "training.max_steps": 40,
            "training.early_stopping": 1,
            "training.learning_rate": 1e-9,
            "evaluation.every": 3,
        },
    )
    assert [row["step"] for row in run.evaluations] == [0, 3, 6]  # no better at 6 than at 3
    assert run.summary["best"]["step"] == 3


def test_class_weights_and_smoothing(tmp_path):
    plain = whole.finished().evaluations[1]["train/loss"]
    weighted = whole.start(
        tmp_path, settings={"training.class_weights": {"positive": 9.0}, "training.label_smoothing": 0.1}
    )
    assert weighted.state == "succeeded" and weighted.evaluations[1]["train/loss"] != plain
    with pytest.raises(TunewrightError, match=r'class_weights names "good"; classes are negative, positive') as caught:
        whole.start(tmp_path, settings={"training.class_weights": {"good": 2.0}})
    assert caught.value.field == "training.class_weights"


@pytest.mark.parametrize("labels, metric", [("single", "rmse"), ("number", "accuracy"), ("multi", "mcc")])
def test_a_metric_of_another_kind_is_refused_before_training(tmp_path, labels, metric):
    with pytest.raises(RecipeError, match=f'"evaluation.metric" is {metric}; .*expected one of') as caught:
        whole.start(tmp_path, labels, settings={"evaluation.metric": metric})
    assert caught.value.field == "evaluation.metric"


def test_a_metric_that_is_undefined_here_does_not_break_the_run(tmp_path):
    """ROC-AUC needs both classes among the validation rows."""
    rows = whole.rows()
    run = whole.start(
        tmp_path, data=rows, validation=[row for row in rows if row["label"] == "positive"][:6],
        settings={"evaluation.metric": "roc_auc"},
    )  # fmt: skip
    assert run.state == "succeeded" and "roc_auc" not in run.metrics
    assert (run.folder / "report.html").exists()


def test_duplicates_are_dropped_when_asked(tmp_path):
    rows = whole.rows() + whole.rows()[:10]
    kept = whole.start(tmp_path, data=rows, validation=whole.rows(n=8))
    dropped = whole.start(tmp_path, data=rows, validation=whole.rows(n=8), settings={"data.duplicates": "drop"})
    assert (kept.summary["data"]["train_rows"], dropped.summary["data"]["train_rows"]) == (56, 46)
    assert any("text seen before" in note for note in kept.summary["notes"])


def test_cut_texts_are_counted_and_said(tmp_path):
    run = whole.start(tmp_path, settings={"data.max_length": 8})
    data = run.summary["data"]
    assert data["max_length"] == 8 and data["truncated_rows"] > 0 and data["truncated_tokens"] > data["truncated_rows"]
    assert any("texts cut to 8 tokens on the left" in note for note in run.summary["notes"])


def test_a_run_on_a_run(tmp_path):
    """An earlier run is a base like any other; its labels stay, so its head does too."""
    first = whole.finished("single", "full")
    run = tunewright.train(
        f"run:{first.id}", str(whole.data_file()), runs=first.folder.parent, name="second",
        settings=whole.SETTINGS | whole.METHODS["lora"],
    )  # fmt: skip
    kept = next(row for row in first.evaluations if row["step"] == first.summary["best"]["step"])
    assert run.evaluations[0]["validation/loss"] == pytest.approx(kept["validation/loss"], abs=1e-5)


def test_what_fails_before_anything_was_learnt_leaves_nothing(tmp_path):
    runs = tmp_path / "new" / "runs"
    with pytest.raises(DataError, match="label"):
        whole.start(runs, data=[{"text": "a", "label": "x"}, {"text": "b", "label": "x"}])
    with pytest.raises(ModelError):
        tunewright.train(str(tmp_path / "no" / "such" / "model"), whole.rows(), runs=runs)
    assert not runs.exists()
    runs.mkdir(parents=True)
    with pytest.raises(ModelError):
        tunewright.train(str(tmp_path / "no" / "such" / "model"), whole.rows(), runs=runs)
    assert list(runs.iterdir()) == []  # a folder that was there stays


def test_what_fails_in_training_is_kept_with_its_reason(tmp_path, monkeypatch):
    whole.raise_at_step(monkeypatch, 3, lambda: DataError("made up", where="a:1", field="label"))
    with pytest.raises(DataError):
        whole.start(tmp_path)
    (path,) = tmp_path.glob("*/run.json")
    summary = json.loads(path.read_text())
    assert summary["state"] == "failed" and summary["finished"]
    assert summary["error"] == {"code": "data", "message": "a:1: made up", "param": "label"}
