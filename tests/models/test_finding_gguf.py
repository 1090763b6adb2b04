"""GGUF bases by name: found in the cache, learnt on, and found again by an adapter wherever the cache went."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models.made import PROBE
from tests.models.test_gguf import write
from tests.models.test_writers import saved
from tunewright.errors import MachineError, ModelError
from tunewright.models import finding
from tunewright.models.finding import gguf_folder, resolve_base
from tunewright.models.forward import Forward
from tunewright.models.gguf import GgufPackage
from tunewright.models.loading import load_saved
from tunewright.models.saving import verify_saved
from tunewright.models.trainable import TrainableSpec, choose
from tunewright.models.writers import load_writer, probe_logits

PLAIN = """
import json, sys, torch
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1]).float().eval()
with torch.no_grad():
    print(json.dumps([model(input_ids=torch.tensor([row])).logits[0, -1].tolist() for row in json.loads(sys.argv[2])]))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A tiny model that comes as a Python package; returns its name."""
    folder = tmp_path / "site" / "tiny_gguf_part0" / "data"
    folder.mkdir(parents=True)
    write(folder / "tiny.part0", "gemma3")
    (folder.parent / "__init__.py").write_text("raise SystemExit('its code was run')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    sha256 = hashlib.sha256((folder / "tiny.part0").read_bytes()).hexdigest()
    made = GgufPackage("tiny-gguf", "1.0", ("tiny_gguf_part0/data/tiny.part0",), sha256, "owner/tiny-GGUF", "mit")
    monkeypatch.setitem(finding.GGUF_PACKAGES, "tiny", made)
    return "tiny"


def tune(base, folder):
    """An adapter on this base, saved; returns its logits."""
    loaded = load_writer(base, "causal", seed=0, dropout=0.0)
    model = choose(loaded.model, TrainableSpec("lora", rank=4), ()).model.eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.05
    made = type("Made", (), {"model": model, "loaded": loaded, "base": base})
    saved(made, folder)
    verify_saved(Forward(model), folder, PROBE)
    return probe_logits(Forward(model), PROBE)


def test_a_file_is_a_base(cache, tmp_path):
    file = write(tmp_path / "mine.gguf", "gemma3")
    base = resolve_base(str(file))
    assert (base.name, base.kind, base.hub_id) == (str(file), "gguf", None)
    assert Path(base.path).parent == cache == gguf_folder()
    wanted = tune(base, tmp_path / "model")
    found = probe_logits(Forward(load_saved(tmp_path / "model").model), PROBE)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_folder_with_such_a_name_is_a_folder(cache, tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    assert resolve_base(str(tmp_path / "folder.gguf")).kind == "folder"


def test_an_adapter_loads_in_plain_peft(cache, tmp_path):
    wanted = tune(resolve_base(str(write(tmp_path / "mine.gguf", "gemma3"))), tmp_path / "model")
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, str(tmp_path / "model"), json.dumps(PROBE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout.strip().split("\n")[-1]), wanted, atol=1e-4)


def test_a_packaged_base_is_made_again_where_its_folder_is_gone(cache, package, tmp_path):
    base = resolve_base(package)
    assert (base.name, base.kind) == ("tiny", "gguf")
    wanted = tune(base, tmp_path / "model")
    shutil.rmtree(cache)
    found = probe_logits(Forward(load_saved(tmp_path / "model").model), PROBE)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert Path(base.path).is_dir()


def test_another_cache_serves_too(cache, tmp_path, monkeypatch):
    """A run that was copied to another machine, where the same file was opened once."""
    file = write(tmp_path / "mine.gguf", "gemma3")
    base = resolve_base(str(file))
    wanted = tune(base, tmp_path / "model")
    shutil.rmtree(cache)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "other"))
    with pytest.raises(ModelError, match=r"made from a \.gguf file \(SHA-256 .*give that file as --model once"):
        load_saved(tmp_path / "model")
    resolve_base(str(file))
    found = probe_logits(Forward(load_saved(tmp_path / "model").model), PROBE)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_folder_that_only_looks_like_ours(cache, tmp_path):
    """A hash is no licence to fetch: an unknown one is a sentence."""
    for path, words in ((f"/x/gguf/{'0' * 64}", "not in the cache any more"), (f"/x/{'0' * 64}", "is gone")):
        tune(resolve_base(str(write(tmp_path / "mine.gguf", "gemma3"))), tmp_path / "model")
        config = tmp_path / "model" / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": path}))
        with pytest.raises(ModelError, match=words):
            load_saved(tmp_path / "model")


def test_names_are_near(cache, tmp_path):
    with pytest.raises(ModelError, match='Did you mean "gemma3-270m"'):
        resolve_base("gemma3-270")
    with pytest.raises(ModelError, match=r"give a folder, a \.gguf file, a Hub id .*, minilm or gemma3-270m"):
        resolve_base(str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=r'no such file.*Did you mean "mine.gguf"'):
        write(tmp_path / "mine.gguf", "gemma3")
        resolve_base(str(tmp_path / "mien.gguf"))


def test_what_is_missing_is_said(cache, monkeypatch):
    monkeypatch.setattr("tunewright.models.gguf.importlib.util.find_spec", lambda _: None)
    with pytest.raises(MachineError, match=r"pip install gguf==0\.19\.0"):
        resolve_base("gemma3-270m")
