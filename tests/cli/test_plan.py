"""plan: what would be decided and cost, at 80 columns; no run folder; exit 5 where it won't fit."""

from __future__ import annotations

import json

import pytest

from tests import whole
from tunewright import costing

ARGUMENTS = ["--model", str(whole.base()), "-s", "training.threads=1", "-s", "training.precision=fp32"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(tunewright, *more):
    return tunewright("plan", str(whole.data_file()), *ARGUMENTS, *more)


def test_every_value_with_its_origin_and_the_cost(folder, tunewright):
    code, out, err = plan(tunewright, "-s", "trainable.rank=4")
    assert code == 0, err
    shown = " ".join(out.split())
    for words in ("decided data.validation 0.1", "trainable.alpha 8 · 2 x rank", "training.batch_size 8 · 46 training",
                  "trainable.rank 4", "given", "default", "weights", "adapters", "gradients", "optimizer",
                  "activations", "training, ", "evaluating, ", "token arrays", "are there", "are free"):  # fmt: skip
        assert words in shown or words.replace("46", "41") in shown, words
    assert all(len(line) <= 80 for line in out.splitlines())
    assert list(folder.iterdir()) == []  # no run folder, no debris


def test_json_is_one_object(folder, tunewright):
    code, out, _ = plan(tunewright, "--json", "--no-probe")
    (line,) = out.splitlines()
    body = json.loads(line)
    assert code == 0 and body["fits"] and body["error"] is None and not body["probed"]
    assert body["recipe"]["training"]["batch_size"] == 8
    assert body["origins"]["training.batch_size"].startswith("auto: ")
    assert "auto" not in (body["recipe"]["data"]["text"], body["recipe"]["data"]["label"])
    assert body["memory"]["moments"]["training"] == sum(part["bytes"] for part in body["memory"]["parts"])
    assert body["time"]["seconds"] == pytest.approx(sum(part["seconds"] for part in body["time"]["parts"]), abs=0.01)


@pytest.mark.parametrize("as_json", [False, True])
def test_what_does_not_fit_ends_with_5_after_the_whole_plan(folder, tunewright, monkeypatch, as_json):
    monkeypatch.setattr(costing, "memory_free", lambda device: 1)
    code, out, err = plan(tunewright, *(["--json"] if as_json else []))
    assert code == 5
    assert [line for line in err.splitlines() if line.startswith("error[")] == [err.splitlines()[-1]]
    assert err.splitlines()[-1].startswith("error[environment] this run needs ")
    if as_json:
        body = json.loads(out)
        assert not body["fits"] and body["error"]["code"] == "environment"
    else:
        assert "is all there is" in out and "training.epochs" in out


def test_nothing_to_plan(folder, tunewright):
    code, _, err = tunewright("plan")
    assert code == 2 and err.startswith("error[usage] nothing to plan; give a recipe")


def test_a_plan_for_writing(folder, tunewright):
    from tests.data.test_examining import write
    from tests.data.test_written_examining import pairs
    from tests.models.made_writers import save_writer

    model = save_writer("gpt2", folder / "gpt2")
    write(folder / "a.jsonl", pairs())
    code, out, err = tunewright(
        "plan", "a.jsonl", "--task", "generate", "--model", str(model), "--template", "{question} {answer}",
        "-s", "data.max_length=32", "-s", "training.threads=1", "-s", "training.precision=fp32", "--no-probe",
    )  # fmt: skip
    assert code == 0, err
    shown = " ".join(out.split())
    for words in ("format template · the completion is learnt · at most 32 tokens", "data.template {question} {answer}",
                  "data.learn completion · what rows of this format are for", "evaluation.max_new_tokens"):  # fmt: skip
        assert words in shown, words
    assert "data.labels" not in out and "training.class_weights" not in out  # of another task
    assert all(len(line) <= 80 for line in out.splitlines())


def test_settings_of_other_tasks_are_left_out(folder, tunewright):
    _, out, _ = plan(tunewright, "--no-probe")
    assert "data.template" not in out and "training.class_weights" in out
