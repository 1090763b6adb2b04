"""Rows answered by models that didn't learn them, whole and after a kill; planted mistakes found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny, whole
from tunewright import pipeline
from tunewright.errors import StoppedError, UsageError
from tunewright.evaluation.folds import fold_of
from tunewright.recipe import Recipe
from tunewright.recipe_files import build_recipe
from tunewright.runs import RunRef
from tunewright.tasks import growing, labelled_rows, out_of_fold, part_runs

WRONG = (3, 10, 24)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _recipe(folder: Path, n: int = 60, rows: list[dict[str, Any]] | None = None, **settings: Any) -> Recipe:
    path = folder / "reviews.jsonl"
    rows = rows if rows is not None else tiny.sentences(n)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    flat = whole.SETTINGS | whole.METHODS["full"] | {"training.epochs": 3.0, "training.learning_rate": 3e-3} | settings
    given = {"model": str(whole.base()), "data": {"train": str(path)}}
    return build_recipe(given, [f"{key}={json.dumps(value)}" for key, value in flat.items()])


def _flipped(n: int = 60) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [dict(row) for row in tiny.sentences(n)]
    for i in WRONG:
        rows[i]["label"] = "negative" if rows[i]["label"] == "positive" else "positive"
    return rows


@pytest.mark.parametrize(("way", "n", "hits"), [("trained", 120, 3), ("quick", 240, 2)])
def test_planted_mistakes_come_first(tmp_path: Path, way: out_of_fold.Way, n: int, hits: int) -> None:
    said: list[str] = []
    rows = labelled_rows.read_rows(_recipe(tmp_path, n, _flipped(n), **{"training.epochs": 8.0}))
    found = out_of_fold.doubtful_rows(rows, 4, way, status=said.append)
    listed = found.rows()
    first = {row["row"].rpartition(":")[2] for row in listed[:3]}
    assert len(first & {str(i + 1) for i in WRONG}) >= hits
    assert all(row["likely"] != row["label"] for row in listed)
    assert found.metrics["accuracy"] > 0.9
    assert "fold 4 of 4" in said


def test_every_row_is_answered_by_another_folds_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = labelled_rows.read_rows(_recipe(tmp_path))
    seen: list[tuple[set[int], set[int]]] = []

    def stand_in(rows: Any, learnt: np.ndarray, judged: Any, *rest: Any) -> np.ndarray:
        seen.append((set(learnt.tolist()), set(judged[1].tolist())))
        return np.stack([judged[1], -judged[1]], axis=1).astype(float)

    monkeypatch.setattr(out_of_fold, "logits_of_part", stand_in)
    logits = out_of_fold.out_of_fold_logits(rows, 3, "trained", Path("runs"))
    assert logits[:, 0].tolist() == list(range(60))
    for learnt, judged in seen:
        assert not learnt & judged
        assert learnt | judged == set(range(60))
    hashes = [set(rows.train.hashes[list(part)].tolist()) for part in seen[0]]
    assert not hashes[0] & hashes[1]


def test_a_second_call_trains_nothing_and_a_stopped_one_goes_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = labelled_rows.read_rows(_recipe(tmp_path))
    whole_answer = out_of_fold.out_of_fold_logits(rows, 2, "trained", Path("runs"))
    [kept] = cache.glob("out-of-fold/*")
    assert sorted(path.name for path in kept.iterdir()) == ["fold-1-of-2.safetensors", "fold-2-of-2.safetensors"]
    with monkeypatch.context() as patched:
        patched.setattr(part_runs, "_trained", lambda *arguments: pytest.fail("trained again"))
        assert (out_of_fold.out_of_fold_logits(rows, 2, "trained", Path("runs")) == whole_answer).all()
    (kept / "fold-2-of-2.safetensors").unlink()
    with monkeypatch.context() as patched:
        whole.stop_after(patched, 4)
        with pytest.raises(StoppedError):
            out_of_fold.out_of_fold_logits(rows, 2, "trained", Path("runs"))
    assert (kept / "fold-2-of-2.runs").is_dir()
    resumed: list[Any] = []
    real = pipeline.fine_tune
    monkeypatch.setattr(pipeline, "fine_tune", lambda *a, **k: resumed.append(k["resume"]) or real(*a, **k))
    assert (out_of_fold.out_of_fold_logits(rows, 2, "trained", Path("runs")) == whole_answer).all()
    assert len(resumed) == 1 and resumed[0]
    assert not (kept / "fold-2-of-2.runs").exists()


def test_other_rows_or_settings_are_another_folder(tmp_path: Path) -> None:
    one = labelled_rows.read_rows(_recipe(tmp_path))
    other = labelled_rows.read_rows(_recipe(tmp_path, **{"training.learning_rate": 1e-3}))
    changed = labelled_rows.read_rows(_recipe(tmp_path, 60, _flipped()))
    assert len({rows.fingerprint for rows in (one, other, changed)}) == 3
    assert one.fingerprint == labelled_rows.read_rows(_recipe(tmp_path)).fingerprint


def test_several_labels_keep_their_names_in_every_fold(tmp_path: Path) -> None:
    given = whole.rows("multi", 60)
    rows = labelled_rows.read_rows(_recipe(tmp_path, rows=given))
    logits = out_of_fold.out_of_fold_logits(rows, 3, "quick", Path("runs"))
    assert logits.shape == (60, len(rows.data.labels.names))
    found = out_of_fold.doubtful_rows(rows, 3, "quick")
    assert all(set(row["likely"]) <= {"add", "remove"} for row in found.rows())


def test_texts_with_two_labels_are_listed(tmp_path: Path) -> None:
    given = tiny.sentences(60)
    given += [{"text": given[0]["text"].upper(), "label": "negative"}]
    found = out_of_fold.doubtful_rows(labelled_rows.read_rows(_recipe(tmp_path, rows=given)), 3, "quick")
    assert [0, 60] in [rows.tolist() for rows in found.conflicts]


def test_a_run_brings_its_own_answers() -> None:
    found = out_of_fold.doubtful_of_run(RunRef(whole.finished("single", "lora").folder))
    assert len(found.where) == len(found.texts) == whole.finished("single", "lora").summary["data"]["validation_rows"]


def test_numbers_and_writers_are_refused(tmp_path: Path) -> None:
    numbers = labelled_rows.read_rows(_recipe(tmp_path, rows=whole.rows("number")))
    with pytest.raises(UsageError, match="these labels are numbers"):
        out_of_fold.doubtful_rows(numbers, 3, "quick")
    writer = build_recipe({"task": "continue", "data": {"train": str(tmp_path / "reviews.jsonl"), "text": "text"}})
    with pytest.raises(UsageError, match="the task is continue"):
        labelled_rows.read_rows(writer)


# ---- growing ----


def test_parts_lie_inside_each_other_in_proportion(tmp_path: Path) -> None:
    rows = labelled_rows.read_rows(_recipe(tmp_path, 200))
    learnt = rows.data.train_rows
    parts = [set(growing._part_rows(rows, learnt, share, 0).tolist()) for share in (0.1, 0.4, 1.0)]
    assert parts[0] < parts[1] < parts[2] == set(range(len(learnt)))
    labels = rows.train.labels[learnt][sorted(parts[1])]
    assert labels.mean() == pytest.approx(0.5, abs=0.08)
    assert parts[0] != set(growing._part_rows(rows, learnt, 0.1, 1).tolist())


def test_repeats() -> None:
    assert [growing.repeats_of(share) for share in (0.05, 0.1, 0.2, 0.25, 0.4, 0.8, 1.0)] == [3, 3, 3, 3, 2, 1, 1]


def test_the_quick_curve_rises_and_judges_on_the_same_rows(tmp_path: Path) -> None:
    rows = labelled_rows.read_rows(_recipe(tmp_path, 400))
    growth = growing.grow(rows, (0.05, 0.2, 1.0), "quick")
    values = {p.size: p.value for p in growth.curve.points}
    assert values[max(values)] >= values[min(values)]
    assert growth.num_rows + growth.num_validation == 400
    assert growth.metric == "accuracy"


def test_trained_points_are_runs_and_are_kept(tmp_path: Path, cache: Path) -> None:
    rows = labelled_rows.read_rows(_recipe(tmp_path, 60, **{"training.epochs": 1.0}))
    once = growing.grow(rows, (0.4, 0.7, 1.0))
    assert len(list(cache.glob("learning-curve/*/*.safetensors"))) == 2 + 1 + 1
    assert growing.grow(rows, (0.4, 0.7, 1.0)).curve.to_json() == once.curve.to_json()


@pytest.mark.parametrize("shares", [(0.01, 0.5, 1.0), (0.5, 1.0, 1.5)])
def test_parts_that_cannot_be(tmp_path: Path, shares: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"expected 0\.05 to 1"):
        growing.grow(labelled_rows.read_rows(_recipe(tmp_path)), shares, "quick")


def test_folds_of_these_rows_are_those_of_the_texts(tmp_path: Path) -> None:
    given = tiny.sentences(40) * 2
    rows = labelled_rows.read_rows(_recipe(tmp_path, rows=given))
    folds = fold_of(rows.train.labels, 4, 0, rows.train.hashes)
    assert (folds[:40] == folds[40:]).all()
