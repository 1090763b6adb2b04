"""Rates of the machine: right to a known answer, the same under load, and invisible to the run that asks."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from tunewright.planning import machine


@pytest.fixture(autouse=True)
def _afresh(monkeypatch):
    """Every test measures for itself, briefly."""
    monkeypatch.setattr(machine, "BUDGET_SECONDS", 0.03)
    monkeypatch.setattr(machine, "COPIED_BYTES", 8 << 20)
    for measured in (machine.measured_gemm, machine.measured_copy):
        measured.cache_clear()
    yield
    for measured in (machine.measured_gemm, machine.measured_copy):
        measured.cache_clear()


def test_gemm_rate_is_that_of_a_product_done_by_hand():
    a, b = torch.ones(512, 384), torch.ones(1536, 384)
    seconds = []
    for _ in range(30):
        begin = time.thread_time()
        torch.nn.functional.linear(a, b)
        seconds.append(time.thread_time() - begin)
    by_hand = 2 * 512 * 384 * 1536 / min(seconds)
    assert 0.4 < machine.gemm_rate() / (by_hand * torch.get_num_threads()) < 2.5


def test_bandwidth_is_that_of_a_copy_done_by_hand():
    source = torch.ones(2 << 20)
    target = torch.zeros_like(source)
    seconds = []
    for _ in range(30):
        begin = time.thread_time()
        target.copy_(source)
        seconds.append(time.thread_time() - begin)
    assert 0.3 < machine.memory_bandwidth() / (2 * source.nbytes / min(seconds)) < 4


def test_a_rate_counts_operations_not_shapes():
    """Twice the rows are twice the work in twice the time."""
    one, two = (machine.gemm_rate("cpu", "fp32", (rows, 256, 256)) for rows in (256, 512))
    assert 0.4 < two / one < 2.5


def test_what_is_measured_once_is_remembered():
    assert machine.gemm_rate() == machine.gemm_rate()
    assert machine.measured_gemm.cache_info().misses == 1


def test_neighbours_are_noticed_and_do_not_change_the_rate(monkeypatch):
    """A trial that computes for 1 ms and waits 3 for a core: the rate is that of the 1 ms, and the waiting is said."""
    monkeypatch.setattr(machine, "_least_seconds", lambda work, wait: 0.004)
    monkeypatch.setattr(machine, "_apart", lambda prepare, threads: (0.001, 4.0))
    rate = machine._rate(100.0, lambda parts: lambda: None, "cpu", 1)
    assert rate.per_second == pytest.approx(machine.TOGETHER * 100.0 / 0.001)
    assert rate.waiting == 4.0


def test_a_quiet_machine_is_measured_directly(monkeypatch):
    """Threads apart never wait for each other, so on a quiet machine only the real product counts."""
    monkeypatch.setattr(machine, "_least_seconds", lambda work, wait: 0.004)
    monkeypatch.setattr(machine, "_apart", lambda prepare, threads: (0.001, 1.01))
    assert machine._rate(100.0, lambda parts: lambda: None, "cpu", 1).per_second == 100.0 / 0.004


def test_waiting_is_seconds_passed_for_each_second_of_computing(monkeypatch):
    def half_asleep():
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass
        time.sleep(0.004)

    least, passed, computed = machine._computing(half_asleep)
    assert 0.002 <= least < 0.004  # the sleep isn't computing
    assert passed / computed > 2


def test_measuring_changes_nothing_that_a_run_depends_on():
    """Random state, number of threads, number of threads of the process: as before."""
    before, threads = torch.get_rng_state(), threading.active_count()
    torch.set_num_threads(1)
    machine.gemm_rate(), machine.memory_bandwidth()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 1
    assert threading.active_count() == threads


def test_threads_are_put_back_when_a_trial_fails():
    def prepare(parts: int):
        raise RuntimeError("no")

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="no"):
        machine._apart(prepare, 1)
    assert torch.get_num_threads() == before


def test_little_free_memory_means_a_small_copy(monkeypatch):
    copied = []
    monkeypatch.setattr("tunewright.runtime.memory_available", lambda: 20 << 20)
    monkeypatch.setattr(machine, "_rate", lambda amount, *rest: copied.append(amount) or machine.Rate(1.0, 1.0))
    machine.memory_bandwidth()
    assert copied == [2.0 * (1 << 20)]
