"""`data doubtful`, `data learning-curve`, `calibrate`: what is printed and written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import tiny, whole
from tunewright.cli import calibrate, data_quality, output
from tunewright.errors import UsageError
from tunewright.models.calibrated import FILE

QUICK = ("--quick", "-s", f"model={json.dumps(str(whole.base()))}", "-s", "training.threads=1")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TUNEWRIGHT_DEBUG", raising=False)
    rows = tiny.sentences(120)
    for i in (6, 13):
        rows[i]["label"] = "negative" if rows[i]["label"] == "positive" else "positive"
    rows.append({"text": rows[0]["text"], "label": "negative"})
    Path("reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_doubtful_rows_are_listed_and_written(here, tunewright):
    code, out, err = tunewright("data", "doubtful", "reviews.jsonl", *QUICK, "-o", "doubtful.jsonl")
    assert code == 0
    assert "121 rows of reviews.jsonl, each answered by a model that didn't learn it" in out
    assert "1 text has more than one label" in out
    assert "reviews.jsonl:7" in out
    assert max(map(len, out.splitlines())) <= 100
    assert "fold 10 of 10" in err
    written = [json.loads(line) for line in Path("doubtful.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"reviews.jsonl:7", "reviews.jsonl:14"} <= {row["row"] for row in written}
    assert set(written[0]) == {
        "row",
        "label",
        "likely",
        "probability_of_label",
        "probability_of_likely",
        "text",
    }


def test_doubtful_as_json_and_quiet(here, tunewright):
    code, out, _ = tunewright("data", "doubtful", "reviews.jsonl", *QUICK, "--json")
    [line] = out.splitlines()
    found = json.loads(line)
    assert (code, found["rows"], found["conflicts"]) == (0, 121, [["reviews.jsonl:1", "reviews.jsonl:121"]])
    assert found["estimated_wrong"] > 0
    _, out, err = tunewright("data", "doubtful", "reviews.jsonl", *QUICK, "-q")
    assert out.splitlines() == [row["row"] for row in found["doubtful"]]
    assert err == ""


def test_doubtful_of_a_run_trains_nothing(here, tunewright):
    shutil.copytree(whole.finished("single", "lora").folder, here / "runs" / "20261124-0900-x")
    code, out, err = tunewright("data", "doubtful", "latest")
    assert (code, err) == (0, "")
    assert "rows of 20261124-0900-x" in out
    code, _, err = tunewright("data", "doubtful", "latest", "--quick")
    assert code == 2
    assert "for a recipe or data" in err


def test_learning_curve(here, tunewright):
    code, out, err = tunewright(
        "data",
        "learning-curve",
        "reviews.jsonl",
        *QUICK,
        "--fractions",
        "0.2,0.5,1",
        "--forecast",
        "500",
        "-o",
        "c.svg",
    )
    assert code == 0, err
    assert "a head on the frozen base model, judged on the same" in out
    assert "mean of 3" in out
    assert [line.split()[-1] for line in out.splitlines() if line.strip().startswith(("500", "21"))].count(
        "forecast"
    ) == 2
    assert "twice the labels (" in out.splitlines()[-1]
    ElementTree.fromstring(Path("c.svg").read_text(encoding="utf-8"))
    code, out, _ = tunewright("data", "learning-curve", "reviews.jsonl", *QUICK, "--fractions", "0.2,0.5,1", "--json")
    found = json.loads(out)
    assert found["metric"] == "accuracy"
    assert len(found["points"]) == 3 + 1 + 1
    assert found["forecasts"][0]["low"] <= found["forecasts"][0]["value"] <= found["forecasts"][0]["high"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("learning-curve", "reviews.jsonl", *QUICK, "--fractions", "a,b"), "expected shares like"),
        (("learning-curve", "reviews.jsonl", *QUICK, "--fractions", "0.5,1"), "through 2 sizes"),
        (("learning-curve", "nothing"), "is no recipe"),
        (("doubtful", "nothing"), "no run"),
        (("doubtful", "reviews.jsonl", *QUICK, "-o", "reviews.jsonl"), "never changed"),
        (("doubtful", "reviews.jsonl", "-s", "task=continue"), "the task is continue"),
    ],
)
def test_one_line_each(here, tunewright, arguments, message):
    code, out, err = tunewright("data", *arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error[usage]")
    assert message in err


def test_calibrate_a_run(here, tunewright):
    folder = here / "runs" / "20261124-0900-x"
    shutil.copytree(whole.finished("single", "lora").folder, folder)
    code, out, err = tunewright("calibrate", "latest", "--data", str(whole.data_file("single", 46)))
    assert (code, err) == (0, "")
    assert "46 rows: " in out
    assert [line.split()[:2] for line in out.splitlines() if "log loss" in line] == [["log", "loss"]]
    assert (folder / "model" / FILE).is_file()
    code, out, _ = tunewright("calibrate", "latest", "--json")
    assert json.loads(out)["state"] == "calibrated"
    assert tunewright("calibrate", "latest", "-q")[1].strip().endswith(FILE)
    assert tunewright("calibrate", "latest", "--undo")[0] == 0
    assert not (folder / "model" / FILE).exists()


def test_calibration_lines_show_thresholds_and_coverage():
    from tests.tasks.test_calibrating import _rows
    from tunewright.tasks.calibrating import Wish, fit

    fitted = fit(_rows(), [Wish.parse("positive:recall>=0.95")], accuracy=0.95)
    lines = calibrate.lines(fitted, "x.jsonl", 400, output.ASCII_MARKS)
    text = "\n".join(lines)
    assert "logits divided by" in text and "->" in text
    assert "positive" in text and "of rows" in text
    assert "unsaid below" in text
    assert max(map(len, lines)) <= 130


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threshold", "positive=0.9"), "can't read"),
        (("--threshold", "good:recall>=0.9"), 'no label "good"'),
        (("--accuracy", "2"), "can't be reached"),
    ],
)
def test_calibrate_refuses(here, tunewright, arguments, message):
    shutil.copytree(whole.finished("single", "lora").folder, here / "runs" / "20261124-0900-x")
    code, _, err = tunewright("calibrate", "latest", *arguments)
    assert code == 2
    assert message in err


def test_shares_are_read():
    assert data_quality._shares("0.1, 0.5,1") == [0.1, 0.5, 1.0]
    with pytest.raises(UsageError):
        data_quality._shares("x")
