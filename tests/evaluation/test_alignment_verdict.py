"""Was it worth it: a score that rises is never enough for a good word."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.fake_align import make_aligned_run
from tunewright.evaluation.alignment_verdict import sentence, standing, verdict


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_aligned_run(tmp_path_factory.mktemp("runs") / "ppo")
    return json.loads((folder / "run.json").read_text())


def changed(run: dict[str, Any], **paired: dict[str, Any] | None) -> dict[str, Any]:
    """The same run with other tests."""
    other = copy.deepcopy(run)
    for name, values in paired.items():
        if values is None:
            other["comparison"]["paired"].pop(name)
            other["metrics"].pop(name)
        else:
            other["comparison"]["paired"][name] |= values
    return other


CASES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "good", "Better, and a judge that training never saw agrees."),
    ({"score": {"p_value": 0.2}}, "unsure", "The score has not surely risen."),
    ({"score": {"difference": -1.0}}, "bad", "The score is lower than before training."),
    ({"judge": {"p_value": 0.2}}, "unsure", "The score rose; the judge sees no sure difference."),
    ({"judge": {"difference": -1.0}}, "bad", "It learnt to please the reward: the judge's score fell."),
    ({"judge": None}, "unsure", "The score rose; nobody else has judged."),
]


@pytest.mark.parametrize(("tests", "tone", "headline"), CASES, ids=[case[2] for case in CASES])
def test_what_is_said(good: dict[str, Any], tests: dict[str, Any], tone: str, headline: str) -> None:
    found = verdict(changed(good, **tests))
    assert (found.tone, found.headline) == (tone, headline)


def test_a_judge_that_is_the_reward_proves_nothing(good: dict[str, Any]) -> None:
    run = copy.deepcopy(good)
    run["alignment"]["judge_is_reward"] = True
    assert verdict(run).headline == "The score rose; nobody else has judged."
    assert "The judge is the reward itself and proves nothing." in sentence(run)


def damaged(run: dict[str, Any], **changes: Any) -> dict[str, Any]:
    other = copy.deepcopy(run)
    for name, (before, after, p_value) in changes.items():
        other["comparison"]["before"][name], other["metrics"][name] = before, after
        other["comparison"]["paired"][name] = {"difference": after - before, "p_value": p_value}
    return other


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repetition": (0.01, 0.2, 0.01)}, ("texts repeat themselves",)),
        ({"repetition": (0.01, 0.2, 0.3)}, ()),  # not sure
        ({"repetition": (0.01, 0.03, 0.01)}, ()),  # sure, and too little to matter
        ({"distinct_2": (0.9, 0.6, 0.01)}, ("texts are less diverse",)),
        ({"distinct_2": (0.9, 0.85, 0.01)}, ()),
        ({"perplexity": (8.0, 9.0, 0.01)}, ("the task learnt before is partly forgotten",)),
        ({"perplexity": (8.0, 8.1, 0.01)}, ()),
        ({"ended": (0.9, 0.1, 0.01)}, ("texts no longer end",)),
        ({"ended": (0.1, 0.9, 0.01)}, ()),
    ],
)
def test_damage_is_said_when_it_is_sure_and_large(
    good: dict[str, Any], changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    run = damaged(good, **changes)
    assert standing(run).damage == words
    assert verdict(run).tone == ("unsure" if words else "good")


def test_what_was_forgotten_is_a_price(good: dict[str, Any]) -> None:
    run = copy.deepcopy(good) | {"forgetting": {"verdict": "forgot", "words": "perplexity 20.8 → 25.4: forgot"}}
    found = verdict(run)
    assert found.headline == "Better, and the judge agrees, at a price: general text is partly forgotten."
    assert found.sentence.endswith("What was forgotten: perplexity 20.8 → 25.4: forgot.")


def test_a_collapse_is_seen(tmp_path: Path) -> None:
    run = json.loads((make_aligned_run(tmp_path / "run", collapsed=True, judged=None) / "run.json").read_text())
    assert verdict(run).headline == (
        "The score rose, and it cost something: texts repeat themselves and texts are less diverse; nobody else has "
        "judged."
    )


def test_the_sentence_has_the_numbers(good: dict[str, Any]) -> None:
    words = sentence(good)
    rate = good["alignment"]["win_rates"]["judge_win_rate"]
    low, high = rate["interval"]
    assert f"By the judge: probability 0.424 → {good['metrics']['judge_probability']:.3f} [" in words
    assert f"{rate['won']} of 48 prompts won (win rate {rate['rate']:.2f} [{low:.2f}, {high:.2f}])" in words
    assert f"It moved {good['metrics']['kl']:.1f} nats per completion" in words
    assert "Still readable? Distinct pairs" in words


def test_nothing_to_compare_with(tmp_path: Path) -> None:
    run = json.loads((make_aligned_run(tmp_path / "run", before=False) / "run.json").read_text())
    assert verdict(run).tone == "open" and "win rate" not in sentence(run)
    assert verdict({}).tone == "open" and verdict({"metrics": 3, "comparison": [1], "alignment": "x"}).tone == "open"
