"""Processor, card, speed, threads and memory: what is right is said, what isn't comes with a cure."""

from __future__ import annotations

import os

import pytest
import torch

from tunewright.doctor import hardware
from tunewright.planning import machine
from tunewright.runtime import Runtime

CPU = Runtime("cpu", "fp32", 2)


@pytest.fixture
def rates(monkeypatch):
    """The machine measures as told: FLOP/s in fp32 and bf16, and how long threads waited."""

    def measure(fp32: float = 100e9, bf16: float = 50e9, waiting: float = 1.0) -> None:
        found = {"fp32": fp32, "bf16": bf16}
        monkeypatch.setattr(
            machine, "measured_gemm", lambda device, name, shape, threads: machine.Rate(found[name], waiting)
        )
        monkeypatch.setattr(machine, "measured_copy", lambda device, threads: machine.Rate(20e9, waiting))

    return measure


def flag(monkeypatch, there: bool) -> None:
    monkeypatch.setattr("tunewright.runtime._multiplies_bf16", lambda device: there)


def test_the_whole_machine_is_looked_at_as_a_run_would_find_it(rates):
    rates()
    threads, before = torch.get_num_threads(), torch.get_rng_state()
    checks = {check.name: check for check in hardware.machine()}
    torch.set_num_threads(threads)
    assert list(checks) == ["device", "precision", "matrix products", "memory speed", "other programs", "threads"]
    assert checks["matrix products"].values["flops_per_second"] in (100e9, 50e9)
    assert checks["memory speed"].values == {"bytes_per_second": 20e9}
    assert torch.equal(torch.get_rng_state(), before)


def test_a_card_that_torch_cannot_use(monkeypatch):
    monkeypatch.setattr(hardware, "_has_nvidia_card", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    check = hardware.device(CPU)
    assert check.state == "warn"
    assert check.found.endswith("is built for CPUs only")
    assert check.advice == "install torch for CUDA: https://pytorch.org/get-started"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert hardware.device(CPU).advice == "update the driver"


def test_no_card_is_no_fault(monkeypatch):
    monkeypatch.setattr(hardware, "_has_nvidia_card", lambda: False)
    check = hardware.device(CPU)
    assert (check.state, check.values) == ("ok", {"device": "cpu"})


def test_precision_says_choice_flag_and_measurement(monkeypatch):
    flag(monkeypatch, False)
    check = hardware.precision(CPU, {"fp32": 100e9, "bf16": 25e9})
    assert check.found == "fp32: the processor has no bf16 multiplication; bf16 measures 4.0 x slower than fp32"
    assert check.state == "ok"
    flag(monkeypatch, True)
    check = hardware.precision(Runtime("cpu", "bf16", 2), {"fp32": 100e9, "bf16": 250e9})
    assert check.found == "bf16: the processor has bf16 multiplication; bf16 measures 2.5 x as fast as fp32"
    assert check.state == "ok"


def test_a_choice_that_the_measurement_contradicts(monkeypatch):
    """A busy moment can make `auto` miss a format that is more than twice as fast."""
    flag(monkeypatch, True)
    check = hardware.precision(CPU, {"fp32": 100e9, "bf16": 250e9})
    assert (check.state, check.values["chosen"]) == ("warn", "fp32")
    assert "training.precision: bf16" in check.advice


def test_slow_products(monkeypatch):
    assert hardware.products(CPU, 100e9).state == "ok"
    slow = hardware.products(CPU, 9e9)
    assert slow.state == "warn" and slow.found.startswith("9 GFLOP/s in fp32")
    assert slow.values["kernels"] == torch.backends.cpu.get_cpu_capability()


@pytest.mark.parametrize(("waiting", "state", "share"), [(1.02, "ok", 0.02), (2.0, "warn", 0.5), (0.99, "ok", 0.0)])
def test_other_programs(waiting, state, share):
    check = hardware.busyness(waiting)
    assert check.state == state
    assert check.values["share_taken"] == pytest.approx(share, abs=0.01)


def test_threads_within_what_the_container_may_use(monkeypatch):
    monkeypatch.setattr(hardware, "core_limit", lambda: None)
    assert hardware.threads(CPU).state == "ok"
    monkeypatch.setattr(hardware, "core_limit", lambda: 2.0)
    assert hardware.threads(CPU).state == "ok"
    monkeypatch.setattr(hardware, "core_limit", lambda: 1.5)
    check = hardware.threads(CPU)
    assert check.state == "warn"
    assert check.found == f"2, for {os.cpu_count()} cores, of which this container may use 1.5"
    assert check.advice.startswith("set training.threads: 1;")


@pytest.mark.parametrize(
    ("text", "limit"),
    [("150000 100000", 1.5), ("max 100000", None), ("", None), ("1 0", None), ("junk junk junk", None)],
)
def test_core_limit(tmp_path, text, limit):
    (tmp_path / "cpu.max").write_text(text)
    assert hardware.core_limit(tmp_path) == limit


def test_no_control_group_no_limit(tmp_path):
    assert hardware.core_limit(tmp_path) is None


@pytest.mark.parametrize(("free", "state"), [(0.5e9, "bad"), (1.5e9, "warn"), (8e9, "ok")])
def test_memory(monkeypatch, free, state):
    monkeypatch.setattr("tunewright.runtime.memory_available", lambda: int(free))
    check = hardware.memory()
    assert (check.state, check.values["free_bytes"]) == (state, int(free))
    assert check.found.startswith(f"{free / 1e9:.1f} GB free of ")
    assert bool(check.advice) == (state != "ok")


def test_under_torchrun_the_doctor_says_so(monkeypatch):
    from tunewright.errors import MachineError

    def refuse(*_: object):
        raise MachineError("no rank to join")

    monkeypatch.setattr("tunewright.runtime.started", refuse)
    (check,) = hardware.machine()
    assert (check.state, check.found) == ("bad", "no rank to join")
