"""Two runs side by side: what differs is shown, what doesn't is not, and the same rows are tested in pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluation.fake_run import PROMPTS, make_run, write_lines
from tunewright.errors import UsageError
from tunewright.evaluation.compare import compare_runs


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("runs")
    return [make_run(base / "small", skill=1.0, rank=4), make_run(base / "large", skill=3.0, rank=16, seed=3)]


def test_metrics_stand_side_by_side_and_the_best_is_known(folders: list[Path]) -> None:
    comparison = compare_runs(folders)
    assert [run.name for run in comparison.runs] == ["small", "large"]
    by_name = {row.name: row for row in comparison.metrics}
    accuracy, loss = by_name["accuracy"], by_name["loss"]
    assert accuracy.values[0] < accuracy.values[1]  # type: ignore[operator]
    assert accuracy.best == loss.best == 1  # more accurate, and less loss
    assert all(low < value < high for value, (low, high) in zip(accuracy.values, accuracy.intervals, strict=True))  # type: ignore[misc,operator]


def test_only_settings_that_differ_are_shown(folders: list[Path]) -> None:
    assert [(row.name, row.values) for row in compare_runs(folders).settings] == [("trainable.rank", ("4", "16"))]


def test_a_setting_that_one_recipe_lacks_differs(tmp_path: Path, folders: list[Path]) -> None:
    other = make_run(tmp_path / "other", rank=4)
    recipe = (other / "recipe.resolved.yaml").read_text()
    (other / "recipe.resolved.yaml").write_text("name: other\n" + recipe + "revision: null\n")
    assert [(row.name, row.values) for row in compare_runs([folders[0], other]).settings] == [
        ("revision", (None, "None"))
    ]


def test_prompts_show_each_final_answer(folders: list[Path]) -> None:
    rows = compare_runs(folders).prompts
    assert [row.prompt for row in rows] == list(PROMPTS)
    assert all(len(answer) == 1 and answer[0].probability is not None for row in rows for answer in row.answers)
    last = [json.loads(line) for line in (folders[1] / "samples.jsonl").read_text().splitlines()][-1]
    assert rows[-1].answers[1][0].text == last["prediction"]


def test_the_same_rows_are_tested_in_pairs(folders: list[Path]) -> None:
    comparison = compare_runs(folders)
    (tested,) = comparison.same_rows
    accuracy = next(row for row in comparison.metrics if row.name == "accuracy").values
    assert (tested.run, tested.num_rows) == (1, 240)
    assert tested.paired.fixed > tested.paired.broke
    assert tested.paired.difference == pytest.approx(accuracy[1] - accuracy[0])  # type: ignore[operator]
    assert tested.paired.p_value < 0.001


def test_numbers_are_compared_by_their_squared_errors(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, kind="number", skill=skill) for name, skill in (("a", 1.0), ("b", 4.0))]
    comparison = compare_runs(runs)
    losses = next(row for row in comparison.metrics if row.name == "loss").values
    assert comparison.same_rows[0].paired.difference == pytest.approx(losses[1] - losses[0])  # type: ignore[operator]
    assert next(row for row in comparison.metrics if row.name == "rmse").best == 1


def test_other_rows_are_not_paired_and_that_is_said(tmp_path: Path, folders: list[Path]) -> None:
    other = make_run(tmp_path / "other")
    path = other / "predictions" / "validation.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [row | {"text": "another text"} for row in rows])
    comparison = compare_runs([folders[0], other])
    assert comparison.same_rows == ()
    assert "other was not judged on the rows of small" in comparison.notes[0]
    write_lines(path, rows[:100])
    shared = compare_runs([folders[0], other])
    assert shared.same_rows[0].num_rows == 100
    assert "share 100 of their validation rows" in shared.notes[0]


def test_a_broken_run_still_takes_its_column(tmp_path: Path, folders: list[Path]) -> None:
    (tmp_path / "broken").mkdir()
    comparison = compare_runs([folders[0], tmp_path / "broken"])
    assert all(row.values[1] is None and row.best is None for row in comparison.metrics)
    assert "broken: run.json is missing." in comparison.notes


def test_a_comparison_is_plain_json(folders: list[Path]) -> None:
    stored = json.loads(json.dumps(compare_runs(folders).to_json(), allow_nan=False))
    assert stored.keys() == {"runs", "metrics", "settings", "prompts", "same_rows", "gains", "tax", "notes"}


def test_one_run_cannot_be_compared(folders: list[Path]) -> None:
    with pytest.raises(UsageError, match="at least two"):
        compare_runs(folders[:1])
