"""Fetching through pip's own client, from a folder that stands for the index: checked, kept, and never run."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile

import pytest

from tunewright.data import archives
from tunewright.data.archives import Archive, fetch
from tunewright.errors import DataError, MachineError, NetworkError, TunewrightError

SETUP = "from setuptools import setup\nsetup(name='probe', version='1.0')\n"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package whose setup.py leaves a mark when it runs, in the only place that pip looks."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    script = f"open({str(tmp_path / 'it-ran')!r}, 'w').close()\n" + SETUP
    info = b"Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n"
    with tarfile.open(tmp_path / "index" / "probe-1.0.tar.gz", "w:gz") as tar:
        for name, content in (("setup.py", script.encode()), ("PKG-INFO", info)):
            entry = tarfile.TarInfo(f"probe-1.0/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return tmp_path


def probe(index) -> Archive:
    content = (index / "index" / "probe-1.0.tar.gz").read_bytes()
    return Archive("probe", "1.0", hashlib.sha256(content).hexdigest())


def test_fetched_checked_kept_and_not_run(index):
    kept = fetch(probe(index))
    assert kept == index / "cache" / "archives" / "probe-1.0.tar.gz"
    assert kept.read_bytes() == (index / "index" / "probe-1.0.tar.gz").read_bytes()
    assert not (index / "it-ran").exists()
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_kept_means_no_second_fetch(index):
    archive = probe(index)
    kept = fetch(archive)
    (index / "index" / "probe-1.0.tar.gz").unlink()
    assert fetch(archive) == kept


def test_a_kept_file_that_changed_is_fetched_again(index):
    archive = probe(index)
    kept = fetch(archive)
    kept.write_bytes(b"tampered with")
    assert hashlib.sha256(fetch(archive).read_bytes()).hexdigest() == archive.sha256


def test_another_file_than_the_pinned_one_is_refused_before_anything_runs(index):
    with pytest.raises(DataError, match="not the file that was pinned"):
        fetch(Archive("probe", "1.0", "0" * 64))
    assert not (index / "it-ran").exists()
    assert list((index / "cache" / "archives").iterdir()) == []


def one_line(error: TunewrightError) -> bool:
    return "\n" not in error.line()


def test_offline(index, monkeypatch):
    archive = probe(index)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index / "empty"))
    with pytest.raises(NetworkError, match=r"can't be fetched .*put that file at") as caught:
        fetch(archive)
    assert one_line(caught.value)


def test_offline_at_an_index_that_refuses(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(NetworkError) as caught:
        fetch(probe(index))
    assert one_line(caught.value)


def test_without_pip(index, monkeypatch):
    monkeypatch.setattr(archives.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="ensurepip"):
        fetch(probe(index))


def test_a_module_named_pip_in_the_current_folder_is_not_run(index, monkeypatch):
    (index / "pip.py").write_text(f"open({str(index / 'it-ran')!r}, 'w').close()")
    monkeypatch.chdir(index)
    fetch(probe(index))
    assert not (index / "it-ran").exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(index, monkeypatch):
    (index / "cache").mkdir(mode=0o500)
    with pytest.raises(MachineError, match="TUNEWRIGHT_CACHE"):
        fetch(probe(index))
