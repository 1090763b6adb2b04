"""A policy beside its starting adapter: the reference is the start, bit by bit, and only what is new learns."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tests.models.made import make
from tests.models.made_writers import CAUSAL, make_writer
from tests.models.starts import PROBE, hidden, nudge, save_start, start_policy
from tunewright.data.batching import lay_end_to_end
from tunewright.errors import ModelError
from tunewright.learning.tensors import trainable_tensors
from tunewright.models.boundary import build
from tunewright.models.finding import BaseModel
from tunewright.models.forward import Forward
from tunewright.models.generation import generate
from tunewright.models.language_head import LanguageHead
from tunewright.models.sampling import Sampling
from tunewright.models.starting import Reference, has_start, load_policy, reference_model, reference_of
from tunewright.models.trainable import TrainableSpec, choose, lora_arithmetic
from tunewright.models.writers import probe_logits

# ---- the reference ----


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", CAUSAL)
def test_the_reference_is_the_start_bit_by_bit(kind, precision, tmp_path):
    made = start_policy(kind, tmp_path, last_layers=1)
    start, policy = Forward.checked(made.start.model), made.forward
    start.compute_in(precision)
    policy.compute_in(precision)
    wanted = hidden(start)
    assert torch.equal(hidden(policy), wanted)  # a new adapter adds nothing
    nudge(made.model)
    assert not torch.allclose(hidden(policy), wanted, atol=1e-2)
    with reference_of(made.model):
        assert torch.equal(hidden(policy), wanted)
        with reference_of(made.model):  # nested
            assert torch.equal(hidden(policy), wanted)
        assert torch.equal(hidden(policy), wanted)
    assert not torch.allclose(hidden(policy), wanted, atol=1e-2)


def test_a_plain_adapter_s_reference_is_its_base(tmp_path):
    made = make_writer("llama", tmp_path)
    forward = Forward.checked(made.model)
    with made.model.disable_adapter():
        wanted = hidden(forward)
    with reference_of(made.model):
        assert torch.equal(hidden(forward), wanted)
    assert not torch.equal(hidden(forward), wanted)


def test_a_head_that_learns_whole_is_off_too(tmp_path):
    made = make("bert", tmp_path)
    texts = lay_end_to_end(PROBE, "cpu")
    forward = Forward.checked(made.model)
    with torch.no_grad(), made.model.disable_adapter():
        wanted = forward.logits(texts)
    with torch.no_grad(), reference_of(made.model):
        assert torch.equal(forward.logits(texts), wanted)
    assert {n for n, p in made.model.named_parameters() if p.requires_grad} == set(made.report.names)


def test_what_learns_is_the_same_afterwards(tmp_path):
    made = start_policy("llama", tmp_path)
    with reference_of(made.model):
        assert not any(p.requires_grad for p in made.model.parameters())
    with pytest.raises(KeyError), reference_of(made.model):
        raise KeyError
    with made.model.disable_adapter():  # PEFT's own would make the start learn
        pass
    learns = {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert learns == set(made.report.names) and all(".default." in name for name in learns)
    assert trainable_tensors(made.model).keys() == learns


@pytest.mark.parametrize("method", ["full", "lora"])
def test_reference_object(method, tmp_path):
    made = make_writer("llama", tmp_path, method)
    policy = Forward.checked(made.model)
    reference = Reference.of(policy)
    copied = reference_model(made.model)
    if method == "full":
        wanted = hidden(policy)
    else:
        with made.model.disable_adapter():
            wanted = hidden(policy)
    nudge(made.model)
    with reference.running() as forward:
        assert torch.equal(hidden(forward), wanted)
        assert not any(p.requires_grad for p in forward.model.parameters())
    assert not torch.equal(hidden(policy), wanted)
    assert not copied.training and not any(p.requires_grad for p in copied.parameters())


def test_a_copy_computes_as_the_policy_does(tmp_path):
    policy = Forward.checked(make_writer("llama", tmp_path, "full").model)
    policy.compute_in("bf16")
    with Reference.of(policy).running() as forward:
        assert forward.precision == "bf16" and torch.equal(hidden(forward), hidden(policy))


def test_a_model_that_learns_whole_holds_no_reference(tmp_path):
    made = make_writer("llama", tmp_path, "full")
    with pytest.raises(AssertionError), reference_of(made.model):
        pass


# ---- what learns ----


@pytest.mark.parametrize("kind", CAUSAL)
def test_gradients_reach_the_new_adapter_alone(kind, tmp_path):
    made = start_policy(kind, tmp_path)
    nudge(made.model)
    made.forward.hidden(lay_end_to_end(PROBE, "cpu")).sum().backward()
    for name, parameter in made.model.named_parameters():
        assert (parameter.grad is not None) == (".default." in name), name
    assert made.report.trainable == sum(p.numel() for n, p in made.model.named_parameters() if ".default." in n)
    assert made.report.total == sum(p.numel() for p in made.model.parameters())


def test_the_report_by_arithmetic(tmp_path):
    made = start_policy("llama", tmp_path, targets=["q_proj", "o_proj"], last_layers=1)
    assert made.report.trainable == 2 * lora_arithmetic(32, 32, 2) and made.report.lowest_layer == 1


def test_targets_are_the_plain_layers(tmp_path):
    """Neither an adapter's matrices nor what lies beneath it, and layers that the start left alone too."""
    made = start_policy("llama", tmp_path, tuned={"targets": ["v_proj"], "last_layers": 1})
    names = made.model.peft_config["default"].target_modules
    plain = make_writer("llama", tmp_path, nudge=False).model.peft_config["default"].target_modules
    assert set(names) == set(plain)
    assert torch.equal(hidden(made.forward), hidden(Forward(made.start.model)))
    with pytest.raises(ModelError, match="lm_head"):
        choose(made.loaded.model, TrainableSpec("lora", targets=["lm_head"]), ())


def test_the_start_answers_without_its_dropout(tmp_path):
    made = start_policy("llama", tmp_path, tuned={"dropout": 0.5})
    wanted = hidden(made.forward)
    made.model.train()
    assert torch.equal(hidden(made.forward), wanted)


def test_bf16_rounds_the_base_alone(tmp_path):
    made = start_policy("llama", tmp_path)
    made.forward.compute_in("bf16")
    kinds = {name: p.dtype for name, p in made.model.named_parameters() if p.ndim > 1}
    assert {kinds[name] for name in kinds if "lora_" in name} == {torch.float32}
    assert {kinds[name] for name in kinds if "lora_" not in name} == {torch.bfloat16}


# ---- everything else works with two ----


@pytest.mark.parametrize("kind", CAUSAL)
def test_generation(kind, tmp_path):
    """Token by token with cached keys, as the forward says: greedy words are the likeliest of whole texts."""
    made = start_policy(kind, tmp_path)
    nudge(made.model, 0.3)
    prompts = [list(ids) for ids in PROBE]
    written = generate(made.model, prompts, Sampling(max_new_tokens=4))
    for prompt, one in zip(prompts, written, strict=True):
        for step, token in enumerate(one.ids):
            logits = probe_logits(made.forward, [[*prompt, *one.ids[:step]]])[0]
            assert int(logits.argmax()) == token
    with reference_of(made.model):
        started = generate(made.model, prompts, Sampling(max_new_tokens=4))
    assert started == generate(made.start.model, prompts, Sampling(max_new_tokens=4))
    assert [one.ids for one in started] != [one.ids for one in written]


def test_language_head(tmp_path):
    made = start_policy("gemma3", tmp_path)
    own = made.model.get_base_model().get_output_embeddings().weight
    assert LanguageHead.of(made.model).weight is own
    with reference_of(made.model):
        assert LanguageHead.of(made.model).weight is own


def test_boundary_cache(tmp_path):
    """The frozen layers below, start included, run once."""

    class Texts:
        labels, rows = np.zeros((len(PROBE), 0), np.float32), np.arange(len(PROBE))

        def tokens(self, index):
            return np.array(PROBE[index])

    made = start_policy("llama", tmp_path, last_layers=1)
    nudge(made.model)
    lengths = np.array([len(ids) for ids in PROBE])
    cache = build(made.forward, Texts(), lengths, made.report.lowest_layer, tmp_path / "states.npy")
    texts = lay_end_to_end(PROBE, "cpu")
    with torch.no_grad():
        from_cache = made.forward.hidden(texts, cache.boundary(np.arange(len(PROBE))))
    torch.testing.assert_close(from_cache, hidden(made.forward), rtol=1e-5, atol=1e-5)


# ---- what can't stay beside another ----


def _as_foreign(folder, **changes):
    """The same adapter, its config changed as another tool might have written it."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _dora(folder):
    """DoRA, with magnitudes that say something."""
    tensors = load_file(folder / "adapter_model.safetensors")
    for name in [n for n in tensors if "lora_A" in n]:
        out = tensors[name.replace("lora_A", "lora_B")].shape[0]
        tensors[name.replace("lora_A.weight", "lora_magnitude_vector")] = torch.linspace(0.5, 1.5, out)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _as_foreign(folder, use_dora=True)


def test_other_adapters_are_merged_and_that_is_said(tmp_path):
    source = save_start(make_writer("llama", tmp_path, rank=4), tmp_path / "sft")
    _dora(tmp_path / "sft")
    loaded = load_policy(source, seed=1, dropout=0.0, beside=True)
    assert not hasattr(loaded.model, "peft_config")
    assert loaded.said[-1] == (
        "the starting adapter uses use_dora, so it is merged into its base, and a new one learns on top"
    )
    chosen = choose(loaded.model, TrainableSpec("lora"), ())
    assert not has_start(chosen.model) and chosen.report.trainable


def test_an_adapter_on_the_head_is_merged(tmp_path):
    """The head is read as one weight; an adapter on it would not be seen."""
    made = make_writer("llama", tmp_path, "full", nudge=False)
    model = get_peft_model(made.model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["lm_head", "q_proj"]))
    for name, parameter in model.named_parameters():
        parameter.data += 0.1 if "lora_B" in name else 0.0
    model.save_pretrained(tmp_path / "sft", save_embedding_layers=False)
    made.loaded.tokenizer.save_pretrained(tmp_path / "sft")
    _as_foreign(tmp_path / "sft", base_model_name_or_path=made.base.path)
    loaded = load_policy(BaseModel("sft", str(tmp_path / "sft"), "folder"), seed=1, dropout=0.0, beside=True)
    assert "adapts the head, so it is merged" in loaded.said[-1] and not hasattr(loaded.model, "peft_config")
    ids = torch.tensor([PROBE[1]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model.eval()(ids).logits, model.eval()(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bias": "all"}, "trains biases"),
        ({"init_lora_weights": "pissa"}, "changes weights of the base"),
        ({"lora_bias": True}, "uses lora_bias"),
        ({"from_the_future": [1]}, "uses from_the_future"),
        ({"peft_type": "IA3"}, "is of the kind IA3"),
        ({"modules_to_save": ["norm"]}, "uses modules_to_save"),
    ],
)
def test_why_an_adapter_is_merged(changes, reason, tmp_path):
    from tunewright.models.starting import _more_than_lora

    save_start(make_writer("llama", tmp_path, rank=4), tmp_path / "sft")
    assert _more_than_lora(tmp_path / "sft") is None
    _as_foreign(tmp_path / "sft", **changes)
    assert _more_than_lora(tmp_path / "sft") == reason


def test_without_an_adapter_or_without_need_it_is_loaded_as_ever(tmp_path):
    made = make_writer("llama", tmp_path)
    plain = load_policy(made.base, seed=1, dropout=0.0, beside=True)
    source = save_start(made, tmp_path / "sft")
    merged = load_policy(source, seed=1, dropout=0.0, beside=False)
    assert not has_start(plain.model) and not has_start(merged.model)
    wanted = hidden(Forward(made.model))
    torch.testing.assert_close(hidden(Forward(merged.model.eval())), wanted, rtol=1e-5, atol=1e-5)


def test_a_merged_start_answers_as_the_active_one(tmp_path):
    made = start_policy("gemma3", tmp_path)
    merged = load_policy(made.source, seed=1, dropout=0.0, beside=False).model.eval()
    torch.testing.assert_close(hidden(Forward(merged)), hidden(made.forward), rtol=1e-5, atol=1e-5)


def test_a_classifier_s_adapter_is_refused(tmp_path):
    made = make("llama", tmp_path)
    from tests.models.made import LABELS
    from tunewright.models.saving import save_model

    save_model(made.model, made.loaded.tokenizer, tmp_path / "c", base=made.base, labels=LABELS, max_length=32,
               truncate="left")  # fmt: skip
    with pytest.raises(ModelError, match="belongs to a classifier"):
        load_policy(BaseModel("run:c", str(tmp_path / "c"), "run"), seed=1, dropout=0.0, beside=True)
