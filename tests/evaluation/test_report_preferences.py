"""The report of a reward model: its verdict, length beside it, who agrees, comparisons to read, nothing run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import comparing
from tunewright.cli import results
from tunewright.cli.output import Marks
from tunewright.evaluation import wording
from tunewright.evaluation.compare import compare_runs
from tunewright.evaluation.record import read_record
from tunewright.evaluation.report import render
from tunewright.evaluation.report_preferences import misjudged, parts, verdict

EVIL = "<script>alert(1)</script>"


def made(folder: Path, **changes: Any) -> Path:
    """A run folder as the task writes it, by hand."""
    body = {
        "kind": "preference",
        "num_rows": 50,
        "comparisons": 60,
        "ties": 4,
        "metrics": {"accuracy": 0.75, "loss": 0.55, "margin": 0.8, "ece": 0.05},
        "intervals": {"accuracy": [0.62, 0.86], "loss": [0.45, 0.65], "margin": [0.5, 1.1]},
        "annotators": [{"annotator": EVIL, "comparisons": 30, "accuracy": 0.8, "interval": [0.6, 0.9]}],
        "reliability": [{"low": 0.5, "high": 0.6, "count": 30, "confidence": 0.55, "accuracy": 0.6}],
        "notes": ["4 of 60 comparisons are ties, which accuracy leaves out"],
    }
    length = {"slope": 0.5, "accuracy": 0.58, "p_value": 0.01, "words": "it knows more than length: …",
              "people_prefer_longer": 0.6, "scores_prefer_longer": 0.7, "spearman": 0.31}  # fmt: skip
    run = {
        "id": "r",
        "state": "succeeded",
        "data": {"kind": "preference", "validation_rows": 50},
        "best": {"step": 10, "epoch": 2, "metric": "validation/loss", "value": 0.55},
        "metrics": body["metrics"],
        "intervals": body["intervals"],
        "baseline": {"accuracy": 0.58, "loss": 0.68},
        "comparison": {"before": {"accuracy": 0.5, "loss": 0.69}, "after": body["metrics"], "fixed": 20, "broke": 5,
                       "p_value": 0.004},
        "length": length,
        "reward": {"mean": 1.5, "std": 2.0, "completions": 50},
    }  # fmt: skip
    for name, value in changes.items():
        place, _, key = name.partition("__")
        {"run": run, "body": body, "length": length}[place][key] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions").mkdir(exist_ok=True)
    rows = [
        {"row": "a.jsonl:1", "prompt": EVIL, "completions": ["good " + EVIL, "bad", "tie"], "scores": [-1.0, 2.0, 3.0],
         "before": None, "comparisons": [{"better": 0, "worse": 1, "weight": 1.0, "annotator": None},
                                         {"better": 0, "worse": 2, "weight": 0.5, "annotator": None}]},
        {"row": "a.jsonl:2", "prompt": "q", "completions": ["x", "y"], "scores": [0.1, 0.4], "before": [0, 0],
         "comparisons": [{"better": 0, "worse": 1, "weight": 0.8, "annotator": "Ada"}]},
        {"row": "a.jsonl:3", "prompt": "q", "completions": ["x"], "scores": "torn", "comparisons": [{"better": 9}]},
    ]  # fmt: skip
    (folder / "predictions" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluation.json").write_text(json.dumps(body))
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "metrics.jsonl").write_text("")
    return folder


@pytest.mark.parametrize(
    "changes, tone, headline",
    [
        ({}, "good", "It knows what people prefer, and more than length."),
        ({"length__p_value": 0.2}, "unsure", "It knows something; whether more than length is not sure."),
        ({"length__accuracy": 0.8}, "bad", "No better than choosing by length."),
        ({"body__metrics": {"accuracy": 0.48, "loss": 0.7}}, "bad", "No better than guessing."),
        ({"body__intervals": {"accuracy": [0.45, 0.9]}}, "unsure",
         "Perhaps better than guessing; too few comparisons to be sure."),
        ({"body__metrics": {"loss": 0.7}}, "open", "All comparisons are ties."),
        ({"run__forgetting": {"verdict": "forgot"}}, "unsure", "Better at this task, worse at general text."),
    ],
)  # fmt: skip
def test_the_verdict(changes, tone, headline, tmp_path):
    found = wording.verdict(read_record(made(tmp_path, **changes)))
    assert (found.tone, found.headline) == (tone, headline)


def test_the_sentence_has_its_numbers(tmp_path):
    said = verdict(read_record(made(tmp_path))).sentence
    assert said == (
        "Accuracy 0.500 → 0.750 [0.620, 0.860] on 60 comparisons of held-out prompts; fixed 20, broke 5 (p = 0.004). "
        "Choosing by length alone would give 0.580 (p = 0.010)."
    )


def test_comparisons_to_read_are_those_it_is_surest_about(tmp_path):
    found = list(misjudged(read_record(made(tmp_path))))
    assert [(one.where, one.scores) for one in found] == [("a.jsonl:1", ("-1.000", "2.000")),
                                                          ("a.jsonl:2", ("0.100", "0.400"))]  # fmt: skip


def test_the_page_escapes_and_names_length(tmp_path):
    page = render(read_record(made(tmp_path)))
    assert EVIL not in page and "&lt;script&gt;" in page
    for words in ("Length and people", "by length", "Comparisons to read", "Who agrees with it", "1.500 was taken off"):
        assert words in page, words
    assert "never reading" not in page and "decides which checkpoint" not in page


def test_a_torn_folder_still_has_a_page(tmp_path):
    folder = made(tmp_path, run__length=None, run__reward="x", body__annotators=[1, {}])
    (folder / "predictions" / "validation.jsonl").write_text("{")
    assert "Length and people" in render(read_record(folder))
    assert parts(read_record(folder)) is not None


def test_a_real_run_and_what_the_terminal_says(capsys):
    run = comparing.finished()
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Length and people" in page and "Confidence" in page and "Ada" in page
    lines = results.result_lines(run.folder, run.summary, Marks())
    text = "\n".join(lines)
    assert "choosing by length alone: accuracy" in text and "best epoch" in text and ": loss " in text
    assert max(map(len, lines)) <= 120
    body = results.to_json(run.folder, run.summary)
    assert body["length"]["words"] and body["reward"]["std"] and body["annotators"]
    assert json.loads(json.dumps(body))


def test_two_reward_models_side_by_side():
    found = compare_runs([comparing.finished("lora").folder, comparing.finished("head").folder])
    assert [run.name for run in found.runs] == ["reward-lora-bert", "reward-head-bert"] or len(found.runs) == 2
