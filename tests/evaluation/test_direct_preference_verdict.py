"""What is said of a run of DPO: never a good word without a judge, and none at all where nothing surely changed."""

from __future__ import annotations

from typing import Any

import pytest

from tunewright.cli.written_tables import COMPARED
from tunewright.evaluation import alignment_verdict, direct_preferences, wording


def run(accuracy: float = 0.74, p: float = 0.001, *, judge: float | None = None, judge_p: float = 0.001, **more: Any):
    """run.json of a run whose share of comparisons moved from 0.5."""
    paired = {"accuracy": {"difference": accuracy - 0.5, "p_value": p}}
    metrics = {"accuracy": accuracy, "chosen_change": 1.25, "rejected_change": -3.5, "kl": 4.2}
    before = {"accuracy": 0.5, "kl": 0.0}
    if judge is not None:
        paired["judge"] = {"difference": judge, "p_value": judge_p}
        metrics["judge"], before["judge"] = 1.0 + judge, 1.0
    return {
        "metrics": metrics,
        "intervals": {"accuracy": [0.62, 0.84]},
        "comparison": {"before": before, "paired": paired},
        "alignment": {"method": "dpo", "beta": 0.1, "judge_is_reward": False},
        "length": {"words": "it knows more than length: accuracy 0.740 against 0.560 by length alone"},
        **more,
    }


@pytest.mark.parametrize(
    ("given", "tone", "words"),
    [
        (run(), "unsure", "nobody has judged"),
        (run(judge=0.5), "good", "a judge finds what it writes better"),
        (run(judge=-0.5), "bad", "a judge finds what it writes worse"),
        (run(judge=0.1, judge_p=0.4), "unsure", "no sure difference"),
        (run(0.55, 0.3), "unsure", "not surely learnt"),
        (run(0.3, 0.01), "bad", "what people found worse"),
        (run(judge=0.5, forgetting={"verdict": "forgot"}), "unsure", "at a price: general text is partly forgotten"),
        (run(forgetting={"verdict": "forgot"}), "unsure", "it cost something: general text is partly forgotten"),
        ({"alignment": {"method": "dpo"}}, "open", "nothing to compare to"),
    ],
)
def test_verdicts(given, tone, words):
    found = alignment_verdict.verdict(given)
    assert found.tone == tone and words in found.headline


def test_the_sentence_has_the_numbers():
    assert alignment_verdict.verdict(run(judge=0.5)).sentence == (
        "It ranks 0.740 [0.620, 0.840] of the held-out comparisons as people did (0.5 is guessing): better completions "
        "+1.2, worse ones −3.5, in nats each. It knows more than length: accuracy 0.740 against 0.560 by length alone. "
        "By the judge: judge 1.000 → 1.500. It moved 4.2 nats per completion from where it started."
    )


def test_odd_files_break_nothing():
    for odd in (None, 3, "x", [], {"accuracy": "much"}):
        found = alignment_verdict.verdict(
            {"alignment": {"method": "dpo"}, "metrics": odd, "comparison": odd, "length": odd}
        )
        assert found.tone == "open"


def test_every_metric_has_words_and_a_place_in_the_terminal():
    assert [*COMPARED, "loss"] == sorted(direct_preferences.WORDS, key=[*COMPARED, "loss"].index)
    for name in direct_preferences.WORDS:
        assert wording.metric_meaning(name, "align") == direct_preferences.WORDS[name][1]
        assert name in wording.HIGHER_IS_BETTER and name in wording.metric_order("align")
