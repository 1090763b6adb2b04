"""The report of a model that writes: metrics in pairs, texts shown as texts, forgetting beside the gain."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.fake_run import make_run
from tests.evaluation.fake_written import LONG, STYLED, make_written_run
from tests.evaluation.test_report import Page, _swap
from tunewright.evaluation import report_written as w
from tunewright.evaluation.record import Sample, read_record, written_samples
from tunewright.evaluation.report import write_report


def _page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_written_run(tmp_path_factory.mktemp("runs") / "squad")


def test_before_and_after_stand_side_by_side_with_interval_and_chance(run: Path) -> None:
    stored, words = json.loads((run / "run.json").read_text()), Page(_page(run)).text
    low, high = stored["intervals"]["exact_match"]
    paired = stored["comparison"]["paired"]["exact_match"]
    row = f"exact match 0.000 {stored['metrics']['exact_match']:.3f} [{low:.3f}, {high:.3f}]"
    assert f"{row} +{paired['difference']:.3f} " in words
    assert f"{paired['fixed']} better, 0 worse (p < 0.001)" in words
    assert re.search(r"perplexity 29\.9 8\.15 \[7\.60, 8\.68\] -21\.8 \[-23\.2, -20\.3\] 90 better", words)


def test_the_verdict_speaks_of_perplexity_and_answers_and_what_they_cost(run: Path) -> None:
    words = Page(_page(run)).text
    assert "Better at this task, worse at general text." in words
    assert "Perplexity 29.9 → 8.15 [7.60, 8.68] on 90 validation rows, 90 of them better, 0 worse" in words
    assert "of 60 written answers exact match 0.000 → 0.617, F1 0.000 → 0.617, ROUGE-L 0.000 → 0.617" in words
    assert "What was forgotten: perplexity on general text 20.8 → 24.4: forgot." in words


def test_a_gain_that_costs_nothing_is_good(tmp_path: Path) -> None:
    words = Page(_page(make_written_run(tmp_path / "run", forgot=0.0))).text
    assert "Better than before training." in words and "20.8 → 20.8: kept" in words


def test_a_gain_that_chance_explains_is_not_sure(tmp_path: Path) -> None:
    folder = make_written_run(tmp_path / "run")
    summary = json.loads((folder / "run.json").read_text())
    summary["comparison"]["paired"]["perplexity"]["p_value"] = 0.3
    (folder / "run.json").write_text(json.dumps(summary))
    assert "too few rows to be sure" in Page(_page(folder)).text


def test_a_run_that_answers_everything_right_has_no_rows_to_read(tmp_path: Path) -> None:
    assert 'id="mistakes"' not in _page(make_written_run(tmp_path / "run", skill=1.0))


def test_forgetting_stands_beside_the_gain(run: Path) -> None:
    page = _page(run)
    section = page[page.index('id="forgetting"') : page.index('id="prompts"')]
    words = Page(section).text
    assert "perplexity 29.9 → 8.15" in words and "42 documents" in words
    assert 'href="#forgetting"' in page


def test_a_classifier_that_measured_it_shows_it_too(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    assert 'id="forgetting"' not in _page(folder)
    summary = json.loads((folder / "run.json").read_text())
    summary["forgetting"] = {"kind": "drift", "verdict": "moved", "words": "hidden states moved by 9.0 %: moved"}
    (folder / "run.json").write_text(json.dumps(summary))
    words = Page(_page(folder)).text
    assert "hidden states moved by 9.0 %: moved" in words and "Who is taken for whom" in words


def test_the_lead_says_how_many_rows_were_answered(run: Path) -> None:
    assert "On 90 validation rows that training never saw; texts were written for 60 of them." in Page(_page(run)).text


def test_epochs_show_losses_perplexity_and_answers(run: Path) -> None:
    page = _page(run)
    heads = re.findall(r'<th class="number">([^<]+)<span class="mark">', page)
    assert heads == ["train loss", "validation loss", "perplexity", "exact match", "F1", "ROUGE-L"]
    kept = re.findall(r'<tr class="strong"><td class="number">2</td>.*?</tr>', page, re.DOTALL)
    assert len(kept) == 1 and ">8.15<" in kept[0]
    assert "Loss, nats per target token" in Page(page).text


def test_texts_are_shown_and_never_run(run: Path) -> None:
    page = _page(run)
    assert "script" not in Page(page).tags and "\x1b" not in page
    words = Page(page).text
    assert '<script>document.title = "owned"</script>' in words
    assert "wanted the Rhine" in words and "(nothing)" in words and "cut at the limit" in words


def test_rows_to_read_are_the_answers_farthest_from_the_references(run: Path) -> None:
    stored = [json.loads(line) for line in (run / "predictions/validation.jsonl").read_text().splitlines()]
    wrong = [row for row in stored if row["prediction"] != row["references"][0]]
    found = w.far_rows(read_record(run))
    assert [row.where for row in found] == [row["row"] for row in wrong[: w.WORST_ROWS]]
    assert all(row.f1 == 0 and row.prediction == "Paris" and not row.broke for row in found)


@pytest.mark.parametrize(("prediction", "references", "f1"), [
    ("The Lima.", ["Lima"], 1.0), ("Lima Peru", ["Lima", "Cuzco"], 2 / 3), ("Cuzco", ["Lima", "Cuzco"], 1.0),
    ("", ["x"], 0),
])  # fmt: skip
def test_the_nearest_reference_counts(prediction: str, references: list[str], f1: float) -> None:
    assert w.best_f1(prediction, references) == pytest.approx(f1)


def test_a_row_that_the_untrained_model_had_right_broke(tmp_path: Path) -> None:
    folder = make_written_run(tmp_path / "run", skill=1.0)
    row = {"row": "a:1", "prompt": "p", "references": ["Lima"], "prediction": "Paris", "before": "Lima"}
    (folder / "predictions/validation.jsonl").write_text(json.dumps(row))
    (found,) = w.far_rows(read_record(folder))
    assert found.broke and "came nearer here" in Page(_page(folder)).text


def test_plain_text_without_answers_has_a_report(tmp_path: Path) -> None:
    page = _page(make_written_run(tmp_path / "run", answers=False))
    words = Page(page).text
    assert "Better at this task" in words and "written answers" not in words and 'id="mistakes"' not in page


def test_samples_are_before_at_step_0_and_after_at_the_end() -> None:
    rows = [{"step": s, "prompt_id": 0, "prompt": "p", "prediction": f"at {s}", "stopped": "length"} for s in (0, 5, 9)]
    same = [{"step": s, "prompt_id": 1, "prompt": "p", "prediction": "x", "reference": "y"} for s in (0, 9)]
    untrained = [{"step": 0, "prompt_id": 2, "prompt": "q", "prediction": "z", "final": f} for f in (False, True)]
    assert written_samples([*rows, *same, *untrained, {"prompt": 3}, {"prompt": "p", "prediction": ["a"]}]) == [
        Sample("p", None, "at 0", "at 9", (True, True)),
        Sample("p", "y", "x", "x"),
        Sample("q", None, "z", "z"),
    ]


def test_long_texts_are_shortened_in_their_middle() -> None:
    assert w.shortened(LONG) == LONG and w.shortened(STYLED) == STYLED
    found = w.shortened("a" * 9000 + "b" * 9000)
    assert len(found) == w.MOST_LETTERS + 3 and found[0] == "a" and found[-1] == "b"


def test_values_of_any_type_leave_a_report(run: Path, tmp_path: Path) -> None:
    copy, rng = Path(shutil.copytree(run, tmp_path / "copy")), random.Random(0)
    odd: list[Any] = [
        None,
        "text",
        7,
        -1.5,
        float("nan"),
        1e308,
        10**400,
        True,
        [],
        {},
        [[1, "a"]],
        {"a": [None]},
        "\ud800",
    ]
    names = ("run.json", "evaluation.json", "metrics.jsonl", "samples.jsonl", "predictions/validation.jsonl")
    originals = {name: (copy / name).read_text().splitlines() for name in names}
    for _ in range(200):
        name = rng.choice(names)
        rows = [json.loads(line) for line in originals[name][:20]]
        _swap(rows, rng, odd)
        (copy / name).write_text("\n".join(map(json.dumps, rows)))
        assert _page(copy).rstrip().endswith("</html>")
