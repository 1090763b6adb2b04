"""A comparison of tiny models from end to end: fair, kept, and the same board however often it is interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.choosing import small
from tunewright.choosing.board import Outcome
from tunewright.choosing.trying import Request, try_models
from tunewright.choosing.work import Job
from tunewright.errors import MachineError, StoppedError, UsageError
from tunewright.planning.trials import Budget
from tunewright.recipe_files import load_recipe

MEASURED = ("train_seconds", "peak_memory_bytes", "rows_per_second", "seconds")


def board_of(outcome: Outcome) -> list[Any]:
    """Rows without what a clock or the memory said."""
    rows = outcome.board.to_json()["rows"]
    return [{k: v for k, v in row.items() if k != "costs"} | {"saved": row["costs"].get("saved_bytes")} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, small.Watched, Path]:
    """Head and lora with two seeds, never interrupted."""
    runs = tmp_path_factory.mktemp("try") / "runs"
    workers = small.Watched()
    return try_models(small.request(), runs, workers), workers, runs


def test_the_board(finished):
    outcome, workers, _ = finished
    rows = {row.name: row for row in outcome.board.rows}
    assert set(rows) == {"bert head", "bert lora", "majority class", "TF-IDF + logistic regression"}
    assert [row.baseline for row in rows.values() if "bert" in row.name] == [False, False]
    for name in ("bert head", "bert lora"):
        assert rows[name].seeds == 2 and rows[name].interval.low <= rows[name].value <= rows[name].interval.high
        assert {"train_seconds", "peak_memory_bytes", "saved_bytes", "rows_per_second"} <= rows[name].costs.keys()
    assert outcome.expected is not None and outcome.expected.value < 1
    assert outcome.facts["judged_rows"] + outcome.facts["train_rows"] == 80
    assert workers.trained == ["bert-head-seed1", "bert-lora-seed1", "bert-head-seed2", "bert-lora-seed2"]


def test_every_trial_is_a_run_on_the_same_rows(finished):
    outcome, _, _ = finished
    told = set()
    for runs in outcome.runs.values():
        for name in runs:
            folder = outcome.folder / name
            summary = json.loads((folder / "run.json").read_text())
            assert summary["state"] == "succeeded" and (folder / "report.html").exists()
            assert not (folder / "checkpoints").exists() and (folder / "model").is_dir()
            rows = [
                json.loads(line)["text"] for line in (folder / "predictions/validation.jsonl").read_text().splitlines()
            ]
            told.add((tuple(rows), summary["data"]["train_rows"], summary["steps"]))
    assert len(told) == 1


def test_the_head_is_computed_once(finished):
    outcome, _, _ = finished
    seconds = {json.loads((outcome.folder / name / "run.json").read_text())["frozen_seconds"]
               for name in outcome.runs["bert head"]}  # fmt: skip
    assert len(seconds) == 1 and seconds.pop() > 0, "the second seed found the first one's cache"
    assert not (outcome.folder / "features").exists()


def test_the_winner_can_be_trained(finished):
    outcome, _, runs = finished
    recipe = load_recipe(outcome.best)
    leader = next(row.name for row in outcome.board.rows if not row.baseline)
    assert f"bert {recipe.trainable.method}" == leader
    assert recipe.training.epochs == 5.0 and recipe.training.max_steps is None
    assert recipe.data.train == str(small.reviews()) and recipe.data.validation == 0.3
    from tunewright.pipeline import fine_tune

    assert fine_tune(recipe, runs=runs).state == "succeeded"


def test_files(finished):
    outcome, _, _ = finished
    kept = json.loads((outcome.folder / "leaderboard.json").read_text())
    assert [row["name"] for row in kept["rows"]] == [row.name for row in outcome.board.rows]
    page = (outcome.folder / "report.html").read_text()
    assert "bert lora" in page and "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert "TF-IDF" in page and page.count("<svg") >= 1


def test_started_again_it_trains_nothing(finished):
    outcome, _, runs = finished
    workers = small.Watched()
    again = try_models(small.request(), runs, workers)
    assert workers.jobs == []
    assert board_of(again) == board_of(outcome)


def test_interrupted_anywhere_it_ends_the_same(finished, tmp_path):
    """Stopped before each piece of work in turn: another start goes on from there."""
    outcome, whole, _ = finished
    budget = json.loads((outcome.folder / "trials.json").read_text())["budget"]

    def strike(job: Job) -> None:
        if len(workers.jobs) == 2:  # each start does one piece of work
            raise StoppedError("stopped")

    starts = 0
    while True:
        workers = small.Watched(strike)
        starts += 1
        try:
            found = try_models(small.request(), tmp_path / "runs", workers)
            break
        except StoppedError:
            continue
    assert starts == len(whole.jobs)
    assert board_of(found) == board_of(outcome)
    assert json.loads((found.folder / "trials.json").read_text())["budget"] | {"seconds": 0} == budget | {"seconds": 0}


def test_another_request_is_refused(finished):
    _, _, runs = finished
    with pytest.raises(UsageError, match=r'"seeds" was 2 and is now 3.*give another --name, or remove the folder'):
        try_models(small.request(seeds=3), runs, small.Watched())


def test_a_model_that_is_not_there_is_said_first(tmp_path):
    from tunewright.errors import ModelError

    workers = small.Watched()
    with pytest.raises(ModelError, match="no such folder"):
        try_models(small.request(models=("./nowhere",)), tmp_path / "runs", workers)
    assert workers.jobs == []


def test_tasks_that_have_no_such_comparison(tmp_path):
    recipe = small.labelled().model_copy(update={"task": "reward"})
    with pytest.raises(UsageError, match="compared for task classify, generate or continue, and the task is reward"):
        try_models(small.request(recipe), tmp_path / "runs", small.Watched())


# ---- budget and rungs ----


def test_minutes_become_tokens_and_half_go_on(tmp_path):
    """Six candidates in a budget that is short: half drop out at the rungs, the others go on as they were."""
    from tests import whole

    models = tuple(str(whole.base(kind)) for kind in ("bert", "distilbert", "roberta"))
    request = small.request(models=models, seeds=1, budget_seconds=30.0)

    workers = small.Watched()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tunewright.choosing.trying.allot",
            lambda costs, seeds, seconds: Budget(costs[0].full_tokens, (0.25, 0.5, 1.0), (6, 3, 2), 30.0),
        )
        outcome = try_models(request, tmp_path / "runs", workers)
    trained = [row for row in outcome.board.rows if not row.baseline]
    assert len(trained) == 2 and len(outcome.left) == 4
    assert [one.why for one in outcome.left] == ["left after 25% of the tokens, with one seed"] * 3 + [
        "left after 50% of the tokens, with one seed"]  # fmt: skip
    assert all(one.behind_interval is not None and one.p_value is not None for one in outcome.left)
    sessions = [workers.trained.count(name) for name in dict.fromkeys(workers.trained)]
    assert sorted(sessions) == [1, 1, 1, 2, 3, 3], "a rung pauses a trial, and the next one resumes it"
    page = (outcome.folder / "report.html").read_text()
    assert "Left on the way" in page
    # A trial that was paused twice is the run that it would have been alone.
    name = trained[0].name
    paused = outcome.folder / outcome.runs[name][0]
    from tunewright.pipeline import fine_tune

    slug = json.loads((paused / "run.json").read_text())["name"]
    alone = fine_tune(load_recipe(outcome.folder / "recipes" / f"{slug}.yaml"), runs=tmp_path / "alone")
    own, other = whole.tensors(paused / "model"), whole.tensors(alone.folder / "model")
    assert own.keys() == other.keys() and all((own[key] == other[key]).all() for key in own)


def test_one_that_does_not_fit_is_left_out(tmp_path, monkeypatch):
    from tunewright.choosing import work

    real = work._measure

    def measure(job: Job, tell: Any) -> work.Result:
        if "lora" in job.recipe:
            return work.Result("failed", error=work._plain(MachineError("needs 900 GB of memory")))
        return real(job, tell)

    monkeypatch.setattr(work, "_measure", measure)
    outcome = try_models(small.request(seeds=1), tmp_path / "runs", small.Watched())
    assert [(one.name, one.why) for one in outcome.left] == [("bert lora", "needs 900 GB of memory")]
    assert [row.name for row in outcome.board.rows if not row.baseline] == ["bert head"]


def test_one_that_diverges_is_left_out(tmp_path, monkeypatch):
    from tunewright.choosing import work
    from tunewright.errors import DivergedError

    real = work._train

    def train(job: Job, tell: Any) -> work.Result:
        if "head-seed2" in job.recipe:
            raise DivergedError("the loss is not a number")
        return real(job, tell)

    monkeypatch.setattr(work, "_train", train)
    outcome = try_models(small.request(), tmp_path / "runs", small.Watched())
    assert [(one.name, one.why) for one in outcome.left] == [("bert head", "the loss is not a number")]
    again = small.Watched()
    assert board_of(try_models(small.request(), tmp_path / "runs", again)) == board_of(outcome)
    assert again.jobs == [], "it isn't tried again and again"


# ---- writing ----


def test_writers_are_held_against_their_own_prompt(tmp_path):
    outcome = try_models(Request(small.written(), methods=("lora",), seeds=1, budget_seconds=None, shots=3),
                         tmp_path / "runs", small.Watched())  # fmt: skip
    rows = {row.name: row for row in outcome.board.rows}
    assert outcome.board.metric == "f1"
    assert set(rows) == {"llama-writer lora", "llama-writer as it is", "llama-writer, 3 examples in the prompt"} or set(
        rows) == {"llama-writer lora", "llama-writer as it is", "llama-writer, 2 examples in the prompt"}  # fmt: skip
    asked = {name: row.costs["prompt_tokens"] for name, row in rows.items()}
    assert asked["llama-writer lora"] == asked["llama-writer as it is"]
    assert max(asked, key=asked.get).endswith("examples in the prompt"), "what is learnt need not be prompted"
    assert outcome.facts["judged_rows"] == 8


def test_losses_of_other_tokenizers_are_refused(tmp_path):
    from tests import writing

    recipe = small.written(evaluation={"metric": "loss", "generate_rows": 0, "max_new_tokens": 4})
    other = tmp_path / "other"
    import shutil

    shutil.copytree(writing.base(), other)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"superb"', '"superbe"'))
    with pytest.raises(UsageError, match="loss counts per token"):
        try_models(Request(recipe, models=(str(writing.base()), str(other)), methods=("lora",), seeds=1),
                   tmp_path / "runs", small.Watched())  # fmt: skip
