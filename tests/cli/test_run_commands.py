"""evaluate, compare, report, runs, predict, export, push: on run folders written by hand."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from tests.cli.finished_run import RUN, write_run
from tunewright.cli.evaluate import Gate
from tunewright.errors import UsageError

OTHER = "20261124-1000-reviews"


def stand_in(monkeypatch, name: str, **functions) -> None:
    """Put functions in the place of a library module."""
    module = types.ModuleType(f"tunewright.{name}")
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, module.__name__, module)


# ---- evaluate ----


def test_evaluate_shows_the_stored_scores(runs, tunewright):
    code, out, _ = tunewright("evaluate", "latest")
    assert code == 0
    assert out.splitlines()[0] == " 111 rows of reviews.jsonl, held out"
    assert [line.split() for line in out.splitlines()[2:4]] == [
        ["metric", "value", "95", "%", "interval"],
        ["accuracy", "0.873", "[0.811,", "0.928]"],
    ]


@pytest.mark.parametrize(
    ("gate", "expected"),
    [("validation/accuracy>=0.8", 0), ("accuracy >= 0.9", 8), ("loss<0.4", 0), ("loss<=.3", 8), ("accuracy>0.873", 8)],
)
def test_a_gate_decides_the_exit_code(gate, expected, runs, tunewright):
    code, out, err = tunewright("evaluate", RUN, "--gate", gate)
    assert code == expected
    assert "accuracy" in out  # the scores are shown either way
    assert (err.count("error[gate] ") == 1) == (expected == 8)


def test_a_missed_gate_with_json_is_still_one_object(runs, tunewright):
    code, out, err = tunewright(
        "evaluate", RUN, "--gate", "validation/accuracy>=0.9", "--gate", "validation/macro_f1>=0.5", "--json"
    )
    assert code == 8
    [line] = out.splitlines()
    found = json.loads(line)
    assert [gate["met"] for gate in found["gates"]] == [False, True]
    assert found["error"]["code"] == "gate"
    assert (found["run"], found["state"], found["metrics"]["accuracy"]) == (RUN, "succeeded", 0.873)
    assert err == "error[gate] accuracy is 0.8730; expected >= 0.9\n"


@pytest.mark.parametrize("text", ["accuracy", "accuracy=0.9", "accuracy>=high", ">=0.9", "accuracy>=0.9.1"])
def test_a_gate_that_cannot_be_read(text):
    with pytest.raises(UsageError, match="expected something like"):
        Gate.parse(text)


def test_a_gate_on_an_unknown_metric(runs, tunewright):
    code, out, err = tunewright("evaluate", RUN, "--gate", "acuracy>=0.9")
    assert (code, out) == (2, "")
    assert 'Did you mean "accuracy"?' in err


def test_a_checkpoint_is_not_taken_for_the_final_model(runs, tunewright):
    for command in (["evaluate", f"{RUN}:best"], ["export", f"{RUN}:best", "--to", "merged", "-o", "x"]):
        code, _, err = tunewright(*command)
        assert code == 2
        assert "is a checkpoint" in err


def test_a_run_without_scores(runs, tunewright):
    write_run(runs, "20261124-1100-half", metrics=None, state="failed")
    code, _, err = tunewright("evaluate", "20261124-1100-half")
    assert code == 4
    assert "its state is failed" in err


# ---- compare ----


def test_compare_shows_differences_only_and_the_same_prompts(runs, tunewright):
    write_run(runs, OTHER, rate=5e-4, metrics={"accuracy": 0.9}, intervals={})
    code, out, _ = tunewright("compare", RUN, OTHER)
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["A", RUN] in rows and ["B", OTHER] in rows
    assert ["accuracy", "0.873", "[0.811,", "0.928]", "0.900", "★"] in rows
    assert ["training.learning_rate", "0.001", "0.0005"] in rows
    assert "training.epochs" not in out
    assert "positive 0.98  positive 0.98" in out


def test_compare_warns_of_different_rows(runs, tunewright):
    write_run(runs, OTHER, data={"validation": "other.jsonl", "validation_rows": 50})
    assert "was not judged on the rows of" in tunewright("compare", RUN, OTHER)[1]


def test_compare_json(runs, tunewright):
    write_run(runs, OTHER, rate=5e-4)
    _, out, _ = tunewright("compare", RUN, OTHER, "--json")
    found = json.loads(out)
    assert found["run"] == [RUN, OTHER]
    assert found["metrics"][OTHER]["accuracy"] == 0.873
    assert found["recipe_differences"] == {"training.learning_rate": ["0.001", "0.0005"]}


# ---- report ----


def test_report_prints_its_path_and_copies(runs, tunewright, monkeypatch):
    stand_in(monkeypatch, "evaluation.report", write_report=lambda folder: folder / "report.html")
    assert tunewright("report", "latest")[1] == f"runs/{RUN}/report.html\n"
    code, out, _ = tunewright("report", "latest", "-o", "new/place.html")
    assert (code, out) == (0, "new/place.html\n")
    assert Path("new/place.html").read_text() == "<p>report</p>"
    assert [path.name for path in Path("new").iterdir()] == ["place.html"]


# ---- runs ----


def test_runs_ls(runs, tunewright):
    write_run(runs, OTHER, state="failed", metrics=None, created="2026-11-24T10:00:00+00:00")
    _, out, _ = tunewright("runs", "ls")
    assert [line.split() for line in out.splitlines()] == [
        ["run", "state", "score", "rows", "time"],
        [RUN, "succeeded", "accuracy", "0.873", "1,000", "2:51"],
        [OTHER, "failed", "1,000", "2:51"],
    ]
    assert tunewright("runs", "ls", "-q")[1] == f"{RUN}\n{OTHER}\n"
    assert [run["run"] for run in json.loads(tunewright("runs", "ls", "--json")[1])["runs"]] == [RUN, OTHER]


def test_no_runs_says_how_to_start(runs, tunewright):
    code, out, err = tunewright("runs", "ls", "--runs", "nowhere")
    assert (code, out) == (0, "")
    assert "tunewright train" in err


def test_runs_show(runs, tunewright):
    _, out, _ = tunewright("runs", "show", "latest")
    assert f" run     {RUN}: succeeded" in out
    assert "best epoch 1 of 2" in out


def test_runs_rm_wants_a_yes(runs, tunewright, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, _, err = tunewright("runs", "rm", RUN)
    assert code == 2
    assert "add --yes" in err
    assert (runs / RUN).is_dir()
    assert tunewright("runs", "rm", RUN, "--yes")[1] == f"{RUN}\n"
    assert list(runs.iterdir()) == []


def test_runs_rm_keeps_a_run_for_its_checkpoint(runs, tunewright):
    assert tunewright("runs", "rm", f"{RUN}:step-125", "--yes")[0] == 2
    assert (runs / RUN).is_dir()


# ---- predict, export, push ----


def test_predict_hands_over_paths(runs, tunewright, monkeypatch):
    seen = []
    stand_in(monkeypatch, "library", load=lambda run, runs: f"{run} in {runs}")
    answers = types.SimpleNamespace(rows=1, cut_rows=0, cut_tokens=0)
    stand_in(monkeypatch, "serving.answering",
             answer_file=lambda *places, text: seen.append((*places, text)) or answers)  # fmt: skip
    assert tunewright("predict", "latest", "-i", "a.csv", "-o", "b.jsonl", "--text", "t")[:2] == (0, "b.jsonl\n")
    assert tunewright("predict", "me/model", "-i", "-") == (0, "", "")
    assert seen == [
        ("latest in runs", Path("a.csv"), Path("b.jsonl"), "t"),
        ("me/model in runs", "-", "-", None),
    ]
    code, _, err = tunewright("predict", "latest", "-i", "-", "--json")
    assert code == 2
    assert "give -o FILE" in err


def test_export(runs, tunewright, monkeypatch):
    seen = []
    stand_in(monkeypatch, "serving.export", export=lambda *a: seen.append(a) or Path("out"))
    assert tunewright("export", "latest", "--to", "merged", "-o", "out")[:2] == (0, "out\n")
    assert seen == [(runs / RUN / "model", "merged", Path("out"))]
    code, _, err = tunewright("export", "latest", "--to", "gguf", "-o", "out")
    assert code == 2
    assert "merged" in err and "adapter" in err


def test_push_is_private_unless_told(runs, tunewright, monkeypatch):
    seen = []
    stand_in(monkeypatch, "serving.hub", push=lambda *a, private: seen.append((*a, private)) or "https://hub/me/x")
    assert tunewright("push", "latest", "me/x")[:2] == (0, "https://hub/me/x\n")
    assert tunewright("push", "latest", "me/x", "--public")[0] == 0
    assert seen == [(runs / RUN, "me/x", True), (runs / RUN, "me/x", False)]


def test_an_unfinished_run_is_not_pushed(runs, tunewright, monkeypatch):
    stand_in(monkeypatch, "serving.hub", push=None)
    write_run(runs, OTHER, state="failed")
    assert tunewright("push", OTHER, "me/x")[0] == 4
