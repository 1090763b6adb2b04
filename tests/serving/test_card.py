"""The card: metadata that the Hub's own reader takes, every number of the run, and nothing of this machine."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.evaluation.fake_run import make_run
from tests.models.made import make
from tunewright.data.labels import LabelSpec
from tunewright.evaluation.record import read_record
from tunewright.models.saving import save_model
from tunewright.serving.card import model_card, public_recipe, quick_start
from tunewright.serving.predict import Predictor

SPECS = {
    "single": LabelSpec("single", ("negative", "positive"), ("negative", "positive")),
    "multi": LabelSpec("multi", ("loud", "long"), ("loud", "long")),
    "number": LabelSpec("number", (), ()),
}


def change(folder, **parts):
    """Set parts of run.json, one level down."""
    path = folder / "run.json"
    run = json.loads(path.read_text())
    for name, values in parts.items():
        run[name] = run[name] | values if isinstance(values, dict) else values
    path.write_text(json.dumps(run))
    return folder


@pytest.mark.parametrize("kind", ["single", "multi", "number"])
def test_the_hub_reads_its_metadata(kind, tmp_path):
    folder = make_run(tmp_path / "run", kind=kind)
    data = ModelCard(model_card(folder, "you/reviews"), ignore_metadata_errors=False).data
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2" and data.base_model_relation == "adapter"
    assert (data.library_name, data.pipeline_tag, data.license) == ("peft", "text-classification", "apache-2.0")
    assert {"tunewright", "lora", "base_model:adapter:sentence-transformers/all-MiniLM-L6-v2"} <= set(data.tags)
    assert data.model_name == "you/reviews"
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    metrics = read_record(folder).metrics
    assert len(found) == len(metrics)
    assert sorted(found.values()) == pytest.approx(sorted(metrics.values()), abs=1e-6)
    assert {result.dataset_type for result in data.eval_results} == {"private"}


def test_the_page_holds_the_run(tmp_path):
    folder = make_run(tmp_path / "run")
    card, run = model_card(folder, "you/reviews"), json.loads((tmp_path / "run" / "run.json").read_text())
    value, (low, high) = run["metrics"]["accuracy"], run["intervals"]["accuracy"]
    assert f"| {run['comparison']['before']['accuracy']:.3f} | {value:.3f} | [{low:.3f}, {high:.3f}] |" in card
    assert f"fixed {run['comparison']['fixed']}, broke {run['comparison']['broke']}" in card
    assert "2,160 training rows" in card and "240 held-out rows" in card and "12 rows lost 801 tokens" in card
    epochs = card.partition("## Each epoch")[2].partition("##")[0]
    assert [line.split(" | ")[0] for line in epochs.strip().split("\n")[2:]] == [
        "| 0",
        "| 1",
        "| 2 (kept)",
        "| 3",
        "| 4",
    ]
    prompts = card.partition("## Before and after")[2].partition("##")[0]
    assert len(prompts.strip().split("\n")) == 2 + 5
    assert "# auto: 8 for fewer than 20,000 rows" in card and "torch" in card.partition("## Limits")[0]
    assert f"- {run['overfitting'].split()[0]}" in card.partition("## Limits")[2]


def test_a_whole_model_is_a_finetune(tmp_path):
    folder = change(make_run(tmp_path / "run"), model={"method": "full"})
    data = ModelCard(model_card(folder)).data
    assert (data.base_model_relation, data.library_name) == ("finetune", "transformers") and "lora" not in data.tags
    change(folder, model={"hub_id": None, "name": "/home/me/secret/base"})
    card = model_card(folder)
    assert (
        "/home/me" not in card
        and "base_model" not in card
        and "license" not in card
        and "Fine-tuned from base " in card
    )


def test_no_folder_of_this_machine(tmp_path):
    folder = change(make_run(tmp_path / "run"), model={"hub_id": None, "name": "/home/me/base"})
    recipe = folder / "recipe.resolved.yaml"
    given = "model: /home/me/base  # given\ndata:\n  train: ../secret/reviews.jsonl  # given\n  validation: 0.1\n"
    recipe.write_text(given)
    wanted = "model: base  # given\ndata:\n  train: reviews.jsonl  # given\n  validation: 0.1"
    assert public_recipe(read_record(folder)) == wanted
    recipe.write_text(given.replace("../secret/reviews.jsonl", '"C:\\\\me\\\\r\\u00e9views.jsonl"'))
    found = public_recipe(read_record(folder))
    assert yaml.safe_load(found)["data"]["train"] == "réviews.jsonl" and "\\me" not in found
    recipe.write_text(given + "evaluation: {prompts: [see /home/me/base]}\n")
    assert yaml.safe_load(public_recipe(read_record(folder)))["evaluation"] == {"prompts": ["see /home/me/base"]}


def test_hub_data_keeps_its_name(tmp_path):
    folder = change(make_run(tmp_path / "run"), data={"revision": "a" * 40})
    (folder / "recipe.resolved.yaml").write_text(
        "model: minilm\ndata: {train: 'owner/set:en', validation: /me/v.csv}\n"
    )
    data = yaml.safe_load(public_recipe(read_record(folder)))["data"]
    assert data == {"train": "owner/set:en", "validation": "v.csv"}
    assert ModelCard(model_card(folder)).data.datasets == ["owner/set"]


def test_a_persons_words_are_no_markup(tmp_path):
    folder = change(make_run(tmp_path / "run"), data={"labels": ["a|b", "snake_case"]})
    rows = [{"step": s, "prompt": "![x](http://h) | <b>\n``` a_b", "prediction": "a|b"} for s in (0, 9)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.resolved.yaml").write_text("model: minilm\nname: '```'\n")
    card = model_card(folder)
    assert r"| \!\[x\](http://h) \| \<b\> \`\`\` a_b | a\|b | a\|b |" in card
    assert "````yaml\nmodel: minilm\nname: '```'\n````" in card


def test_a_run_that_is_hardly_there(tmp_path):
    (tmp_path / "run.json").write_text('{"model": 3, "data": {"label_counts": []}}')
    assert ModelCard(model_card(tmp_path)).data.pipeline_tag == "text-classification"


@pytest.mark.parametrize("kind", ["single", "multi", "number"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_its_code_runs_and_says_what_we_say(kind, method, tmp_path):
    made = make("bert", tmp_path, method, labels=SPECS[kind])
    model = tmp_path / "model"
    save_model(
        made.model, made.loaded.tokenizer, model, base=made.base, labels=SPECS[kind], max_length=32, truncate="left"
    )
    run = make_run(tmp_path / "run", kind=kind, names=SPECS[kind].names or ("a",), rows=20)
    change(run, model={"method": method, "hub_id": made.base.path})
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(quick_start(read_record(run), str(model)).replace("It was good.", "good film really"), {})
    ours = Predictor.load(model, "cpu").predict(["good film really"])[0]
    if kind == "number":
        assert f"{ours.prediction:.4f}"[:-1] in printed.getvalue()
    elif kind == "single":
        assert ours.prediction in printed.getvalue()
        assert f"{ours.probabilities[ours.prediction]:.5f}"[:-1] in printed.getvalue()
    elif method == "lora":
        assert printed.getvalue().strip() == str(ours.prediction)
    else:
        assert all(f"{p:.6f}"[:5] in printed.getvalue() for p in ours.probabilities.values())


def test_decoders_too(tmp_path):
    made = make("gpt2", tmp_path)
    model = tmp_path / "model"
    save_model(made.model, made.loaded.tokenizer, model, base=made.base, labels=made.loaded.labels, max_length=32,
               truncate="left")  # fmt: skip
    run = change(make_run(tmp_path / "run", rows=20), model={"hub_id": made.base.path})
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(quick_start(read_record(run), str(model)), {})
    assert Predictor.load(model, "cpu").predict(["It was good."])[0].prediction in printed.getvalue()
