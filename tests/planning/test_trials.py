"""Minutes become tokens, halving comes only where it pays, and a trial has the recipe of the person but for little."""

from __future__ import annotations

import pytest

from tunewright.errors import UsageError
from tunewright.planning import trials as t
from tunewright.recipe_files import build_recipe

COST = t.Cost(fixed_seconds=10, once_seconds=0, evaluation_seconds=5, seconds_per_token=0.001, tokens_per_step=1000,
              epoch_tokens=2e5, full_tokens=1e6, full_steps=1000)  # fmt: skip


def _costs(n: int, **changes: float) -> list[t.Cost]:
    return [t.Cost(**{**COST.to_json(), **changes}) for _ in range(n)]


def test_all_of_the_budget_is_spent():
    """Nine trials of one evaluation in 600 s: 600 = 9 (10 + 5 + tokens / 1000)."""
    found = t.allot(_costs(3), 3, 600)
    assert found.tokens == pytest.approx((600 / 9 - 15) * 1000, rel=1e-6)
    assert (found.shares, found.stay, found.evaluations) == ((1.0,), (3,), 1)
    assert found.seconds == pytest.approx(600)


def test_what_the_first_trial_pays_for_all_is_paid_once():
    found = t.allot(_costs(1, once_seconds=100.0), 3, 600)
    assert found.tokens == pytest.approx(((600 - 100) / 3 - 15) * 1000, rel=1e-6)


def test_never_longer_than_the_recipe_wants():
    assert t.allot(_costs(3), 3, 1e9).tokens == 1e6
    assert t.allot(_costs(3), 3, None).tokens == 1e6
    assert t.allot(_costs(12), 3, None).shares == (1.0,)


def test_halving_only_where_it_pays():
    assert t.allot(_costs(3), 3, 1000).shares == (1.0,), "three candidates are all wanted in the table"
    many = t.allot(_costs(12), 3, 3000)
    assert len(many.shares) > 1 and many.stay[0] == 12 and many.seconds <= 3000
    plain = t._most(_costs(12), 3, 3000, 1e6, 1)
    assert many.tokens >= t.GAIN * plain.tokens
    assert t.allot(_costs(12), 3, 1e9).shares == (1.0,), "there is time for everybody"


def test_halves():
    assert t.stays(12, 3) == (12, 6, 3)
    assert t.stays(9, 3) == (9, 5, 3)
    assert t.stays(4, 3) == (4, 2, 2)
    assert t.stays(1, 3) == (1, 1, 1)


def test_a_small_budget_gives_one_step():
    assert t.allot(_costs(2), 1, 1).tokens == pytest.approx(1000)


def test_steps_fall_on_the_rungs():
    length = COST.steps(101_000, 4)
    assert length == t.Length(100, 25)
    assert COST.steps(2e6, 1) == t.Length(1000, 1000), "no more than the recipe's own steps"
    assert COST.steps(10, 1) == t.Length(1, 1)


def test_candidates():
    recipe = build_recipe({"data": {"train": "x.jsonl"}, "model": "minilm"})
    found = t.candidates(recipe, ["minilm", "hub/Other-1.5B", "run:mine"], ["head", "lora"])
    assert [c.name for c in found] == ["minilm head", "minilm lora", "Other-1.5B head", "Other-1.5B lora",
                                       "run:mine head", "run:mine lora"]  # fmt: skip
    assert found[3].slug == "Other-1-5B-lora"
    assert [c.name for c in t.candidates(recipe, [], [])] == ["minilm lora"]
    with pytest.raises(UsageError, match=r'"laura" is no method; expected head, lora, full. Did you mean "lora"'):
        t.candidates(recipe, [], ["laura"])
    with pytest.raises(UsageError, match="two models would both be called"):
        t.candidates(recipe, ["a/same", "b/same"], ["head"])


def test_settings_that_suit_one_method_stay_with_it():
    recipe = build_recipe(
        {
            "data": {"train": "x.jsonl", "max_length": 64},
            "model": "minilm",
            "trainable": {"method": "lora", "rank": 16, "targets": ["query"]},
            "training": {"learning_rate": 1e-3, "epochs": 4, "batch_size": 16},
        }
    )

    def made(model: str, method: str) -> object:
        return t.trial_recipe(
            t.candidate_values(recipe, t.Candidate(model, method)), name="x", seed=7, length=t.Length(20, 10),
            data={"validation": "held.jsonl"}, model=f"/somewhere/{model}", evaluation={"metric": "accuracy"},
        )  # fmt: skip

    own, full, other = made("minilm", "lora"), made("minilm", "full"), made("other", "lora")
    assert (own.trainable.rank, own.trainable.targets, own.training.learning_rate) == (16, ["query"], 1e-3)
    assert (full.trainable.method, full.training.learning_rate, full.training.batch_size) == ("full", "auto", 16)
    assert (other.trainable.rank, other.trainable.targets, other.training.learning_rate) == (16, "all-linear", 1e-3)
    assert own.training.max_steps == 20 and own.training.epochs == "auto" and own.training.seed == 7
    assert own.evaluation.every == 10 and own.evaluation.keep == "last" and not own.evaluation.before
    assert own.data.validation == "held.jsonl" and own.data.max_length == 64 and own.model == "/somewhere/minilm"


@pytest.mark.parametrize(("text", "seconds"), [("20m", 1200), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400),
                                               ("2min", 120), ("none", None)])  # fmt: skip
def test_times(text, seconds):
    assert t.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "abc", "0m", "-5m", "m", "1.2.3m"])
def test_times_that_are_none(text):
    with pytest.raises(UsageError, match="as a time; expected something like 20m"):
        t.seconds_of(text)
