"""Numbers of an aligned model's completions: known answers, and tests that are honest about small samples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tests.evaluation.fake_align import completions
from tunewright.cli.written_tables import ALIGNED
from tunewright.evaluation import alignment as a
from tunewright.evaluation.alignment import Completions, WinRate


def answers(texts, score=None, **more) -> Completions:
    n = len(texts)
    plain = {"kl": np.zeros(n), "ref_nats": np.full(n, 2.0), "length": np.full(n, 4), "ended": np.ones(n, bool)}
    return Completions(texts, np.zeros(n) if score is None else np.array(score, float), **(plain | more))


# ---- diversity ----


@pytest.mark.parametrize(
    ("texts", "one", "two"),
    [
        (["the film was good", "the film was bad"], 5 / 8, 4 / 6),
        (["great great great great"], 1 / 4, 1 / 3),
        (["It's GREAT!", "its great"], 4 / 5, 3 / 3),  # "it s great" and "its great"
        (["same words here"] * 4, 3 / 12, 2 / 8),  # each text alone would look diverse
        (["电影很好"], 4 / 4, 3 / 3),  # written without spaces: a character is a word
        (["word"], 1.0, math.nan),
        (["", "!?"], math.nan, math.nan),
    ],
)  # fmt: skip
def test_distinct_counts_runs_over_all_texts(texts, one, two):
    assert [a.distinct(texts, 1), a.distinct(texts, 2)] == pytest.approx([one, two], nan_ok=True)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a b c d e f", 0.0),
        ("a a a a a a a", 3 / 4),  # four runs of four, one of them new
        ("the film is good. The film is good.", 1 / 5),
        ("good good good", 0.0),  # too short for a run of four
        ("", 0.0),
    ],
)
def test_repetition_is_what_a_text_has_said_already(text, share):
    assert a.repetition(text) == pytest.approx(share)


def test_what_nobody_wrote_has_no_diversity_and_every_other_metric():
    found = a.measured(answers(["", ""]), 0.1).metrics
    assert "distinct_1" not in found and "distinct_2" not in found
    assert found["repetition"] == 0 and found["ended"] == 1 and found["length"] == 4


# ---- scores ----


def test_the_reward_pays_for_distance():
    found = a.measured(answers(["a b", "c d"], [1.0, 3.0], kl=np.array([10.0, 20.0])), kl_coef=0.05)
    assert found.metrics["score"] == 2.0 and found.metrics["kl"] == 15.0
    assert found.metrics["reward"] == pytest.approx(2.0 - 0.05 * 15)
    assert found.per_row["reward"].tolist() == [0.5, 2.0]


def test_perplexities_are_of_all_tokens_together():
    wanted = np.array([[2.0, 1.0], [1.0, 2.0]])
    found = a.measured(answers(["a", "b"], ref_nats=np.array([8.0, 0.0]), wanted=wanted), 0.0).metrics
    assert found["ref_perplexity"] == pytest.approx(math.exp(8 / 8)) and found["perplexity"] == pytest.approx(math.e)


def test_every_metric_has_words_and_a_place_in_the_terminal():
    found = a.measured(completions(np.random.default_rng(0), 30, 2.0, 1.0, False, 5.0, 2.0), 0.05)
    won = ("win_rate", "judge_win_rate")
    assert list(found.metrics) == [name for name in a.WORDS if name not in won]
    assert [name for name in a.WORDS if name != "perplexity"] == sorted(ALIGNED, key=list(a.WORDS).index)
    assert a.HIGHER_IS_BETTER.keys() <= a.WORDS.keys()


# ---- who won ----


def test_win_rates_count_ties_as_halves_and_the_same_text_as_a_tie():
    before, after = answers(["x", "y", "z", "same"], [0, 0, 0, 1.0]), answers(["a", "b", "c", "same"], [1, -1, 0, 1.1])
    (won,) = a.win_rates(before, after).values()
    assert won == WinRate(won=1, lost=1, tied=2) and won.rate == 0.5
    assert a.measured(after, 0.0, before).metrics["win_rate"] == 0.5


def test_rounding_is_no_victory():
    before = np.array([0.25, 4.0, -3.0])
    assert a.win_rate(before, before * (1 + 1e-8)) == WinRate(0, 0, 3)
    assert a.win_rate(before, before + np.array([1e-3, -1e-3, 0])) == WinRate(1, 1, 1)


def test_the_judge_has_a_win_rate_of_its_own():
    before = answers(["x"] * 10, [0.0] * 10, more={"judge": np.zeros(10)})
    after = answers(["y"] * 10, [1.0] * 10, more={"judge": np.array([1.0] * 2 + [-1.0] * 8)})
    won = a.win_rates(before, after)
    assert won["win_rate"].rate == 1.0 and won["judge_win_rate"].rate == pytest.approx(0.2)
    assert won["win_rate"].p_value == pytest.approx(2 / 2**10)


@pytest.mark.parametrize(
    ("won", "low", "high"),
    [(WinRate(10, 0, 0), 0.7225, 1.0), (WinRate(0, 10, 0), 0.0, 0.2775), (WinRate(8, 2, 0), 0.4902, 0.9433)],
)
def test_intervals_of_win_rates_are_wilson_s(won, low, high):
    """Agresti and Coull's table; 10 of 10 is not certainty."""
    assert won.interval.to_json() == pytest.approx([low, high], abs=1e-4)


# ---- how sure ----


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        scores = a.measured(answers(["a b"] * 40, rng.normal(1.0, 2.0, 40)), 0.0)
        found = a.intervals(scores, 400, trial)["score"]
        covered += found.low <= 1.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_diversity_has_no_interval_and_a_share_has_one_at_its_ends():
    found = a.intervals(a.measured(answers(["a b", "c d", "e f"]), 0.0), 200, 0)
    assert "distinct_1" not in found and "distinct_2" not in found
    assert "score" not in found, "all alike: no resample would differ"
    assert found["ended"].high == 1.0 and 0.3 < found["ended"].low < 0.5  # 3 of 3 is not certainty


def test_pairs_know_more_than_two_intervals():
    rng = np.random.default_rng(1)
    easy = rng.normal(0, 3, 60)  # prompts differ far more than models do
    before, after = answers(["a b"] * 60, easy), answers(["a c"] * 60, easy + rng.normal(0.4, 0.5, 60))
    scores = [a.measured(one, 0.0) for one in (before, after)]
    found = a.paired(*scores, 1000, 0)["score"]
    assert found.p_value < 0.01 and found.interval.low > 0 and found.fixed > found.broke
    assert found.difference == pytest.approx(scores[1].metrics["score"] - scores[0].metrics["score"])
    wide = a.intervals(scores[1], 1000, 0)["score"]
    assert wide.high - wide.low > 3 * (found.interval.high - found.interval.low)


def test_what_is_better_when_it_is_less_counts_the_other_way():
    before, after = answers(["a b c d a b c d"] * 9), answers(["a b c d e f g h"] * 9)
    found = a.paired(a.measured(before, 0.0), a.measured(after, 0.0), 200, 0)["repetition"]
    assert (found.fixed, found.broke) == (9, 0) and found.difference < 0
    assert {"kl", "length", "distinct_2", "ref_perplexity"}.isdisjoint(a.BY_PROMPT)


def test_ending_is_tested_by_the_prompts_that_changed():
    ends = np.array([1, 1, 1, 1, 1, 1, 0, 0], bool)
    before, after = (a.measured(answers(["a b"] * 8, ended=e), 0.0) for e in (ends, ~ends))
    found = a.paired(before, after, 200, 0)["ended"]
    assert (found.fixed, found.broke) == (2, 6) and found.difference == -0.5
    assert found.p_value == pytest.approx(2 * sum(math.comb(8, k) for k in range(3)) / 2**8)


def test_diversity_is_tested_by_exchanging_texts():
    """Against every exchange there is, counted with sets."""
    before = ["the film was good", "i saw it twice", "we left early", "a fine cast", "the end was slow"]
    after = ["it was great", "it was great", "it was great fun", "great fun it was", "it was great"]

    def difference(taken):
        later = [new if keep else old for keep, old, new in zip(taken, before, after, strict=True)]
        earlier = [old if keep else new for keep, old, new in zip(taken, before, after, strict=True)]
        return a.distinct(later, 2) - a.distinct(earlier, 2)

    all_of_them = [difference(taken) for taken in itertools.product([True, False], repeat=5)]
    observed = difference([True] * 5)
    exact = np.mean([abs(one) >= abs(observed) - 1e-12 for one in all_of_them])
    found = a.paired(a.measured(answers(before), 0.0), a.measured(answers(after), 0.0), 4000, 0)["distinct_2"]
    assert found.difference == pytest.approx(observed) and found.p_value == pytest.approx(exact, abs=0.02)


def test_the_same_texts_are_as_diverse_as_themselves():
    scores = a.measured(answers(["a b c", "d e f"]), 0.0)
    found = a.paired(scores, scores, 200, 0)
    assert found["distinct_2"].p_value == 1.0 and found["distinct_2"].difference == 0
    assert found["score"].p_value == 1.0 and (found["score"].fixed, found["score"].broke) == (0, 0)


def test_a_collapse_is_sure_even_with_many_long_texts():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(4000)]
    before = [" ".join(rng.choice(words, 120)) for _ in range(64)]
    after = ["it was great " * 40] * 64
    found = a.paired(a.measured(answers(before), 0.0), a.measured(answers(after), 0.0), 1000, 0)
    assert found["distinct_1"].p_value < 0.01 and found["distinct_2"].difference < -0.9


def test_other_rows_are_no_pairs():
    with pytest.raises(ValueError, match="not scored on the same rows"):
        a.paired(a.measured(answers(["a b"]), 0.0), a.measured(answers(["a b", "c d"]), 0.0))
