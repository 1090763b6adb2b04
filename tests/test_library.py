"""The two functions of a Python user: arguments become a recipe, mistakes are UsageErrors, nothing is printed."""

from __future__ import annotations

import shutil

import datasets
import pandas as pd
import pytest

import tunewright as tw
from tests import whole
from tunewright.errors import RecipeError, UsageError
from tunewright.recipe_files import build_recipe


@pytest.fixture
def caught(monkeypatch):
    """What `train` hands to the pipeline."""
    from tunewright import pipeline

    calls = []
    monkeypatch.setattr(pipeline, "fine_tune", lambda recipe, **rest: calls.append((recipe, rest)))
    return calls


def test_arguments_become_a_recipe(caught, tmp_path):
    tw.train(
        "minilm", "a.jsonl", validation=0.2, text="body", label="stars", lora=4, name="n", prompts=["p"],
        settings={"training.seed": 3, "trainable.layers": "last 2"}, runs=tmp_path,
    )  # fmt: skip
    recipe, rest = caught[0]
    expected = build_recipe({
        "model": "minilm", "name": "n",
        "data": {"train": "a.jsonl", "validation": 0.2, "text": "body", "label": "stars"},
        "trainable": {"method": "lora", "rank": 4, "layers": "last 2"}, "training": {"seed": 3},
        "evaluation": {"prompts": ["p"]},
    })  # fmt: skip
    assert recipe == expected and rest["runs"] == tmp_path and "data" not in rest and rest["resume"] is None
    assert recipe.model_fields_set == expected.model_fields_set | {"task"}


@pytest.mark.parametrize(
    "arguments, trainable",
    [({}, {}), ({"lora": True}, {"method": "lora"}), ({"lora": 8}, {"method": "lora", "rank": 8}),
     ({"full": True}, {"method": "full"}), ({"head": True}, {"method": "head"})],
)  # fmt: skip
def test_what_is_trained(caught, arguments, trainable):
    tw.train("minilm", "a.jsonl", **arguments)
    assert caught[0][0].trainable.model_dump(exclude_unset=True) == trainable


@pytest.mark.parametrize(
    "both", [{"lora": 4, "full": True}, {"full": True, "head": True}, {"lora": True, "head": True}]
)
def test_one_of_three(both):
    with pytest.raises(UsageError, match="choose one of lora, full and head"):
        tw.train("minilm", "a.jsonl", **both)


def test_mistakes(tmp_path):
    with pytest.raises(UsageError, match="nothing to train on: give data"):
        tw.train("minilm")
    with pytest.raises(RecipeError, match=r'Did you mean "training.learning_rate"'):
        tw.train("minilm", "a.jsonl", settings={"training.learning_rat": 1})
    with pytest.raises(RecipeError, match=r'Did you mean "training.learning_rate"'):
        tw.train("minilm", "a.jsonl", settings={"lr": 1})
    with pytest.raises(RecipeError, match='"task" is'):
        tw.train("minilm", "a.jsonl", task="sing")
    with pytest.raises(UsageError, match="type int can't be read"):
        tw.train(str(whole.base()), 3, runs=tmp_path)


def test_settings_reach_into_nothing_else(caught):
    with pytest.raises(UsageError, match=r'"model.x" is not a setting'):
        tw.train("minilm", "a.jsonl", settings={"model.x": 1})


def test_data_in_memory(tmp_path):
    rows = whole.rows()
    losses = set()
    for data in (rows, pd.DataFrame(rows), datasets.Dataset.from_list(rows)):
        run = whole.start(tmp_path, data=data, settings={"training.epochs": 1.0})
        losses.add(tuple(row["validation/loss"] for row in run.evaluations))
        assert run.summary["data"]["train"] == "(in memory)" and run.summary["name"] == "in-memory"
    assert len(losses) == 1  # the same rows in any form are the same run


def test_validation_in_memory(tmp_path):
    run = whole.start(tmp_path, data=whole.rows(), validation=whole.rows(n=6), settings={"training.epochs": 1.0})
    assert (run.summary["data"]["train_rows"], run.summary["data"]["validation_rows"]) == (46, 6)


def test_load_takes_a_run_its_name_its_folder_and_its_model(tmp_path, monkeypatch):
    run = whole.finished()
    wanted = dict(run.predict(["a good film"])[0].probabilities)
    runs = run.folder.parent
    for name in (run, run.id, run.folder, run.folder / "model", f"{run.id}:best", str(run.folder)):
        assert dict(tw.load(name, runs).predict(["a good film"])[0].probabilities) == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(UsageError, match="no run"):
        tw.load("nothing", runs)
    moved = tmp_path / "moved"
    shutil.copytree(run.folder / "model", moved)
    monkeypatch.chdir(tmp_path)
    assert dict(tw.load("moved").predict(["a good film"])[0].probabilities) == pytest.approx(wanted, abs=1e-5)


def test_a_recipe_beside_a_path_is_refused_rather_than_ignored():
    from tunewright.recipe_files import build_recipe

    with pytest.raises(tw.UsageError, match="names its own data"):
        tw.train(build_recipe({"data": {"train": "a.jsonl"}}), "b.jsonl")
