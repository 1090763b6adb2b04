"""The rows worth reading: wrong ones only, costliest first, as many as the report shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.fake_run import write_json, write_lines
from tunewright.evaluation.mistakes import WORST_ROWS, find_mistakes
from tunewright.evaluation.record import read_record


def _folder(path: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    (path / "predictions").mkdir()
    write_json(path / "run.json", {"data": {"kind": kind}})
    write_lines(path / "predictions" / "validation.jsonl", rows)
    return path


def _row(number: int, loss: float | None, **given: Any) -> dict[str, Any]:
    return {"row": f"a:{number}", "text": "t", "label": "yes", "prediction": "no", "loss": loss} | given


def test_costliest_first_and_ties_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [_row(i, loss=20.0 - i // 2) for i in range(40)]  # falling, in pairs
    found = find_mistakes(read_record(_folder(tmp_path, "single", rows)))
    assert [row.where for row in found.rows] == [f"a:{i}" for i in range(WORST_ROWS)]
    assert (found.wrong, found.total) == (40, 40)


def test_right_answers_are_not_mistakes_whatever_their_loss(tmp_path: Path) -> None:
    rows = [_row(1, 9.0, prediction="yes"), _row(2, 0.7), _row(3, None)]
    found = find_mistakes(read_record(_folder(tmp_path, "single", rows)))
    assert [row.where for row in found.rows] == ["a:2", "a:3"]
    assert (found.wrong, found.total) == (2, 3)


def test_sets_of_labels_have_no_order(tmp_path: Path) -> None:
    rows = [_row(1, 1.0, label=["a", "b"], prediction=["b", "a"]), _row(2, 1.0, label=["a"], prediction=[])]
    found = find_mistakes(read_record(_folder(tmp_path, "multi", rows)))
    assert [row.where for row in found.rows] == ["a:2"]


@pytest.mark.parametrize(("before", "broke"), [("yes", True), ("no", False), (None, False)])
def test_broke_means_that_the_untrained_model_was_right(tmp_path: Path, before: str | None, broke: bool) -> None:
    found = find_mistakes(read_record(_folder(tmp_path, "single", [_row(1, 1.0, before=before)])))
    assert found.rows[0].broke is broke


def test_numbers_are_all_shown_by_their_error(tmp_path: Path) -> None:
    rows = [_row(1, 0.1, label=1.0, prediction=1.3), _row(2, 4.0, label=1.0, prediction=3.0)]
    found = find_mistakes(read_record(_folder(tmp_path, "number", rows)))
    assert [row.where for row in found.rows] == ["a:2", "a:1"]
