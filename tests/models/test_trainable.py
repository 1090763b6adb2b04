"""What learns: counts, arithmetic, layers, targets; and that choosing changes nothing else."""

from __future__ import annotations

import peft
import pytest
import torch
import transformers as hf

from tests import tiny
from tests.models.made import HEADS, LABELS, PROBE, make
from tunewright.errors import ModelError
from tunewright.models.architectures import ARCHITECTURES
from tunewright.models.forward import Forward
from tunewright.models.heads import head_modules, is_in
from tunewright.models.inference import predict_logits
from tunewright.models.loading import load_base
from tunewright.models.trainable import TrainableSpec, choose, lora_arithmetic
from tunewright.models.trainable import report as count


def test_the_articles_arithmetic():
    assert lora_arithmetic(100, 100, 2) == 400


def test_the_articles_count_on_distilbert():
    """6 x (768·4 + 4·768) + pre_classifier 768·768 + 768 + classifier 768·2 + 2; the article counts its head twice."""
    config = hf.DistilBertConfig(vocab_size=20, num_labels=2)
    model = hf.DistilBertForSequenceClassification(config)
    head = head_modules(model)
    report = choose(model, TrainableSpec("lora", rank=4, alpha=32, dropout=0.01, targets=["q_lin"]), head).report
    assert report.trainable == 6 * lora_arithmetic(768, 768, 4) + 590_592 + 1_538 == 628_994
    assert report.lowest_layer == 0


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_lora_equals_its_base_at_the_start(kind, tmp_path):
    made = make(kind, tmp_path, nudge=False)
    plain = load_base(made.base, LABELS, seed=1, dropout=0.0).model
    expected, found = predict_logits(Forward(plain), PROBE), predict_logits(Forward(made.model), PROBE)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_merged_equals_unmerged(kind, tmp_path):
    made = make(kind, tmp_path)
    before = predict_logits(Forward(made.model), PROBE)
    after = predict_logits(Forward(made.model.merge_and_unload()), PROBE)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


def test_full_trains_everything_and_head_the_head_alone(tmp_path):
    full, head = make("bert", tmp_path, "full").report, make("bert", tmp_path, "head").report
    assert full.trainable == full.total and full.fraction == 1.0 and full.lowest_layer == 0
    assert set(head.names) == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }
    assert head.lowest_layer == 2 and head.total == full.total


DESCRIBED = [kind for kind in tiny.KINDS if kind in ARCHITECTURES]


@pytest.mark.parametrize("kind", DESCRIBED)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_last_layers_only(kind, method, tmp_path):
    report = make(kind, tmp_path, method, last_layers=1).report
    stack = f".{ARCHITECTURES[kind].layers}."
    inside = {int(name.split(stack)[1].split(".")[0]) for name in report.names if stack in name}
    assert inside == {1} and report.lowest_layer == 1
    outside = [name for name in report.names if stack not in name]
    plain = [n.removeprefix("base_model.model.").replace(".modules_to_save.default", "") for n in outside]
    assert plain and all(is_in(name, HEADS[kind]) for name in plain)
    with pytest.raises(ModelError, match="last 5; this model has 2 layers"):
        make(kind, tmp_path, method, last_layers=5)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_last_layers_of_an_undescribed_model_are_refused(method, tmp_path):
    with pytest.raises(ModelError, match="layers of albert aren't described here; use layers: all"):
        make("albert", tmp_path, method, last_layers=1)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_the_lowest_layer_is_never_too_high(kind, tmp_path):
    """Below it the cache would freeze what learns: everything from the embeddings, the layers, or the head alone."""
    lowest = {method: make(kind, tmp_path, method).report.lowest_layer for method in ("full", "lora", "head")}
    assert lowest == {"full": 0, "lora": 0, "head": 2 if kind in DESCRIBED else 0}


def test_a_trained_embedding_is_below_every_layer(tmp_path):
    made = make("bert", tmp_path, "head")
    made.model.bert.embeddings.LayerNorm.weight.requires_grad_(True)
    assert count(made.model).lowest_layer == 0


def test_all_linear_leaves_the_head_alone(tmp_path):
    report = make("bert", tmp_path).report
    adapted = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in report.names if "lora_A" in name}
    assert adapted == {"query", "key", "value", "dense"}
    assert not [name for name in report.names if "pooler" in name and "lora_" in name]


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_peft_saves_the_head_and_nothing_else(kind, tmp_path):
    """`model.norm` must not match `input_layernorm`, in memory or after reloading."""
    made = make(kind, tmp_path)
    assert saved_by_peft(made.model) == HEADS[kind]
    assert all("lora_" in name or ".modules_to_save." in name for name in made.report.names)
    made.model.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(load_base(made.base, LABELS, seed=1).model, tmp_path / "adapter")
    assert saved_by_peft(again) == HEADS[kind]


def saved_by_peft(model):
    names = [name for name, _ in model.named_modules() if name.endswith(".modules_to_save")]
    return tuple(name.removeprefix("base_model.model.").removesuffix(".modules_to_save") for name in names)


def test_unknown_targets_are_named(tmp_path):
    with pytest.raises(ModelError) as caught:
        make("bert", tmp_path, targets=["query", "querry"])
    assert caught.value.line() == (
        'error[model] no linear layer is called "querry"; there are dense, key, query, value. Did you mean "query"?'
    )
    assert caught.value.field == "trainable.targets"
    with pytest.raises(ModelError, match="no linear layer to adapt"):
        make("bert", tmp_path, targets=[])


def test_targets_by_name(tmp_path):
    report = make("bert", tmp_path, targets=["query", "attention.output.dense"], rank=3).report
    assert len([n for n in report.names if "lora_A" in n]) == 4
