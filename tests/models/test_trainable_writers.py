"""What learns in a language model: counts, layers, targets, and a head that is no longer the embedding."""

from __future__ import annotations

import peft
import pytest
import torch

from tests.models import configs
from tests.models.made import PROBE
from tests.models.made_writers import KINDS, MASKED, TIED, make_writer, save_writer
from tunewright.errors import ModelError
from tunewright.models.architectures import ARCHITECTURES
from tunewright.models.finding import resolve_base
from tunewright.models.forward import Forward
from tunewright.models.trainable import TrainableSpec, choose
from tunewright.models.writers import load_writer, probe_logits

ALONE = [kind for kind in KINDS if kind not in ("t5", "bart")]


def loaded(kind, folder):
    return load_writer(resolve_base(str(save_writer(kind, folder / "base"))), None, seed=0, dropout=0.0).model


@pytest.mark.parametrize("kind", KINDS)
def test_lora_equals_its_base_at_the_start(kind, tmp_path):
    expected = probe_logits(Forward(loaded(kind, tmp_path)), PROBE)
    found = probe_logits(Forward(make_writer(kind, tmp_path, nudge=False).model), PROBE)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_all_linear_is_every_linear_layer_but_the_output(kind, tmp_path):
    made = make_writer(kind, tmp_path)
    adapted = {name.rpartition(".lora_")[0] for name in made.report.names}
    inner = made.model.get_base_model()
    assert adapted and all(".layer" in name or ".h." in name or ".block." in name for name in adapted)
    assert not [n for n in adapted if n.endswith(("lm_head", "decoder.weight", "vocab_projector"))]
    assert not isinstance(inner.get_output_embeddings(), peft.tuners.lora.LoraLayer)
    assert made.model.peft_config["default"].modules_to_save is None
    assert all("lora_" in name for name in made.report.names)
    assert made.report.lowest_layer == 0 and 0 < made.report.trainable < made.report.total


@pytest.mark.parametrize("kind", KINDS)
def test_full_is_everything(kind, tmp_path):
    report = make_writer(kind, tmp_path, "full").report
    assert report.fraction == 1.0 and report.lowest_layer == 0


@pytest.mark.parametrize("kind", ALONE)
def test_the_head_learns_alone(kind, tmp_path):
    """A tied one gets its own copy of the embedding: the same words at first, and then the embedding stays."""
    model = loaded(kind, tmp_path)
    before = probe_logits(Forward(model), PROBE)
    embedding = model.get_input_embeddings().weight
    kept = embedding.detach().clone()
    chosen = choose(model, TrainableSpec("head"), ())
    output = model.get_output_embeddings()
    torch.testing.assert_close(probe_logits(Forward(model), PROBE), before, atol=1e-5, rtol=1e-5)
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learns == set(chosen.report.names) and len(learns) == len(list(output.parameters()))
    assert chosen.report.trainable == sum(p.numel() for p in output.parameters())
    assert chosen.report.lowest_layer == (2 if kind in ARCHITECTURES or kind == "gemma3" else 0)
    if kind in TIED:
        assert model.config.tie_word_embeddings is False and not embedding.requires_grad
        size = embedding.numel()
        assert chosen.said == (
            "head: the output layer gets its own copy of the embedding and learns alone; the saved model grows by "
            f"{size:,} parameters (0 MB)",
        )
    else:
        assert chosen.said == ()
    output.weight.data += 1
    assert torch.equal(embedding, kept)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_head_that_is_the_embedding_of_two_stacks_is_refused(kind, tmp_path):
    with pytest.raises(ModelError, match="which learns with the layers; use lora or full") as caught:
        choose(loaded(kind, tmp_path), TrainableSpec("head"), ())
    assert caught.value.field == "trainable.method"


@pytest.mark.parametrize("kind", [kind for kind in ALONE if kind in (*ARCHITECTURES, "gemma3")])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_last_layers_only(method, kind, tmp_path):
    made = make_writer(kind, tmp_path, method, last_layers=1)
    inner = made.model.get_base_model() if method == "lora" else made.model
    stack = f".{ARCHITECTURES[inner.config.model_type].layers}.1."
    assert made.report.names and all(stack in name for name in made.report.names)
    assert made.report.lowest_layer == 1
    with pytest.raises(ModelError, match="last 5; this model has 2 layers"):
        make_writer(kind, tmp_path, method, last_layers=5)


def test_the_output_is_no_target(tmp_path):
    """Our head reads its weight, so an adapter there would do nothing; and in a tied model it is the embedding."""
    with pytest.raises(ModelError, match='"lm_head" gives the words and takes no adapter; method head trains it'):
        make_writer("llama", tmp_path, targets=["q_proj", "lm_head"])


@pytest.mark.parametrize("kind", MASKED)
def test_a_new_head_for_gaps_learns_beside_adapters(kind, tmp_path):
    from tests import tiny

    tiny.save(kind, tmp_path / f"base-{kind}")
    made = make_writer(kind, tmp_path)
    whole = [name for name in made.report.names if "lora_" not in name]
    assert whole and all(".modules_to_save.default." in name for name in whole)


@pytest.mark.parametrize("kind", configs.WRITERS)
def test_the_frozen_part_gets_no_gradient(kind):
    """Of a head that was untied, only the copy moves."""
    from tunewright.data.batching import lay_end_to_end
    from tunewright.models.language_head import LanguageHead, target_loss_sum

    model = configs.build_writer(kind)
    choose(model, TrainableSpec("head"), ())
    forward = Forward(model)
    hidden = forward.hidden(lay_end_to_end(PROBE))
    target_loss_sum(hidden, LanguageHead.of(model), torch.arange(len(hidden)) % 7).backward()
    with_gradient = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert with_gradient == ["lm_head.weight"]
