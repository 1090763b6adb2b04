"""Task align by a reward, whole: it learns what is rewarded, goes on after a stop, starts from an adapter, refuses."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import whole, writing
from tunewright.errors import DataError, ModelError, RecipeError, StoppedError, TunewrightError
from tunewright.library import train
from tunewright.runs import Run

SETTINGS: dict[str, Any] = {
    "training.threads": 1,
    "training.precision": "fp32",
    "training.device": "cpu",
    "training.max_steps": 2,
    "training.batch_size": 8,
    "training.learning_rate": 1e-2,
    "trainable.rank": 4,
    "evaluation.bootstrap_samples": 100,
    "evaluation.max_new_tokens": 4,
    "evaluation.generate_rows": 4,
    "evaluation.retain": "none",
    "reward": {"rules": [{"regex": "e"}]},
    "data.validation": 0.3,
}


@cache
def prompts_file() -> Path:
    path = whole.scratch() / "align-prompts.jsonl"
    texts = [f"{a} {b}" for a in ("a", "the", "this", "one") for b in ("good film", "bad film", "long story")]
    rows = [{"prompt": text, "film": text} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def start(runs: Path, model: str | None = None, **arguments: Any) -> Run:
    settings = SETTINGS | arguments.pop("settings", {})
    base = model or str(writing.base())
    return train(base, str(prompts_file()), task="align", settings=settings, runs=runs, **arguments)


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_it_learns_to_write_what_is_rewarded(method, tmp_path):
    settings = {
        "align.method": method,
        "align.kl_coef": 0.01,
        "reward": {"rules": [{"regex": "good"}]},
        "data.validation": str(prompts_file()),
        "trainable.method": "full",
        "trainable.rank": "auto",
        "training.max_steps": 20,
        "training.batch_size": 16,
        "evaluation.generate_rows": 12,
        "evaluation.every": 10,
    }
    run = start(tmp_path, settings=settings)
    before, after = run.summary["comparison"]["before"], run.metrics
    assert before["score"] < 0.5 and after["score"] > 0.8
    assert before["kl"] == 0 < after["kl"]


@pytest.mark.parametrize("step", [3, 5, 8])  # inside the first iteration, inside the second, between them
def test_resumed_is_uninterrupted(step, tmp_path, monkeypatch):
    settings = {"training.checkpoint_every": 1, "training.max_steps": 3}
    straight = start(tmp_path, name="straight", settings=settings)
    with monkeypatch.context() as patch:
        whole.stop_after(patch, step)
        with pytest.raises(StoppedError):
            start(tmp_path, name="broken", settings=settings)
    resumed = train(resume=next(tmp_path.glob("*broken*")).name, runs=tmp_path)
    one, other = whole.tensors(straight.folder / "model"), whole.tensors(resumed.folder / "model")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    timed = "ppo/completions_per_second"
    rows = [
        [{k: v for k, v in row.items() if k != timed} for row in whole.lines(run.folder, "metrics.jsonl")]
        for run in (straight, resumed)
    ]
    assert rows[0] == rows[1]


def test_a_tuned_run_is_where_it_starts(tmp_path):
    """Its format makes the prompts, its answers are the untrained ones, and one adapter of both ranks is saved."""
    sft = writing.start(tmp_path, name="sft", settings={"training.epochs": 2.0})
    run = start(tmp_path, "run:sft", name="aligned")
    saved = json.loads((run.folder / "model" / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["r"] == 4 + writing.METHODS["lora"]["trainable.rank"]
    assert saved["base_model_name_or_path"] == str(writing.base())
    asked = ["a good film", "the bad film"]
    first = whole.lines(run.folder, "samples.jsonl")[0]
    assert first["prompt"].startswith("the film was ") and first["step"] == 0
    assert [str(one) for one in sft.predict([{"film": text} for text in asked])]
    assert [str(one) for one in run.predict([{"film": text} for text in asked])]


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"reward": {"classifier": "run:none", "label": "good"}}, ModelError, 'no finished run "none"'),
        ({"reward": {"rules": [{"exact": "answer"}]}}, DataError, "answer"),
        ({"data.template": "{other} {prompt}"}, RecipeError, "other"),
        ({"training.batch_size": 6, "align.method": "grpo"}, TunewrightError, "groups of 4"),
        ({"evaluation.generate_rows": 0}, RecipeError, "evaluation.generate_rows"),
        ({"evaluation.metric": "accuracy"}, RecipeError, "evaluation.metric"),
    ],
)
def test_mistakes_are_said_before_anything_is_learnt(settings, error, says, tmp_path):
    with pytest.raises(error, match=says) as raised:
        start(tmp_path / "runs", settings=settings)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "runs").glob("*/model")), "no run that claims to have a model"


def test_an_encoder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="left to right"):
        start(tmp_path, str(whole.base("bert")))


def test_plan_knows_the_cost_of_sampling(tmp_path):
    from tunewright.planned import plan_run
    from tunewright.recipe_files import build_recipe

    values = {"task": "align", "model": str(writing.base()), "data": {"train": str(prompts_file())}}
    settings = {name: value for name, value in SETTINGS.items() if name != "reward"}
    overrides = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    planned = plan_run(build_recipe({**values, "reward": SETTINGS["reward"]}, overrides), runs=tmp_path, probing=False)
    parts = {
        part.name: part.seconds if hasattr(part, "seconds") else part.amount for part in planned.estimate.time.parts
    }
    assert any(name.startswith("sampling, 2 times") for name in parts)
    assert dict(planned.rows)["plan"].startswith("2 iterations")
