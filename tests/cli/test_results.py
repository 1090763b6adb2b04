"""The end of a run, as a person and as a program read it."""

from __future__ import annotations

import json
import os
import shlex

import pytest

from tests.cli.finished_run import RUN, SUMMARY, write_run
from tunewright.cli import results
from tunewright.cli.app import app
from tunewright.cli.output import ASCII_MARKS, Marks, clock, number, percent_sure, size, table
from tunewright.cli.results import next_lines, result_lines
from tunewright.cli.tables import PromptRow, epoch_row, prompt_lines

ENDING = f"""\
 epoch   train loss    validation loss      accuracy       time
     0          –              0.702         0.523
     1      0.412              0.331 ▼       0.873 ★
     2      0.224 ▼            0.402 ▲       0.865

 prompt               wanted    before         after
 It was good.         positive  negative 0.51  positive 0.98  fixed
 This one is a pass.  negative  negative 0.50  positive 0.61  broke

 best epoch 1 of 2 (step 125): accuracy 0.873
 validation 111 rows: accuracy 0.523 → 0.873 [0.811, 0.928] · fixed 47 · broke 6 (McNemar p < 0.001)
 without any model: accuracy 0.505
 ⚠ validation loss rose after epoch 1 while train loss fell: likely overfitting; kept epoch 1
 saved 1.2 MB (base 91 MB) · took 2:51 · 3,404 tokens/s · peak memory 1.9 GB
 report  runs/{RUN}/report.html"""

WANTED = {"It was good.": "positive", "This one is a pass.": "negative"}


def test_end_of_a_run(runs):
    lines = result_lines(runs / RUN, SUMMARY, Marks(), fit=80, wanted=WANTED)
    assert "\n".join(lines) == ENDING


def test_end_of_a_run_in_ascii(runs):
    assert "\n".join(result_lines(runs / RUN, SUMMARY, ASCII_MARKS)).isascii()


def test_without_knowing_what_is_right_a_prompt_only_changes(runs):
    lines = result_lines(runs / RUN, SUMMARY, Marks(), epochs=False)
    assert " It was good.         negative 0.51  positive 0.98  changed" in lines
    assert not any("fixed" in line for line in lines[:3])


def test_prompt_columns_at_80_when_the_prompt_is_long(runs):
    row = PromptRow("word " * 40, {"prediction": "negative"}, {"prediction": "positive"}, "positive")
    lines = prompt_lines([row], Marks(), 80)
    assert all(len(line) <= 80 for line in lines)
    assert "…" in lines[1]
    assert "…" not in prompt_lines([row], Marks(), 10_000)[1]


def test_answers_that_are_numbers_or_several_labels():
    rows = [
        PromptRow("a", {"prediction": 1.25, "probabilities": {}}, {"prediction": 3.5, "probabilities": {}}),
        PromptRow("b", None, {"prediction": ["x", "y"], "probabilities": {"x": 0.9, "y": 0.8}}),
        PromptRow("c", {"prediction": ["x"]}, {"prediction": []}),
    ]
    shown = [" ".join(line.split()) for line in prompt_lines(rows, Marks(), 80)[1:]]
    assert shown == ["a 1.250 3.500", "b – x, y", "c x (none) changed"]


def test_a_run_that_stopped_early_shows_what_there_is(runs):
    summary = {"id": RUN, "state": "interrupted"}
    assert result_lines(runs / RUN, summary, Marks(), epochs=False)[-1].startswith(" report ")


def test_without_a_score_before_there_is_only_the_one_after(runs):
    lines = result_lines(runs / RUN, SUMMARY | {"comparison": None}, Marks(), epochs=False)
    assert " validation 111 rows: accuracy 0.873 [0.811, 0.928]" in lines


def test_a_run_whose_metric_is_the_loss(runs):
    summary = SUMMARY | {"best": {"step": 125, "epoch": 1.0, "metric": "validation/loss", "value": 0.331}}
    lines = result_lines(runs / RUN, summary, Marks())
    assert lines[0].split() == ["epoch", "train", "loss", "validation", "loss", "time"]
    assert epoch_row(1.0, {"validation/loss": 0.3}, "validation/loss").value is None


def test_a_p_value_that_is_not_small_is_spelt_out(runs):
    comparison = SUMMARY["comparison"] | {"p_value": 0.25}
    assert "p = 0.250" in "\n".join(result_lines(runs / RUN, SUMMARY | {"comparison": comparison}, Marks()))


def test_next_steps_can_be_pasted(runs):
    (runs.parent / "reviews.jsonl").touch()
    commands = [line[9:] for line in next_lines(runs / RUN, SUMMARY)]
    assert commands[0] == f"tunewright predict {RUN} -i reviews.jsonl -o predictions.jsonl"
    known = {command.callback.__name__ for command in app.registered_commands}
    for command in commands:
        program, verb, run, *_ = shlex.split(command)
        assert (program, run) == ("tunewright", RUN)
        assert verb in known


def test_next_steps_name_the_path_of_a_run_elsewhere(tmp_path):
    folder = write_run(tmp_path / "my runs")
    assert shlex.split(next_lines(folder, SUMMARY)[0][9:])[2] == str(folder)


def test_json_holds_what_the_screen_says(runs):
    found = results.to_json(runs / RUN, SUMMARY)
    assert (found["run"], found["state"]) == (RUN, "succeeded")
    assert found["metrics"]["accuracy"] == 0.873
    assert found["prompts"][0]["after"]["prediction"] == "positive"
    assert found["report"] == os.path.join("runs", RUN, "report.html")
    json.dumps(found)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (82, "1:22"), (3723, "1:02:03"), (float("nan"), "?"), (float("inf"), "?"), (-1, "?")],
)
def test_clock(seconds, shown):
    assert clock(seconds) == shown


@pytest.mark.parametrize(
    ("num_bytes", "shown"), [(500, "0 kB"), (1.2e6, "1.2 MB"), (90.9e6, "91 MB"), (1.93e9, "1.9 GB"), (64e9, "64 GB")]
)
def test_size(num_bytes, shown):
    assert size(num_bytes) == shown


def test_numbers():
    assert [number(v) for v in (0.87349, 1234.5, 12_345_678.0, None, float("nan"))] == [
        "0.873",
        "1,234.500",
        "1.23e+07",
        "–",
        "–",
    ]


def test_a_probability_is_not_rounded_up_to_certainty():
    assert [percent_sure(p) for p in (0.5, 0.999, 1.0)] == ["0.50", "0.99", "1.00"]


def test_table_counts_the_columns_of_wide_signs():
    lines = table([["名前", "1"], ["abcd", "22"]], "<>")
    assert lines == [" 名前   1", " abcd  22"]
