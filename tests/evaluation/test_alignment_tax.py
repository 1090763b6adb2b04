"""The alignment tax: stages in the order in which they were made, and nothing in a cell that nobody measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.fake_align import make_aligned_run
from tests.evaluation.fake_run import make_run
from tests.evaluation.fake_written import make_written_run
from tunewright.evaluation.alignment_tax import Tax, alignment_tax, line_of
from tunewright.evaluation.compare import compare_runs
from tunewright.evaluation.record import read_record


def tax_of(*folders: Path) -> Tax:
    found = alignment_tax([read_record(folder) for folder in folders])
    assert found is not None
    return found


def row(tax: Tax, metric: str, rows: str) -> tuple[float | None, ...]:
    (found,) = (one for one in tax.rows if (one.metric, one.rows) == (metric, rows))
    return found.values


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    runs = tmp_path_factory.mktemp("runs")
    tuned = make_written_run(runs / "20261124-1412-sft")
    return tuned, make_aligned_run(runs / "20261125-1412-ppo", start=tuned)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_base_tuned_aligned_whatever_the_order_given(chain: tuple[Path, Path], order: tuple[int, int]) -> None:
    tuned, aligned = (summary(folder) for folder in chain)
    found = tax_of(*(chain[i] for i in order))
    assert found.stages == ("gemma3-270m", "20261124-1412-sft", "20261125-1412-ppo")
    general = (tuned["forgetting"]["before"], tuned["forgetting"]["after"], aligned["forgetting"]["after"])
    assert row(found, "perplexity", "general text") == general and general[0] < general[1] < general[2]
    before, after = tuned["comparison"]["before"]["f1"], tuned["metrics"]["f1"]
    assert row(found, "f1", tuned["id"]) == (before, after, None)
    judged = (None, aligned["comparison"]["before"]["judge"], aligned["metrics"]["judge"])
    assert row(found, "judge", aligned["id"]) == judged
    assert row(found, "perplexity", aligned["id"])[1:] == (
        aligned["comparison"]["before"]["perplexity"], aligned["metrics"]["perplexity"],
    )  # fmt: skip
    assert not found.notes


def test_it_says_whether_it_was_worth_it(chain: tuple[Path, Path]) -> None:
    (stage,) = tax_of(*chain).words
    assert stage.gained == "Better, and a judge that training never saw agrees."
    assert stage.paid.startswith("general text 24.4 → 24.6 (+0.8 %, +") and stage.paid.endswith("): kept")


def test_two_ways_from_the_same_start_share_rows(chain: tuple[Path, Path]) -> None:
    tuned, ppo = chain
    grpo = make_aligned_run(ppo.parent / "20261126-0900-grpo", start=tuned, method="grpo", gain=1.5, seed=4)
    found = tax_of(tuned, ppo, grpo)
    assert found.stages[1:] == (tuned.name, ppo.name, grpo.name)
    start = summary(ppo)["comparison"]["before"]["score"]
    scores = (None, start, summary(ppo)["metrics"]["score"], summary(grpo)["metrics"]["score"])
    assert row(found, "score", ppo.name) == scores
    assert not [one for one in found.rows if one.rows == grpo.name] and len(found.words) == 2


def test_other_rewards_have_rows_of_their_own(chain: tuple[Path, Path]) -> None:
    tuned, ppo = chain
    other = make_aligned_run(ppo.parent / "20261126-1000-alone", start=tuned, judged=None)
    found = tax_of(ppo, other, tuned)
    assert row(found, "score", other.name)[2] is None and row(found, "score", ppo.name)[3] is None


def test_a_run_without_its_start_begins_with_it(tmp_path: Path) -> None:
    found = tax_of(make_aligned_run(tmp_path / "ppo"))
    assert found.stages == ("gemma3-270m", "ppo") and None not in row(found, "perplexity", "general text")


def test_names_find_runs_whose_folders_were_moved(chain: tuple[Path, Path], tmp_path: Path) -> None:
    tuned = make_written_run(tmp_path / chain[0].name)
    ppo = make_aligned_run(tmp_path / "ppo", start=Path("/elsewhere") / tuned.name)
    assert tax_of(ppo, tuned).stages == ("gemma3-270m", tuned.name, "ppo")


def test_the_line_of_a_run_is_found_on_the_disk(chain: tuple[Path, Path], tmp_path: Path) -> None:
    assert [record.folder for record in line_of(read_record(chain[1]))] == list(chain)
    alone = make_aligned_run(tmp_path / "ppo", start=tmp_path / "gone")
    assert [record.folder for record in line_of(read_record(alone))] == [alone]
    own = make_aligned_run(tmp_path / "ring", start=tmp_path / "ring")
    assert len(line_of(read_record(own))) == 1 and tax_of(own).stages[-1] == "ring"


def test_another_general_text_is_said(chain: tuple[Path, Path]) -> None:
    tuned, _ = chain
    folder = make_aligned_run(tuned.parent / "other-text", start=tuned)
    stored = summary(folder)
    stored["forgetting"] |= {"before": 50.0, "after": 51.0}
    (folder / "run.json").write_text(json.dumps(stored))
    (note,) = tax_of(tuned, folder).notes
    assert "measured general text as 50.0" in note and "as 24.4" in note


def test_what_was_not_measured_is_said(chain: tuple[Path, Path]) -> None:
    folder = make_aligned_run(chain[0].parent / "unmeasured", start=chain[0])
    (folder / "run.json").write_text(json.dumps(summary(folder) | {"forgetting": None}))
    found = tax_of(*chain[:1], folder)
    assert "evaluation.retain" in found.notes[0] and found.words[0].paid == "what it cost was not measured"


def test_runs_without_alignment_have_no_tax(chain: tuple[Path, Path], tmp_path: Path) -> None:
    assert alignment_tax([read_record(chain[0])]) is None
    assert compare_runs([chain[0], make_run(tmp_path / "reviews")]).tax is None


# ---- in the comparison ----


def test_aligned_runs_are_paired_by_the_judge(chain: tuple[Path, Path]) -> None:
    tuned, ppo = chain
    other = make_aligned_run(ppo.parent / "more", start=tuned, judged=4.0, seed=9)
    (same,) = compare_runs([ppo, other]).same_rows
    judges = [summary(folder)["metrics"]["judge"] for folder in (ppo, other)]
    assert same.num_rows == 48 and same.paired.difference == pytest.approx(judges[1] - judges[0])
    assert same.paired.fixed > same.paired.broke and same.paired.interval.low > 0


def test_stars_only_where_a_metric_means_the_same(chain: tuple[Path, Path]) -> None:
    tuned, ppo = chain
    unjudged = make_aligned_run(ppo.parent / "unjudged", start=tuned, judged=None, gain=1.0)
    best = {one.name: one.best for one in compare_runs([ppo, unjudged]).metrics}
    assert best["score"] == 0 and best["length"] is None
    mixed = {one.name: one.best for one in compare_runs([tuned, ppo]).metrics}
    assert mixed["perplexity"] is None, "of other rows"
    stored = summary(unjudged)
    stored["alignment"]["reward"] = ["another"]
    (unjudged / "run.json").write_text(json.dumps(stored))
    found = compare_runs([ppo, unjudged])
    assert next(one.best for one in found.metrics if one.name == "score") is None
    assert "had other rewards and judges: no paired test" in found.notes[0] and not found.same_rows


def test_rewards_that_differ_are_shown_by_what_was_given(chain: tuple[Path, Path]) -> None:
    settings = {one.name: one.values for one in compare_runs(list(chain)).settings}
    assert settings["reward"] == (None, "classifier=run:reviews label=positive")
    path = chain[1] / "recipe.resolved.yaml"
    text = path.read_text()
    try:
        path.write_text(text.replace("label: positive}", "label: positive, model: null, weight: 1.0}"))
        settings = {one.name: one.values for one in compare_runs(list(chain)).settings}
    finally:
        path.write_text(text)
    assert settings["evaluation.judge.weight"] == (None, "1.0") and "evaluation.judge.model" not in settings


def test_it_is_plain_json(chain: tuple[Path, Path]) -> None:
    stored = json.loads(json.dumps(compare_runs(list(chain)).to_json(), allow_nan=False))
    assert stored["tax"]["stages"][0] == "gemma3-270m" and stored["tax"]["words"][0]["tone"] == "good"
