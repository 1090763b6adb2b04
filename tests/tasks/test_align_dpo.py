"""Task align by comparisons, whole: what it learns, what it starts from, what a kill changes, what it refuses."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import faults, tiny, whole, writing
from tunewright.data.examples import Row
from tunewright.data.row_reading import TemplateReading, TextReading
from tunewright.data.templates import Template
from tunewright.data.written import Format, kept_in
from tunewright.errors import DataError, ModelError, RecipeError, StoppedError
from tunewright.library import load, train
from tunewright.runs import Run
from tunewright.tasks import align_dpo
from tunewright.tasks.align_dpo import as_tuned

SETTINGS: dict[str, Any] = writing.SETTINGS | {"align.method": "dpo", "training.learning_rate": 5e-3}
FAST = {"training.learning_rate": 2e-2}  # few parameters on a base that knows nothing
METHODS: dict[str, dict[str, Any]] = writing.METHODS | {
    "lora": writing.METHODS["lora"] | FAST,
    "last 1": {"trainable.rank": 4, "trainable.layers": "last 1"} | FAST,  # with a boundary cache
}
GOOD, BAD = tiny.WORDS["positive"][:3], tiny.WORDS["negative"][:3]


def rows(n: int = 40, **more: Any) -> list[dict[str, Any]]:
    """People like praise, whatever the film."""
    generator = random.Random(0)
    return [
        {
            "prompt": f"the film was {row['text']}",
            "chosen": " ".join(generator.choices(GOOD, k=generator.randint(1, 3))),
            "rejected": " ".join(generator.choices(BAD, k=generator.randint(1, 3))),
            **more,
        }
        for row in tiny.sentences(n)
    ]


def written(path: Path, given: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    return path


@cache
def data_file() -> Path:
    return written(whole.scratch() / "comparisons.jsonl", rows())


def start(runs: Path, method: str = "lora", *, base: str | None = None, data: Any = None, **arguments: Any) -> Run:
    settings = SETTINGS | METHODS[method] | arguments.pop("settings", {})
    model = str(writing.base()) if base is None else base
    given = data if isinstance(data, list) else str(data or data_file())
    return train(model, given, task="align", settings=settings, runs=runs, **arguments)


@cache
def finished(method: str = "lora") -> Run:
    """A finished run that tests may read but not change."""
    return start(whole.scratch() / "dpo", method, name=f"dpo-{method.replace(' ', '-')}")


# ---- learning ----


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_what_was_preferred(method):
    run = finished(method)
    before, after = run.summary["comparison"]["before"], run.metrics
    assert before["accuracy"] == 0.5 and before["loss"] == pytest.approx(math.log(2)) and before["kl"] == 0
    assert after["accuracy"] == 1.0 and after["loss"] < before["loss"] and after["margin"] > 0
    assert after["chosen_change"] > 0 > after["rejected_change"] and after["kl"] > 0
    # β times the difference of the two changes is the margin.
    gap = after["chosen_change"] - after["rejected_change"]
    assert after["margin"] == pytest.approx(0.1 * gap, rel=1e-6)
    paired = run.summary["comparison"]["paired"]
    assert paired["accuracy"]["fixed"] == 4 and paired["loss"]["difference"] < 0
    assert run.summary["alignment"]["method"] == "dpo" and run.summary["alignment"]["beta"] == 0.1
    assert run.summary["data"]["comparisons"] == 40


def test_before_the_first_step_the_policy_is_the_reference():
    """ln 2 to the last bit: the texts of a step meet the numbers that were measured in other batches."""
    first = next(row for row in whole.lines(finished().folder, "metrics.jsonl") if row.get("step") == 1)
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_metrics_are_those_of_the_saved_model():
    """The folder that was saved and the base it began with, by plain PEFT and transformers, text by text."""
    run = finished()
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(str(writing.base()))
    base = hf.AutoModelForCausalLM.from_pretrained(str(writing.base())).eval()
    judged = whole.lines(run.folder, "predictions/comparisons.jsonl")
    assert len(judged) == 4
    with torch.no_grad():
        for row in judged:
            found = []
            for model in (run.model().eval(), base):
                for completion in row["completions"]:
                    prompt = tokenizer(row["prompt"])["input_ids"]
                    said = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
                    logprobs = model(input_ids=torch.tensor([prompt + said])).logits[0, :-1].log_softmax(1)
                    found.append(sum(logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(said)))
            rewards = 0.1 * (np.array(found[:2]) - np.array(found[2:]))
            np.testing.assert_allclose(row["rewards"], rewards, atol=1e-5)
            assert row["comparisons"] == [{"better": 0, "worse": 1, "weight": 1.0, "annotator": None}]


def test_what_is_written_is_shown_before_and_after():
    run = finished("full")
    answers = whole.lines(run.folder, "predictions/validation.jsonl")
    assert len(answers) == 4 and {"prompt", "prediction", "before", "kl"} <= answers[0].keys()
    assert "score" not in answers[0] and "score_before" not in answers[0]
    samples = whole.lines(run.folder, "samples.jsonl")
    assert samples[-1]["final"] and "score" not in samples[-1]
    assert all(set(row["prediction"].split()) <= {*GOOD} for row in samples if row.get("final"))
    assert "reward" not in run.metrics and "win_rate" not in run.metrics


def test_a_judge_that_training_never_saw_is_asked(tmp_path):
    judge = {"rules": [{"regex": "|".join(BAD), "score": -1.0}]}
    more = {"training.epochs": 6.0, "data.validation": 0.4, "evaluation.generate_rows": 16}
    run = start(tmp_path, "full", settings={"evaluation.judge": judge, **more})
    assert run.metrics["judge"] > run.summary["comparison"]["before"]["judge"]
    assert run.metrics["judge_win_rate"] > 0.5 and run.summary["alignment"]["judge"]


def test_rankings_ties_and_groups(tmp_path):
    """Three completions ranked in one row, a tie, rows of one prompt that stay together."""
    ranked = [
        {"prompt": row["prompt"], "completions": [row["chosen"], "the plot", row["rejected"]],
         "ranking": [[0], [1], [2]] if i % 3 else [[0, 1], [2]]}
        for i, row in enumerate(rows())
    ]  # fmt: skip
    run = start(tmp_path, data=written(tmp_path / "ranked.jsonl", ranked))
    assert run.summary["data"]["comparisons"] == 120 and run.summary["data"]["ties"] == 14
    assert run.metrics["accuracy"] > 0.7
    first = next(row for row in whole.lines(run.folder, "metrics.jsonl") if row.get("step") == 1)
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)


# ---- the reference ----


def test_it_starts_from_a_tuned_adapter(tmp_path):
    """The start stays active in the reference: ln 2 at first, and what is saved is both adapters as one."""
    tuned = writing.finished("lora")
    run = start(
        tmp_path, base=str(tuned.folder / "model"), settings={"training.max_steps": 3, "training.epochs": "auto"}
    )
    steps = [row for row in whole.lines(run.folder, "metrics.jsonl") if "train/grad_norm" in row]
    assert steps[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    shapes = {name: tensor.shape for name, tensor in load_file(run.folder / "model/adapter_model.safetensors").items()}
    assert {shape[0] for name, shape in shapes.items() if "lora_A" in name} == {8}  # 4 and 4
    # Answers before are those of the tuned run, not of its base.
    assert run.summary["comparison"]["before"]["accuracy"] == 0.5


def test_the_reference_is_measured_once(tmp_path, monkeypatch):
    asked = []
    real = align_dpo.completion_logprobs

    def counted(*arguments, **named):
        asked.append(arguments[1])
        return real(*arguments, **named)

    monkeypatch.setattr(align_dpo, "completion_logprobs", counted)
    _broken(tmp_path, monkeypatch)
    assert len(asked) == 2  # train and validation
    folder = next(tmp_path.glob("*broken*"))
    kept = load_file(folder / align_dpo.REFERENCE)
    train(resume=folder.name, runs=tmp_path)
    assert len(asked) == 2
    assert all(torch.equal(kept[name], other) for name, other in load_file(folder / align_dpo.REFERENCE).items())


@pytest.mark.parametrize("harm", ["gone", "torn", "short"])
def test_a_reference_that_is_gone_is_measured_again(harm, tmp_path, monkeypatch):
    """The checkpoint holds what was learnt; the model as it starts is still at hand when a run is resumed."""
    _broken(tmp_path, monkeypatch, method="full")
    folder = next(tmp_path.glob("*broken*"))
    path = folder / align_dpo.REFERENCE
    kept = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "torn":
        path.write_bytes(kept[:-9])
    else:
        save_file({name: tensor[:-1].clone() for name, tensor in load_file(path).items()}, path)
    train(resume=folder.name, runs=tmp_path)
    assert path.read_bytes() == kept
    assert "measured again" in (folder / "events.jsonl").read_text()


def _broken(runs: Path, monkeypatch, method: str = "lora") -> None:
    with monkeypatch.context() as patch:
        whole.stop_after(patch, 7)
        with pytest.raises(StoppedError):
            start(runs, method, name="broken", settings={"training.checkpoint_every": 2})


@pytest.mark.parametrize("method", METHODS)
def test_resumed_is_uninterrupted(method, tmp_path, monkeypatch):
    settings = {"training.checkpoint_every": 2}
    straight = start(tmp_path, method, name="straight", settings=settings)
    _broken(tmp_path, monkeypatch, method)
    resumed = train(resume=next(tmp_path.glob("*broken*")).name, runs=tmp_path)
    one, other = whole.tensors(straight.folder / "model"), whole.tensors(resumed.folder / "model")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    for name in ("metrics.jsonl", "samples.jsonl", "predictions/validation.jsonl", "predictions/comparisons.jsonl"):
        assert whole.lines(straight.folder, name) == whole.lines(resumed.folder, name)


def test_dropout_is_off_unless_asked_for(tmp_path):
    """GPT-2 brings dropout of its own; the first loss would not be ln 2."""
    run = start(tmp_path, "full", base=str(writing.base("gpt2")), settings={"training.epochs": 1.0})
    first = next(row for row in whole.lines(run.folder, "metrics.jsonl") if row.get("step") == 1)
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    loud = start(tmp_path, "full", base=str(writing.base("gpt2")), name="loud",
                 settings={"training.epochs": 1.0, "training.base_dropout": 0.3})  # fmt: skip
    first = next(row for row in whole.lines(loud.folder, "metrics.jsonl") if row.get("step") == 1)
    assert abs(first["train/loss"] - math.log(2)) > 1e-4


# ---- prompts ----


def _format(template: str, columns: list[str]) -> Format:
    made = Template.parse(template, columns)
    return Format("template", (), TemplateReading(made, made.completion, False), "completion")


def test_prompts_are_read_as_the_base_was_tuned():
    tuned = _format("Q: {question}\nA: {answer}", ["question", "answer"])
    form, said = as_tuned(tuned, Row({"question": "why?", "completion": "so"}, "x:1", 0))
    assert form is not None and said == ()
    row = Row({"question": "why?", "completion": "so"}, "x:1", 0)
    assert "".join(one.text for one in form.prompt(row)) == "Q: why?\nA: "
    assert "".join(one.text for one in form.segments(row)) == "Q: why?\nA: so"


def test_prompts_that_the_base_framed_are_not_framed_twice():
    tuned = _format("Q: {prompt}\nA: {answer}", ["prompt", "answer"])
    form, said = as_tuned(tuned, Row({"prompt": "Q: why?\nA:"}, "x:1", 0))
    assert form is None and "as the base was tuned" in said[0]
    form, said = as_tuned(tuned, Row({"prompt": "why?"}, "x:1", 0))
    assert form is not None and said == ()


def test_prompts_that_fit_nothing_are_said():
    tuned = _format("Q: {question}\nA: {answer}", ["question", "answer"])
    form, said = as_tuned(tuned, Row({"prompt": "why?"}, "x:1", 0))
    assert form is None and "hold no question" in said[0] and "data.template" in said[0]
    assert as_tuned(Format("plain text", (), TextReading("text"), "all"), Row({"prompt": "why?"}, "x:1", 0)) == (
        None,
        (),
    )


def test_a_chain_of_tuning_and_preferring_keeps_the_format(tmp_path):
    """Tuned with a template over {film}; comparisons with that column; answered by {film} again."""
    tuned = writing.finished("lora")
    given = [{"film": row["prompt"].removeprefix("the film was "), **row} for row in rows()]
    for row in given:
        del row["prompt"]
    run = start(
        tmp_path, base=f"{tuned.folder / 'model'}", data=written(tmp_path / "films.jsonl", given),
        settings={"training.max_steps": 2, "training.epochs": "auto"},
    )  # fmt: skip
    form, beside = kept_in(run.folder / "model")
    assert form is not None and form.reading.columns == ("film",) and beside["max_new_tokens"] == 4
    prompt = whole.lines(run.folder, "predictions/comparisons.jsonl")[0]["prompt"]
    assert prompt.startswith("the film was ") and prompt.endswith("a story")
    assert any("prompts as the base was tuned" in note for note in run.summary["notes"])
    assert load(run).predict(["a really good plot"])


# ---- what is refused ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"align.kl_coef": 0.2}, '"align.kl_coef" is for ppo and grpo'),
        ({"reward": [{"rules": [{"min_words": 2}]}]}, "takes no reward"),
        ({"evaluation.metric": "reward"}, '"evaluation.metric" is reward'),
        ({"data.margin": "by"}, '"data.margin" is for task reward'),
    ],
)
def test_settings_that_make_no_sense(settings, message, tmp_path):
    with pytest.raises(RecipeError) as caught:
        start(tmp_path, settings=settings)
    assert message in str(caught.value)
    assert not list(tmp_path.glob("*/model"))


def test_rows_that_compare_nothing_are_named(tmp_path):
    with pytest.raises(DataError) as caught:
        start(tmp_path, data=written(tmp_path / "rows.jsonl", writing.rows()))
    assert "hold no comparisons" in str(caught.value)
    given = rows()
    given[7]["chosen"] = ""
    with pytest.raises(DataError) as caught:
        start(tmp_path, data=written(tmp_path / "empty.jsonl", given))
    assert "empty.jsonl:8" in str(caught.value)


def test_a_model_that_does_not_write_is_refused(tmp_path):
    with pytest.raises(ModelError) as caught:
        start(tmp_path, base=str(whole.base("bert")))
    assert "doesn't write from left to right" in str(caught.value)


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("when", ["before write", "before rename", "after rename"])
def test_killed_while_the_reference_is_kept(when, tmp_path, monkeypatch):
    """No checkpoint is there yet, so it begins anew, and measures anew: what lies there may be of other data."""
    straight = start(tmp_path, name="straight")

    def there(point: str) -> bool:
        return point.startswith(when) and "reference.safetensors" in point

    with faults.failing(monkeypatch, there, Killed()) as struck, pytest.raises(Killed):
        start(tmp_path, name="broken")
    assert struck
    folder = next(tmp_path.glob("*broken*"))
    if when == "after rename":
        other_data = {name: tensor + 50 for name, tensor in load_file(folder / align_dpo.REFERENCE).items()}
        save_file(other_data, folder / align_dpo.REFERENCE)
    resumed = train(resume=folder.name, runs=tmp_path)
    one, other = whole.tensors(straight.folder / "model"), whole.tensors(resumed.folder / "model")
    assert all(torch.equal(one[name], other[name]) for name in one)
    kept = [load_file(run.folder / align_dpo.REFERENCE) for run in (straight, resumed)]
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in kept[0].items())


def test_asked_to_stop_while_the_reference_is_measured(tmp_path, monkeypatch):
    real = align_dpo.completion_logprobs

    def interrupted(*arguments, before_batch, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, before_batch=before_batch, **named)

    with monkeypatch.context() as patch:
        patch.setattr(align_dpo, "completion_logprobs", interrupted)
        with pytest.raises(StoppedError) as caught:
            start(tmp_path, name="broken")
    assert "before the first step" in str(caught.value) and caught.value.exit_code == 128 + signal.SIGTERM
    assert train(resume=next(tmp_path.glob("*broken*")).name, runs=tmp_path).metrics["accuracy"] == 1.0
