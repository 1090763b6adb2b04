"""What is wrong with a recipe, as one sentence: which setting, what it is, what was expected, which was meant.

`recipe_files` asks when YAML or pydantic refuses. Decides nothing; `recipe` holds the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from tunewright.errors import RecipeError, did_you_mean
from tunewright.recipe import Clash

# Names other tools use for the same thing.
_ELSEWHERE = {
    "lr": "training.learning_rate",
    "batch": "training.batch_size",
    "per_device_train_batch_size": "training.batch_size",
    "num_train_epochs": "training.epochs",
    "num_epochs": "training.epochs",
    "lr_scheduler_type": "training.schedule",
    "r": "trainable.rank",
    "lora_r": "trainable.rank",
    "lora_alpha": "trainable.alpha",
    "lora_dropout": "trainable.dropout",
    "target_modules": "trainable.targets",
    "max_seq_length": "data.max_length",
    "dataset": "data.train",
    "base_model": "model",
}
_EXAMPLES = {
    "data": "train: reviews.jsonl",
    "trainable": "method: lora",
    "training": "epochs: 3",
    "evaluation": "every: epoch",
    "align": "method: ppo",
    "reward": "model: run:NAME",
    "judge": "model: run:NAME",
}
# pydantic's kinds of mistake in our words; {} is the bound.
_WISHES = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "finite_number": "a number that isn't infinite",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "name: value pairs",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number", "int_from_float")


def recipe_error(error: ValidationError, where: str | None, paths: Sequence[str]) -> RecipeError:
    """The first problem; `paths` are all settings there are. A union reports each member, all that concern it count."""
    problems = error.errors(include_url=False)
    # A word that is no setting is often the reason why another one is missing.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    full = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return RecipeError(f'"{full}" is not a setting.{nearest_setting(full, paths)}', where=where, field=full)
    if first["type"] == "missing":
        return RecipeError(f'"{full}" is missing', where=where, field=full)
    if isinstance(clash := first.get("ctx", {}).get("error"), Clash):
        return RecipeError(str(clash), where=where, field=clash.field)
    path = _setting(first["loc"], paths)
    same = [problem for problem in problems if _setting(problem["loc"], paths) == path]
    says = f'"{path or "recipe"}" is {_shown(first["input"])}; expected {_wishes(same, path)}'
    return RecipeError(says + _nearest_word(first["input"], same), where=where, field=path or None)


def nearest_setting(full: str, paths: Sequence[str]) -> str:
    """The known setting whose last word, or whole path, is nearest."""
    by_word = {path.split(".")[-1]: path for path in reversed(paths)}  # the first one that is called so
    word = full.split(".")[-1]
    if elsewhere := _ELSEWHERE.get(word) or by_word.get(word):  # another tool's word, or the wrong part
        return f' Did you mean "{elsewhere}"?'
    direct = did_you_mean(full, paths)
    near = did_you_mean(word, by_word)
    return direct or (f' Did you mean "{by_word[near.split(chr(34))[1]]}"?' if near else "")


def yaml_problem(error: Exception) -> str:
    """Why this is no YAML, or none of ours."""
    if isinstance(error, RecursionError):
        return "lists or settings are nested without end; expected settings in five parts"
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1} can't stand in YAML (code {error.character}); remove it"
    problem = str(getattr(error, "problem", None) or (error if isinstance(error, ValueError) else ""))
    if "\\t" in problem:
        return "a tab where YAML wants spaces"
    if "another document" in problem:
        return "a second document begins here (---); expected one recipe in a file"
    if "<stream end>" in problem:
        return "a bracket or a quote that was opened is never closed"
    return problem or "the YAML can't be read"


def _setting(location: Iterable[Any], paths: Sequence[str]) -> str:
    """The setting a problem lies in: its location without the names of union members and items."""
    names = {part for path in paths for part in path.split(".")}
    return ".".join(str(part) for part in location if str(part) in names)


def _wishes(problems: Sequence[Mapping[str, Any]], path: str) -> str:
    """What was expected, the narrowest first: a bound that was missed says more than the other kinds of value."""
    ordered = sorted(problems, key=lambda problem: problem["type"] not in _BOUNDS)
    return ", or ".join(dict.fromkeys(_wish(problem, path) for problem in ordered))


def _wish(problem: Mapping[str, Any], path: str) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("model_type", "model_attributes_type"):
        return f"settings below it, such as {path}: {{{_EXAMPLES.get(path, '...')}}}"
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    if kind in _WISHES:
        return _WISHES[kind].format(**{name: _number(value) for name, value in context.items()})
    message = problem["msg"].removeprefix("Value error, ").removeprefix("expected ")
    return message[0].lower() + message[1:]


def _number(value: Any) -> str:
    return f"{value:,g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _nearest_word(given: Any, problems: Sequence[Mapping[str, Any]]) -> str:
    """Of the words that a setting takes, the one that was meant."""
    words = [word for p in problems for word in re.findall(r"'([^']+)'", str(p.get("ctx", {}).get("expected", "")))]
    return f".{near}" if isinstance(given, str) and (near := did_you_mean(given, words)) else ""


def _shown(value: Any) -> str:
    try:
        text = repr(value) if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
    except (yaml.YAMLError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "…"
