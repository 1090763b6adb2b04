"""Exported language models: equal to the run's in plain transformers and PEFT, with all that generation needs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from tests.models.made import PROBE
from tests.models.made_writers import AUTO, KINDS, make_writer, save_writer
from tests.models.test_loading import _config as change_config
from tests.models.test_writers import TEMPLATE, saved
from tunewright.data.written import PROMPT_FORMAT
from tunewright.errors import ModelError
from tunewright.models.forward import Forward
from tunewright.models.loading import load_saved
from tunewright.models.writers import probe_logits
from tunewright.serving import export as module
from tunewright.serving.export import export


def last(model, kind):
    """Logits at the last token, by transformers alone."""
    reads = KINDS[kind] == "encoder-decoder"
    with torch.no_grad():
        rows = [torch.tensor([row]) for row in PROBE]
        return np.stack(
            [model(input_ids=r, **({"decoder_input_ids": r} if reads else {})).logits[0, -1].numpy() for r in rows]
        )


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma", "gemma3", "t5", "bart", "bert"])
def test_merged_is_one_plain_model(kind, tmp_path):
    made = make_writer(kind, tmp_path)
    saved(made, tmp_path / "model")
    folder = export(tmp_path / "model", "merged", tmp_path / "merged")
    plain = AUTO[KINDS[kind]].from_pretrained(folder).eval()
    np.testing.assert_allclose(last(plain, kind), probe_logits(Forward(made.model), PROBE), atol=1e-4)
    tensors = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32} and not [n for n in tensors if "lora" in n]
    assert not (folder / "adapter_config.json").exists()
    assert load_saved(folder).labels is None and load_saved(folder).kind == KINDS[kind]


def test_what_generation_needs_comes_along(tmp_path):
    base = save_writer("gemma", tmp_path / "base-gemma")
    (base / "chat_template.jinja").write_text(TEMPLATE)
    change_config("generation_config.json", temperature=0.6, do_sample=False)(base)  # not consistent, and kept
    saved(make_writer("gemma", tmp_path), tmp_path / "model")
    (tmp_path / "model" / PROMPT_FORMAT).write_text('{"version": 1}')
    for to in ("merged", "adapter"):
        folder = export(tmp_path / "model", to, tmp_path / to)
        assert json.loads((folder / PROMPT_FORMAT).read_text()) == {"version": 1}
        assert (folder / "chat_template.jinja").read_text() == TEMPLATE
    assert json.loads((tmp_path / "merged" / "generation_config.json").read_text())["temperature"] == 0.6


def test_an_adapter_alone_loads_in_plain_peft(tmp_path):
    made = make_writer("gemma", tmp_path)
    saved(made, tmp_path / "model")
    folder = export(tmp_path / "model", "adapter", tmp_path / "alone")
    plain = PeftModel.from_pretrained(AUTO["causal"].from_pretrained(made.base.path), str(folder)).eval()
    np.testing.assert_allclose(last(plain, "gemma"), probe_logits(Forward(made.model), PROBE), atol=1e-5)


def test_an_untied_head_is_a_whole_model(tmp_path):
    made = make_writer("gemma", tmp_path, "head")
    saved(made, tmp_path / "model")
    folder = export(tmp_path / "model", "merged", tmp_path / "copy")
    plain = AUTO["causal"].from_pretrained(folder).eval()
    assert plain.get_output_embeddings().weight is not plain.get_input_embeddings().weight
    np.testing.assert_allclose(last(plain, "gemma"), probe_logits(Forward(made.model), PROBE), atol=1e-5)


def test_a_merge_that_answers_differently_is_not_handed_out(tmp_path, monkeypatch):
    made = make_writer("llama", tmp_path)
    saved(made, tmp_path / "model")
    off = iter((0.0, 0.01))
    monkeypatch.setattr(module, "probe_logits", lambda *given: probe_logits(*given) + next(off))
    with pytest.raises(ModelError, match="answers differently"):
        export(tmp_path / "model", "merged", tmp_path / "merged")
    assert not (tmp_path / "merged").exists() and Path(made.base.path).exists()
