"""Exported files: equal to the run's model in plain transformers and PEFT; whole, or not there."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.models.made import LABELS, PROBE, make
from tunewright.errors import MachineError, ModelError, UsageError
from tunewright.models import packaged
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.loading import load_saved
from tunewright.serving import export as module
from tunewright.serving.export import export


def saved(kind, folder, method="lora"):
    """A model folder, and the model in memory."""
    from tunewright.models.saving import save_model

    made = make(kind, folder, method)
    save_model(made.model, made.loaded.tokenizer, folder / "model", base=made.base, labels=LABELS, max_length=32,
               truncate="left")  # fmt: skip
    return folder / "model", made


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "gpt2", "llama"])
def test_merged_is_one_plain_model(kind, tmp_path):
    model, made = saved(kind, tmp_path)
    expected = predict_logits(Forward(made.model), PROBE)
    folder = export(model, "merged", tmp_path / "merged")
    assert folder == tmp_path / "merged" and not (folder / "adapter_config.json").exists()
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert plain.config.id2label == {0: "bad", 1: "good", 2: "so-so"}
    with torch.no_grad():
        found = np.concatenate([plain(input_ids=torch.tensor([row])).logits.numpy() for row in PROBE])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}
    assert not [name for name in load_file(folder / "model.safetensors") if "lora" in name or "modules_to_save" in name]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.model_max_length, tokenizer.truncation_side) == (32, "left")
    assert load_saved(folder).labels == LABELS


def test_adapter_is_the_small_part_alone(tmp_path):
    model, made = saved("bert", tmp_path)
    folder = export(model, "adapter", tmp_path / "alone")
    base = AutoModelForSequenceClassification.from_pretrained(made.base.path, num_labels=3)
    plain = PeftModel.from_pretrained(base, str(folder))
    np.testing.assert_allclose(
        predict_logits(Forward(plain.eval()), PROBE), predict_logits(Forward(made.model), PROBE), atol=1e-5
    )


def test_an_adapter_of_a_packaged_base_names_its_hub_id(tmp_path, monkeypatch):
    model, made = saved("bert", tmp_path)
    row = replace(packaged.PACKAGED["minilm"], hub_id="owner/base")
    monkeypatch.setattr(packaged, "PACKAGED", {"pretend": row})
    monkeypatch.setattr(packaged, "locate", lambda _: type(tmp_path)(made.base.path))
    folder = export(model, "adapter", tmp_path / "alone")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "owner/base"
    assert json.loads((model / "adapter_config.json").read_text())["base_model_name_or_path"] == made.base.path


def test_a_whole_model_is_merged_already(tmp_path):
    model, made = saved("bert", tmp_path, "full")
    folder = export(model, "merged", tmp_path / "new" / "copy")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in model.iterdir()}
    with pytest.raises(UsageError, match=r"no adapter.*--to merged"):
        export(model, "adapter", tmp_path / "other")
    assert not (tmp_path / "other").exists() and made


def test_nothing_is_overwritten(tmp_path):
    model, _ = saved("bert", tmp_path, "full")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("keep")
    for target in (taken, taken / "mine", model):
        with pytest.raises(UsageError, match="is there already"):
            export(model, "merged", target)
    assert (taken / "mine").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    assert (export(model, "merged", tmp_path / "empty") / "config.json").is_file()
    with pytest.raises(ModelError, match="no such model folder"):
        export(tmp_path / "nothing", "merged", tmp_path / "x")
    with pytest.raises(UsageError, match="expected adapter or merged"):
        export(model, "gguf", tmp_path / "x")  # type: ignore[arg-type]


def test_a_merge_that_answers_differently_is_not_handed_out(tmp_path, monkeypatch):
    model, _ = saved("bert", tmp_path)
    off = iter((0.0, 0.001))
    monkeypatch.setattr(module, "predict_logits", lambda *given: predict_logits(*given) + next(off))
    with pytest.raises(ModelError, match="answers differently"):
        export(model, "merged", tmp_path / "merged")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base-bert", "model"]


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    model, _ = saved("bert", tmp_path, "full")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "copy_model", full)
    with pytest.raises(MachineError, match="No space left"):
        export(model, "merged", tmp_path / "merged")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base-bert", "model"]


def test_a_base_that_is_gone_is_said(tmp_path):
    model, made = saved("bert", tmp_path)
    type(tmp_path)(made.base.path).rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="is gone"):
        export(model, "merged", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
