"""A run folder is read whatever state it is in, and what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.fake_run import make_run, write_json, write_lines
from tunewright.errors import ModelError
from tunewright.evaluation.record import Answer, answers, before_and_after, number, read_predictions, read_record


def test_a_whole_folder_has_no_problems(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "run"))
    assert record.problems == ()
    assert record.labels == ["negative", "positive"]
    assert record.untrained["accuracy"] == record.run["comparison"]["before"]["accuracy"]
    low, high = record.intervals["accuracy"]
    assert low < record.metrics["accuracy"] < high


def test_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    record = read_record(tmp_path)
    assert record.name == tmp_path.name
    assert "run.json is missing." in record.problems
    assert len(record.problems) == 7
    assert list(read_predictions(tmp_path)) == []


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such run folder"):
        read_record(tmp_path / "gone")


def test_a_torn_last_line_is_forgiven_and_others_are_counted(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st', encoding="utf-8")
    record = read_record(tmp_path)
    assert [row["step"] for row in record.rows] == [1, 2]
    assert not [p for p in record.problems if p.startswith("metrics.jsonl")]
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n[3]\n{"step": 2}\n', encoding="utf-8")
    assert "metrics.jsonl: 2 of 4 lines can't be read." in read_record(tmp_path).problems


def test_line_separators_inside_a_text_do_not_split_it(tmp_path: Path) -> None:
    write_lines(tmp_path / "samples.jsonl", [{"step": 0, "prompt": "one\u2028two\x85three", "prediction": "a"}])
    assert list(before_and_after(read_record(tmp_path).samples)) == ["one\u2028two\x85three"]


def test_metrics_come_from_run_json_when_the_evaluation_is_gone(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "evaluation.json").unlink()
    record = read_record(folder)
    assert record.metrics == record.run["metrics"]
    assert record.intervals.keys() == record.run["intervals"].keys()


def test_untrained_metrics_fall_back_on_step_0(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"comparison": None})
    write_lines(tmp_path / "metrics.jsonl", [{"step": 0, "epoch": 0, "validation/accuracy": 0.5}])
    assert read_record(tmp_path).untrained == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("prediction", "probabilities", "expected"),
    [
        ("a", {"a": 0.9, "b": 0.1}, [Answer("a", 0.9)]),
        (["a", "b"], {"a": 0.9, "b": 0.7, "c": 0.1}, [Answer("a", 0.9), Answer("b", 0.7)]),
        ([], {"a": 0.1}, [Answer("none", None)]),
        (2.5, {}, [Answer("2.500", None)]),
        ("a", "torn", [Answer("a", None)]),
        (None, {}, []),
    ],
)
def test_predictions_become_answers(prediction: object, probabilities: object, expected: list[Answer]) -> None:
    assert answers(prediction, probabilities) == expected


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 10**400, []])
def test_what_is_not_a_finite_number_is_none(value: object) -> None:
    assert number(value) is None


def test_before_is_step_0_and_after_is_the_last_answer() -> None:
    rows = [{"step": s, "prompt": p, "prediction": f"{p}{s}"} for s in (0, 5, 10) for p in ("a", "b")]
    found = before_and_after([*rows, {"step": 10, "prompt": None, "prediction": "x"}])
    assert found == {p: ([Answer(f"{p}0", None)], [Answer(f"{p}10", None)]) for p in ("a", "b")}
    assert before_and_after(rows[2:4])["a"] == ([], [Answer("a5", None)])
