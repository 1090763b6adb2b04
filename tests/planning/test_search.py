"""A search block is read strictly, its values are spread well, and what comes next hangs on the past alone."""

from __future__ import annotations

import numpy as np
import pytest

from tunewright.errors import RecipeError
from tunewright.planning import search as s
from tunewright.recipe_files import build_recipe

RECIPE = build_recipe({"data": {"train": "x.jsonl"}, "training": {"seed": 5}})
RATE = {"low": 1e-5, "high": 1e-3, "log": True}


def _plan(**block: object) -> s.SearchPlan:
    return s.plan_search(RECIPE, block)


def test_the_block_of_a_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "data: {train: x.jsonl}\nsearch:\n  training.learning_rate: {low: 1e-5, high: 1e-3, log: true}\n"
        "  trainable.rank: [4, 8]\n  trials: 6\n"
    )
    plan = s.load_search(path, ["training.seed=9"])
    assert (plan.method, plan.trials, plan.recipe.training.seed) == ("random", 6, 9)
    assert [d.path for d in plan.dimensions] == ["training.learning_rate", "trainable.rank"]
    assert plan.options.stop_poor


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({}, "names no setting"),
        ({"training.lr": [1]}, '"search.training.lr" is neither a setting nor'),
        ({"training.learning_rat": [1e-3]}, 'Did you mean "training.learning_rate"'),
        ({"trainable.rank": []}, "is an empty list"),
        ({"trainable.rank": 4}, "expected a list of values"),
        ({"trainable.rank": {"low": 4}}, "expected a list of values"),
        ({"trainable.rank": {"low": 8, "high": 4}}, "expected low < high"),
        ({"training.weight_decay": {"low": 0, "high": 1, "log": True}}, "as log asks for"),
        ({"trainable.rank": [4, -1]}, "trainable.rank"),
        ({"trainable.rank": [4], "method": "gird"}, "search.*method"),
        ({"training.learning_rate": RATE, "method": "grid"}, "a grid needs a list"),
        ({"trainable.rank": [4, 8], "method": "grid", "trials": 3}, "all 2 combinations"),
        ({"trainable.rank": [4, 8], "trails": 3}, 'Did you mean "trials"'),
        ({"trainable.method": ["head"], "trainable.rank": [4]}, "is for method lora"),
    ],
)
def test_mistakes_are_one_line(block, says):
    with pytest.raises(RecipeError, match=says) as raised:
        _plan(**block)
    assert "\n" not in str(raised.value)


def test_a_file_without_a_block(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("data: {train: x.jsonl}\n")
    with pytest.raises(RecipeError, match='has no "search:" block'):
        s.load_search(path)


def test_a_grid_has_every_combination_once():
    plan = _plan(
        **{"trainable.rank": [4, 8], "training.learning_rate": [1e-4, 1e-3], "trainable.targets": [["q"], ["q", "v"]]}
    )
    found = s.grid(plan.dimensions)
    assert plan.trials == len(found) == 8
    assert found[0] == {"trainable.rank": 4, "training.learning_rate": 1e-4, "trainable.targets": ["q"]}
    assert len({repr(one) for one in found}) == 8
    sampler = s.sampler_of(plan, higher_is_better=True)
    assert sampler.propose([s.Tried(found[0])]) == found[1]
    assert sampler.propose([s.Tried(one) for one in found]) is None


def test_random_trials_are_spread_evenly():
    plan = _plan(**{"training.learning_rate": RATE, "trainable.rank": {"low": 1, "high": 8}, "trials": 8})
    found = s.spread(plan.dimensions, 8, 0)
    logs = np.sort(np.log10([one["training.learning_rate"] for one in found]))
    assert all(-5 + i / 4 - 0.01 <= v <= -5 + (i + 1) / 4 + 0.01 for i, v in enumerate(logs)), "one in each eighth"
    assert sorted(one["trainable.rank"] for one in found) == list(range(1, 9))
    assert found == s.spread(plan.dimensions, 8, 0) != s.spread(plan.dimensions, 8, 1)


def test_a_space_with_fewer_points_than_trials():
    plan = _plan(**{"trainable.rank": [4, 8, 16], "method": "random", "trials": 10})
    assert sorted(one["trainable.rank"] for one in s.spread(plan.dimensions, 10, 0)) == [4, 8, 16]


def test_values_stay_inside_and_are_readable():
    d = s.Dimension("x", (), 1e-5, 1e-3, log=True)
    assert d.at(0) == 1e-5 and 9e-4 < d.at(0.99999) <= 1e-3
    assert len(f"{d.at(0.37):g}") <= 9
    whole = s.Dimension("x", (), 1, 1000, log=True, whole=True)
    assert isinstance(whole.at(0.5), int) and 25 < whole.at(0.5) < 40


def test_labels():
    plan = _plan(**{"training.learning_rate": RATE, "trainable.rank": [4]})
    assert plan.label({"training.learning_rate": 3e-4, "trainable.rank": 4}) == "learning rate 0.0003, rank 4"


def test_values_go_into_the_recipe():
    plan = _plan(**{"training.learning_rate": RATE})
    values = plan.recipe_with({"training.learning_rate": 3e-4, "model": "gemma3-270m"})
    recipe = build_recipe(values)
    assert (recipe.training.learning_rate, recipe.training.seed, recipe.model) == (3e-4, 5, "gemma3-270m")


# ---- poor trials ----


def test_the_median_rule():
    others = [[(1, 0.6), (2, 0.7)], [(1, 0.7), (2, 0.8)], [(1, 0.5), (2, 0.9)], [(1, 0.8), (2, 0.75)]]
    allowed = s.limits(others, higher_is_better=True)
    assert allowed == [(1, pytest.approx(0.65)), (2, pytest.approx(0.8))], "best so far counts, at each epoch"
    assert s.is_poor([(1, 0.64)], allowed, higher_is_better=True)
    assert not s.is_poor([(1, 0.66)], allowed, higher_is_better=True)
    assert s.is_poor([(1, 0.7), (2, 0.79)], allowed, higher_is_better=True)
    assert not s.is_poor([(0.5, 0.1)], allowed, higher_is_better=True), "nobody was judged that early"
    assert s.is_poor([(1.5, 0.6)], allowed, higher_is_better=True)


def test_three_others_are_too_few():
    assert s.limits([[(1, 0.9)]] * 3, higher_is_better=True) == []


def test_losses_are_poor_above():
    allowed = s.limits([[(1, v)] for v in (1.0, 2.0, 3.0, 4.0)], higher_is_better=False)
    assert allowed == [(1, 2.5)]
    assert s.is_poor([(1, 2.6)], allowed, higher_is_better=False)
    assert not s.is_poor([(1, 2.6), (2, 2.4)], allowed, higher_is_better=False)


# ---- optuna ----


def _search(trials: int) -> list[s.Tried]:
    """A bowl with its floor at a learning rate of 1e-4 and rank 8."""
    plan = _plan(**{"training.learning_rate": RATE, "trainable.rank": [4, 8, 16], "method": "optuna", "trials": trials})
    sampler, past = s.sampler_of(plan, higher_is_better=False), list[s.Tried]()
    while (chosen := sampler.propose(past)) is not None:
        away = (np.log10(chosen["training.learning_rate"]) + 4) ** 2
        past.append(s.Tried(chosen, float(away + abs(chosen["trainable.rank"] - 8)), ended=True))
    return past


def test_optuna_learns_from_the_past_and_from_nothing_else():
    pytest.importorskip("optuna")
    past = _search(24)
    assert len(past) == 24
    assert np.mean([one.value for one in past[-8:]]) < np.mean([one.value for one in past[:6]])
    again = _search(24)
    assert [one.chosen for one in again] == [one.chosen for one in past]


def test_optuna_bears_running_and_failed_trials():
    pytest.importorskip("optuna")
    plan = _plan(**{"trainable.rank": [4, 8], "training.learning_rate": RATE, "method": "optuna", "trials": 9})
    sampler = s.sampler_of(plan, higher_is_better=True)
    first = sampler.propose([])
    past = [s.Tried(first), s.Tried(first, None, ended=True), s.Tried(first, 0.5, ended=True)]
    assert set(sampler.propose(past)) == {"trainable.rank", "training.learning_rate"}


def test_without_optuna_it_says_what_to_install(monkeypatch):
    import sys

    from tunewright.errors import MachineError

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MachineError, match=r"pip install 'tunewright\[search\]'"):
        s.sampler_of(_plan(**{"trainable.rank": [4, 8], "method": "optuna"}), higher_is_better=True)
