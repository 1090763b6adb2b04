"""The report of an aligned model: who won and who says so, the price, transcripts as they come, texts never run."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.fake_align import make_aligned_run
from tests.evaluation.fake_written import make_written_run
from tests.evaluation.test_report import Page, _swap
from tunewright.evaluation import alignment
from tunewright.evaluation.record import read_record
from tunewright.evaluation.report import write_report
from tunewright.evaluation.report_align import WORSE, aligned, rank_commands


def _page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    return make_aligned_run(runs / "ppo", start=make_written_run(runs / "20261124-1412-sft"))


@pytest.fixture(scope="module")
def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions/validation.jsonl").read_text().splitlines()]


def test_metrics_stand_in_pairs_with_the_prompts_that_changed(run: Path) -> None:
    stored, words = json.loads((run / "run.json").read_text()), Page(_page(run)).text
    for name in ("score", "judge"):
        low, high = stored["intervals"][name]
        paired = stored["comparison"]["paired"][name]
        row = f"{stored['comparison']['before'][name]:.3f} {stored['metrics'][name]:.3f} [{low:.3f}, {high:.3f}]"
        assert f"{row} +{paired['difference']:.3f} " in words
    won = stored["alignment"]["win_rates"]["judge_win_rate"]
    assert f"{won['won']} better, {won['lost']} worse (p < 0.001)" in words
    assert all(meaning in words for _, meaning in alignment.WORDS.values())
    assert "reward log-odds of positive by run:reviews judge log-odds of positive by run:reviews-b" in words
    assert "decides which checkpoint is kept" in words


def test_the_verdict_names_the_judge_and_shows_who_won(run: Path) -> None:
    page = _page(run)
    assert "Better, and a judge that training never saw agrees." in Page(page).text
    chart = page[page.index('aria-label="Prompts won"') :].split("</svg>")[0]
    assert "no difference" in chart and "by the reward" in chart and "by the judge" in chart


def test_the_tax_is_a_section_where_the_start_is_at_hand(run: Path, tmp_path: Path) -> None:
    page = _page(run)
    section = Page(page[page.index('id="tax"') : page.index('id="prompts"')]).text
    assert "gemma3-270m 20261124-1412-sft ppo" in section
    assert "general text perplexity 20.8 24.4 24.6" in section
    assert "held-out rows of 20261124-1412-sft perplexity 29.9 8.15 —" in section
    assert "ppo : Better, and a judge" in section and "Price: general text 24.4 → 24.6" in section
    alone = _page(make_aligned_run(tmp_path / "alone"))
    assert 'id="tax"' not in alone and 'id="forgetting"' in alone and 'href="#forgetting"' in alone


def test_transcripts_are_the_first_prompts_whoever_won(run: Path, rows: list[dict[str, Any]]) -> None:
    found = aligned(read_record(run), "reward").transcripts
    assert [one.where for one in found] == [row["row"] for row in rows[:10]]
    first = found[0]
    assert first.after.text == rows[0]["prediction"] and first.before is not None
    assert first.after.scores == f"score {rows[0]['score']:.2f} · judge {rows[0]['judge']:.2f} · KL {rows[0]['kl']:.2f}"
    assert first.after.cut == (rows[0]["stopped"] == "length")
    page = Page(_page(run)).text
    assert f"before {rows[3]['before']} score {rows[3]['score_before']:.2f}" in page
    assert "The likeliest words instead" in page


def test_texts_are_shown_and_never_run(run: Path) -> None:
    page = _page(run)
    assert "script" not in Page(page).tags and "\x1b" not in page
    assert 'was <b>great</b> <script>document.title = "owned"</script>' in Page(page).text


def test_rows_to_read_are_those_that_the_judge_likes_less(tmp_path: Path) -> None:
    folder = make_aligned_run(tmp_path / "run", judged=0.2)
    stored = [json.loads(line) for line in (folder / "predictions/validation.jsonl").read_text().splitlines()]
    lost = sorted((row["judge"] - row["judge_before"], i) for i, row in enumerate(stored))
    found = aligned(read_record(folder), "reward")
    assert found.by == "judge" and [one.where for one in found.worse] == [stored[i]["row"] for _, i in lost[:WORSE]]
    assert "Where the judge likes the new completion least" in Page(_page(folder)).text


def test_without_a_judge_the_score_says_what_lost(tmp_path: Path) -> None:
    words = Page(_page(make_aligned_run(tmp_path / "run", judged=None, gain=0.1))).text
    assert "Where the new completion scores lower than the old one, worst first." in words and "judge nobody" in words


def test_curves_show_rollouts_beside_held_out_prompts(run: Path) -> None:
    found = dict(aligned(read_record(run), "reward").curves)
    assert list(found)[:4] == ["Score", "Score by the judge", "KL from the reference, nats per completion",
                               "Entropy, nats per token"]  # fmt: skip
    assert "rollouts" in found["Score"] and "held out" in found["Score"] and "★ kept" in found["Score"]
    assert "held out" not in found["Entropy, nats per token"] and "Value loss" in found
    page = _page(run)
    heads = re.findall(r'<th class="number">([^<]+)<span class="mark">', page)
    assert heads == ["reward", "score", "KL", "win rate", "judge", "judge's probability".replace("'", "&#39;"),
                     "distinct pairs"]  # fmt: skip
    assert '<td class="number">untrained</td>' in page and '<td class="number">240</td>' in page


def test_people_have_the_last_word(run: Path) -> None:
    words = Page(_page(run)).text
    sample = f"tunewright rank sample 20261124-1412-sft ppo --prompts {run}/predictions/prompts.jsonl -k 1"
    assert sample in words and "tunewright rank serve judgements.db" in words and "tunewright chat ppo" in words


def test_names_with_spaces_are_quoted() -> None:
    found = rank_commands("r", Path("my runs/r"), {"model": "my model"})
    assert found[0].startswith("tunewright rank sample 'my model' r --prompts 'my runs/r/predictions/prompts.jsonl'")
    assert rank_commands("r", Path("r"), {})[0].startswith("tunewright rank sample BASE r ")


def test_a_run_without_a_before_has_a_report(tmp_path: Path) -> None:
    words = Page(_page(make_aligned_run(tmp_path / "run", before=False))).text
    assert "Judged, with nothing to compare to." in words and "after was" in words.replace("after after", "after")


def test_a_run_that_stopped_has_a_report(tmp_path: Path) -> None:
    folder = make_aligned_run(tmp_path / "run")
    for name in ("evaluation.json", "predictions/validation.jsonl"):
        (folder / name).unlink()
    stored = json.loads((folder / "run.json").read_text())
    kept = {
        k: v for k, v in stored.items() if k not in ("metrics", "comparison", "intervals", "alignment", "forgetting")
    }
    (folder / "run.json").write_text(json.dumps(kept | {"state": "interrupted"}))
    page = _page(folder)
    assert "The run was interrupted." in Page(page).text and "Value loss" in page


def test_values_of_any_type_leave_a_report(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.parent, tmp_path / "runs")
    copy, rng = tmp_path / "runs" / "ppo", random.Random(0)
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
    for _ in range(250):
        name = rng.choice(names)
        rows = [json.loads(line) for line in originals[name][:20]]
        _swap(rows, rng, odd)
        (copy / name).write_text("\n".join(map(json.dumps, rows)))
        assert _page(copy).rstrip().endswith("</html>")
