"""The split is made once, whatever a trial's seed; labels of every kind and texts are judged as a run judges them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import whole, writing
from tests.choosing import small
from tunewright.choosing.rows import fix_rows, refuse_other_tokenizers
from tunewright.choosing.trying import Request, try_models
from tunewright.errors import UsageError
from tunewright.evaluation.resampling import value


@pytest.mark.parametrize(
    ("labels", "metric"), [("single", "accuracy"), ("single", "roc_auc"), ("multi", "micro_f1"), ("number", "rmse")]
)
def test_a_trial_has_the_metric_that_its_run_says(tmp_path, labels, metric):
    recipe = small.labelled(
        data={"train": str(whole.data_file(labels)), "validation": 0.3}, evaluation={"metric": metric}
    )
    outcome = try_models(Request(recipe, methods=("lora",), seeds=2, budget_seconds=None), tmp_path, small.Watched())
    row = next(row for row in outcome.board.rows if not row.baseline)
    runs = [json.loads((outcome.folder / name / "run.json").read_text()) for name in outcome.runs["bert lora"]]
    assert row.value == pytest.approx(sum(run["metrics"][metric] for run in runs) / 2)
    assert outcome.board.higher_is_better == (metric != "rmse")
    assert len([row for row in outcome.board.rows if row.baseline]) == 2


def test_the_split_is_the_recipes_own_and_is_written_once(tmp_path):
    recipe = small.labelled()
    found = fix_rows(recipe, tmp_path, tmp_path)
    kept = {side: Path(found.data[side]).read_text().splitlines() for side in ("train", "validation")}
    own = whole.start(tmp_path / "runs", data=str(small.reviews()), settings={"data.validation": 0.3})
    judged = [
        json.loads(line)["text"] for line in (own.folder / "predictions/validation.jsonl").read_text().splitlines()
    ]
    assert [json.loads(line)["text"] for line in kept["validation"]] == judged, "as a run of the recipe would split"
    assert len(kept["train"]) == found.num_train and len(judged) == found.num_judged
    again = fix_rows(recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": 9})}), tmp_path,
                     tmp_path)  # fmt: skip
    assert Path(again.data["train"]).read_text().splitlines() == kept["train"], "what is written down stays"


def test_validation_of_its_own_is_left_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("held.jsonl").write_text(small.reviews().read_text(), encoding="utf-8")
    recipe = small.labelled(data={"train": str(whole.data_file()), "validation": "held.jsonl"})
    found = fix_rows(recipe, tmp_path / "folder", tmp_path)
    assert found.data["validation"] == str(tmp_path / "held.jsonl") and found.num_judged == 80
    assert not (tmp_path / "folder").exists()


def test_a_metric_that_these_labels_have_not(tmp_path):
    with pytest.raises(UsageError, match="rmse is no metric of single labels"):
        fix_rows(small.labelled(evaluation={"metric": "rmse"}), tmp_path, tmp_path)


@pytest.mark.parametrize("metric", ["f1", "exact_match", "loss", "perplexity"])
def test_writers(tmp_path, metric):
    rows = 8 if metric in ("f1", "exact_match") else 0
    recipe = small.written(evaluation={"metric": metric, "generate_rows": rows, "max_new_tokens": 4})
    outcome = try_models(Request(recipe, methods=("lora",), seeds=1, budget_seconds=None, shots=0), tmp_path,
                         small.Watched())  # fmt: skip
    run = json.loads((outcome.folder / outcome.runs["llama-writer lora"][0] / "run.json").read_text())
    assert outcome.board.rows[0].value == pytest.approx(run["metrics"][metric]) or outcome.board.rows[0].baseline
    names = {row.name for row in outcome.board.rows}
    assert ("llama-writer as it is" in names) == (rows > 0)
    if not rows:
        assert outcome.facts["judged_rows"] == 12, "every validation row has its likelihood"


def test_plain_text(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [{"body": f"{row['film']} was {row['verdict']}", "id": i} for i, row in enumerate(writing.rows(30))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe: Any = small.written(
        task="continue", data={"train": str(path), "text": "body", "validation": 0.3}, evaluation={"max_new_tokens": 2}
    )
    outcome = try_models(Request(recipe, methods=("lora",), seeds=1, budget_seconds=None), tmp_path, small.Watched())
    run = json.loads((outcome.folder / outcome.runs["llama-writer lora"][0] / "run.json").read_text())
    assert (outcome.board.metric, outcome.board.higher_is_better) == ("loss", False)
    assert outcome.board.rows[0].value == pytest.approx(run["metrics"]["loss"])


def test_tokenizers():
    bert, llama = whole.base(), writing.base()
    refuse_other_tokenizers("f1", {"a": bert, "b": llama})
    refuse_other_tokenizers("loss", {"a": bert, "b": bert})
    with pytest.raises(UsageError, match="loss counts per token, and a and b have different tokens"):
        refuse_other_tokenizers("loss", {"a": bert, "b": llama})


def test_a_writers_metric_needs_answers(tmp_path):
    with pytest.raises(UsageError, match="f1 needs written answers"):
        fix_rows(small.written(evaluation={"metric": "f1", "generate_rows": 0}), tmp_path, tmp_path)


def test_measured_is_of_the_latest_answers(tmp_path):
    recipe = small.labelled()
    outcome = try_models(Request(recipe, methods=("lora",), seeds=1, budget_seconds=None), tmp_path, small.Watched())
    rows = fix_rows(recipe, outcome.folder, tmp_path)
    run = outcome.folder / outcome.runs["bert lora"][0]
    assert value(rows.measured(run)) == json.loads((run / "run.json").read_text())["metrics"]["accuracy"]
