"""Scores of a model that writes on other data: equal to transformers' loss and to the definitions of the metrics."""

from __future__ import annotations

import json
import math

import pytest
import torch
import transformers as hf

from tests.data.test_written import Rows
from tests.serving.small_writer import QUESTIONS, TALKS, TEMPLATE, encoder, run
from tunewright.data.written import recognise
from tunewright.errors import DataError, UsageError
from tunewright.evaluation.texts import score_texts
from tunewright.serving.text_scoring import score_writing
from tunewright.serving.writer import Writer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rows = [{**row, "accepted": [row["answer"], "tea"]} for row in QUESTIONS]
    return run(tmp_path_factory.mktemp("run"), rows, lora=False, template=TEMPLATE, references="accepted")


@pytest.fixture(scope="module")
def writer(folder):
    return Writer.load(folder / "model", "cpu")


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def loss_of(folder, form, rows, max_length=48):
    """Nats and target tokens as transformers counts them."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    made = encoder(folder, form, max_length)
    nats = tokens = 0.0
    for row in Rows(*rows).rows():
        encoded = made.encoder.encode(made.segments(row))
        labels = [i if counts else -100 for i, counts in zip(encoded.ids, encoded.is_target, strict=True)]
        count = sum(label != -100 for label in labels[1:])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([encoded.ids]), labels=torch.tensor([labels])).loss.item()
        nats, tokens = nats + loss * count, tokens + count
    return nats / tokens


def test_scores_equal_transformers_and_the_definitions(folder, writer, tmp_path):
    rows = [{**row, "accepted": [row["answer"], "tea"]} for row in QUESTIONS]
    found = score_writing(writer, write_lines(tmp_path / "test.jsonl", rows))
    assert (found.rows, found.answered_rows) == (5, 5)
    loss = loss_of(folder, writer.format, rows)
    assert found.metrics["loss"] == pytest.approx(loss, abs=1e-5)
    assert found.metrics["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    answers = writer.predict(rows)
    wanted = score_texts([a.prediction for a in answers], [r["accepted"] for r in rows],
                         [a.stopped == "eos" for a in answers])  # fmt: skip
    assert {name: found.metrics[name] for name in wanted.metrics} == wanted.metrics
    assert {"exact_match", "f1", "rouge_l", "perplexity", "token_accuracy", "stopped"} <= found.metrics.keys()
    for name, value in found.metrics.items():
        assert found.intervals[name].low <= value + 1e-9 and value - 1e-9 <= found.intervals[name].high


def test_the_true_answer_scores_full_marks(writer, tmp_path):
    """References are the format's: what the model writes, put in as an accepted answer, is right."""
    rows = [{**row, "accepted": ["no", str(writer.predict([row])[0])]} for row in QUESTIONS]
    rows = [row for row in rows if row["accepted"][1]]
    found = score_writing(writer, write_lines(tmp_path / "test.jsonl", rows))
    assert found.metrics["exact_match"] == found.metrics["f1"] == 1.0


def test_a_talk_is_answered_at_its_end(tmp_path):
    writer = Writer.load(run(tmp_path, TALKS, max_length=200, positions=256) / "model", "cpu")
    found = score_writing(writer, write_lines(tmp_path / "test.jsonl", TALKS))
    assert (found.rows, found.answered_rows) == (3, 3)
    said = writer.predict([{"messages": row["messages"][:1]} for row in TALKS])
    wanted = score_texts([answer.prediction for answer in said], [("the good film",)] * 3)
    assert found.metrics["f1"] == wanted.metrics["f1"]


def test_plain_text_is_read_in_windows_and_answers_nothing(tmp_path):
    rows = [{"text": "the film was good and long " * 8}, {"text": "a film"}]
    made = run(tmp_path / "run", rows, lora=False, max_length=20, max_new_tokens=4)
    writer = Writer.load(made / "model", "cpu")
    found = score_writing(writer, write_lines(tmp_path / "test.jsonl", rows))
    assert (found.rows, found.answered_rows) == (2, 0) and "f1" not in found.metrics
    whole = encoder(made, recognise(Rows(*rows)), None)
    tokens = sum(len(whole.encoder.encode(whole.segments(row)).ids) - 1 for row in Rows(*rows).rows())
    model = hf.AutoModelForCausalLM.from_pretrained(made / "model").eval()
    nats = 0.0
    for row in Rows(*rows).rows():
        ids = whole.encoder.encode(whole.segments(row)).ids
        for start in [0, *range(19, len(ids) - 1, 19)]:  # each window begins with the last token of the one before
            part = torch.tensor([ids[start : start + 20]])
            with torch.no_grad():
                nats += model(input_ids=part, labels=part).loss.item() * (part.shape[1] - 1)
    assert found.metrics["loss"] == pytest.approx(nats / tokens, abs=1e-5)
    other = write_lines(tmp_path / "other.jsonl", [{"body": row["text"]} for row in rows])
    assert score_writing(writer, other, text="body").metrics == found.metrics


def test_what_can_not_be_scored(writer, tmp_path):
    path = write_lines(tmp_path / "test.jsonl", [QUESTIONS[0], {"question": "what?", "answer": ""}])
    with pytest.raises(DataError, match=r"test\.jsonl:2: .*nothing to learn"):
        score_writing(writer, path)
    with pytest.raises(UsageError, match="--text is for models of plain text"):
        score_writing(writer, path, text="question")
