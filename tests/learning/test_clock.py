"""Real tokens per second and a time left that one slow step doesn't spoil."""

from __future__ import annotations

import pytest

from tunewright.learning import clock as module
from tunewright.learning.clock import Clock


@pytest.fixture
def at(monkeypatch):
    """Sets the time."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_nothing_yet(at):
    clock = Clock()
    assert clock.tokens_per_second == 0.0 and clock.seconds_per_token == 0.0


def test_speed_is_tokens_over_seconds(at):
    clock = Clock()
    for tokens in (100, 300):
        at(2.0)
        clock.step(tokens)
    assert clock.tokens_per_second == pytest.approx(100.0)
    assert clock.seconds_per_token == pytest.approx((2 / 100 + 2 / 300) / 2)


def test_one_slow_step_does_not_spoil_the_time_left(at):
    clock = Clock()
    for seconds in (1, 1, 1000, 1, 1):
        at(seconds)
        clock.step(10)
    assert clock.seconds_per_token == pytest.approx(0.1)


def test_only_the_last_steps_count(at):
    clock = Clock(keep=3)
    for seconds in (50, 50, 50, 1, 1, 1):
        at(seconds)
        clock.step(10)
    assert clock.tokens_per_second == pytest.approx(10.0) and len(clock.seconds) == len(clock.tokens) == 3


def test_an_evaluation_between_two_steps_does_not_count(at):
    clock = Clock()
    at(1.0)
    clock.step(10)
    at(500.0)
    clock.restart()
    at(1.0)
    clock.step(10)
    assert clock.tokens_per_second == pytest.approx(10.0)


def test_an_empty_step_is_no_division_by_zero(at):
    clock = Clock()
    clock.step(0)
    assert clock.tokens_per_second == 0.0 and clock.seconds_per_token == 0.0
