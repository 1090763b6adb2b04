"""All checks together, in order; nothing left behind."""

from __future__ import annotations

import pytest

from tunewright.doctor import examination, hardware, software
from tunewright.doctor.check import Check
from tunewright.planning import machine


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(machine, "measured_gemm", lambda *_: machine.Rate(1e11, 1.0))
    monkeypatch.setattr(machine, "measured_copy", lambda *_: machine.Rate(1e10, 1.0))


def test_every_check_has_a_name_of_its_own_and_a_cure_where_it_is_not_well(tmp_path):
    checks = list(examination.examine(tmp_path / "runs"))
    names = [check.name for check in checks]
    assert len(set(names)) == len(names) == 14
    assert {"python", "packages", "device", "precision", "threads", "memory", "runs folder", "hub"} <= set(names)
    assert all(bool(check.advice) == (check.state != "ok") for check in checks)
    assert list(tmp_path.iterdir()) == []


def test_without_packages_nothing_else_is_tried(monkeypatch):
    monkeypatch.setattr(
        software, "installed", lambda: Check("packages", "bad", "torch is missing", "pip install torch")
    )
    monkeypatch.setattr(hardware, "machine", lambda: pytest.fail("imported torch"))
    assert [check.name for check in examination.examine()] == ["python", "packages"]
