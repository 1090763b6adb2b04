"""What DPO did, in numbers worked out by hand; the start is the reference, and ties decide nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tunewright.evaluation import direct_preferences
from tunewright.evaluation.preferences import Scored

BETA = 0.5


def scored(better, worse, *, prompts=None, weights=None) -> Scored:
    """Comparisons with these implicit rewards, one of each prompt unless said."""
    size = len(better)
    return Scored(
        prompts=np.arange(size) if prompts is None else np.array(prompts),
        better=np.array(better, float),
        worse=np.array(worse, float),
        weights=np.ones(size) if weights is None else np.array(weights, float),
        margins=np.zeros(size),
        better_lengths=np.full(size, 5),
        worse_lengths=np.full(size, 5),
        annotators=np.full(size, -1),
    )


def test_metrics_by_hand():
    found = direct_preferences.metrics(scored([2.0, -1.0], [1.0, 1.0]), BETA)
    assert found["accuracy"] == 0.5 and found["margin"] == pytest.approx((1 - 2) / 2)
    assert found["loss"] == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2)
    assert found["chosen_change"] == pytest.approx((2 - 1) / 2 / BETA)  # nats: the reward without β
    assert found["rejected_change"] == pytest.approx(2.0)
    assert found.keys() == direct_preferences.WORDS.keys() == direct_preferences.HIGHER_IS_BETTER.keys()


def test_the_start_prefers_nothing():
    """As the metrics of rewards of 0, without computing them."""
    some = scored([2.0, -1.0, 0.3], [1.0, 1.0, 0.2], weights=[1, 1, 0.5])
    zeros = np.zeros(3)
    computed = direct_preferences.metrics(replace(some, better=zeros, worse=zeros), BETA)
    assert direct_preferences.at_the_start(some) == pytest.approx(computed)


def test_ties_have_a_loss_and_nothing_else():
    tied = scored([1.0, 2.0], [0.0, 0.0], weights=[0.5, 0.5])
    assert direct_preferences.metrics(tied, BETA).keys() == {"loss"}
    assert direct_preferences.at_the_start(tied) == {"loss": math.log(2)}
    assert direct_preferences.paired(tied, BETA).keys() == {"loss"}
    assert direct_preferences.intervals(tied, BETA).keys() == {"loss"}


def test_against_the_start():
    generator = np.random.default_rng(0)
    better, worse = generator.normal(1.0, 0.5, 80), generator.normal(-0.5, 0.5, 80)
    some = scored(better, worse)
    found, metrics = direct_preferences.paired(some, BETA, 500), direct_preferences.metrics(some, BETA)
    for name, start in direct_preferences.AT_THE_START.items():
        assert found[name].difference == pytest.approx(metrics[name] - start)
        assert found[name].interval.low < found[name].difference < found[name].interval.high
        assert found[name].p_value < 0.01
    right = int((better > worse).sum())
    assert (found["accuracy"].fixed, found["accuracy"].broke) == (right, 80 - right)
    assert (found["loss"].fixed, found["rejected_change"].fixed) == (right, int((worse < 0).sum()))


def test_noise_prefers_nothing_surely_and_costs_surely():
    """Rewards drawn by lot: no side gains, and certainty without knowledge is what the loss is for."""
    generator = np.random.default_rng(1)
    found = direct_preferences.paired(scored(generator.normal(0, 2, 60), generator.normal(0, 2, 60)), BETA, 500)
    assert all(one.p_value > 0.05 for name, one in found.items() if name != "loss")
    assert found["loss"].difference > 0 and found["loss"].p_value < 0.05


def test_intervals_draw_whole_prompts():
    """Five comparisons of each prompt that say the same say it once: as wide as without the repetition."""
    generator = np.random.default_rng(2)
    values = generator.normal(0.2, 1.0, 40)
    alone = direct_preferences.intervals(scored(values, np.zeros(40)), BETA, 2000)["chosen_change"]
    repeated = scored(np.repeat(values, 5), np.zeros(200), prompts=np.repeat(np.arange(40), 5))
    together = direct_preferences.intervals(repeated, BETA, 2000)["chosen_change"]
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_a_warning_where_better_completions_surely_became_less_likely():
    generator = np.random.default_rng(3)
    lost = scored(generator.normal(-2, 0.5, 50), generator.normal(-4, 0.5, 50))
    words = direct_preferences.warning(direct_preferences.intervals(lost, BETA))
    assert words is not None and "less likely too" in words
    gained = scored(generator.normal(2, 0.5, 50), generator.normal(-4, 0.5, 50))
    assert direct_preferences.warning(direct_preferences.intervals(gained, BETA)) is None
    unsure = scored(generator.normal(-0.01, 2, 50), generator.normal(-4, 0.5, 50))
    assert direct_preferences.warning(direct_preferences.intervals(unsure, BETA)) is None
    assert direct_preferences.warning({}) is None
