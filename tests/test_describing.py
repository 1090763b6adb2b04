"""What a run says about itself is what it did."""

from __future__ import annotations

import json
import platform

import torch
import yaml
from safetensors.torch import load_file

from tests import whole
from tunewright import describing
from tunewright.progress import Header
from tunewright.recipe_files import build_recipe, load_recipe
from tunewright.runtime import Runtime


def test_facts_are_counted_from_the_files():
    run = whole.finished("single", "lora")
    facts, model = run.summary, run.summary["model"]
    loaded = run.model()
    assert model["parameters"] == sum(
        p.numel()
        for name, p in loaded.named_parameters()
        if "original_module" not in name  # PEFT keeps the head's first state beside the trained one
    )
    saved = load_file(run.folder / "model" / "adapter_model.safetensors")
    assert model["trainable"] == sum(t.numel() for t in saved.values())
    assert model["base_bytes"] == (whole.base() / "model.safetensors").stat().st_size
    assert model["saved_bytes"] == (run.folder / "model" / "adapter_model.safetensors").stat().st_size
    assert (model["name"], model["path"], model["model_type"]) == (str(whole.base()), str(whole.base()), "bert")
    rows = whole.rows()
    tokenizer = run.predictor.tokenizer
    tokens = sum(len(tokenizer(row["text"], truncation=False)["input_ids"]) for row in rows)
    data = facts["data"]
    assert data["train_tokens"] + data["validation_tokens"] + data["truncated_tokens"] == tokens
    assert data["label_counts"] == {"negative": 23, "positive": 23}
    assert (data["text_column"], data["label_column"], data["truncate"]) == ("text", "label", "left")


def test_the_header_says_what_will_happen():
    events: list[object] = []
    run = whole.start(whole.scratch() / "header", "number", "last 1", progress=events.append)
    (header,) = [event for event in events if isinstance(event, Header)]
    rows = dict(header.rows)
    assert header.folder == run.folder and header.title == f"train · {run.id}"
    assert list(rows) == ["model", "trainable", "data", "labels", "plan", "machine", "estimate"]
    assert f"{run.summary['model']['trainable']:,} (" in rows["trainable"] and "last 1 layers" in rows["trainable"]
    assert rows["labels"].startswith("numbers · at most ") and "2 epochs" in rows["plan"]
    assert rows["plan"].endswith("keep best rmse") and rows["machine"] == "cpu · fp32 · 1 threads"


def test_the_environment_names_versions_and_machine():
    run = whole.finished()
    found = json.loads((run.folder / "environment.json").read_text())
    assert found["versions"]["python"] == platform.python_version() and found["versions"]["torch"] == torch.__version__
    assert {"tunewright", "transformers", "peft"} <= found["versions"].keys()
    assert (found["device"], found["precision"], found["threads"], found["world_size"]) == ("cpu", "fp32", 1, 1)


def test_the_resolved_recipe_leaves_the_machine_nothing_to_decide():
    recipe = build_recipe({"data": {"train": "a"}, "training": {"device": "cpu"}})
    text = describing.resolved_text(recipe, {"training.device": "given"}, 512, Runtime("cpu", "fp32", 1))
    training = yaml.safe_load(text)["training"]
    assert (training["micro_batch_tokens"], training["device"], training["precision"]) == (512, "cpu", "fp32")
    assert "device: cpu  # given" in text and "precision: fp32  # auto: found on this machine" in text


def test_recipes_on_disk():
    run = whole.finished("multi", "head")
    given, resolved = (load_recipe(run.folder / name) for name in ("recipe.yaml", "recipe.resolved.yaml"))
    assert given.training.base_dropout == "auto" and resolved.training.base_dropout == 0.0
    assert given.evaluation.metric == "auto" and resolved.evaluation.metric == "micro_f1"
    assert given.trainable.method == resolved.trainable.method == "head"
    assert isinstance(resolved.training.micro_batch_tokens, int) and isinstance(resolved.data.max_length, int)
