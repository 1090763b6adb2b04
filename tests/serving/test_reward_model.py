"""A reward model in use: prompts in every shape, files, comparisons judged, folders that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests import comparing, whole
from tunewright.errors import DataError, ModelError, UsageError
from tunewright.library import load
from tunewright.serving.answering import answer_file, needs_writer, open_model
from tunewright.serving.export import export
from tunewright.serving.reward_model import Normalisation, RewardModel, is_reward_model

GOOD, BAD = "a really good story", "a really bad story"


@pytest.fixture(scope="module")
def model():
    return RewardModel.load(comparing.finished().folder)


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_scores_of_prompts_in_every_shape(model):
    plain = model.score(["the film was"], [GOOD])
    assert plain.dtype == np.float64 and plain.shape == (1,)
    for prompt in ({"prompt": "the film was", "id": 7}, {"prompt": "the film was"}):
        np.testing.assert_array_equal(model.score([prompt], [GOOD]), plain)
    assert model.score([], []).shape == (0,)
    assert model.score(["the film was"] * 2, [GOOD, BAD])[0] > model.score(["the film was"], [BAD])[0]


def test_the_order_and_the_company_of_texts_change_nothing(model):
    prompts = [f"the film {'really ' * i}was" for i in range(6)]
    said = [GOOD, BAD, "fun", "", GOOD * 3, "the"]
    together = model.score(prompts, said)
    alone = np.concatenate([model.score([p], [s]) for p, s in zip(prompts, said, strict=True)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(model.score(prompts[::-1], said[::-1]), together[::-1], atol=1e-5)
    assert np.isfinite(together).all()


def test_a_run_and_its_model_folder_are_opened_alike():
    folder = comparing.finished().folder
    for opened in (load(folder), open_model(folder / "model"), comparing.finished().predictor):
        assert isinstance(opened, RewardModel)
    assert is_reward_model(folder / "model") and not is_reward_model(whole.finished().folder / "model")
    with pytest.raises(ModelError, match=r"no reward model \(it has no reward.json\)"):
        RewardModel.load(whole.finished().folder)
    with pytest.raises(UsageError, match="for models that write, and this is a reward model"):
        needs_writer(open_model(folder / "model"), "chat")


def test_before_and_after(model):
    run = comparing.finished()
    rows = [{"prompt": "the film was", "completion": said} for said in (GOOD, BAD)]
    after = [one.prediction for one in run.predict(rows)]
    before = [one[1].prediction for one in run.compare(rows).rows] if hasattr(run.compare(rows), "rows") else None
    np.testing.assert_allclose(after, model.score_rows([model.rows.row(r, r["completion"]) for r in rows]))
    assert before is None or before != after
    assert isinstance(run.untrained, RewardModel)
    with pytest.raises(UsageError, match="not single texts"):
        run.predict(["the film"])


def test_a_checkpoint_scores_otherwise_than_the_final_model():
    run = comparing.finished()
    steps = sorted(int(path.name.removeprefix("step-")) for path in (run.folder / "checkpoints").glob("step-*"))
    scores = [
        RewardModel.load(run.folder, weights=run.folder / "checkpoints" / f"step-{step:06d}").score(["the"], [GOOD])[0]
        for step in steps
    ]
    assert len(steps) > 1 and len(set(scores)) == len(scores)


@pytest.mark.parametrize("to", ["merged", "adapter"])
def test_exported_it_scores_alike(to, model, tmp_path):
    folder = export(comparing.finished().folder / "model", to, tmp_path / "out")
    again = RewardModel.load(folder)
    prompts, said = ["the film was", "the plot really was"], [GOOD, BAD]
    np.testing.assert_allclose(again.score(prompts, said), model.score(prompts, said), atol=1e-4)


# ---- files ----


def test_rows_with_a_completion_get_a_score(model, tmp_path):
    rows = [{"prompt": "the film was", "completion": said, "id": i} for i, said in enumerate((GOOD, BAD, ""))]
    found = answer_file(model, written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    out = whole.lines(tmp_path, "out.jsonl")
    assert found.rows == 3 and [list(row) for row in out] == [["prompt", "completion", "id", "score"]] * 3
    np.testing.assert_allclose([row["score"] for row in out], model.score([r["prompt"] for r in rows], [GOOD, BAD, ""]))


def test_comparisons_get_the_scores_of_both_sides(model, tmp_path):
    answer_file(model, comparing.data_file("pairs"), tmp_path / "out.jsonl")
    out = whole.lines(tmp_path, "out.jsonl")
    assert np.mean([row["chosen_score"] > row["rejected_score"] for row in out]) > 0.9
    answer_file(model, comparing.data_file(), tmp_path / "ranked.jsonl")
    ranked = whole.lines(tmp_path, "ranked.jsonl")
    assert all(len(row["scores"]) == len(row["completions"]) == 3 for row in ranked)
    assert ranked[0]["scores"][1] == pytest.approx(out[0]["chosen_score"], abs=1e-5)


@pytest.mark.parametrize(
    "row, says",
    [
        ({"prompt": "x"}, 'in.jsonl:1.*no "completion" here'),
        ({"completion": "x"}, 'in.jsonl:1.*no "prompt" here'),
        ({"prompt": "x", "completion": None}, 'in.jsonl:1.*"completion" is null'),
        ({"prompt": "x", "completion": "y", "score": 1}, 'a column "score" already'),
        ({"prompt": "x", "chosen": "y", "rejected": "z", "chosen_score": 1}, 'a column "chosen_score" already'),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(model, tmp_path, row, says):
    with pytest.raises(DataError, match=says):
        answer_file(model, written(tmp_path / "in.jsonl", [row]), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_settings_of_models_that_write_are_refused(model, tmp_path):
    for settings in ({"temperature": 0.7}, {"text": "prompt"}):
        with pytest.raises(UsageError):
            answer_file(model, comparing.data_file("pairs"), tmp_path / "out.jsonl", **settings)


def test_judged_on_other_comparisons(model):
    body = model.judge(str(comparing.data_file("pairs")))
    assert body["num_rows"] == 100 and body["metrics"]["accuracy"] > 0.9 and body["ties"] == 0
    run, rows = comparing.finished(), whole.lines(comparing.finished().folder, "predictions/validation.jsonl")
    held_out = [row["row"] for row in rows]
    chosen = [row for i, row in enumerate(comparing.rows(), 1) if f"{comparing.data_file().name}:{i}" in held_out]
    path = written(whole.scratch() / "held-out.jsonl", chosen)
    again = model.judge(str(path))
    for name, value in run.summary["metrics"].items():
        assert again["metrics"][name] == pytest.approx(value, abs=1e-4), name


# ---- the zero ----


@pytest.mark.parametrize(
    "body, says",
    [
        ("{", "can't be read"),
        ("[]", "expected version 1"),
        ('{"version": 2, "mean": 0}', "expected version 1"),
        ('{"version": 1, "mean": "x"}', "expected numbers"),
        ('{"version": 1, "mean": NaN}', "expected numbers"),
        ('{"version": 1, "mean": 0, "std": true}', "expected numbers"),
    ],
)
def test_a_zero_that_nobody_can_use(tmp_path, body, says):
    (tmp_path / "reward.json").write_text(body)
    with pytest.raises(ModelError, match=says):
        Normalisation.read(tmp_path)


def test_the_zero_is_taken_off_every_score(tmp_path):
    normal = Normalisation.of(np.array([1.0, 3.0]), np.array([1.0, 3.0, -4.0]))
    assert normal.mean == 2 and normal.completions == 2
    (tmp_path / "reward.json").write_text(normal.written())
    assert Normalisation.read(tmp_path) == normal
