"""Texts in, labels out: equal to plain transformers, streamed in order, every column kept, whole files or none."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import tiny
from tests.models.made import make
from tunewright.data.examples import Row
from tunewright.data.labels import LabelSpec
from tunewright.errors import DataError, MachineError, ModelError, UsageError
from tunewright.learning.tensors import trainable_tensors
from tunewright.models.saving import save_model
from tunewright.serving import writing
from tunewright.serving.predict import Prediction, Predictor, predict_file

TEXTS = [row["text"] for row in tiny.sentences(12)]
MULTI = LabelSpec("multi", ("warm", "cold", "long"), ("warm", "cold", "long"))


def saved(kind, folder, method="lora", **spec):
    made = make(kind, folder, method, **spec)
    labels = spec.get("labels", made.loaded.labels)
    save_model(made.model, made.loaded.tokenizer, folder / "model", base=made.base, labels=labels, max_length=12,
               truncate="left")  # fmt: skip
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run's folder with a saved adapter in model/."""
    folder = tmp_path_factory.mktemp("run")
    saved("bert", folder)
    return folder


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor.load(folder / "model", device="cpu")


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- texts ----


@pytest.mark.parametrize(
    ("kind", "method"), [("bert", "lora"), ("roberta", "full"), ("llama", "lora"), ("gpt2", "head")]
)
def test_equals_plain_transformers(kind, method, tmp_path):
    made = saved(kind, tmp_path, method)
    found = Predictor.load(tmp_path / "model", device="cpu").predict(TEXTS)
    tokenizer = made.loaded.tokenizer
    tokenizer.truncation_side = "left"
    for text, said in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, truncation=True, max_length=12, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            shares = made.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.softmax(-1)[0]
        assert said.prediction == made.loaded.labels.names[int(shares.argmax())]
        assert list(said.probabilities) == list(made.loaded.labels.names)
        assert list(said.probabilities.values()) == pytest.approx(shares.tolist(), abs=1e-5)


def test_several_labels_and_numbers(tmp_path):
    saved("bert", tmp_path / "multi", labels=MULTI)
    for said in Predictor.load(tmp_path / "multi" / "model").predict(TEXTS):
        assert said.prediction == [name for name, share in said.probabilities.items() if share >= 0.5]
    saved("bert", tmp_path / "number", labels=LabelSpec("number"))
    said = Predictor.load(tmp_path / "number" / "model").predict(TEXTS[:1])[0]
    assert isinstance(said.prediction, float) and said.probabilities == {}


def test_predictions_as_text():
    assert str(Prediction("good", {"good": 0.987, "bad": 0.013})) == "good 0.99"
    assert str(Prediction(["warm", "long"], {})) == "warm, long"
    assert str(Prediction([], {})) == "none"
    assert str(Prediction(3.14159)) == "3.142"


def test_no_texts(predictor):
    assert predictor.predict([]) == []


def test_a_damaged_model_answers_nothing(tmp_path):
    saved("bert", tmp_path, "full")
    predictor = Predictor.load(tmp_path / "model")
    predictor.model.classifier.bias.data[0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        predictor.predict(TEXTS)


@pytest.mark.parametrize(("kind", "positions"), [("bert", 64), ("roberta", 64)])
def test_never_more_tokens_than_positions(kind, positions, tmp_path):
    """Of a model made elsewhere, whose tokenizer sets no limit."""
    made = make(kind, tmp_path, "full")
    made.model.save_pretrained(tmp_path / "model")
    made.loaded.tokenizer.model_max_length = int(1e30)
    made.loaded.tokenizer.save_pretrained(tmp_path / "model")
    predictor = Predictor.load(tmp_path / "model")
    assert predictor.max_length == positions
    assert predictor.predict(["the film " * 500])


# ---- other states of a run ----


def test_a_checkpoint_and_the_untrained_model(tmp_path):
    made = make("bert", tmp_path, nudge=False)
    head = [n for n, _ in made.loaded.model.named_parameters() if "modules_to_save" in n or "classifier" in n]
    assert head
    plain = {n: p.detach().clone() for n, p in made.model.get_base_model().named_parameters() if "lora" not in n}
    untrained = {
        n.replace("original_module.", ""): p
        for n, p in plain.items()
        if n.startswith(("classifier", "bert.pooler")) and "modules_to_save" not in n
    }
    save_file(untrained, tmp_path / "untrained.safetensors")
    expected = logits(made)
    nudge(made.model, 0.1)
    halfway, weights = logits(made), trainable_tensors(made.model)
    nudge(made.model, 0.1)
    save_model(made.model, made.loaded.tokenizer, tmp_path / "model", base=made.base, labels=made.loaded.labels,
               max_length=12, truncate="left")  # fmt: skip
    (tmp_path / "step").mkdir()
    save_file(weights, tmp_path / "step" / "weights.safetensors")
    summary = {"model": {"path": made.base.path, "hub_id": None, "name": "x", "revision": None}}
    (tmp_path / "run.json").write_text(json.dumps(summary))

    final = shares(Predictor.load(tmp_path / "model"))
    at_step = shares(Predictor.load(tmp_path / "model", weights=tmp_path / "step"))
    before = shares(Predictor.load_untrained(tmp_path))
    np.testing.assert_allclose(at_step, softmax(halfway), atol=1e-5)
    np.testing.assert_allclose(before, softmax(expected), atol=1e-5)
    assert np.abs(final - at_step).max() > 1e-3 and np.abs(final - before).max() > 1e-3
    summary["model"] |= {"path": str(tmp_path / "gone"), "name": str(tmp_path / "gone")}
    (tmp_path / "run.json").write_text(json.dumps(summary))
    with pytest.raises(ModelError, match="its base is not here"):
        Predictor.load_untrained(tmp_path)


def nudge(model, by):
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += by * torch.randn(parameter.shape, generator=generator)


def logits(made):
    ids = [made.loaded.tokenizer(t)["input_ids"] for t in SHORT]
    with torch.no_grad():
        return np.concatenate([made.model(input_ids=torch.tensor([i])).logits.numpy() for i in ids])


def softmax(values):
    return torch.tensor(values).softmax(-1).numpy()


def shares(predictor):
    return np.array([list(said.probabilities.values()) for said in predictor.predict(SHORT)])


SHORT = ["a good film", "the plot was dull", "really"]


# ---- rows ----


def numbered(n):
    return (Row({"id": i, "text": TEXTS[i % len(TEXTS)]}, f"x:{i + 1}", i) for i in range(n))


def test_rows_keep_their_order_and_columns(predictor):
    rows = list(predictor.stream(numbered(50), "text", block=7))
    assert [row["id"] for row in rows] == list(range(50))
    assert list(rows[0]) == ["id", "text", "prediction", "probabilities"]
    for row, said in zip(rows, predictor.predict([row["text"] for row in rows]), strict=True):
        assert row["prediction"] == said.prediction
        assert row["probabilities"] == pytest.approx(said.probabilities, abs=1e-5)


def test_no_more_than_a_block_is_read_ahead(predictor):
    read = []
    answered = predictor.stream((read.append(row.number) or row for row in numbered(10**9)), "text", block=5)
    for _ in range(3):
        next(answered)
    assert len(read) == 5


@pytest.mark.parametrize("text", ["", "  \t", None, "​"])
def test_a_row_without_text(text, predictor):
    with pytest.raises(DataError, match=r"x:2: the text is empty") as caught:
        list(predictor.stream([*numbered(1), Row({"text": text}, "x:2", 1)], "text"))
    assert caught.value.field == "text"


@pytest.mark.parametrize("name", ["prediction", "probabilities"])
def test_a_column_that_the_answer_would_replace(name, predictor):
    with pytest.raises(DataError, match=f'x:1: there is a column "{name}" already'):
        list(predictor.stream([Row({"text": "good", name: 1}, "x:1", 0)], "text"))


# ---- files ----


def test_json_lines(predictor, tmp_path):
    rows = [{"review": text, "n": i, "more": {"a": [1, None]}} for i, text in enumerate(TEXTS)]
    source, target = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "new" / "out.jsonl"
    assert predict_file(predictor, source, target) == len(TEXTS)
    written = read_lines(target)
    assert [{k: row[k] for k in ("review", "n", "more")} for row in written] == rows
    assert written[3]["prediction"] == predictor.predict(TEXTS)[3].prediction
    assert [p.name for p in target.parent.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(("name", "delimiter"), [("out.csv", ","), ("out.tsv", "\t"), ("OUT.CSV.gz", ",")])
def test_tables(name, delimiter, predictor, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text('text,id\n"good, ""bright"" film\nwith music",007\ndull plot,\n')
    assert predict_file(predictor, source, tmp_path / name) == 2
    content = (tmp_path / name).read_bytes()
    words = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    rows = list(csv.DictReader(io.StringIO(words, newline=""), delimiter=delimiter))
    assert [(row["text"], row["id"]) for row in rows] == [
        ('good, "bright" film\nwith music', "007"), ("dull plot", "")
    ]  # fmt: skip
    assert json.loads(rows[0]["probabilities"])[rows[0]["prediction"]] > 1 / 3
    assert words.count("\r") == 0


def test_values_that_json_does_not_have(predictor, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["good", "bad"], "day": [date(2026, 11, 23)] * 2, "x": [float("inf"), 1.5]})
    frame["raw"] = [b"\xff\x00", b""]
    frame.to_parquet(tmp_path / "in.parquet")
    predict_file(predictor, tmp_path / "in.parquet", tmp_path / "out.jsonl", text="text")
    written = read_lines(tmp_path / "out.jsonl")
    assert "Infinity" not in (tmp_path / "out.jsonl").read_text()
    assert [(row["day"], row["x"], row["raw"]) for row in written] == [
        ("2026-11-23", None, "/wA="),
        ("2026-11-23", 1.5, ""),
    ]
    predict_file(predictor, tmp_path / "in.parquet", tmp_path / "out.csv", text="text")
    assert "2026-11-23,1.5," in (tmp_path / "out.csv").read_text()


def test_stdin_to_stdout(predictor, monkeypatch, capsys):
    lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(lines.encode())))
    assert predict_file(predictor, "-", "-") == len(TEXTS)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == list(range(len(TEXTS)))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b'{"text": "good"}\n{"text": ""}\n')))
    with pytest.raises(DataError, match=r"stdin:2: the text is empty"):
        predict_file(predictor, "-", "-")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    with pytest.raises(DataError, match=r"stdin: is empty"):
        predict_file(predictor, "-", "-")


def test_a_terminal_of_another_encoding(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    assert writing.write_rows([{"text": "schön"}], "-") == 1
    assert json.loads(raw.getvalue()) == {"text": "schön"}


def test_an_unknown_column(predictor, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [{"text": "good"}])
    with pytest.raises(DataError, match='Did you mean "text"'):
        predict_file(predictor, source, tmp_path / "out.jsonl", text="txet")


def test_no_half_file(predictor, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [{"text": "good"}] * 300 + [{"text": ""}])
    target = tmp_path / "out.jsonl"
    target.write_text("the one before")
    with pytest.raises(DataError, match=r"in\.jsonl:301"):
        predict_file(predictor, source, target)
    assert target.read_text() == "the one before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_the_target_is_checked_before_any_work(predictor, tmp_path):
    with pytest.raises(UsageError, match=r"out\.txt"):
        predict_file(predictor, tmp_path / "missing.jsonl", tmp_path / "out.txt")
    source = write_lines(tmp_path / "in.jsonl", [{"text": "good"}])
    with pytest.raises(UsageError, match="is the input"):
        predict_file(predictor, source, source)
    assert read_lines(source) == [{"text": "good"}]


def test_a_table_whose_columns_change(tmp_path):
    rows = [{"a": 1, "b": 2}, {"a": 1}, {"a": 1, "c": 3}]
    with pytest.raises(DataError, match=r'row 3 has a column "c".*write \.jsonl'):
        writing.write_rows(rows, tmp_path / "out.csv")
    assert writing.write_rows(rows[:2], tmp_path / "out.csv") == 2
    assert (tmp_path / "out.csv").read_text() == "a,b\n1,2\n1,\n"
    assert writing.write_rows([], tmp_path / "empty.csv") == 0


@pytest.mark.parametrize("name", ["out.txt", "out", "out.parquet", "out.json", "out.gz"])
def test_names_that_say_nothing(name, tmp_path):
    with pytest.raises(UsageError, match="expected a name in"):
        writing.check_target(tmp_path / name, "-")


def test_targets_that_are_taken(tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [{"text": "good"}])
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "same.jsonl").symlink_to(source)
    with pytest.raises(UsageError, match="is the input"):
        writing.check_target(tmp_path / "same.jsonl", source)
    with pytest.raises(UsageError, match="no regular file"):
        writing.check_target(tmp_path / "folder.jsonl", source)
    writing.check_target(tmp_path / "new.jsonl", source)
    with pytest.raises(MachineError, match="can't be written"):
        writing.write_rows([{"a": 1}], source / "out.jsonl")
