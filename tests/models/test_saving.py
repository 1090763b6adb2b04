"""What was saved loads in plain transformers and PEFT, in a process that never heard of us, with the same logits."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.models.made import LABELS, PROBE, make
from tunewright.data.batching import lay_end_to_end
from tunewright.errors import MachineError, ModelError
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.saving import rewrite_adapter_base, save_model, verify_saved

METHODS = ("full", "head", "lora")

PLAIN = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification
probe = json.loads(sys.argv[1])
out = {}
for folder, base in json.loads(sys.argv[2]):
    if base:
        config = AutoConfig.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(base, config=config)
        model = PeftModel.from_pretrained(model, folder)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    pad = model.config.pad_token_id
    longest = max(map(len, probe))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in probe])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in probe])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, attention_mask=mask).logits
    out[folder] = [logits.tolist(), model.config.id2label[0]]
print(json.dumps(out))
"""


def saved(made, folder):
    return save_model(
        made.model, made.loaded.tokenizer, folder, base=made.base, labels=LABELS, max_length=32, truncate="left"
    )


def test_every_kind_and_method_in_a_fresh_process(tmp_path):
    wanted, jobs = {}, []
    for kind in tiny.KINDS:
        for method in METHODS:
            made = make(kind, tmp_path, method)
            folder = tmp_path / f"{kind}-{method}"
            saved(made, folder)
            verify_saved(Forward(made.model), folder, PROBE)
            wanted[str(folder)] = predict_logits(Forward(made.model), PROBE)
            jobs.append([str(folder), made.base.path if method == "lora" else None])
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, json.dumps(PROBE), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for folder, (logits, first_label) in json.loads(done.stdout.strip().split("\n")[-1]).items():
        np.testing.assert_allclose(logits, wanted[folder], atol=2e-5, err_msg=folder)
        assert first_label == "bad"


@pytest.mark.parametrize("method", METHODS)
def test_files(method, tmp_path):
    made = make("bert", tmp_path, method)
    result = saved(made, tmp_path / "model")
    assert not [name for name in result.files if name.endswith((".bin", ".pt", ".pkl"))]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good", "2": "so-so"} and config["label_values"] == ["0", "1", "2"]
    tokenizer = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert tokenizer["truncation_side"] == "left" and tokenizer["model_max_length"] == 32
    assert result.bytes == sum(p.stat().st_size for p in (tmp_path / "model").glob("*.safetensors"))
    assert made.loaded.tokenizer.model_max_length != 32  # the one in memory is left as it was


def test_adapter_config_is_plain_and_sorted(tmp_path):
    saved(make("bert", tmp_path), tmp_path / "model")
    body = json.loads((tmp_path / "model" / "adapter_config.json").read_text())
    assert body["target_modules"] == sorted(body["target_modules"])
    assert body["inference_mode"] is True and body["task_type"] == "SEQ_CLS"
    assert body["modules_to_save"] == ["bert.pooler", "classifier"]


@pytest.mark.parametrize("kind", ["bert", "llama", "modernbert"])
@pytest.mark.parametrize("method", METHODS)
def test_our_attention_never_reaches_a_file(kind, method, tmp_path):
    """Not after a forward, and not after one that failed halfway."""
    made = make(kind, tmp_path, method)
    forward = Forward.checked(made.model)
    assert forward.packed
    with pytest.raises(IndexError):
        forward.logits(lay_end_to_end([[4, 99_999]]))
    saved(made, tmp_path / "model")
    for path in (tmp_path / "model").glob("*.json"):
        assert "tunewright" not in path.read_text(), path.name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("part", ["classifier", "query"])
def test_tampered_weights_are_refused(part, method, tmp_path):
    made = make("bert", tmp_path, method)
    saved(made, tmp_path / "model")
    (path,) = (tmp_path / "model").glob("*.safetensors")
    tensors = load_file(path)
    name = next(n for n in tensors if part in n and "bias" not in n)
    noise = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
    save_file({**tensors, name: tensors[name] + noise}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="answers differently"):
        verify_saved(Forward(made.model), tmp_path / "model", PROBE)


def test_an_adapter_whose_names_match_nothing_is_refused(tmp_path):
    """PEFT only warns, and the model answers like its base."""
    made = make("bert", tmp_path)
    saved(made, tmp_path / "model")
    path = tmp_path / "model" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(
        {n.replace("encoder", "_orig_mod.encoder"): t for n, t in tensors.items()}, path, metadata={"format": "pt"}
    )
    with pytest.raises(ModelError, match="adapter can't be loaded"):
        verify_saved(Forward(made.model), tmp_path / "model", PROBE)


def test_the_model_in_memory_is_put_back_where_it_was(tmp_path, monkeypatch):
    """It is compared on the CPU, and judged afterwards on its own device."""
    made = make("bert", tmp_path, "full")
    saved(made, tmp_path / "model")
    moves = []
    monkeypatch.setattr(made.model, "to", lambda device: moves.append(str(device)))
    verify_saved(Forward(made.model), tmp_path / "model", PROBE)
    assert moves == ["cpu", "cpu"]


def test_a_dead_adapter_is_refused_whatever_its_head_learnt(tmp_path):
    made = make("bert", tmp_path)
    verify_after_saving(made, tmp_path)
    for name, parameter in made.model.named_parameters():
        if "lora_A" in name:
            parameter.data.zero_()
    with pytest.raises(ModelError, match="it is dead"):
        verify_after_saving(made, tmp_path)


def test_an_adapter_that_never_learnt_is_no_dead_one(tmp_path):
    verify_after_saving(make("bert", tmp_path, nudge=False), tmp_path)


def verify_after_saving(made, tmp_path):
    saved(made, tmp_path / "model")
    verify_saved(Forward(made.model), tmp_path / "model", PROBE)


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), SafetensorError("No space left on device")]
)
def test_a_full_disk_leaves_what_was_there(failure, tmp_path, monkeypatch):
    made = make("bert", tmp_path, "full")
    saved(made, tmp_path / "model")
    (tmp_path / "model" / "mark").touch()

    def full(*_, **__):
        raise failure

    monkeypatch.setattr(made.model, "save_pretrained", full)
    with pytest.raises(MachineError, match=r"model can't be written \(No space left on device\)"):
        saved(made, tmp_path / "model")
    assert (tmp_path / "model" / "mark").exists() and not list(tmp_path.glob(".model*"))


def test_saving_again_replaces_the_folder_whole(tmp_path):
    made = make("bert", tmp_path, "full")
    saved(made, tmp_path / "model")
    (tmp_path / "model" / "stale.txt").write_text("old")
    saved(made, tmp_path / "model")
    assert not (tmp_path / "model" / "stale.txt").exists()
    assert not list(tmp_path.glob(".model*"))


def test_only_what_learnt_is_in_an_adapter(tmp_path):
    made = make("bert", tmp_path)
    result = saved(made, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "adapter_model.safetensors")
    assert sum(t.numel() for t in tensors.values()) == made.report.trainable
    assert 4 * made.report.trainable < result.bytes < 4 * made.report.trainable + 20_000


@pytest.mark.parametrize(
    ("base", "becomes", "names_one"),
    [("/models/mine", "owner/name", True), ("/models/mine", None, False), ("owner/name", None, True)],
)
def test_a_local_base_becomes_its_hub_id(base, becomes, names_one, tmp_path):
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"base_model_name_or_path": base, "r": 4}))
    assert rewrite_adapter_base(tmp_path, lambda _: becomes) is names_one
    assert json.loads(path.read_text()) == {"base_model_name_or_path": becomes or base, "r": 4}
