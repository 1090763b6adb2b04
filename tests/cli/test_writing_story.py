"""The story of a model that writes, as it is typed: check, train, runs, predict, evaluate, one after the other."""

from __future__ import annotations

import json

import pytest

from tests import whole, writing
from tunewright.cli.app import main
from tunewright.cli.options import new_lines, typed

TYPED = r"the film was {film}\na story {verdict}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    settings = [w for k, v in writing.SETTINGS.items() for w in ("-s", f"{k}={json.dumps(v)}")]
    words = ["train", str(writing.data_file()), "--task", "generate", "--model", str(writing.base())]
    assert main([*words, "--template", TYPED, "--runs", str(folder), "-q", *settings]) == 0
    return folder


def test_a_typed_new_line_is_one(runs, tmp_path):
    run = next(runs.glob("*/run.json")).parent
    assert json.loads((run / "model" / "prompt_format.json").read_text())["learn"] == "completion"
    prompt = whole.lines(run, "samples.jsonl")[0]["prompt"]
    assert prompt.endswith("\na story") and "\\n" not in prompt
    assert typed(new_lines(TYPED)) == TYPED
    file = tmp_path / r"a\nb.txt"
    file.write_text("{film} {verdict}")
    assert new_lines(str(file)) == str(file), "a file's name stays what it is"


def test_predict_and_evaluate_use_the_runs_own_template(runs, tmp_path, capsys):
    given, answered = tmp_path / "new.jsonl", tmp_path / "answered.jsonl"
    rows = writing.rows(12)
    given.write_text("".join(json.dumps(row | {"n": i}) + "\n" for i, row in enumerate(rows)))
    assert main(["predict", "latest", "-i", str(given), "-o", str(answered), "--runs", str(runs)]) == 0
    written = [json.loads(line) for line in answered.read_text().splitlines()]
    assert [row["n"] for row in written] == list(range(12)) and all("prediction" in row for row in written)
    capsys.readouterr()
    assert main(["evaluate", "latest", "--data", str(given), "--json", "--runs", str(runs)]) == 0
    scores = json.loads(capsys.readouterr().out)["metrics"]
    right = sum(row["prediction"] == row["verdict"] for row in written) / 12
    assert scores["exact_match"] == pytest.approx(right)
    assert {"f1", "rouge_l", "perplexity"} <= scores.keys()


def test_what_is_shown_names_before_and_after(runs, capsys):
    assert main(["runs", "show", "latest", "--runs", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert "exact match" in shown and "before" in shown
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80, "paths alone may be longer"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--template", "{film} {verdikt}"], 2, 'Did you mean "verdict"'),
        (["--template", "{film} was {verdict} indeed"], 2, "indeed"),
        (["--label", "verdict", "--template", TYPED], 2, '"data.label" is for task classify'),
        (["--template", TYPED, "--model", "no/such/model/here"], 4, "no such folder"),
    ],
)
def test_what_is_wrong_is_one_line(words, code, message, tmp_path, capsys):
    given = ["train", str(writing.data_file()), "--task", "generate", "--runs", str(tmp_path / "runs")]
    model = [] if "--model" in words else ["--model", str(writing.base())]
    assert main([*given, *model, *words]) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error[")]
    assert len(errors) == 1 and message in errors[0] and not (tmp_path / "runs").exists()
