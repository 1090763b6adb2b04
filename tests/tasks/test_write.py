"""Task generate, whole: what it learns, what transformers says of the same, what a kill changes, what it refuses."""

from __future__ import annotations

import json
import math

import pytest
import torch
import transformers as hf

from tests import tiny, whole, writing
from tunewright.errors import DataError, RecipeError, StoppedError
from tunewright.evaluation.texts import score_texts
from tunewright.library import train

PROMPT = "the film was {film} a story"


def test_it_learns_to_answer(tmp_path):
    run = writing.start(tmp_path, "full", settings={"training.epochs": 12.0, "training.learning_rate": 3e-3})
    before, after = run.summary["comparison"]["before"], run.metrics
    assert before["exact_match"] == 0 and after["exact_match"] >= 0.75
    assert after["loss"] < 0.5 < before["loss"] and after["stopped"] == 1.0
    assert run.summary["comparison"]["paired"]["loss"]["difference"] < 0
    first, last = (whole.lines(run.folder, "samples.jsonl")[i] for i in (0, -1))
    assert last["prediction"] in ("good", "bad") and first["prediction"] != last["prediction"] and last["final"]


@pytest.mark.parametrize("method", writing.METHODS)
def test_the_untrained_score_is_what_transformers_says(method):
    """Loss at epoch 0, LoRA and untied head included: mean over the completion's tokens and the end."""
    run = writing.finished(method)
    model = hf.AutoModelForCausalLM.from_pretrained(str(writing.base()))
    tokenizer = hf.AutoTokenizer.from_pretrained(str(writing.base()))
    nats = tokens = 0.0
    held_out = {row["row"] for row in whole.lines(run.folder, "predictions/validation.jsonl")}
    for i, row in enumerate(writing.rows()):
        if f"{writing.data_file().name}:{i + 1}" in held_out:
            prompt = tokenizer(PROMPT.format(**row))["input_ids"]
            answer = [*tokenizer(row["verdict"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            ids = torch.tensor([prompt + answer])
            labels = torch.tensor([[-100] * len(prompt) + answer])
            with torch.no_grad():
                nats += float(model(input_ids=ids, labels=labels).loss) * len(answer)
            tokens += len(answer)
    first = whole.lines(run.folder, "metrics.jsonl")[0]
    assert first["validation/loss"] == pytest.approx(nats / tokens, rel=1e-4)
    assert first["validation/perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)


@pytest.mark.parametrize("method", writing.METHODS)
def test_the_answers_are_those_of_the_saved_model(method):
    """Greedy text of the folder that was saved, by plain transformers or PEFT, for the rows that were judged."""
    run = writing.finished(method)
    model, tokenizer = run.model(), hf.AutoTokenizer.from_pretrained(str(run.folder / "model"))
    rows = whole.lines(run.folder, "predictions/validation.jsonl")
    for row in rows:
        ids = tokenizer(row["prompt"], return_tensors="pt")["input_ids"]
        out = model.generate(input_ids=ids, max_new_tokens=4, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip() == row["prediction"]
    scores = score_texts([r["prediction"] for r in rows], [r["references"] for r in rows]).metrics
    assert {name: run.metrics[name] for name in scores} == pytest.approx(scores)


def test_only_completions_are_learnt_unless_all_is_asked(tmp_path):
    some = whole.lines(writing.finished("lora").folder, "metrics.jsonl")[0]["validation/loss"]
    run = writing.start(tmp_path, settings={"data.learn": "all", "training.max_steps": 1, "training.epochs": "auto"})
    assert whole.lines(run.folder, "metrics.jsonl")[0]["validation/loss"] != pytest.approx(some, rel=1e-3)
    assert run.summary["data"]["learn"] == "all"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_resumed_is_uninterrupted(method, tmp_path, monkeypatch):
    settings = {"training.checkpoint_every": 2}
    straight = writing.start(tmp_path, method, name="straight", settings=settings)
    with monkeypatch.context() as patch:
        whole.stop_after(patch, 7)
        with pytest.raises(StoppedError):
            writing.start(tmp_path, method, name="broken", settings=settings)
    folder = next(tmp_path.glob("*broken*"))
    resumed = train(resume=folder.name, runs=tmp_path)
    one, other = whole.tensors(straight.folder / "model"), whole.tensors(resumed.folder / "model")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    for name in ("metrics.jsonl", "samples.jsonl", "predictions/validation.jsonl"):
        assert whole.lines(straight.folder, name) == whole.lines(resumed.folder, name)


def test_prompts_of_the_recipe_are_put_into_the_template(tmp_path):
    run = writing.start(
        tmp_path, settings={"evaluation.prompts": ["good good"], "training.max_steps": 1, "training.epochs": "auto"}
    )
    row = whole.lines(run.folder, "samples.jsonl")[0]
    assert row["prompt"] == "good good" and "reference" not in row


def test_rows_that_were_just_answered_are_not_answered_again(tmp_path, monkeypatch):
    """Before, after each of two epochs, and, of the model that was kept, the shown ones once more."""
    from tunewright.tasks import write_scoring

    real, asked = write_scoring.generate, []

    def generate(model, prompts, *rest, **named):
        asked.append(len(prompts))
        return real(model, prompts, *rest, **named)

    monkeypatch.setattr(write_scoring, "generate", generate)
    run = writing.start(tmp_path, settings={"training.epochs": 2.0})
    rows = len(whole.lines(run.folder, "predictions/validation.jsonl"))
    assert rows == 4 and asked == [4, 4, 4, 4]
    samples = whole.lines(run.folder, "samples.jsonl")
    answers = {row["prompt"]: row["prediction"] for row in whole.lines(run.folder, "predictions/validation.jsonl")}
    assert {row["prompt"]: row["prediction"] for row in samples if row.get("final")} == answers


def test_equal_prompts_never_fall_on_both_sides(tmp_path):
    rows = [{"film": f"good {'plot ' * (i // 4)}", "verdict": "good" if i % 2 else "bad"} for i in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = writing.start(
        tmp_path / "runs", data=str(path), settings={"training.max_steps": 1, "training.epochs": "auto",
                                                     "evaluation.generate_rows": 40},
    )  # fmt: skip
    asked = [row["prompt"] for row in whole.lines(run.folder, "predictions/validation.jsonl")]
    assert asked and all(asked.count(prompt) == 4 for prompt in asked)


def test_one_prompt_may_serve_all(tmp_path):
    once = {"training.max_steps": 1, "training.epochs": "auto", "data.template": "a story {film}"}
    run = writing.start(tmp_path, settings=once)
    assert run.summary["data"]["validation_rows"] == 4


def test_prompts_that_are_in_train_too_are_said(tmp_path):
    run = writing.start(
        tmp_path, validation=str(writing.data_file()), settings={"training.max_steps": 1, "training.epochs": "auto"}
    )
    assert "40 of 40 validation rows have a prompt that is in train too" in (run.folder / "events.jsonl").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.label": "verdict"}, '"data.label" is for task classify'),
        ({"training.class_weights": "balanced"}, '"training.class_weights" is for task classify'),
        ({"evaluation.metric": "accuracy"}, '"evaluation.metric" is accuracy; the task is generate'),
        ({"evaluation.metric": "f1", "evaluation.generate_rows": 0}, "needs written answers"),
        ({"data.template": "{film} {verdikt}"}, 'Did you mean "verdict"'),
        ({"data.completion": "answer"}, 'no column "answer"'),
    ],
)
def test_settings_that_make_no_sense(settings, message, tmp_path):
    with pytest.raises(RecipeError) as caught:
        writing.start(tmp_path, settings=settings)
    assert message in str(caught.value)
    assert not list(tmp_path.glob("*/model"))


def test_a_row_without_an_answer_is_named(tmp_path):
    rows = writing.rows()
    rows[7]["verdict"] = ""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as caught:
        writing.start(tmp_path / "runs", data=str(path))
    assert "rows.jsonl:8" in str(caught.value)


def test_a_setting_of_the_other_task_is_refused_for_a_classifier(tmp_path):
    with pytest.raises(RecipeError) as caught:
        whole.start(tmp_path, settings={"data.template": "{text} {label}"})
    assert '"data.template" is for task generate or reward or align, and the task is classify' in str(caught.value)


# ---- task continue ----


def _texts(folder, n=30):
    path = folder / "stories.txt"
    path.write_text("\n\n".join(row["text"] for row in tiny.sentences(n)) + "\n", encoding="utf-8")
    return path


def test_plain_text_lowers_its_perplexity(tmp_path):
    run = train(
        str(writing.base()), str(_texts(tmp_path)), task="continue", runs=tmp_path / "runs",
        settings=writing.SETTINGS | {"evaluation.generate_rows": "auto", "data.max_length": 8},
    )  # fmt: skip
    before, after = run.summary["comparison"]["before"], run.metrics
    assert after["perplexity"] < before["perplexity"] and "exact_match" not in after
    samples = whole.lines(run.folder, "samples.jsonl")
    assert samples[-1]["final"] and all(row["prompt"] for row in samples)
    words = sum(len(row["text"].split()) for row in tiny.sentences(30))
    data = run.summary["data"]
    assert data["train_tokens"] + data["validation_tokens"] >= words, "windows must lose nothing"


def test_plain_text_is_what_continue_reads(tmp_path):
    with pytest.raises(RecipeError) as caught:
        train(str(writing.base()), str(writing.data_file()), task="continue", runs=tmp_path, settings={})
    assert "name the column of the text" in str(caught.value)
    run = train(
        str(writing.base()), str(writing.data_file()), task="continue", text="film", runs=tmp_path,
        settings=writing.SETTINGS | {"evaluation.generate_rows": "auto", "training.epochs": 1.0},
    )  # fmt: skip
    assert run.summary["data"]["format"] == "plain text"


def with_gaps() -> list[dict[str, str]]:
    """Ten rows, two of them without a completion."""
    made = writing.rows(10)
    made[2]["verdict"], made[7]["verdict"] = "", "  "
    return made


def test_rows_without_a_completion_are_refused_or_dropped_by_choice(tmp_path):
    settings = {**writing.SETTINGS, "data.template": writing.TEMPLATE, "training.max_steps": 2, "data.validation": 0.3}
    settings.pop("training.epochs")
    with pytest.raises(DataError, match='"verdict" is empty') as refused:
        train(str(writing.base()), with_gaps(), task="generate", runs=tmp_path, settings=settings)
    assert refused.value.where == "train:3"
    run = train(
        str(writing.base()), with_gaps(), task="generate", runs=tmp_path, settings={**settings, "data.empty": "drop"}
    )
    data = run.summary["data"]
    assert data["train_rows"] + data["validation_rows"] == 8
    assert "2 rows of train left out: nothing to learn in train:3, train:8" in run.summary["notes"]
    judged = {row["row"] for row in whole.lines(run.folder, "predictions/validation.jsonl")}
    assert judged <= {f"train:{n}" for n in (1, 2, 4, 5, 6, 7, 9, 10)}, "rows keep their place in the file"


def test_nothing_but_rows_without_a_completion_is_an_error(tmp_path):
    rows = [{"film": row["film"], "verdict": ""} for row in writing.rows(6)]
    with pytest.raises(DataError, match="no row has a completion"):
        train(str(writing.base()), rows, task="generate", runs=tmp_path,
              settings={**writing.SETTINGS, "data.template": writing.TEMPLATE, "data.empty": "drop"})  # fmt: skip
