"""train: which recipe the flags make, and what is printed where."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.finished_run import EVENTS, RUN
from tunewright.cli.train import is_recipe
from tunewright.errors import StoppedError


def test_flags_become_the_recipe(calls, tunewright):
    code, _, err = tunewright(
        "train", "reviews.csv", "--validation", "0.2", "--model", "some/folder", "--task", "classify", "--text", "body",
        "--label", "stars", "--name", "2024", "--runs", "elsewhere", "-s", "training.epochs=3",
        "-s", "trainable.rank=4",
    )  # fmt: skip
    assert code == 0, err
    [call] = calls
    recipe = call["recipe"]
    assert (recipe.data.train, recipe.data.validation) == ("reviews.csv", 0.2)
    assert (recipe.data.text, recipe.data.label) == ("body", "stars")
    assert (recipe.model, recipe.name) == ("some/folder", "2024")
    assert (recipe.training.epochs, recipe.trainable.rank) == (3, 4)
    assert (call["runs"], call["resume"]) == (Path("elsewhere"), None)


def test_a_file_to_validate_on(calls, tunewright):
    assert tunewright("train", "a.jsonl", "--validation", "b.jsonl")[0] == 0
    assert calls[0]["recipe"].data.validation == "b.jsonl"


def test_a_recipe_with_values_on_top(calls, tunewright):
    Path("job.yaml").write_text("data: {train: a.jsonl, text: t}\ntraining: {epochs: 5}\n")
    code, _, err = tunewright("train", "job.yaml", "--text", "u", "-s", "training.epochs=2", "-s", "data.text=v")
    assert code == 0, err
    assert calls[0]["recipe"].training.epochs == 2
    assert calls[0]["recipe"].data.text == "v"  # -s wins over a flag, a flag over the file


@pytest.mark.parametrize(
    ("subject", "expected"),
    [("a.yaml", True), ("A.YML", True), ("a.jsonl", False), ("owner/data", False), ("yaml", False)],
)
def test_what_is_a_recipe(subject, expected):
    assert is_recipe(subject) is expected


def test_a_wrong_setting_is_named(calls, tunewright):
    code, _, err = tunewright("train", "a.jsonl", "-s", "training.epoch=3")
    assert code == 2
    assert err == 'error[recipe] "training.epoch" is not a setting. Did you mean "training.epochs"?\n'


def test_resume_without_a_recipe_leaves_it_to_the_run(calls, tunewright):
    assert tunewright("train", "--resume")[0] == 0
    assert tunewright("train", "--resume", RUN, "-s", "training.epochs=2")[0] == 0
    assert [call["resume"] for call in calls] == ["latest", RUN]
    assert calls[0]["recipe"] is None
    assert calls[1]["recipe"].training.epochs == 2


def test_progress_goes_to_stderr_and_results_to_stdout(calls, tunewright):
    _, out, err = tunewright("train", "a.jsonl")
    assert "step 125/250" in err and "step 125/250" not in out
    assert " best epoch 1 of 2" in out
    assert "epoch   train loss" in out  # no table on stderr, so it's among the results
    assert f"tunewright predict {RUN}" in out
    assert "\r" not in out + err and "\x1b" not in out + err


def test_json_is_one_object_and_quiet_is_the_id(calls, tunewright):
    _, out, err = tunewright("train", "a.jsonl", "--json")
    [line] = out.splitlines()
    assert json.loads(line)["run"] == RUN
    assert json.loads(line)["metrics"]["accuracy"] == 0.873
    assert "step 125/250" in err
    assert tunewright("train", "a.jsonl", "-q") == (0, f"{RUN}\n", "")


def test_a_stopped_run_says_how_to_go_on(calls, runs, tunewright, monkeypatch):
    summary = json.loads((runs / RUN / "run.json").read_text())
    (runs / RUN / "run.json").write_text(json.dumps(summary | {"state": "interrupted"}))

    def stops(*_, listener, **__):
        for event in EVENTS[:20]:
            listener(event)
        raise StoppedError("stopped at step 60", signal_number=15)

    monkeypatch.setattr(sys.modules["tunewright.pipeline"], "fine_tune", stops)
    code, out, err = tunewright("train", "a.jsonl", "--json")
    assert code == 143
    assert err.splitlines()[-2:] == [
        f"to continue: tunewright train --resume {RUN}",
        "error[stopped] stopped at step 60",
    ]
    [line] = out.splitlines()
    assert json.loads(line)["run"] == RUN
    assert json.loads(line)["state"] == "interrupted"


def test_other_ranks_are_silent(calls, tunewright, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert tunewright("train", "a.jsonl") == (0, "", "")
