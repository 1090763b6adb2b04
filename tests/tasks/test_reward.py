"""Task reward, whole: what it learns, what transformers says of the same, what a kill changes, what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests import comparing, tiny, whole
from tunewright.data.examples import Splits
from tunewright.data.reading import open_file
from tunewright.errors import DataError, RecipeError, StoppedError
from tunewright.evaluation import preferences
from tunewright.evaluation.preferences import Scored
from tunewright.library import train
from tunewright.models.loading import load_saved
from tunewright.recipe import Recipe
from tunewright.serving.reward_model import RewardModel
from tunewright.tasks.reward import ComparedParts


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_it_learns_which_completion_is_better(kind):
    run = comparing.finished("lora", kind)
    summary = run.summary
    assert summary["metrics"]["accuracy"] >= 0.9 > summary["comparison"]["before"]["accuracy"]
    assert summary["metrics"]["loss"] < 0.4 and summary["metrics"]["margin"] > 1
    assert summary["data"]["kind"] == "preference" and summary["data"]["ties"] == 100
    assert summary["comparisons"] == {"judged": 60, "ties": 20}
    assert [one["annotator"] for one in summary["annotators"]] in (["Ada", "Bob"], ["Bob", "Ada"])
    assert summary["state"] == "succeeded" and (run.folder / "report.html").exists()


@pytest.mark.parametrize("method", comparing.METHODS)
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_every_choice_of_what_learns_and_the_numbers_are_the_saved_models(method, kind):
    """Scores that were judged are those of the folder that was saved, text by text, by plain transformers or PEFT."""
    run = comparing.finished(method, kind)
    loaded = load_saved(run.folder / "model")
    tokenizer = loaded.tokenizer
    mean = json.loads((run.folder / "model" / "reward.json").read_text())["mean"]
    for row in whole.lines(run.folder, "predictions/validation.jsonl"):
        for said, score in zip(row["completions"], row["scores"], strict=True):
            ids = _ids(kind, tokenizer, row["prompt"], said)
            with torch.no_grad():
                plain = loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0].item()
            assert score == pytest.approx(plain - mean, abs=1e-4)


def _ids(kind, tokenizer, prompt, completion):
    if kind == "bert":
        return tokenizer(f"[CLS] {prompt} [SEP] {completion} [SEP]", add_special_tokens=False, return_tensors="pt")[
            "input_ids"
        ]
    ids = [tokenizer.bos_token_id, *tokenizer(f"{prompt} {completion}", add_special_tokens=False)["input_ids"]]
    return torch.tensor([[*ids, tokenizer.eos_token_id]])


def test_metrics_of_run_json_are_those_of_the_kept_scores():
    run = comparing.finished()
    rows = whole.lines(run.folder, "predictions/validation.jsonl")
    d, weights, prompts = [], [], []
    for i, row in enumerate(rows):
        for one in row["comparisons"]:
            d.append(row["scores"][one["better"]] - row["scores"][one["worse"]])
            weights.append(one["weight"])
            prompts.append(i)
    ours = Scored(np.array(prompts), np.array(d), np.zeros(len(d)), np.array(weights), np.zeros(len(d)),
                  np.ones(len(d), int), np.ones(len(d), int), np.full(len(d), -1))  # fmt: skip
    for name, value in preferences.metrics(ours).items():
        assert run.summary["metrics"][name] == pytest.approx(value, abs=1e-5), name
    last = whole.lines(run.folder, "metrics.jsonl")
    best = next(r for r in last if r["step"] == run.summary["best"]["step"] and "validation/accuracy" in r)
    assert best["validation/accuracy"] == run.summary["metrics"]["accuracy"]


def test_scores_are_given_a_zero_by_the_best_completions_of_held_out_prompts():
    run = comparing.finished()
    rows = whole.lines(run.folder, "predictions/validation.jsonl")
    best = [
        row["scores"][text]
        for row in rows
        for text in range(len(row["scores"]))
        if all(one["worse"] != text for one in row["comparisons"] if one["weight"] > 0.5)
    ]
    assert np.mean(best) == pytest.approx(0, abs=1e-5)
    found = run.summary["reward"]
    assert found["completions"] == len(best) and found["std"] > 0
    kept = load_file(run.folder / "predictions" / "validation-scores.safetensors")["scores"].numpy()
    assert found["std"] == pytest.approx(kept.std())
    model = RewardModel.load(run.folder)
    again = model.score([rows[0]["prompt"]] * 3, rows[0]["completions"])
    np.testing.assert_allclose(again, rows[0]["scores"], atol=1e-4)


def test_samples_show_scores_before_and_after():
    rows = whole.lines(comparing.finished().folder, "samples.jsonl")
    first, last = ([row for row in rows if check(row)] for check in (lambda r: r["step"] == 0, lambda r: "final" in r))
    assert [row["prompt"] for row in first] == [row["prompt"] for row in last]
    assert len(first) == 5 * 3 and all(isinstance(row["prediction"], float) for row in rows)
    better = [row["prediction"] for row in last if row["best"]]
    worse = [row["prediction"] for row in last if not row["best"]]
    assert np.mean(better) > np.mean(worse) + 1


@pytest.mark.parametrize("method", ["head", "last 1"])
def test_cached_layers_change_nothing(method, tmp_path, monkeypatch):
    cached = comparing.finished(method)
    monkeypatch.setattr("tunewright.learning.preference.Preference.caches", False)
    plain = comparing.start(tmp_path, method)
    for name, value in cached.summary["metrics"].items():
        assert plain.summary["metrics"][name] == pytest.approx(value, abs=1e-3), name
    cached_losses, plain_losses = (
        [row["train/loss"] for row in whole.lines(run.folder, "metrics.jsonl") if "train/loss" in row]
        for run in (cached, plain)
    )
    np.testing.assert_allclose(cached_losses, plain_losses, atol=1e-4)


@pytest.mark.parametrize("method", ["lora", "head"])
def test_a_resumed_run_is_the_uninterrupted_one(method, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        whole.stop_after(patch, 17)
        with pytest.raises(StoppedError):
            comparing.start(tmp_path, method, name="stopped")
    run = train(resume="stopped", runs=tmp_path)
    whole_run = comparing.finished(method)
    for name in ("metrics.jsonl", "samples.jsonl", "predictions/validation.jsonl"):
        assert whole.lines(run.folder, name) == whole.lines(whole_run.folder, name), name
    ours, theirs = whole.tensors(run.folder / "model"), whole.tensors(whole_run.folder / "model")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (run.folder / "model" / "reward.json").read_text() == (whole_run.folder / "model/reward.json").read_text()


def test_centring_keeps_scores_near_zero(tmp_path):
    def size(run):
        scores = load_file(run.folder / "predictions" / "validation-scores.safetensors")["scores"].numpy()
        return np.abs(scores).mean()

    free, centred = (
        comparing.start(tmp_path, "full", settings={"training.centring": c, "training.learning_rate": 3e-3})
        for c in (0.0, 1.0)
    )
    assert size(centred) < 0.7 * size(free)
    assert centred.summary["metrics"]["accuracy"] > 0.7


def test_a_validation_file_of_its_own_and_chosen_rejected(tmp_path):
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in comparing.pairs(104)[100:]))
    data = str(comparing.data_file("pairs"))
    run = comparing.start(
        tmp_path / "runs", data=data, validation=str(held_out), settings={"data.validation": str(held_out)}
    )
    assert run.summary["data"]["validation_rows"] == 4 and run.summary["metrics"]["accuracy"] == 1
    low, high = run.summary["intervals"]["accuracy"]
    assert low < 0.5 and high == 1  # four comparisons prove little
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"question": "a", "chosen": "good", "rejected": "bad"}) + "\n")
    with pytest.raises(DataError, match=r'other.jsonl: there is no column "prompt"'):
        comparing.start(tmp_path / "runs", data=data, validation=str(other), settings={"data.validation": str(other)})


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_equal_prompts_are_never_on_both_sides(fraction):
    recipe = Recipe.model_validate({"task": "reward", "data": {"train": "x", "validation": fraction}})
    parts = ComparedParts.of(recipe, Splits(open_file(comparing.data_file())))
    known = parts.train.prompt_hashes
    assert len(set(known)) < len(known)  # some prompts occur twice
    assert not set(known[parts.train_rows]) & set(known[parts.validation_rows])
    assert len(parts.train_rows) + len(parts.validation_rows) == len(parts.train)


def test_duplicates_are_dropped_where_asked(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in comparing.pairs(20) * 2))
    recipe = Recipe.model_validate({"task": "reward", "data": {"train": str(path), "duplicates": "drop"}})
    parts = ComparedParts.of(recipe, Splits(open_file(path)))
    assert len(set(parts.train.hashes[parts.train_rows])) == len(parts.train_rows)


def test_prompts_are_cut_first_and_counted(tmp_path):
    run = comparing.start(tmp_path, settings={"data.max_length": 10, "training.epochs": 1.0})
    data = run.summary["data"]
    assert data["max_length"] == 10 and data["truncated_tokens"] > 0
    said = [row.get("message", "") for row in whole.lines(run.folder, "events.jsonl")]
    assert any("completions with their prompts cut to 10 tokens, prompts first, on the left" in one for one in said)


@pytest.mark.parametrize(
    "settings, error, says",
    [
        ({"evaluation.prompts": ["the film"]}, RecipeError, "evaluation.prompts holds none"),
        ({"data.margin": "by"}, RecipeError, 'no column "by"'),
        ({"data.template": "{prompt}"}, RecipeError, r"no \{completion\}"),
        ({"evaluation.metric": "perplexity"}, RecipeError, "perplexity"),
    ],
)
def test_what_is_wrong_is_said_before_training(settings, error, says, tmp_path):
    with pytest.raises(error, match=says):
        comparing.start(tmp_path, settings=settings)


def test_rows_that_are_no_comparisons(tmp_path):
    with pytest.raises(DataError, match="hold no comparisons"):
        comparing.start(tmp_path, data=str(whole.data_file()))


def test_in_memory_rows_and_a_template(tmp_path):
    rows = [{"question": r["prompt"], "chosen": r["chosen"], "rejected": r["rejected"]} for r in comparing.pairs()]
    run = comparing.start(tmp_path, data=rows, settings={"data.template": "the {question} film {completion}"})
    model = RewardModel.load(run.folder)
    assert model.takes({"question": "x"}) and not model.takes({"prompt": "x"})
    kind, unkind = (f"the story was {word}" for word in (tiny.WORDS["positive"][0], tiny.WORDS["negative"][0]))
    a, b = model.score([{"question": "the plot"}, "the plot"], [kind, unkind])
    assert a > b and model.score(["the plot"], [kind])[0] == pytest.approx(a)
