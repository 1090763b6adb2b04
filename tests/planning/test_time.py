"""Seconds: operations over a rate, set right by what was measured, and every stretch of a run counted once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.learning.small import but
from tunewright.planning.counting import Work, Works
from tunewright.planning.estimate import Part
from tunewright.planning.probe import Probe, Timed, choose_steps
from tunewright.planning.time import SCORING_SHARE, TRAINING_SHARE, Course, Speeds, estimate_time

LENGTHS = np.array([10] * 40)
SPEEDS = Speeds(gemm=1000.0, bandwidth=1e12, writing=1e6)
COURSE = Course(
    plan=but(total_steps=20, steps_per_epoch=10, batch_size=4, evaluate_every=10, micro_batch_tokens=1000),
    works=Works(Work(linear=30.0), Work(linear=10.0), Work()),
    train_lengths=LENGTHS,
    validation_lengths=LENGTHS[:20],
    trainable=1000,
    model_bytes=0,
    saved_bytes=0,
    cached=False,
    bootstrap_samples=100,
)  # fmt: skip
BEFORE = Part("start-up", 5.0, "measured")


def seconds(time):
    return {part.name: part.amount for part in time.parts}


def test_arithmetic():
    found = seconds(estimate_time(COURSE, SPEEDS, None, BEFORE))
    assert found["start-up"] == 5.0
    assert found["training, 20 steps"] == pytest.approx(2 * 40 * 10 * 30 / (1000 * TRAINING_SHARE), rel=1e-3)
    once = 20 * 10 * 10 / (1000 * SCORING_SHARE)
    assert found["scoring the untrained model"] == pytest.approx(once)
    assert found["evaluating, 2 times"] == pytest.approx(2 * once)
    assert found["saving 2 checkpoints"] == pytest.approx(2 * 12 * 1000 / 1e6)


def test_the_probe_sets_arithmetic_right():
    """Steps that took three times as long as computed make the whole of training three times as long."""
    plain = seconds(estimate_time(COURSE, SPEEDS, None, BEFORE))
    step = np.array([10] * 4)
    slow = Timed(step, 3 * 40 * 30 / (1000 * TRAINING_SHARE), 0)
    found = seconds(estimate_time(COURSE, SPEEDS, Probe([slow]), BEFORE))
    assert found["training, 20 steps"] == pytest.approx(3 * plain["training, 20 steps"], rel=1e-3)
    assert found["evaluating, 2 times"] == plain["evaluating, 2 times"]


def test_half_an_epoch_and_no_score_before():
    half = replace(COURSE, plan=replace(COURSE.plan, total_steps=5, evaluate_before=False))
    found = seconds(estimate_time(half, SPEEDS, None, BEFORE))
    whole = seconds(estimate_time(COURSE, SPEEDS, None, BEFORE))
    assert found["training, 5 steps"] == pytest.approx(whole["training, 20 steps"] / 4, rel=1e-3)
    assert "scoring the untrained model" not in found and "evaluating, 1 time" in found


def test_the_cache_is_built_once():
    cached = replace(COURSE, works=Works(Work(linear=3.0), Work(linear=1.0), Work(linear=9.0)), cached=True)
    found = seconds(estimate_time(cached, SPEEDS, None, BEFORE))
    assert found["computing the frozen layers once"] == pytest.approx(60 * 10 * 9 / (1000 * SCORING_SHARE))


def test_the_probe_runs_the_longest_step_and_a_typical_one():
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 60, 200)
    steps = choose_steps(lengths, lengths[:50], 4, seed=1)
    tokens = [int(lengths[step].sum()) for step in steps.training]
    assert tokens[0] == tokens[2] < tokens[1] == steps.longest_step
    assert all(len(step) == 4 for step in steps.training)
    assert max(int(lengths[:50][part].max()) for part in steps.scoring) == lengths[:50].max()
