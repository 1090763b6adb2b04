"""Texts and rows in, texts out: prompts as training made them, answers as transformers writes them, whole files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as hf
from peft import PeftModel

from tests.data import tiny_tokenizers
from tests.data.test_written import Rows
from tests.models.test_generation import READERS, moved
from tests.serving.small_writer import QUESTIONS, TALKS, TEMPLATE, base, encoder, run, theirs
from tunewright.data.examples import Row
from tunewright.data.segments import control_tokens
from tunewright.data.written import PROMPT_FORMAT, recognise
from tunewright.data.written_tokens import RowEncoder, tokenize_written
from tunewright.errors import DataError, ModelError, UsageError
from tunewright.library import load
from tunewright.models.generation import Generated
from tunewright.models.sampling import Sampling
from tunewright.runs import Run, find_run
from tunewright.serving import writer as writer_module
from tunewright.serving.answering import needs_writer, open_model, write_file
from tunewright.serving.predict import Predictor
from tunewright.serving.text_scoring import score_writing
from tunewright.serving.writer import Writer, Written

FORMATS: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    (QUESTIONS, {"template": TEMPLATE}),
    (QUESTIONS, {}),
    ([{**row, "context": "the film was long"} for row in QUESTIONS], {}),
    (
        [{"instruction": "say it", "input": "", "output": "good"}, {"instruction": "Add", "input": "1", "output": "2"}],
        {},
    ),
    ([{"document": "it was long " * 3, "summary": "long"}], {}),
    ([{"prompt": row["question"], "reply": row["answer"]} for row in QUESTIONS], {"template": "chatml"}),
    ([{"prompt": "the film ", "completion": "was good"}], {}),
    (TALKS, {}),
    ([{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}], "system": "Be"}], {}),
    ([{"prompt": TALKS[0]["messages"][:1], "completion": TALKS[0]["messages"][1:]}], {}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), template=TEMPLATE)


@pytest.fixture(scope="module")
def writer(folder):
    return Writer.load(folder / "model", "cpu")


def without_answer(row: Row) -> Row:
    """As when answering: what should be written isn't there."""
    values = {name: value for name, value in row.values.items() if name not in ("answer", "output", "summary", "reply",
                                                                                "completion")}  # fmt: skip
    for name in ("messages", "conversations"):
        if name in values:
            values[name] = values[name][:-1]
    return replace(row, values=values)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize(("rows", "asked"), FORMATS)
def test_prompts_have_the_ids_that_training_saw(kind, rows, asked, tmp_path):
    source = Rows(*rows)
    made = run(tmp_path / "run", rows, kind=kind, max_length=400, positions=512, **asked)
    form = recognise(source, **asked)
    dataset = tokenize_written(source, encoder(made, form, 400), tmp_path / "cache")
    writer = Writer.load(made / "model", "cpu")
    assert writer.format == form and writer.has_own_format
    for i, row in enumerate(source.rows()):
        counts = dataset.is_target(i).tolist()
        assert writer.prompt(without_answer(row)).ids == dataset.tokens(i).tolist()[: counts.index(True)]


def test_answers_equal_transformers_and_peft(folder, writer):
    """The saved folder in plain PEFT, asked with the template by hand."""
    base_model = hf.AutoModelForCausalLM.from_pretrained(folder / "base")
    model = PeftModel.from_pretrained(base_model, folder / "model").eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder / "model")
    found = writer.predict([row["question"] for row in QUESTIONS])
    ends = writer.encoder.encoder.ends
    for row, said in zip(QUESTIONS, found, strict=True):
        prompt = tokenizer(f"Q: {row['question']}\nA:")["input_ids"]
        wanted = theirs(model, prompt, 6, sorted(ends))
        assert list(said.ids) == wanted
        assert str(said) == said.prediction == tokenizer.decode(wanted, skip_special_tokens=True).strip()
        assert said.stopped == ("eos" if wanted[-1] in ends else "length")


def test_rows_and_texts_are_the_same(writer):
    texts = writer.predict(["what is tea?", "what?"])
    assert texts == writer.predict([{"question": "what is tea?", "answer": "no"}, {"question": "what?"}])
    assert writer.predict([]) == []
    with pytest.raises(DataError, match='row 2: no "question" here; the row has q'):
        writer.predict([{"question": "x"}, {"q": "y"}])


def test_chance_hangs_on_the_row_and_the_seed(writer):
    rows = [Row({"question": "what is tea?"}, f"x:{n}", n) for n in range(5)]
    warm = writer.sampling(temperature=1.5, seed=3)
    one_by_one = [answer for row in rows for answer in writer.stream([row], warm)]
    assert list(writer.stream(rows, warm, block=2)) == one_by_one == list(writer.stream(rows, warm))
    assert len({answer["prediction"] for answer in one_by_one}) > 1
    assert list(writer.stream(rows, writer.sampling(temperature=1.5, seed=4))) != one_by_one


def test_stream_keeps_columns_order_and_says_what_stopped(writer):
    rows = [Row({**row, "n": i}, f"x:{i}", i) for i, row in enumerate(QUESTIONS)]
    found = list(writer.stream(iter(rows), block=2))
    assert [list(row) for row in found] == [["question", "answer", "n", "prediction", "stopped"]] * len(rows)
    assert [row["n"] for row in found] == list(range(len(rows)))
    with pytest.raises(DataError, match='x:0: there is a column "stopped" already'):
        next(writer.stream([Row({"question": "x", "stopped": 1}, "x:0", 0)]))


def test_a_prompt_that_is_too_long_loses_context_first_and_is_counted(folder, writer, tmp_path):
    long = {"question": "very " * 60 + "long?"}
    prompt = writer.prompt(Row(long, "x:1", 0))
    whole = writer.encoder.without_limit().prompt_ids(Row(long, "x:1", 0))
    # 48 tokens as in training: 96 positions leave an answer its room.
    assert len(prompt.ids) == 48 and prompt.cut == len(whole) - 48
    text = writer.tokenizer.decode(prompt.ids)
    assert text.startswith("Q:") and text.endswith("long?\nA:")  # the template stays, the value is cut
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(QUESTIONS[0]) + "\n" + json.dumps(long) + "\n")
    found = write_file(writer, path, tmp_path / "out.jsonl")
    assert (found.rows, found.cut_rows, found.cut_tokens) == (2, 1, prompt.cut)


def test_room_is_kept_where_positions_end(tmp_path):
    made = run(tmp_path, max_length=96, max_new_tokens=20, template=TEMPLATE)
    writer = Writer.load(made / "model", "cpu")
    row = Row({"question": "very " * 200}, "x:1", 0)
    assert len(writer.prompt(row).ids) == 96 - 20
    assert len(writer.prompt(row, writer.sampling(max_new_tokens=90)).ids) == 96 - 96 // 4
    assert len(writer.predict([row.values])[0].ids) <= 20


@pytest.mark.parametrize("lora", [True, False])
def test_before_is_the_base_asked_in_the_same_format(lora, tmp_path):
    made = run(tmp_path, lora=lora, template=TEMPLATE)
    tuned = Writer.load(made / "model", "cpu")
    plain = hf.AutoModelForCausalLM.from_pretrained(made / "base").eval()
    ends = sorted(tuned.encoder.encoder.ends)
    ids = tuned.prompt(Row(QUESTIONS[0], "x:1", 0)).ids
    wanted = theirs(plain, ids, 6, ends)
    before = Writer.untrained(made, "cpu")
    assert list(before.write([ids])[0].ids) == wanted
    assert before.encoder.fingerprint() == tuned.encoder.fingerprint() and before.max_new_tokens == 6
    after = tuned.write([ids])[0].ids
    inside = tuned.without_adapter()
    assert (inside is not None) == lora and list(after) != wanted
    if inside is not None:
        assert list(inside.write([ids])[0].ids) == wanted
        assert inside.model is tuned.model and tuned.write([ids])[0].ids == after  # switched on again


def test_a_run_loads_predicts_and_compares(folder):
    tuned = Run(folder)
    [said] = tuned.predict([{"question": "what is tea?"}])
    assert isinstance(said, Written) and isinstance(load(folder), Writer)
    assert find_run(folder).load().predict(["what is tea?"]) == [said]
    assert tuned.model() is tuned.predictor.model
    compared = tuned.compare(["what is tea?", {"question": "what is rain?"}])
    assert [row[0] for row in compared.rows] == ["what is tea?", "what is rain?"]
    assert compared.rows[0][2] == said != compared.rows[0][1] and said.prediction[:20] in str(compared)
    assert "<table>" in compared._repr_html_()


def test_a_strangers_model(tmp_path):
    """Without a format: the chat template where there is one, else the text as it is."""
    plain = Writer.load(base(tmp_path / "plain"), "cpu")
    assert not plain.has_own_format and plain.max_new_tokens == writer_module.MAX_NEW_TOKENS
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "plain")
    assert plain.prompt(plain.format.row("the good film")).ids == tokenizer("the good film")["input_ids"]
    talking = base(tmp_path / "talks")
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
    tokenizer.save_pretrained(talking)
    asked = Writer.load(talking, "cpu")
    wanted = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert asked.prompt(asked.format.row("Hi")).ids == wanted["input_ids"]
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"id": 3, "sentence": "the good film"}\n')
    short = plain.sampling(max_new_tokens=3)
    assert write_file(plain, rows, tmp_path / "out.jsonl", sampling=short).rows == 1
    written = json.loads((tmp_path / "out.jsonl").read_text())
    assert written["prediction"] == plain.predict(["the good film"], short)[0].prediction
    rows.write_text(json.dumps({"messages": [{"role": "user", "content": "Hi"}]}) + "\n")
    write_file(asked, rows, tmp_path / "out.jsonl", sampling=short)
    written = json.loads((tmp_path / "out.jsonl").read_text())
    assert written["prediction"] == asked.predict(["Hi"], short)[0].prediction


def test_an_ending_in_letters_stops_and_is_no_part_of_the_answer(tmp_path, monkeypatch):
    rows = [{"prompt": row["question"], "reply": row["answer"]} for row in QUESTIONS]
    writer = Writer.load(run(tmp_path, rows, template="chatml") / "model", "cpu")
    assert "<|im_end|>" not in control_tokens(writer.tokenizer)
    assert writer.sampling().stop == ("<|im_end|>",)
    ids = tuple(writer.tokenizer(" a tea<|im_end|>")["input_ids"])
    monkeypatch.setattr(writer_module, "generate", lambda *_, **__: [Generated(ids, "stop", (0.0,) * len(ids))])
    assert writer.predict(["what?"]) == [Written("a tea", "stop", ids)]
    asked = []
    monkeypatch.setattr(writer_module, "generate", lambda model, prompts, settings, **_: asked.append(settings) or [])
    writer.predict(["what?"], Sampling(max_new_tokens=3, stop=("no",)))
    assert asked[0].eos_ids == writer.encoder.encoder.ends >= {writer.tokenizer.eos_token_id}
    assert asked[0].stop == ("no", "<|im_end|>") and asked[0].max_new_tokens == 3
    monkeypatch.setattr(writer_module, "generate", lambda *_, **__: [Generated(ids, "stop", (0.0,) * len(ids))])
    own = writer.predict(["what?"], writer.sampling(stop=("te",)))
    assert own[0].prediction == "a"


def test_plain_text_goes_on_where_it_ends(tmp_path):
    writer = Writer.load(run(tmp_path, [{"text": "the film was good"}]) / "model", "cpu")
    text, [said] = "the film", writer.predict(["the film"])
    assert writer.tokenizer.decode(said.ids, skip_special_tokens=True) == said.prediction  # its first space too
    assert writer.prompt(writer.format.row(text)).ids == writer.tokenizer(text)["input_ids"]


def test_files_of_other_columns_are_refused_at_once(writer, folder, tmp_path):
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"q": "what is tea?"}\n')
    with pytest.raises(DataError, match=r'in\.jsonl:1: no "question" here; the row has q\.'):
        write_file(writer, rows, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    assert write_file(writer, rows, tmp_path / "out.jsonl", text="q").rows == 1
    answered = json.loads((tmp_path / "out.jsonl").read_text())
    assert answered["prediction"] == writer.predict(["what is tea?"])[0].prediction
    (tmp_path / "empty.jsonl").write_text("\n")
    several = Writer.load(
        run(tmp_path / "two", [{"x": "1", "y": "2", "z": "3"}], template="{x} {y} {z}") / "model", "cpu"
    )
    with pytest.raises(UsageError, match=r"reads \{x\} and \{y\}"):
        write_file(several, rows, tmp_path / "out.jsonl", text="q")
    with pytest.raises(UsageError, match=r"give rows with these columns"):
        several.predict(["1"])


def test_a_damaged_format_is_refused(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "model" / PROMPT_FORMAT).write_text('{"version": 1}')
    with pytest.raises(ModelError, match=r"prompt_format\.json: the prompt format can't be used"):
        open_model(tmp_path / "run" / "model", "cpu")


def test_classifiers_and_writers_are_told_apart(tmp_path, folder):
    from tests.serving.test_predict import saved

    saved("bert", tmp_path)
    classifier = open_model(tmp_path / "model", "cpu")
    assert isinstance(classifier, Predictor)
    with pytest.raises(UsageError, match="chat is for models that write"):
        needs_writer(classifier, "chat")
    with pytest.raises(ModelError, match="is a classifier"):
        Writer.load(tmp_path / "model", "cpu")
    with pytest.raises(ModelError, match="writes text and knows no labels"):
        Predictor.load(folder / "model", "cpu")
    assert isinstance(open_model(folder / "model", "cpu"), Writer)


def test_the_encoder_is_that_of_training(folder, writer):
    form = recognise(Rows(*QUESTIONS), template=TEMPLATE)
    assert writer.encoder.fingerprint() == encoder(folder, form).fingerprint()
    assert isinstance(writer.encoder, RowEncoder) and writer.encoder.encoder.max_length == 48


def test_an_encoder_decoder_reads_and_writes(tmp_path):
    """Without a format the text is read as its tokenizer has it; the answer is transformers' own."""
    tokenizer = tiny_tokenizers.roberta()
    torch.manual_seed(0)
    model = hf.BartForConditionalGeneration(READERS["bart"]())
    model.resize_token_embeddings(len(tokenizer))
    moved(model, 0.5).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    writer = Writer.load(tmp_path, "cpu")
    prompt = writer.prompt(writer.format.row("the long film")).ids
    assert prompt == tokenizer("the long film")["input_ids"] and writer.kind == "encoder-decoder"
    [said] = writer.predict(["the long film"], writer.sampling(max_new_tokens=5))
    wanted = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=5, num_beams=1,
                            eos_token_id=sorted(writer.encoder.encoder.ends))[0].tolist()  # fmt: skip
    assert wanted[1:] == list(said.ids)


def test_a_model_that_fills_gaps_writes_nothing(tmp_path):
    tokenizer = tiny_tokenizers.bert()
    config = hf.BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                           intermediate_size=32, max_position_embeddings=40)  # fmt: skip
    hf.BertForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    writer = Writer.load(tmp_path, "cpu")
    with pytest.raises(ModelError, match="fills in masked words and writes no text"):
        writer.predict(["the film"])
    rows = tmp_path / "test.jsonl"
    rows.write_text(json.dumps({"text": "the film was good and long " * 12}) + "\n")
    found = score_writing(writer, rows)
    assert (found.rows, found.answered_rows) == (1, 0) and found.metrics == score_writing(writer, rows).metrics
    # Random weights: about as torn as between all words.
    assert found.metrics["perplexity"] == pytest.approx(len(tokenizer), rel=0.3)
