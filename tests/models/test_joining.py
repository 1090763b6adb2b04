"""Two adapters saved as one: plain PEFT loads it on the original base, and it answers as both did."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.made_writers import CAUSAL, make_writer
from tests.models.starts import PROBE, hidden, nudge, start_policy
from tunewright.errors import ModelError
from tunewright.learning.tensors import trainable_tensors
from tunewright.models.finding import BaseModel
from tunewright.models.forward import Forward
from tunewright.models.joining import check_joined, joined_config, joined_tensors, load_learnt
from tunewright.models.loading import load_saved
from tunewright.models.saving import save_model, verify_saved
from tunewright.models.starting import load_policy, reference_of
from tunewright.models.trainable import TrainableSpec, choose
from tunewright.models.writers import probe_logits

PLAIN = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
out = {}
for folder, base in json.loads(sys.argv[2]):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    with torch.no_grad():
        out[folder] = [model(torch.tensor([ids])).logits[0, -1].tolist() for ids in json.loads(sys.argv[1])]
print(json.dumps(out))
"""


def save(made, folder):
    return save_model(
        made.model, made.loaded.tokenizer, folder, base=made.source, labels=None, max_length=32, truncate="left"
    )


# Same layers; more in the start; more in the new one; scales that differ, and one that binary fractions can't say.
SPECS = {
    "same": ({}, {}),
    "fewer": ({}, {"last_layers": 1}),
    "more": ({"targets": ["q_proj", "v_proj"], "rank": 2, "alpha": 3.0}, {"rank": 4, "alpha": 0.7}),
}


def test_plain_peft_answers_the_same(tmp_path):
    wanted, jobs = {}, []
    for kind in CAUSAL:
        for name, (tuned, spec) in SPECS.items():
            if kind == "gpt2" and "targets" in tuned:
                tuned = {**tuned, "targets": ["c_attn"]}
            made = start_policy(kind, tmp_path / f"{kind}-{name}", tuned=tuned, **spec)
            nudge(made.model)
            folder = tmp_path / f"joined-{kind}-{name}"
            save(made, folder)
            verify_saved(made.forward, folder, PROBE)
            wanted[str(folder)] = torch.tensor(probe_logits(made.forward, PROBE))
            jobs.append((str(folder), made.start.base.path))
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, json.dumps(PROBE), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().split("\n")[-1])
    for folder, logits in wanted.items():
        torch.testing.assert_close(torch.tensor(found[folder]), logits, rtol=1e-5, atol=1e-5, msg=folder)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_change_of_every_weight_is_the_sum(kind, tmp_path):
    """s·B·A of the file is s₁·B₁A₁ + s₂·B₂A₂ to rounding: by arithmetic, without a forward."""
    made = start_policy(kind, tmp_path, tuned={"rank": 3, "alpha": 1.0}, rank=5, alpha=3.0)
    nudge(made.model)
    tensors, config = joined_tensors(made.model), joined_config(made.model)
    layers = {n: m for n, m in made.model.get_base_model().named_modules() if hasattr(m, "lora_A")}
    assert len(tensors) == 2 * len(layers) and set(config.target_modules) == set(layers)
    for name, layer in layers.items():
        down, up = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        scale = config.alpha_pattern.get(name, config.lora_alpha) / config.rank_pattern.get(name, config.r)
        sums = [layer.scaling[a] * layer.lora_B[a].weight @ layer.lora_A[a].weight for a in ("start", "default")]
        torch.testing.assert_close(scale * up @ down, sum(sums), rtol=1e-6, atol=1e-6)


def test_the_config(tmp_path):
    made = start_policy("llama", tmp_path, rank=2, alpha=4.0, last_layers=1)  # beside rank 4, scale 2, on both layers
    config = joined_config(made.model)
    assert (config.r, config.lora_alpha) == (4, 8)
    assert set(config.rank_pattern.values()) == {6} and set(config.alpha_pattern.values()) == {12}
    assert config.rank_pattern.keys() == config.alpha_pattern.keys()
    assert all(name.startswith("model.layers.1.") for name in config.rank_pattern)
    assert config.base_model_name_or_path == made.start.base.path and not config.use_rslora


def test_both_parts_are_kept_bit_by_bit_where_scales_agree(tmp_path):
    made = start_policy("llama", tmp_path, rank=2, alpha=4.0)
    nudge(made.model)
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors, layer = joined_tensors(made.model), made.model.get_submodule(name)
    assert torch.equal(tensors[f"{name}.lora_A.weight"][4:], layer.lora_A["default"].weight)
    assert torch.equal(tensors[f"{name}.lora_B.weight"][:, :4], layer.lora_B["start"].weight)


def test_files_and_what_they_hold(tmp_path):
    made = start_policy("llama", tmp_path)
    result = save(made, tmp_path / "model")
    assert {"adapter_model.safetensors", "adapter_config.json", "config.json", "tokenizer.json"} <= set(result.files)
    assert not (tmp_path / "model" / "start").exists() and "README.md" not in result.files
    first = (tmp_path / "model" / "adapter_config.json").read_bytes()
    save(made, tmp_path / "again")
    assert (tmp_path / "again" / "adapter_config.json").read_bytes() == first


def test_in_bf16(tmp_path):
    made = start_policy("gemma3", tmp_path)
    forward = made.forward
    forward.compute_in("bf16")
    nudge(made.model)
    save(made, tmp_path / "model")
    verify_saved(forward, tmp_path / "model", PROBE)


def test_a_chain_of_three(tmp_path):
    """What was joined starts the next one, and all stays one adapter of the first base."""
    made = start_policy("llama", tmp_path)
    nudge(made.model)
    save(made, tmp_path / "second")
    loaded = load_policy(BaseModel("run:2", str(tmp_path / "second"), "run"), seed=2, dropout=0.0, beside=True)
    chosen = choose(loaded.model, TrainableSpec("lora", rank=1, alpha=1.0), ())
    policy = Forward.checked(chosen.model.eval())
    torch.testing.assert_close(hidden(policy), hidden(made.forward), rtol=1e-5, atol=1e-5)
    nudge(chosen.model)
    save_model(
        chosen.model,
        loaded.tokenizer,
        tmp_path / "third",
        base=made.source,
        labels=None,
        max_length=32,
        truncate="left",
    )
    verify_saved(policy, tmp_path / "third", PROBE)
    config = json.loads((tmp_path / "third" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == made.start.base.path and config["r"] == 4 + 2 + 1


# ---- checkpoints of the run ----


def test_a_checkpoint_finds_its_place_in_the_saved_model(tmp_path):
    made = start_policy("llama", tmp_path, last_layers=1)
    save(made, tmp_path / "model")
    nudge(made.model)
    saved = load_saved(tmp_path / "model").model
    load_learnt(saved, trainable_tensors(made.model))
    torch.testing.assert_close(hidden(Forward(saved)), hidden(made.forward), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_load_learnt_of_other_models_is_the_plain_way(method, tmp_path):
    made = make_writer("llama", tmp_path, method)
    kept = trainable_tensors(made.model)
    nudge(made.model)
    load_learnt(made.model, kept)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in trainable_tensors(made.model).items())


@pytest.mark.parametrize("wrong", ["name", "ranks", "width"])
def test_a_checkpoint_of_another_model_is_refused(wrong, tmp_path):
    made = start_policy("llama", tmp_path)
    save(made, tmp_path / "model")
    tensors = trainable_tensors(made.model)
    name = next(iter(tensors))
    tensor = tensors.pop(name)
    tensors[name + ".x" if wrong == "name" else name] = {
        "name": tensor, "ranks": torch.cat([tensor] * 9), "width": tensor[:, 1:],
    }[wrong]  # fmt: skip
    with pytest.raises(ModelError, match="don't fit"):
        load_learnt(load_saved(tmp_path / "model").model, tensors)


# ---- what is wrong is noticed ----


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_file_that_isn_t_the_model_is_refused(precision, tmp_path):
    made = start_policy("llama", tmp_path)
    forward = made.forward
    forward.compute_in(precision)
    nudge(made.model)
    save(made, tmp_path / "model")
    path = tmp_path / "model" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors[next(n for n in tensors if "lora_B" in n)][0, 0] += 1e-4
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="is not the one in memory"):
        verify_saved(forward, tmp_path / "model", PROBE)


def test_a_config_that_isn_t_the_model_s_is_refused(tmp_path):
    made = start_policy("llama", tmp_path)
    nudge(made.model)
    save(made, tmp_path / "model")
    path = tmp_path / "model" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 1}))
    with pytest.raises(ModelError, match="is not the one in memory"):
        verify_saved(made.forward, tmp_path / "model", PROBE)


def test_more_or_fewer_layers_than_the_model_s_are_refused(tmp_path):
    one, other = (
        start_policy("llama", tmp_path / n, tuned={"last_layers": k}, last_layers=1) for n, k in (("a", 1), ("b", 2))
    )
    save(one, tmp_path / "one")
    save(other, tmp_path / "other")
    for made, folder in ((one, "other"), (other, "one")):
        with pytest.raises(ModelError, match="is not the one in memory"):
            check_joined(made.model, load_saved(tmp_path / folder).model)


def test_a_new_adapter_that_changes_nothing_is_dead(tmp_path):
    """Beside a start that does: the joined adapter alone would hide it."""
    made = start_policy("llama", tmp_path)
    for name, parameter in made.model.named_parameters():
        if ".default." in name:
            parameter.data.fill_(1e-30)
    save(made, tmp_path / "model")
    with pytest.raises(ModelError, match="changes nothing: it is dead"):
        verify_saved(made.forward, tmp_path / "model", PROBE)


def test_an_untrained_one_may_be_saved(tmp_path):
    made = start_policy("llama", tmp_path)
    save(made, tmp_path / "model")
    verify_saved(made.forward, tmp_path / "model", PROBE)
    with reference_of(made.model):
        wanted = hidden(made.forward)
    torch.testing.assert_close(hidden(Forward(load_saved(tmp_path / "model").model)), wanted, rtol=1e-5, atol=1e-5)


def test_a_start_that_names_a_hub_model_still_does(tmp_path):
    made = start_policy("llama", tmp_path)
    made.model.peft_config["start"].base_model_name_or_path = "someone/model"
    made.model.peft_config["start"].revision = "abc"
    config = joined_config(made.model)
    assert (config.base_model_name_or_path, config.revision) == ("someone/model", "abc")
