"""Rewards against plain transformers and hand-worked scores; what is wrong in a recipe is one line before training."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from tests import tiny
from tests.models.made import make
from tests.models.starts import hidden, nudge, start_policy
from tunewright.data.labels import LabelSpec
from tunewright.data.row_reading import TemplateReading
from tunewright.data.templates import Part, Template
from tunewright.data.written import PROMPT_FORMAT, Format
from tunewright.errors import DataError, ModelError, RecipeError, UsageError
from tunewright.learning.rollouts import Asked
from tunewright.models.heads import head_modules
from tunewright.models.loading import load_base
from tunewright.models.saving import save_model
from tunewright.models.trainable import TrainableSpec, choose
from tunewright.recipe_align import RewardRecipe, RuleRecipe
from tunewright.serving.predict import Predictor
from tunewright.serving.reward_model import Normalisation, RewardModel
from tunewright.tasks.rewards import ClassifierScore, Rules, build_reward, holds

PROMPTS = [Asked("the film was", {"answer": "good"}), Asked("a dull plot", {"answer": ["bad", " awful "]})]
COMPLETIONS = [" really good", ""]
SINGLE = LabelSpec("single", ("bad", "good", "so-so"), ("0", "1", "2"))
MULTI = LabelSpec("multi", ("bad", "good"), ("bad", "good"))
NUMBER = LabelSpec("number", ("stars",), ("stars",))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs with a tiny classifier of every kind."""
    folder = tmp_path_factory.mktemp("runs")
    for name, labels in (("single", SINGLE), ("multi", MULTI), ("number", NUMBER)):
        made = make("bert", folder, labels=labels)
        (folder / name).mkdir()
        save_model(made.model, made.loaded.tokenizer, folder / name / "model", base=made.base, labels=labels,
                   max_length=12, truncate="right")  # fmt: skip
    return folder


def classifier(name="single", label="good", **more):
    return RewardRecipe(classifier=f"run:{name}", label=label, **more)


def logits_of(runs, name, texts):
    """By transformers alone, one text at a time, float64 [B, labels]."""
    from tunewright.models.loading import load_saved

    model, tokenizer = load_saved(runs / name / "model").model, tiny.tokenizer("bert")
    with torch.no_grad():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts]).double()


# ---- classifiers ----


@pytest.mark.parametrize("reads", ["both", "completion"])
@pytest.mark.parametrize("label", SINGLE.names)
def test_one_label_of_several(runs, label, reads):
    texts = [p.text + c if reads == "both" else c for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    chances = logits_of(runs, "single", texts).softmax(1)[:, SINGLE.names.index(label)]
    parts = [classifier(label=label, reads=reads, value=value) for value in ("probability", "log_odds")]
    found = [build_reward([part], runs)(PROMPTS, COMPLETIONS) for part in parts]
    np.testing.assert_allclose(found[0], chances, atol=1e-6)
    np.testing.assert_allclose(found[1], torch.logit(chances), atol=1e-5)
    assert found[0].dtype == np.float64 and found[0].shape == (2,)


def test_labels_side_by_side(runs):
    logits = logits_of(runs, "multi", [p.text + c for p, c in zip(PROMPTS, COMPLETIONS, strict=True)])[:, 0]
    found = build_reward([classifier("multi", "bad")], runs)(PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(found, logits, atol=1e-5)
    found = build_reward([classifier("multi", "bad", value="probability")], runs)(PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(found, logits.sigmoid(), atol=1e-6)


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_log_odds_are_clipped_and_probabilities_are_not_nan(runs, scale):
    predictor = Predictor.load(runs / "single" / "model")
    head = predictor.model.get_submodule("base_model.model.classifier").modules_to_save["default"]
    with torch.no_grad():
        head.bias[1] += scale
    score = ClassifierScore(predictor, 1, reads_prompt=True, in_log_odds=True)
    assert score.scores(PROMPTS, COMPLETIONS).tolist() == [np.sign(scale) * 10.0] * 2
    assert score.beliefs(PROMPTS, COMPLETIONS).tolist() == [float(scale > 0)] * 2


def test_order_and_batch_change_nothing(runs):
    reward = build_reward([classifier()], runs)
    prompts = [Asked(row["text"], {}) for row in tiny.sentences(20)]
    completions = [" good" * (i % 5) for i in range(20)]
    together = reward(prompts, completions)
    apart = [reward([p], [c])[0] for p, c in zip(prompts, completions, strict=True)]
    np.testing.assert_allclose(together, apart, atol=1e-5)
    assert len(set(np.round(together, 4))) > 10
    assert reward([], []).shape == (0,)


def test_of_a_long_text_the_completion_is_read(runs):
    """12 tokens fit: the prompt's beginning gives way, though the classifier itself cuts on the right."""
    reward = build_reward([classifier()], runs)
    long = [Asked("the plot was " * 10 + "really", {}), Asked("music with " * 20 + "really", {})]
    same_end = "a film the story the plot was really"
    long = [Asked(p.text + " " + same_end, {}) for p in long]
    first, second = reward(long, [" good fun", " good fun"])
    assert first == pytest.approx(second, abs=1e-6)
    assert first != pytest.approx(reward(long, [" bad dull"] * 2)[0], abs=1e-3)


# ---- reward models ----


@pytest.fixture(scope="module")
def reward_model(runs):
    """As a run leaves one: a model with one output, how it reads a prompt, and its zero."""
    made = make("bert", runs, labels=NUMBER)
    folder = runs / "liked" / "model"
    folder.parent.mkdir()
    save_model(made.model, made.loaded.tokenizer, folder, base=made.base, labels=NUMBER, max_length=32,
               truncate="right")  # fmt: skip
    template = TemplateReading(
        Template((Part("the plot of "), Part("film", is_column=True)), "completion"), "completion", False
    )
    form = Format("template", (), template, "completion")
    (folder / PROMPT_FORMAT).write_text(json.dumps(form.to_json()))
    (folder / "reward.json").write_text(Normalisation(0.25, 1.0, 4).written())
    return RewardModel.load(folder)


def test_a_reward_model_s_scores(runs, reward_model):
    """Its zero is applied; a row with its columns is read by its own template, another as what the policy was asked."""
    prompts = [Asked("written otherwise", {"film": "actor"}), Asked("the music was", {"other": "x"})]
    found = build_reward([RewardRecipe(model="run:liked")], runs)(prompts, [" good", " bad"])
    assert found[0] == pytest.approx(reward_model.score([{"film": "actor"}], [" good"])[0], abs=1e-5)
    assert found[1] == pytest.approx(reward_model.score(["the music was"], [" bad"])[0], abs=1e-5)
    without = dataclasses.replace(reward_model, normalisation=Normalisation())
    assert found[0] == pytest.approx(without.score([{"film": "actor"}], [" good"])[0] - 0.25, abs=1e-5)


# ---- rules ----


@pytest.mark.parametrize(
    ("rule", "completion", "answer"),
    [
        ({"regex": r"\d+"}, "in 1999", True),
        ({"regex": r"^\d+$"}, "in 1999", False),
        ({"exact": "answer"}, " good\n", True),
        ({"exact": "answer"}, "good film", False),
        ({"min_words": 2}, "one two", True),
        ({"min_words": 3}, "one  two", False),
        ({"max_words": 2}, "one two", True),
        ({"max_words": 1}, "one two", False),
        ({"min_words": 1}, "  ", False),
        ({"min_words": 1, "regex": "x"}, "one", False),
    ],
)
def test_a_rule(rule, completion, answer):
    assert holds(RuleRecipe(**rule), PROMPTS[0], completion) is answer


def test_one_of_several_answers_and_a_number():
    assert holds(RuleRecipe(exact="answer"), PROMPTS[1], "awful")
    assert holds(RuleRecipe(exact="answer"), Asked("2 + 2 =", {"answer": 4}), " 4")


def test_rules_add_up():
    rules = (RuleRecipe(min_words=1, score=2.0), RuleRecipe(regex="bad", score=-0.5))
    assert Rules(rules).scores(PROMPTS, ["bad film", ""]).tolist() == [1.5, 0.0]


# ---- mixing ----


def test_sources_are_weighted(runs):
    parts = [classifier(weight=2.0), RewardRecipe(rules=[RuleRecipe(max_words=1, score=3.0)], weight=-1.0)]
    reward = build_reward(parts, runs)
    belief, rules = reward.apart(PROMPTS, COMPLETIONS)
    assert rules.tolist() == [0.0, 3.0]
    np.testing.assert_allclose(reward(PROMPTS, COMPLETIONS), 2 * belief - rules)
    assert reward.names == ("good of run:single", "rules")
    reward.check(PROMPTS)


def test_a_broken_classifier_is_an_error(runs):
    reward = build_reward([classifier()], runs)
    (source,) = reward.sources
    reward.check(PROMPTS)
    with torch.no_grad():
        next(p for p in source.predictor.model.parameters() if p.ndim == 2).fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN or infinity"):
        reward(PROMPTS, COMPLETIONS)


def test_models_on_the_policy_s_base_answer_from_its_layers(tmp_path):
    """A reward model and a classifier beside a policy; what stands on another base stays where it is."""
    policy = start_policy("llama", tmp_path)
    for name, labels in (("liked", NUMBER), ("sure", SINGLE)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        loaded = load_base(policy.start.base, labels, seed=4, dropout=0.0)
        head = head_modules(loaded.model, loaded.new_parameters)
        model = choose(loaded.model, TrainableSpec("lora", rank=2), head).model
        nudge(model)
        save_model(model, loaded.tokenizer, tmp_path / "runs" / name / "model", base=policy.start.base, labels=labels,
                   max_length=32, truncate="right")  # fmt: skip
    (tmp_path / "runs" / "liked" / "model" / "reward.json").write_text(Normalisation(0.25, 1.0, 4).written())
    parts = [RewardRecipe(model="run:liked"), RewardRecipe(classifier="run:sure", label="good", weight=0.5),
             RewardRecipe(rules=[RuleRecipe(max_words=1)])]  # fmt: skip
    reward = build_reward(parts, tmp_path / "runs")
    wanted = reward(PROMPTS, COMPLETIONS)
    forward = policy.forward
    before = hidden(forward)
    shared = reward.sharing(forward)
    np.testing.assert_allclose(shared(PROMPTS, COMPLETIONS), wanted, atol=1e-6)
    assert [source.body is not None for source in shared.sources[:2]] == [True, True]
    assert torch.equal(hidden(forward), before)


def test_a_model_on_another_base_keeps_its_own(runs, tmp_path):
    reward = build_reward([classifier()], runs)
    shared = reward.sharing(start_policy("llama", tmp_path).forward)
    assert shared.sources[0].body is None
    np.testing.assert_array_equal(shared(PROMPTS, COMPLETIONS), reward(PROMPTS, COMPLETIONS))


# ---- mistakes ----


@pytest.mark.parametrize(
    ("part", "field", "words"),
    [
        ({"classifier": "run:nobody", "label": "good"}, "reward.classifier", 'no finished run "nobody"'),
        ({"model": "run:nobody"}, "reward.model", 'no finished run "nobody"'),
        ({"classifier": "run:single", "label": "god"}, "reward.label", 'Did you mean "good"'),
        ({"classifier": "run:number", "label": "stars"}, "reward.classifier", "predicts a number"),
        ({"classifier": "{base}", "label": "good"}, "reward.classifier", "no classifier"),
        ({"model": "run:single"}, "reward.model", ""),
    ],
)
def test_what_a_recipe_gets_wrong(runs, part, field, words):
    part = {name: value.replace("{base}", str(runs / "base-bert")) for name, value in part.items()}
    with pytest.raises((RecipeError, ModelError)) as caught:
        build_reward([RewardRecipe(**part)], runs)
    assert caught.value.field == field and words in str(caught.value) and "\n" not in str(caught.value)


def test_which_of_several_is_wrong(runs):
    with pytest.raises(RecipeError) as caught:
        build_reward([classifier(), classifier(label="x")], runs)
    assert caught.value.field == "reward.1.label"
    with pytest.raises(RecipeError) as caught:
        build_reward([classifier(label="x")], runs, field="evaluation.judge")
    assert caught.value.field == "evaluation.judge.label"


def test_a_column_that_a_prompt_lacks(runs):
    reward = build_reward([RewardRecipe(rules=[RuleRecipe(exact="anser")])], runs)
    with pytest.raises(
        DataError, match=r'no answer in "anser"; its columns are answer. Did you mean "answer"'
    ) as caught:
        reward.check(PROMPTS)
    assert caught.value.field == "anser"
    reward = build_reward([RewardRecipe(rules=[RuleRecipe(exact="answer")])], runs)
    reward.check(PROMPTS)
    with pytest.raises(DataError, match='"third"'):
        reward.check([*PROMPTS, Asked("third", {"answer": None})])


def test_a_prompt_that_the_reward_model_can_t_read(runs, reward_model):
    """Its template has two columns; a bare text says nothing of the other."""
    folder = runs / "two" / "model"
    shutil.copytree(runs / "liked", runs / "two")
    parts = (Part("title", is_column=True), Part(" by "), Part("film", is_column=True))
    form = Format("template", (), TemplateReading(Template(parts, "completion"), "completion", False), "completion")
    (folder / PROMPT_FORMAT).write_text(json.dumps(form.to_json()))
    reward = build_reward([RewardRecipe(model="run:two")], runs)
    reward.check([Asked("x", {"title": "a", "film": "b"})])
    with pytest.raises(UsageError, match="title"):
        reward.check([Asked("x", {"film": "b"})])
