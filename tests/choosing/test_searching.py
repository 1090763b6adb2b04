"""A search of tiny models: every trial a run, poor ones stopped, the best repeated, interrupted without a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.choosing import small
from tunewright.choosing.searching import search
from tunewright.choosing.work import Job
from tunewright.errors import StoppedError, UsageError
from tunewright.planning.search import plan_search
from tunewright.recipe_files import load_recipe


def _plan(recipe: Any = None, **block: Any) -> Any:
    given = {"training.learning_rate": [1e-5, 3e-3, 1e-2], "trainable.rank": [2, 4]} | block
    return plan_search(recipe or small.labelled(training={"epochs": 3.0}), given)


def _told(folder: Path) -> list[Any]:
    """Trials and board, without what a clock said."""
    trials = json.loads((folder / "trials.json").read_text())["trials"]
    rows = json.loads((folder / "leaderboard.json").read_text())["rows"]
    return [
        [{k: v for k, v in trial.items() if k != "run"} for trial in trials.values()],
        [{k: v for k, v in row.items() if k != "costs"} for row in rows],
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    workers, runs = small.Watched(), tmp_path_factory.mktemp("search") / "runs"
    return search(_plan(), runs, workers), workers, runs


def test_a_grid(finished):
    outcome, workers, _ = finished
    assert workers.trained == [f"trial-{n:03d}" for n in range(1, 7)]
    names = {row.name for row in outcome.board.rows} | {one.name for one in outcome.left}
    assert "learning rate 0.01, rank 4" in names and "learning rate 1e-05, rank 2" in names
    assert outcome.facts["trials"] == 6
    recipe = load_recipe(outcome.best)
    assert outcome.best.read_text().startswith("# learning rate ")
    assert recipe.training.learning_rate in (3e-3, 1e-2) and recipe.training.epochs == 3.0
    page = (outcome.folder / "report.html").read_text()
    assert "6 trials by grid" in page and "Each trial keeps the best of its evaluations" in page


def test_each_trial_has_its_values(finished):
    outcome, _, _ = finished
    for trial in json.loads((outcome.folder / "trials.json").read_text())["trials"].values():
        run = load_recipe(outcome.folder / "runs" / trial["run"] / "recipe.yaml")
        assert {"training.learning_rate": run.training.learning_rate, "trainable.rank": run.trainable.rank} == trial[
            "chosen"]  # fmt: skip


def test_interrupted_it_ends_the_same(finished, tmp_path):
    outcome, whole, _ = finished

    def strike(job: Job) -> None:
        if len(workers.jobs) == 2:
            raise StoppedError("stopped")

    starts = 0
    while True:
        workers = small.Watched(strike)
        starts += 1
        try:
            found = search(_plan(), tmp_path / "runs", workers)
            break
        except StoppedError:
            continue
    assert starts == len(whole.jobs)
    assert _told(found.folder) == _told(outcome.folder)


def test_another_space_is_refused(finished):
    _, _, runs = finished
    with pytest.raises(UsageError, match="holds another comparison"):
        search(_plan(**{"trainable.rank": [2, 8]}), runs, small.Watched())


def test_poor_trials_are_stopped(tmp_path):
    """Four rates that learn, then four that don't: the later ones are behind after their first epoch."""
    rates = [1e-2, 8e-3, 1.2e-2, 9e-3, 1e-7, 2e-7, 3e-7, 4e-7]
    recipe = small.labelled(training={"epochs": 3.0}, trainable={"rank": 4})
    plan = plan_search(recipe, {"training.learning_rate": rates})
    workers = small.Watched()
    outcome = search(plan, tmp_path / "runs", workers)
    stopped = [one for one in outcome.left if "stopped early" in one.why]
    assert len(stopped) >= 3 and all(one.value is not None for one in stopped)
    assert all(float(one.name.split()[-1]) < 1e-6 for one in stopped)
    trials = json.loads((outcome.folder / "trials.json").read_text())["trials"]
    poor = [trial for trial in trials.values() if trial["state"] == "poor"]
    rows = (outcome.folder / "runs" / poor[0]["run"] / "metrics.jsonl").read_text()
    assert rows.count('"validation/accuracy"') < 3, "it never saw its last epoch"
    assert outcome.facts["stopped"] == len(stopped)
    again = small.Watched()
    search(plan, tmp_path / "runs", again)
    assert again.jobs == []
    kept = search(plan_search(recipe.model_copy(update={"name": "all"}), {"training.learning_rate": rates[3:6],
                                                                          "stop_poor": False}),
                  tmp_path / "runs", small.Watched())  # fmt: skip
    assert kept.left == ()


def test_the_best_are_repeated_until_the_leader_has_its_seeds(tmp_path):
    plan = _plan(**{"training.learning_rate": [1e-3, 3e-3, 6e-3, 1e-2], "trainable.rank": [4], "seeds": 2,
                    "stop_poor": False})  # fmt: skip
    outcome = search(plan, tmp_path / "runs", small.Watched())
    seeds = [row.seeds for row in outcome.board.rows if not row.baseline]
    assert seeds[0] == 2 and seeds.count(2) >= 3
    assert "the best ones with 2 seeds" in (outcome.folder / "report.html").read_text()


def test_several_at_once(tmp_path):
    """In threads of this process: nothing is run twice, nothing is lost."""
    workers = small.Watched()
    plan = _plan(**{"method": "random", "trials": 4, "stop_poor": False})
    outcome = search(plan, tmp_path / "runs", workers, jobs=2, threads=1)
    assert sorted(workers.trained) == [f"trial-{n:03d}" for n in range(1, 5)]
    assert len([row for row in outcome.board.rows if not row.baseline]) == 4
    assert load_recipe(outcome.folder / "recipes/trial-001.yaml").training.threads == 1


def test_one_failure_stops_the_others(tmp_path):
    from tunewright.errors import DataError

    def strike(job: Job) -> None:
        if job.recipe.endswith("trial-002.yaml"):
            raise DataError("a row is bad")

    with pytest.raises(DataError, match="a row is bad"):
        search(_plan(), tmp_path / "runs", small.Watched(strike), jobs=2)


def test_optuna(tmp_path):
    pytest.importorskip("optuna")
    plan = _plan(**{"method": "optuna", "trials": 5, "trainable.rank": [2, 4], "training.learning_rate": [1e-3, 1e-2],
                    "stop_poor": False})  # fmt: skip
    workers = small.Watched()
    outcome = search(plan, tmp_path / "runs", workers)
    trials = json.loads((outcome.folder / "trials.json").read_text())["trials"]
    assert len(trials) == 5
    assert len(workers.trained) == len({json.dumps(trial["chosen"]) for trial in trials.values()}), "none twice"


def test_a_base_is_a_setting_too(tmp_path):
    from tests import whole

    recipe = small.labelled(training={"epochs": 2.0, "learning_rate": 3e-3})
    plan = plan_search(recipe, {"model": [str(whole.base("bert")), str(whole.base("distilbert"))]})
    outcome = search(plan, tmp_path / "runs", small.Watched())
    assert len([row for row in outcome.board.rows if not row.baseline]) == 2
