"""How often scores agree with people, how surely, and whether they know more than length: known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from tests.learning.comparing import Compared, dataset
from tunewright.evaluation import preferences
from tunewright.evaluation.preferences import LengthRival, Scored


def scored(differences, weights=1.0, prompts=None, ratios=None, annotators=-1, margins=0.0):
    d = np.asarray(differences, float)
    lengths = np.round(100 * np.exp(ratios if ratios is not None else np.zeros(len(d)))).astype(int)
    full = (np.broadcast_to(np.asarray(x), d.shape) for x in (weights, margins, annotators))
    p, m, who = full
    which = np.arange(len(d)) if prompts is None else np.asarray(prompts)
    return Scored(which, d, np.zeros(len(d)), p.astype(float), m.astype(float), lengths, np.full(len(d), 100), who)


def test_from_a_dataset_and_the_scores_of_its_texts():
    data = dataset([
        Compared([1], [[2], [3, 4, 5], [6, 7]], ((1, 0, 1.0), (2, 0, 0.5))),
        Compared([1, 1], [[2], [3, 4]]),
    ])  # fmt: skip
    found = Scored.of(data, np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert found.prompts.tolist() == [0, 0, 1]
    assert found.better.tolist() == [0.2, 0.3, 0.4] and found.worse.tolist() == [0.1, 0.1, 0.5]
    assert found.better_lengths.tolist() == [3, 2, 1] and found.worse_lengths.tolist() == [1, 1, 2]
    assert found.decided.tolist() == [True, False, True]
    part = Scored.of(data.subset([1]), np.array([0.4, 0.5]))
    assert part.better.tolist() == [0.4] and part.prompts.tolist() == [0]


def test_metrics_by_hand():
    found = preferences.metrics(scored([2, -1, 0, 5], weights=[1, 1, 1, 0.5]))
    assert found["accuracy"] == 0.5  # right, wrong, and half of a draw; nobody can be right about a tie
    assert found["margin"] == pytest.approx(1 / 3)
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    assert found["loss"] == pytest.approx((softplus(-2) + softplus(1) + math.log(2) + softplus(-5) + 2.5) / 4)


def test_prompts_weigh_one_in_the_loss_and_comparisons_in_the_accuracy():
    found = preferences.metrics(scored([1, 1, 1, -1], prompts=[0, 0, 0, 1]))
    assert found["accuracy"] == 0.75
    assert found["loss"] == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 2)
    with_margin = preferences.metrics(scored([2.0], margins=2.0))
    assert with_margin["loss"] == pytest.approx(math.log(2))


def test_calibration_of_scores_that_mean_what_they_say():
    generator = np.random.default_rng(0)
    d = generator.normal(0, 2, 20_000)
    honest = np.where(generator.random(len(d)) < 1 / (1 + np.exp(-np.abs(d))), np.abs(d), -np.abs(d))
    assert preferences.calibration_error(preferences.reliability(honest)) < 0.01
    assert preferences.calibration_error(preferences.reliability(4 * honest)) > 0.1
    bins = preferences.reliability(np.array([0.0, 10.0, 10.0, -10.0]))
    assert [(b.low, b.high, b.count) for b in bins] == [(0.5, 0.6, 1), (0.9, 1.0, 3)]
    assert bins[0].accuracy == 0.5 and bins[1].accuracy == pytest.approx(2 / 3)


def test_intervals_are_binomial_for_single_comparisons_and_wider_for_dependent_ones():
    right = np.array([1.0] * 30 + [-1.0] * 10)
    alone = preferences.intervals(scored(right), samples=4000)["accuracy"]
    exact = stats.binom.ppf([0.025, 0.975], 40, 0.75) / 40
    assert (alone.low, alone.high) == pytest.approx(exact, abs=0.03)
    same = np.repeat([1.0, 1.0, 1.0, -1.0], 10)  # four prompts, each ten times over
    together = preferences.intervals(scored(same, prompts=np.repeat(range(4), 10)), samples=4000)["accuracy"]
    assert together.high - together.low > 2 * (alone.high - alone.low)
    every = preferences.intervals(scored(np.ones(20)))["accuracy"]
    assert every.high == 1 and every.low == pytest.approx(0.025 ** (1 / 20))
    assert set(preferences.intervals(scored([1, -1]))) == {"accuracy", "margin", "loss"}
    assert set(preferences.intervals(scored([1, -1], weights=0.5))) == {"loss"}


def test_paired_test_is_mcnemars_where_prompts_are_compared_once():
    before, after = np.array([1.0] * 5 + [-1.0] * 10), np.array([1.0] * 14 + [-1.0])
    found = preferences.paired(before, after, np.arange(15))
    assert (found.fixed, found.broke) == (9, 0) and found.p_value == pytest.approx(2 * 0.5**9)
    repeated = preferences.paired(np.tile(before, 2), np.tile(after, 2), np.tile(np.arange(15), 2))
    assert repeated.difference == pytest.approx(9 / 15) and 0.0005 < repeated.p_value < 0.05


def test_the_rival_learns_what_a_logistic_regression_does():
    generator = np.random.default_rng(1)
    ratios = generator.normal(0, 0.5, 400)
    longer_wins = generator.random(400) < 1 / (1 + np.exp(-2 * ratios))
    signs = np.where(longer_wins, 1, -1)
    rival = LengthRival.fitted(ratios * signs, np.ones(400))
    x, y = np.concatenate([ratios, -ratios])[:, None], np.concatenate([longer_wins, ~longer_wins])
    oracle = LogisticRegression(C=1e6, fit_intercept=False, tol=1e-9).fit(x, y)
    assert rival.slope == pytest.approx(float(oracle.coef_[0, 0]), rel=1e-3)
    shorter = LengthRival.fitted(-ratios * signs, np.ones(400))
    assert shorter.slope == pytest.approx(-rival.slope)
    assert np.isfinite(LengthRival.fitted(np.ones(5), np.ones(5)).slope)  # perfectly separable
    assert LengthRival.fitted(np.zeros(5), np.ones(5)).slope == 0
    assert LengthRival.fitted(ratios, np.full(400, 0.5)).slope == pytest.approx(0, abs=1e-6)


def test_scores_that_are_length_know_no_more_than_length():
    generator = np.random.default_rng(2)
    ratios = generator.normal(0.3, 0.5, 200)
    ours = scored(3 * ratios, ratios=ratios)
    facts = preferences.length_facts(ours, LengthRival(1.0))
    assert facts["difference"] == pytest.approx(0, abs=0.02) and "no sure sign" in facts["words"]
    assert facts["spearman"] > 0.95 and facts["scores_prefer_longer"] > 0.95
    assert facts["people_prefer_longer"] == pytest.approx(np.mean(ratios > 0), abs=0.02)
    unlike = preferences.length_facts(scored(np.ones(200), ratios=ratios), LengthRival(1.0))
    assert unlike["p_value"] < 0.003 and unlike["words"].startswith("it knows more than length: accuracy 1.000")
    worse = preferences.length_facts(scored(-np.ones(200), ratios=np.ones(200)), LengthRival(1.0))
    assert worse["words"].startswith("it is worse than choosing by length")


def test_correlation_does_not_depend_on_which_side_is_called_better():
    generator = np.random.default_rng(3)
    d, ratios, flip = generator.normal(size=50), generator.normal(size=50), generator.choice([-1, 1], 50)
    one, other = (preferences.length_facts(scored(d * s, ratios=ratios * s), LengthRival(1.0)) for s in (1, flip))
    for name in ("pearson", "spearman"):
        assert one[name] == pytest.approx(other[name], abs=0.02)


def test_per_annotator_who_judged_most_first():
    d = [1, 1, -1, 1, -1, 1]
    found = preferences.per_annotator(scored(d, annotators=[0, 0, 0, 1, 1, -1]), ["Ada", "Bob", "Cy"])
    assert [(one["annotator"], one["comparisons"], one["accuracy"]) for one in found] == [
        ("Ada", 3, pytest.approx(2 / 3)),
        ("Bob", 2, 0.5),
    ]
    assert all(low <= one["accuracy"] <= high for one in found for low, high in [one["interval"]])


def test_everything_at_once_is_json_and_says_what_was_left_out():
    import json

    ours = scored([1, -1, 3, 2], weights=[1, 1, 0.5, 1], ratios=np.array([0.1, 0.2, 0, -0.3]))
    body = preferences.judge(ours, LengthRival(0.7), ["Ada"])
    assert json.loads(json.dumps(body)) == body
    assert body["kind"] == "preference" and (body["num_rows"], body["comparisons"], body["ties"]) == (4, 4, 1)
    assert body["notes"] == ["1 of 4 comparisons are ties, which accuracy leaves out"]
    assert body["baseline"]["accuracy"] == pytest.approx(2 / 3)
    assert set(body["metrics"]) == set(preferences.WORDS) == set(preferences.HIGHER_IS_BETTER)


def test_ties_alone_have_a_loss_and_nothing_else():
    body = preferences.judge(scored([0.5, 1], weights=0.5), LengthRival(0.0))
    assert set(body["metrics"]) == {"loss"} and body["reliability"] == []
