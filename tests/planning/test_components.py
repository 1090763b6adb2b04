"""Memory adds up, the largest moment decides, and where it doesn't fit the mildest change is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tunewright.planning.components import Holdings, memory_by_component, what_would_fit
from tunewright.planning.probe import Probe, Timed

MB = 10**6
RUN = Holdings(
    held_bytes=500 * MB, peak_so_far=500 * MB, free_bytes=4000 * MB, weights=90 * MB, embeddings=46 * MB,
    adapters=2 * MB, trainable=500_000, per_token=250_000, tokens=2048, scoring_tokens=4096, width=384, cache_bytes=0,
    longest=256,
)  # fmt: skip


def parts(memory):
    return {part.name: part.amount for part in memory.parts}


def test_parts_are_those_of_training_and_add_up():
    memory = memory_by_component(RUN, None)
    found = parts(memory)
    assert sum(found.values()) == memory.moments["training"]
    assert (found["gradients"], found["optimizer"]) == (4 * 500_000, 8 * 500_000)
    assert found["activations"] == 250_000 * 2048
    assert found["interpreter, libraries, data"] == (500 - 44 - 2) * MB
    assert memory.fits and memory.peak_bytes == max(memory.moments.values())


def test_what_was_measured_replaces_the_guess():
    peak = Timed(np.array([256] * 8), 1.0, 1500 * MB)
    probe = Probe([peak], [Timed(np.array([256]), 0.1, 700 * MB)], [], held_bytes=500 * MB, kept_bytes=900 * MB)
    memory = memory_by_component(RUN, probe)
    # held + gradients + optimizer + what came and went, and the embeddings that are read later
    assert memory.moments["training"] == pytest.approx(1500 * MB, rel=0.12)
    assert memory.moments["scoring"] == pytest.approx(746 * MB, rel=0.01)
    assert {part.how for part in memory.parts if part.name == "temporaries and gaps"} == {"measured"}


def test_every_parameter_makes_the_checkpoint_the_largest_moment():
    memory = memory_by_component(replace(RUN, trainable=22_700_000, adapters=0, tokens=256), None)
    assert memory.moment == "checkpoint"
    assert memory.moments["checkpoint"] > 500 * MB + (8 + 12) * 22_700_000


def test_the_cache_is_resident_but_no_need():
    memory = memory_by_component(replace(RUN, cache_bytes=3000 * MB), None)
    plain = memory_by_component(RUN, None)
    assert memory.peak_bytes == plain.peak_bytes + 3000 * MB and memory.need_bytes == plain.need_bytes and memory.fits


def test_a_process_that_was_larger_says_so():
    memory = memory_by_component(replace(RUN, peak_so_far=9000 * MB), None)
    assert (memory.moment, memory.peak_bytes) == ("before", 9000 * MB)


def test_advice_from_mild_to_severe():
    def advice(free, method="lora"):
        change = what_would_fit(replace(RUN, free_bytes=free), method=method, layers_share=1 / 6)
        return change and change.settings

    assert advice(700 * MB) == ("training.micro_batch_tokens=1024",)
    assert advice(400 * MB) == ("training.micro_batch_tokens=512",)
    assert advice(MB) is None
    # Every parameter's gradient, moments and copies are too much: adapters.
    heavy = replace(RUN, trainable=100_000_000, free_bytes=1000 * MB)
    assert what_would_fit(heavy, method="full", layers_share=1 / 6).settings[0] == "trainable.method=lora"


def test_advice_is_what_fits():
    for free in range(100, 1500, 50):
        change = what_would_fit(replace(RUN, free_bytes=free * MB), method="lora", layers_share=1 / 6)
        assert change is None or change.need_bytes - RUN.held_bytes <= free * MB
