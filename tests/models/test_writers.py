"""Language models: loaded as what they are, saved as what plain transformers and PEFT load, with the same logits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.models.made import LABELS, PROBE, make
from tests.models.made_writers import AUTO, CAUSAL, KINDS, MASKED, make_writer, save_writer
from tests.models.test_loading import _config as change_config
from tests.models.test_loading import plain_peft
from tunewright.errors import ModelError
from tunewright.models.finding import resolve_base
from tunewright.models.forward import Forward
from tunewright.models.loading import load_base, load_saved
from tunewright.models.saving import save_model, verify_saved
from tunewright.models.writers import kind_of, kind_of_model, load_writer, new_modules, probe_logits

METHODS = ("full", "head", "lora")
CASES = [(kind, method) for kind in KINDS for method in METHODS if (KINDS[kind], method) != ("encoder-decoder", "head")]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"

PLAIN = """
import json, sys, torch
import transformers
from peft import PeftModel
probe = json.loads(sys.argv[1])
out = {}
for folder, base, auto, reads in json.loads(sys.argv[2]):
    model = getattr(transformers, auto).from_pretrained(base or folder)
    if base:
        model = PeftModel.from_pretrained(model, folder)
    model.eval()
    with torch.no_grad():
        rows = [torch.tensor([row]) for row in probe]
        out[folder] = [
            model(input_ids=row, **({"decoder_input_ids": row} if reads else {})).logits[0, -1].tolist() for row in rows
        ]
print(json.dumps(out))
"""


def saved(made, folder):
    return save_model(
        made.model, made.loaded.tokenizer, folder, base=made.base, labels=None, max_length=32, truncate="left"
    )


def test_every_kind_and_method_in_a_fresh_process(tmp_path):
    """An adapter in plain PEFT on its base, a whole model in plain transformers: neither has heard of us."""
    wanted, jobs = {}, []
    for kind, method in CASES:
        made, folder = make_writer(kind, tmp_path, method), tmp_path / f"{kind}-{method}"
        saved(made, folder)
        verify_saved(Forward(made.model), folder, PROBE)
        wanted[str(folder)] = probe_logits(Forward(made.model), PROBE)
        base = made.base.path if method == "lora" else None
        jobs.append([str(folder), base, AUTO[KINDS[kind]].__name__, KINDS[kind] == "encoder-decoder"])
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, json.dumps(PROBE), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    for folder, logits in json.loads(done.stdout.strip().split("\n")[-1]).items():
        np.testing.assert_allclose(logits, wanted[folder], atol=2e-5, err_msg=folder)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_found_to_be_what_it_is(kind, tmp_path):
    made = make_writer(kind, tmp_path)
    saved(made, tmp_path / "model")
    assert made.loaded.kind == kind_of_model(made.model) == KINDS[kind]
    assert kind_of(Path(made.base.path)) == kind_of(tmp_path / "model") == KINDS[kind]
    loaded = load_saved(tmp_path / "model")
    assert loaded.labels is None and loaded.kind == KINDS[kind]
    assert (loaded.max_length, loaded.truncate) == (32, "left") and loaded.tokenizer.pad_token_id is not None
    task = {"causal": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM", "masked": None}[KINDS[kind]]
    assert json.loads((tmp_path / "model" / "adapter_config.json").read_text())["task_type"] == task
    assert loaded.new_parameters == frozenset() and loaded.model.config._attn_implementation == "sdpa"
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_equals_unmerged(kind, tmp_path):
    made = make_writer(kind, tmp_path)
    before = probe_logits(Forward(made.model), PROBE)
    after = probe_logits(Forward(made.model.merge_and_unload()), PROBE)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
def test_an_adapter_as_base_is_merged(kind, tmp_path):
    made = make_writer(kind, tmp_path)
    saved(made, tmp_path / "model")
    again = load_writer(resolve_base(str(tmp_path / "model")), KINDS[kind], seed=5)
    assert not hasattr(again.model, "peft_config") and again.kind == KINDS[kind]
    found = probe_logits(Forward(again.model), PROBE)
    torch.testing.assert_close(found, probe_logits(Forward(made.model), PROBE), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gemma", "bert"])
def test_what_a_writer_learnt_serves_a_classifier(kind, tmp_path):
    """Learn from plain text first, then classify: the body is the tuned one, the head is new."""
    made = make_writer(kind, tmp_path)
    saved(made, tmp_path / "model")
    loaded = load_base(resolve_base(str(tmp_path / "model")), LABELS, seed=1)
    assert loaded.labels == LABELS and loaded.new_parameters
    prefix = f"{loaded.model.base_model_prefix}."
    merged = dict(made.model.merge_and_unload().named_parameters())
    body = {n: p for n, p in loaded.model.named_parameters() if n.startswith(prefix) and n not in loaded.new_parameters}
    assert body and all(torch.allclose(p, merged[n], atol=1e-6) for n, p in body.items())


# ---- what can't be a base of this kind ----


def test_a_bare_encoder_gets_a_head_for_masked_words(tmp_path):
    base = resolve_base(str(tiny.save("bert", tmp_path)))
    first, second = (load_writer(base, "masked", seed=seed) for seed in (0, 0))
    assert new_modules(first.model, first.new_parameters) == (
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.transform.dense",
    )
    (said,) = first.said
    assert said.startswith("the base brings no head for masked words: cls.predictions.transform.LayerNorm, cls.")
    weight = "cls.predictions.transform.dense.weight"
    assert torch.equal(first.model.get_parameter(weight), second.model.get_parameter(weight))  # the seed decides
    assert first.model.get_output_embeddings().weight is first.model.get_input_embeddings().weight
    assert load_writer(base, None, seed=0).kind == "masked"


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.parametrize("method", METHODS)
def test_a_new_masked_head_is_saved_with_what_learnt(method, kind, tmp_path):
    """Its new layers learn beside an adapter too, and come back as they were."""
    tiny.save(kind, tmp_path / f"base-{kind}")
    made = make_writer(kind, tmp_path, method)
    assert made.loaded.new_parameters
    saved(made, tmp_path / "model")
    verify_saved(Forward(made.model), tmp_path / "model", PROBE)


def test_an_adapter_without_the_new_head_it_needs(tmp_path):
    tiny.save("bert", tmp_path / "base-bert")
    made = make_writer("bert", tmp_path)
    saved(made, tmp_path / "model")
    path = tmp_path / "model" / "adapter_model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if "cls" not in n}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no head for masked words: cls\.predictions\.transform"):
        load_saved(tmp_path / "model")


REFUSED = {
    "an encoder for writing": ("bert", "causal", "a bert model reads in both directions and fills gaps; this task"),
    "a decoder for gaps": (
        "llama",
        "masked",
        "a llama model writes from left to right; this task needs one that reads",
    ),
    "a decoder for pairs": ("gpt2", "encoder-decoder", "a gpt2 model writes from left to right"),
    "an encoder and a decoder for writing on": ("bart", "causal", "a bart model reads a text with an encoder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_base_of_another_kind(name, tmp_path):
    kind, wanted, words = REFUSED[name]
    base = resolve_base(str(save_writer(kind, tmp_path / "base")))
    with pytest.raises(ModelError, match=words) as caught:
        load_writer(base, wanted, seed=0)
    assert caught.value.field == "model" and "\n" not in caught.value.line()


def test_bases_that_can_not_write(tmp_path):
    with pytest.raises(ModelError, match=r"lm_head\.weight isn't in the weights: this llama model was never taught"):
        load_writer(resolve_base(str(tiny.save("llama", tmp_path / "bare"))), None, seed=0)
    no_mask = save_writer("bert", tmp_path / "no mask")
    change_config("tokenizer_config.json", mask_token=None)(no_mask)
    with pytest.raises(ModelError, match="no mask token"):
        load_writer(resolve_base(str(no_mask)), None, seed=0)
    made = make("llama", tmp_path)
    save_model(made.model, made.loaded.tokenizer, tmp_path / "classifier", base=made.base, labels=LABELS, max_length=32,
               truncate="left")  # fmt: skip
    assert kind_of(tmp_path / "classifier") is None
    with pytest.raises(ModelError, match="this adapter belongs to a classifier"):
        load_writer(resolve_base(str(tmp_path / "classifier")), "causal", seed=0)
    hf.ViTConfig(architectures=["ViTModel"]).save_pretrained(tmp_path / "vit")
    with pytest.raises(ModelError, match="a vit model has no head for words"):
        load_writer(resolve_base(str(tmp_path / "vit")), None, seed=0)


@pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
def test_a_strangers_folder_is_scanned_first(kind, tmp_path):
    folder = save_writer(kind, tmp_path / "base")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for load in (load_saved, lambda path: load_writer(resolve_base(str(path)), None, seed=0)):
        with pytest.raises(ModelError, match="a pickle can run code"):
            load(folder)


def test_a_config_never_chooses_its_own_code(tmp_path):
    folder = save_writer("llama", tmp_path / "base")
    change_config(attn_implementation="eager", _attn_implementation="flash_attention_2")(folder)
    assert load_saved(folder).model.config._attn_implementation == "sdpa"
    change_config(model_type="own", auto_map={"AutoConfig": "own.Config"})(folder)
    with pytest.raises(ModelError, match="brings its own Python code, which is never run here"):
        load_saved(folder)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_an_adapter_of_plain_peft(kind, tmp_path):
    """A stranger's folder has no config.json and no tokenizer of its own."""
    base = save_writer(kind, tmp_path / "base")
    target, task = {"llama": ("q_proj", "CAUSAL_LM"), "t5": ("q", "SEQ_2_SEQ_LM")}[kind]
    trained = plain_peft(
        tmp_path / "adapter",
        AUTO[KINDS[kind]].from_pretrained(base),
        peft.LoraConfig(task_type=task, target_modules=[target]),
    )
    loaded = load_saved(tmp_path / "adapter")
    assert loaded.kind == KINDS[kind] and loaded.labels is None
    found = probe_logits(Forward(loaded.model), PROBE)
    torch.testing.assert_close(found, probe_logits(Forward(trained), PROBE), atol=1e-5, rtol=1e-4)


def test_dropout_is_the_one_that_was_asked_for(tmp_path):
    folder = save_writer("gpt2", tmp_path / "base")
    rates = {d: load_writer(resolve_base(str(folder)), None, seed=0, dropout=d).model.config for d in (None, 0.0, 0.3)}
    assert [config.resid_pdrop for config in rates.values()] == [0.1, 0.0, 0.3]


@pytest.mark.parametrize(
    "tokens, serves",
    [
        ({}, "<unk>"),
        ({"unk_token": None}, "<bos>"),
        ({"unk_token": None, "bos_token": None}, "<eos>"),
        ({"additional_special_tokens": ["<|pad|>"]}, "<unk>"),  # no row of the embedding is its own
        ({"additional_special_tokens": ["<|pad|>"], "rows": 32}, "<|pad|>"),
    ],
)
def test_an_end_that_is_learnt_is_the_last_choice_for_padding(tokens, serves, tmp_path):
    folder = save_writer("llama", tmp_path / "base")
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    if "rows" in tokens:
        model = hf.AutoModelForCausalLM.from_pretrained(folder)
        model.resize_token_embeddings(tokens["rows"])
        model.save_pretrained(folder)
    for name, value in tokens.items():
        if name == "additional_special_tokens":
            tokenizer.add_special_tokens({name: value})
        elif name != "rows":
            setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    loaded = load_writer(resolve_base(str(folder)), None, seed=0)
    assert loaded.tokenizer.pad_token == serves and loaded.needs_pad_token
    assert loaded.said == (f"no pad token: {serves!r} serves, with masks from lengths",)
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id is not None


def test_a_tokenizer_of_another_model_beside_an_adapter(tmp_path):
    saved(make_writer("llama", tmp_path), tmp_path / "model")
    body = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    body["model"]["vocab"]["another"] = len(body["model"]["vocab"])
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(body))
    with pytest.raises(ModelError, match="they aren't of the same model"):
        load_saved(tmp_path / "model")


# ---- what was saved ----


@pytest.mark.parametrize("kind, method", [("llama", "full"), ("gemma", "head"), ("gemma3", "lora"), ("bert", "full")])
def test_tampered_weights_are_refused(kind, method, tmp_path):
    made = make_writer(kind, tmp_path, method)
    saved(made, tmp_path / "model")
    (path,) = (tmp_path / "model").glob("*.safetensors")
    tensors = load_file(path)
    name = next(n for n, t in tensors.items() if t.ndim > 1 and (method != "head" or "lm_head" in n))
    noise = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
    save_file({**tensors, name: tensors[name] + noise}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="answers differently"):
        verify_saved(Forward(made.model), tmp_path / "model", PROBE)


def test_a_dead_adapter_is_refused(tmp_path):
    made = make_writer("llama", tmp_path)
    for name, parameter in made.model.named_parameters():
        if "lora_A" in name:
            parameter.data.zero_()
    saved(made, tmp_path / "model")
    with pytest.raises(ModelError, match="it is dead"):
        verify_saved(Forward(made.model), tmp_path / "model", PROBE)


@pytest.mark.parametrize("method", METHODS)
def test_chat_template_and_generation_config_are_kept(method, tmp_path):
    base = save_writer("gemma", tmp_path / "base-gemma")
    (base / "chat_template.jinja").write_text(TEMPLATE)
    change_config("generation_config.json", temperature=0.6, top_p=0.9, do_sample=False)(base)
    made = make_writer("gemma", tmp_path, method)
    saved(made, tmp_path / "model")
    loaded = load_saved(tmp_path / "model")
    assert loaded.tokenizer.chat_template == TEMPLATE
    assert (tmp_path / "model" / "chat_template.jinja").read_text() == TEMPLATE
    settings = loaded.model.generation_config
    assert (settings.temperature, settings.top_p) == (0.6, 0.9)


@pytest.mark.parametrize("kind", CAUSAL)
def test_bf16_beside_an_adapter_rounds_what_is_frozen_and_little_else(kind, tmp_path):
    """The tied embedding is rounded too; norms and the turning of positions keep fp32."""
    exact, rounded = (Forward(make_writer(kind, tmp_path).model) for _ in range(2))
    rounded.compute_in("bf16")
    expected, found = probe_logits(exact, PROBE), probe_logits(rounded, PROBE)
    assert 0 < np.abs(expected - found).max() < 0.05 * np.abs(expected).max()
    for name, parameter in rounded.model.named_parameters():
        assert parameter.dtype == (torch.bfloat16 if parameter.ndim > 1 and "lora_" not in name else torch.float32), (
            name
        )
    assert {b.dtype for n, b in rounded.model.named_buffers() if "inv_freq" in n} <= {torch.float32}
    output = rounded.inner.get_output_embeddings()
    assert (output.weight is rounded.inner.get_input_embeddings().weight) == (kind != "llama")
    saved(make_writer(kind, tmp_path), tmp_path / "model")
    verify_saved(rounded, tmp_path / "model", PROBE)


def test_a_base_that_is_gone_is_said(tmp_path):
    made = make_writer("llama", tmp_path)
    saved(made, tmp_path / "model")
    shutil.rmtree(made.base.path)
    with pytest.raises(ModelError, match=r"its base model .* is gone"):
        load_saved(tmp_path / "model")
