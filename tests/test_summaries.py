"""run.json with a field of the wrong kind is refused once, by name; what nobody knows of is left alone."""

from __future__ import annotations

import json

import pytest

from tests.feeding import call, judge
from tunewright.errors import ModelError
from tunewright.runs import list_runs, read_summary

GOOD = {
    "id": "r", "state": "succeeded", "seconds": 2.5, "notes": ["a"], "error": None, "overfitting": None,
    "data": {"train": "a.jsonl", "validation": 0.1, "train_rows": 9, "validation_rows": 3},
    "best": {"step": 6, "epoch": 1, "metric": "validation/accuracy", "value": 0.6},
    "metrics": {"accuracy": 0.6, "roc_auc": None}, "intervals": {"accuracy": [0.2, 1]},
    "comparison": {"before": {"accuracy": 0.5}, "fixed": 0}, "of_a_later_version": {"any": [1]},
}  # fmt: skip
BAD = [
    ("seconds", "soon"), ("seconds", -1), ("seconds", True), ("state", 7), ("notes", "a"), ("notes", [None]),
    ("error", "x"),
    ("best", 7), ("best", {}), ("metrics", []), ("metrics", {"accuracy": "high"}), ("intervals", {"accuracy": 7}),
    ("intervals", {"accuracy": [1]}), ("data", {"validation_rows": {}}), ("comparison", 7), ("overfitting", 3),
    ("comparison", {"before": {"accuracy": [None]}}), ("data", {"train_rows": 10**30}),
]  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "r").mkdir()
    return tmp_path


def put(runs, summary):
    (runs / "r" / "run.json").write_text(json.dumps(summary))


def test_what_is_right_passes_unchanged(runs):
    for summary in (GOOD, {}, {"state": "failed"}):
        put(runs, summary)
        assert read_summary(runs / "r") == summary


@pytest.mark.parametrize("field, value", BAD, ids=str)
def test_what_is_wrong_is_named(runs, field, value):
    put(runs, GOOD | {field: value})
    with pytest.raises(ModelError, match=f'"{field}') as caught:
        read_summary(runs / "r")
    assert caught.value.field.startswith(field) and caught.value.where == str(runs / "r")
    assert [row["state"] for row in list_runs(runs)] == ["unreadable"]
    judge(call("runs", "show", "r", "--runs", str(runs)), 4, ("run.json", f'"{field}'))
