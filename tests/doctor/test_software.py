"""Packages against what is asked for: missing, too old, other than tested."""

from __future__ import annotations

import pytest

from tests import whole
from tunewright.doctor import software


@pytest.fixture
def asks(monkeypatch):
    """Makes tunewright ask for these packages, of which these versions are there."""

    def ask(wanted: list[str], there: dict[str, str]) -> None:
        monkeypatch.setattr(software.importlib.metadata, "requires", lambda package: wanted)
        monkeypatch.setattr(software, "_version", there.get)

    return ask


def test_what_this_environment_has_is_well():
    check = software.installed()
    assert check.state == "ok"
    assert check.values["versions"]["torch"].startswith("2.")
    assert "torch 2." in check.found and "peft" in check.found


def test_a_missing_package_would_stop_a_run(asks):
    asks(["torch>=2.13", "numpy>=2"], {"torch": "2.13.0"})
    check = software.installed()
    assert (check.state, check.found, check.advice) == ("bad", "numpy is missing", "pip install 'numpy>=2'")


def test_a_version_out_of_range_is_named_with_the_command_that_mends_it(asks):
    asks(["peft<0.22,>=0.21.2", "torch>=2.13"], {"peft": "0.20.0", "torch": "2.13.0+cpu"})
    check = software.installed()
    assert check.state == "warn"
    assert check.found == "peft is 0.20.0, expected <0.22,>=0.21.2"
    assert check.advice == "pip install 'peft<0.22,>=0.21.2'"


def test_extras_and_other_systems_are_not_asked_for(asks):
    asks(["torch", 'optuna; extra == "search"', 'pywin32; sys_platform == "nowhere"'], {"torch": "2.13.0"})
    assert software.installed().state == "ok"


def test_versions_that_were_not_tested_are_said_and_stop_nothing(asks, monkeypatch):
    asks(["torch>=2.13", "peft"], {"torch": "2.14.0+cu130", "peft": "0.21.2"})
    monkeypatch.setattr(software, "tested_versions", lambda: {"torch": "2.13.0", "peft": "0.21.2"})
    check = software.installed()
    assert check.state == "ok"
    assert check.found.endswith("torch 2.14.0+cu130, peft 0.21.2 (tested with torch 2.13.0)")


def test_tested_versions_are_those_of_constraints():
    tested = software.tested_versions()
    text = (whole.ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert len(tested) == len(text.split())
    assert f"torch=={tested['torch']}" in text
    assert "huggingface-hub" in tested  # as pip spells it, whatever the file does


def test_the_wheel_brings_the_tested_versions():
    assert '"constraints.txt" = "tunewright/constraints.txt"' in (whole.ROOT / "pyproject.toml").read_text("utf-8")


def test_python(monkeypatch):
    assert software.python().state == "ok"
    monkeypatch.setattr(software.sys, "maxsize", 2**31 - 1)
    assert (software.python().state, software.python().advice) == ("bad", "install a 64-bit Python; torch needs one")
