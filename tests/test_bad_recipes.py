"""Recipes, flags and settings that make no sense: each case is one line naming the setting, and nothing is left behind.

Not here: variables of the environment (a recipe reads none). A stopped run that is continued with another recipe or
other data is in tests/test_opening.py, a base model or an adapter that can't be used in tests/test_bad_models.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import whole
from tests.feeding import Case, feed, names
from tests.test_bad_data import GOOD, labelled

DATA = "data: {train: data.jsonl}\n"
JOB = ("train", "job.yaml")


def recipe(text: str) -> dict[str, str]:
    return {"job.yaml": text, "data.jsonl": GOOD}


def setting(name: str, override: str, *says: str, code: int = 2) -> Case:
    """One `-s`."""
    return Case(name, code, says, {"data.jsonl": GOOD}, ("train", "data.jsonl", "-s", override))


YAML = [
    Case("no such recipe", 2, ("job.yaml", "no such recipe", 'Did you mean "jobs.yaml"?'), {"jobs.yaml": DATA}, JOB),
    Case("a folder", 2, ("job.yaml", "can't be read"), {"job.yaml": Path.mkdir}, JOB),
    Case("empty", 2, ("job.yaml", "expected `key: value` lines"), recipe(""), JOB),
    Case("a list", 2, ("job.yaml", "expected `key: value` lines"), recipe("- a\n- b\n"), JOB),
    Case("a word", 2, ("job.yaml", "expected `key: value` lines"), recipe("train\n"), JOB),
    Case("not UTF-8", 2, ("job.yaml", "byte 6", "UTF-8"), recipe("") | {"job.yaml": b"name: \xff\n"}, JOB),
    Case("UTF-16", 2, ("job.yaml", "UTF-8"), recipe("") | {"job.yaml": DATA.encode("utf-16")}, JOB),
    Case("a NUL", 2, ("job.yaml", "character 8", "remove it"), recipe("name: a\0b\n"), JOB),
    Case("a data file in its place", 2, ("job.yaml", "a page of YAML"), recipe("a: b\n" * 300_000), JOB),
    Case("a tab", 2, ("job.yaml:2", "tab", "spaces"), recipe("training:\n\tepochs: 3\n"), JOB),
    Case("a key twice", 2, ("job.yaml:2", '"data" is given twice'), recipe(DATA * 2), JOB),
    Case("a nested key twice", 2, ("job.yaml:2", '"rank" is given twice'),
         recipe(DATA + "trainable: {rank: 1, rank: 2}\n"),
         JOB),
    Case("a bracket that stays open", 2, ("job.yaml:2", "never closed"), recipe("data: {train: data.jsonl\n"), JOB),
    Case("aliases", 2, ("job.yaml:2", "aliases"), recipe("data: &a {train: data.jsonl}\ntraining: *a\n"), JOB),
    Case("a bomb of aliases", 2, ("job.yaml:2", "aliases"),
         recipe("a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))),
         JOB),
    Case("a Python object", 2, ("job.yaml:1", "!!python/object"),
         recipe("name: !!python/object/apply:os.mkdir [pwned]\n" + DATA), JOB),
    Case("nested without end", 2, ("job.yaml", "nested"), recipe("name: " + "[" * 9_000), JOB),
    Case("two documents", 2, ("job.yaml:2", "document"), recipe(DATA + "---\n" + DATA), JOB),
    Case("a list for a part", 2, ("job.yaml", '"training"', "training: {epochs: 3}"),
         recipe(DATA + "training: [epochs]\n"), JOB),
    Case("a word for a part", 2, ("job.yaml", '"data"', "data: {train: reviews.jsonl}"),
         recipe("data: data.jsonl\n"), JOB),
    Case("nothing to train on", 2, ("job.yaml", '"data.train" is missing'), recipe("data: {text: text}\n"), JOB),
    Case("no data", 2, ("job.yaml", '"data" is missing'), recipe("task: classify\n"), JOB),
    Case("a key that isn't text", 2, ("job.yaml", '"7" is not a setting'), recipe(DATA + "7: x\n"), JOB),
    Case("a key that is a list", 2, ("job.yaml:2", "key must be a word"), recipe(DATA + "? [a, b]\n: x\n"), JOB),
    Case("an unknown setting", 2, ("job.yaml", '"training.learning_rat" is not', 'mean "training.learning_rate"?'),
         recipe(DATA + "training: {learning_rat: 1}\n"), JOB),
    Case("a setting in the wrong part", 2, ("job.yaml", '"data.rank" is not', 'mean "trainable.rank"?'),
         recipe("data: {train: data.jsonl, rank: 4}\n"), JOB),
    Case("another tool's word", 2, ("job.yaml", '"training.lora_alpha" is not', 'mean "trainable.alpha"?'),
         recipe(DATA + "training: {lora_alpha: 4}\n"), JOB),
    Case("data that isn't there", 3, ("gone.jsonl", "no such file"), recipe("data: {train: gone.jsonl}\n"), JOB),
    Case("an impossible date", 2, ("job.yaml", "month"), recipe(DATA + "name: 2024-13-45\n"), JOB),
]  # fmt: skip

VALUES = [
    setting("no equals sign", "training.epochs", 'has no "="', "-s training.learning_rate=1e-4"),
    setting("an unknown setting of -s", "training.epoch=3", "training.epoch", 'Did you mean "training.epochs"?'),
    setting("a part of -s", "training=3", '"training" is not a setting'),
    setting(
        "a word for a number", "training.epochs=many", "\"training.epochs\" is 'many'", "expected a number, or auto"
    ),
    setting("a yes for a number", "training.batch_size=yes", '"training.batch_size" is true', "YAML reads yes"),
    setting(
        "a fraction for a whole number", "training.batch_size=2.5", '"training.batch_size" is 2.5', "a whole number"
    ),
    setting("a list for a number", "training.seed=[1]", '"training.seed" is [1]', "a whole number"),
    setting("no learning rate", "training.learning_rate=0", '"training.learning_rate" is 0', "more than 0"),
    setting("a negative learning rate", "training.learning_rate=-1e-4", '"training.learning_rate" is -', "more than 0"),
    setting("NaN", "training.learning_rate=.nan", '"training.learning_rate" is .nan'),
    setting("infinity", "training.epochs=.inf", '"training.epochs" is .inf'),
    setting("no epochs", "training.epochs=0", '"training.epochs" is 0', "more than 0"),
    setting("a million million epochs", "training.epochs=1e18", '"training.epochs" is 1', "less than 1e+06"),
    setting("no rank", "trainable.rank=0", '"trainable.rank" is 0', "more than 0"),
    setting("too much dropout", "trainable.dropout=1.5", '"trainable.dropout" is 1.5', "less than 1"),
    setting("no batch", "training.batch_size=0", '"training.batch_size" is 0', "more than 0"),
    setting(
        "a batch beyond counting",
        "training.batch_size=99999999999999999999",
        '"training.batch_size" is 9',
        "less than 2,147,483,648",
    ),
    setting("threads beyond counting", "training.threads=99999999", '"training.threads" is 9', "less than 10,000"),
    setting("a negative seed", "training.seed=-1", '"training.seed" is -1', "at least 0"),
    setting("one checkpoint", "training.keep_checkpoints=1", '"training.keep_checkpoints" is 1', "at least 2"),
    setting("no layers", "trainable.layers=last 0", "\"trainable.layers\" is 'last 0'", '"last N"'),
    setting("an unknown method", "trainable.method=lorra", "'lorra'", "full, head or lora", 'Did you mean "lora"?'),
    setting("an unknown schedule", "training.schedule=cosin", "'cosin'", 'Did you mean "cosine"?'),
    setting("an unknown metric", "evaluation.metric=acuracy", "'acuracy'", 'Did you mean "accuracy"?'),
    setting("an unknown task", "task=clasify", "\"task\" is 'clasify'", 'Did you mean "classify"?'),
    setting("a name that is a path", "name=../evil", "\"name\" is '../evil'", "letters, digits"),
    setting("all held out", "data.validation=1.0", '"data.validation" is 1.0', "less than 1"),
    setting("nothing held out", "data.validation=0", '"data.validation" is 0', "more than 0"),
    setting("less than nothing held out", "data.validation=-0.5", '"data.validation" is -0.5', "more than 0"),
    setting("no name for the data", "data.train=", "data", "empty"),
    setting("few resamples", "evaluation.bootstrap_samples=3", '"evaluation.bootstrap_samples" is 3', "at least 100"),
    setting("a metric of numbers", "evaluation.metric=rmse", "evaluation.metric", "rmse", "accuracy"),
    setting("weights that are words", "training.class_weights={positive: much}", '"training.class_weights', "number"),
    setting("a revision of a file", "data.revision=main", "data.revision", "data.jsonl", "Hub dataset"),
    setting("a long override", "training.epochs=" + "[" * 5000, "training.epochs"),
]

CLASHES = [
    Case("epochs and steps", 2, ("training.epochs", "training.max_steps", "not both"), {"data.jsonl": GOOD},
         ("train", "data.jsonl", "-s", "training.epochs=1", "-s", "training.max_steps=9")),
    *(Case(f"{key} without adapters", 2, (f'"trainable.{key}"', "lora", "head", "leave it out"), {"data.jsonl": GOOD},
           ("train", "data.jsonl", "-s", "trainable.method=head", "-s", f"trainable.{key}={value}"))
      for key, value in (("rank", "4"), ("alpha", "8"), ("dropout", "0.1"), ("targets", "[q_lin]"))),
    Case("weights for numbers", 2, ("training.class_weights", "one label per text", "number"),
         {"data.jsonl": labelled(*(i / 7 for i in range(24)))},
         ("train", "data.jsonl", "-s", "training.class_weights=balanced")),
    Case("smoothing of several labels", 2, ("training.label_smoothing", "one label per text", "multi"),
         {"data.jsonl": labelled(*[["a"], ["b"], ["a", "b"], []] * 6)},
         ("train", "data.jsonl", "-s", "training.label_smoothing=0.1")),
    Case("a weight for a class that isn't there", 2, ("class_weights", '"postive"', 'Did you mean "positive"?'),
         {"data.jsonl": GOOD}, ("train", "data.jsonl", "-s", "training.class_weights={postive: 2}")),
    Case("more tokens than the model reads", 2, ('"data.max_length" is 600', "at most 64"), {"data.jsonl": GOOD},
         ("train", "data.jsonl", "-s", "data.max_length=600")),
    Case("fewer tokens than a text needs", 2, ("data.max_length", "special tokens", "at least 3"), {"data.jsonl": GOOD},
         ("train", "data.jsonl", "-s", "data.max_length=2")),
    Case("more layers than there are", 4, ("trainable.layers", "last 9", "2 layers"), {"data.jsonl": GOOD},
         ("train", "data.jsonl", "-s", "trainable.layers=last 9")),
    Case("a layer misspelt", 4, ('"qury"', "query", 'Did you mean "query"?'), {"data.jsonl": GOOD},
         ("train", "data.jsonl", "-s", "trainable.targets=[qury]")),
    Case("a rank no layer has room for", 2, ("trainable.rank", "999999", "at most 4,096"), {"data.jsonl": GOOD},
         ("train", "data.jsonl", "-s", "trainable.rank=999999")),
]  # fmt: skip

MODELS = [
    Case("a packaged model misspelt", 4, ('"minilmm"', 'Did you mean "minilm"?'), {"data.jsonl": GOOD},
         ("train", "data.jsonl", "--model", "minilmm")),
    Case("a folder misspelt", 4, ("./my-modle", "no such folder", 'Did you mean "my-model"?'),
         {"data.jsonl": GOOD, "my-model/config.json": "{}"}, ("train", "data.jsonl", "--model", "./my-modle")),
    Case("a run that isn't there", 4, ('no finished run "gone"',), {"data.jsonl": GOOD},
         ("train", "data.jsonl", "--model", "run:gone")),
    Case("an empty model name", 4, ("model",), {"data.jsonl": GOOD}, ("train", "data.jsonl", "--model", "")),
]  # fmt: skip

COMMANDS = [
    Case("nothing to train", 2, ("nothing to train on", "tunewright train reviews.jsonl"), run=("train",)),
    Case("an unknown command", 2, ("trian", "train"), run=("trian",)),
    Case("an unknown option", 2, ("--epoch", "--help"), run=("train", "data.jsonl", "--epoch", "3")),
    Case("an option without its value", 2, ("--model",), run=("train", "data.jsonl", "--model")),
    Case("one argument too many", 2, ("extra", "--help"), run=("train", "data.jsonl", "extra")),
    Case("resuming nothing", 2, ("no runs in runs",), run=("train", "--resume")),
    Case("resuming what isn't there", 2, ('no run "gone"',), run=("train", "--resume", "gone")),
    Case("a recipe that is there", 2, ("tunewright.yaml", "exists already"), {"tunewright.yaml": DATA}, ("init",)),
    Case("a setting that isn't there", 2, ("training.epoch", 'Did you mean "training.epochs"?'),
         run=("schema", "--field", "training.epoch")),
    Case("predicting without a run", 2, ("no runs in runs",), {"data.jsonl": GOOD},
         ("predict", "latest", "-i", "data.jsonl")),
    Case("a gate without a number", 2, ("'accuracy'", "validation/accuracy>=0.9"),
         run=("evaluate", "latest", "--gate", "accuracy")),
    Case("comparing one", 2, ("two or more",), run=("compare", "latest")),
    Case("pushing to nowhere", 2, ('"nowhere" is no Hub id',), run=("push", "latest", "nowhere")),
]  # fmt: skip

TABLE = YAML + VALUES + COMMANDS


@pytest.mark.parametrize("case", TABLE, ids=names(TABLE))
def test_bad_recipe(case: Case, tmp_path: Path):
    feed(with_tiny_model(case), tmp_path)


@pytest.mark.parametrize("case", CLASHES + MODELS, ids=names(CLASHES + MODELS))
def test_settings_that_do_not_fit(case: Case, tmp_path: Path):
    feed(with_tiny_model(case), tmp_path)


def with_tiny_model(case: Case) -> Case:
    """A case that names no model takes the tiny one, so that one that passes by mistake is over soon."""
    from dataclasses import replace

    if case.run[:2] != ("train", "data.jsonl") or "--model" in case.run:
        return case
    return replace(case, run=(*case.run, "--model", str(whole.base()), "-s", "training.precision=fp32"))
