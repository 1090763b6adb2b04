"""A finished run as its folder tells it: every file read once, whatever is missing or torn said in a sentence.

`report` and `compare` read through here and nowhere else. Writes nothing, judges nothing and never fails on what a file
holds: a value of the wrong type is as good as absent, since a report of a broken run is when one is needed most.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError

PREDICTIONS = Path("predictions") / "validation.jsonl"


@dataclass(frozen=True)
class Answer:
    """One label that a model gave, with its probability."""

    text: str
    probability: float | None


@dataclass(frozen=True)
class Sample:
    """One prompt, and what was written for it."""

    prompt: str
    reference: str | None
    before: str | None  # by the untrained model; None where it wasn't asked
    after: str | None  # by the final one
    cut: tuple[bool, bool] = (False, False)  # whether each was ended by the limit and not by itself


@dataclass(frozen=True)
class Record:
    """What a run folder holds."""

    folder: Path
    run: dict[str, Any]  # run.json
    judgement: dict[str, Any]  # evaluation.json
    environment: dict[str, Any]
    rows: list[dict[str, Any]]  # metrics.jsonl
    samples: list[dict[str, Any]]
    events: list[dict[str, Any]]
    recipe_text: str  # recipe.resolved.yaml, or recipe.yaml
    recipe: dict[str, Any]
    problems: tuple[str, ...]  # sentences on missing and torn files

    @property
    def name(self) -> str:
        return text(self.run.get("id")) or text(self.run.get("name")) or self.folder.name

    @property
    def kind(self) -> str:
        kind = self.judgement.get("kind") or mapping(self.run.get("data")).get("kind")
        return kind if kind in ("single", "multi", "number", "text", "preference", "align") else "single"

    @property
    def writes(self) -> bool:
        """Whether the model writes, instead of naming labels or numbers."""
        return self.kind in ("text", "align")

    @property
    def labels(self) -> list[str]:
        found = self.judgement.get("labels") or mapping(self.run.get("data")).get("labels")
        return [str(name) for name in found] if isinstance(found, list) else []

    @property
    def metrics(self) -> dict[str, float]:
        """Validation metrics of the final model."""
        return numbers(self.judgement.get("metrics")) or numbers(self.run.get("metrics"))

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        stored = mapping(self.judgement.get("intervals")) or mapping(self.run.get("intervals"))
        pairs = {name: pair(value) for name, value in stored.items()}
        return {name: value for name, value in pairs.items() if value is not None}

    @property
    def untrained(self) -> dict[str, float]:
        """Validation metrics of the model before its first step."""
        before = mapping(mapping(self.run.get("comparison")).get("before"))
        stored = numbers(before.get("metrics")) or numbers(before)
        if stored or not self.evaluations or self.evaluations[0].get("step") != 0:
            return stored
        return numbers({name.removeprefix("validation/"): v for name, v in self.evaluations[0].items() if "/" in name})

    def paired(self, name: str) -> dict[str, Any]:
        """The paired test of a metric against the untrained model, as stored; empty where there is none."""
        comparison = mapping(self.run.get("comparison"))
        if self.writes:
            return mapping(mapping(comparison.get("paired")).get(name))
        return comparison if name in ("accuracy", "loss", "rmse") else {}

    def rows_behind(self, name: str) -> float | None:
        """Validation rows that a metric was found on: of a model that writes, only some rows are answered in text."""
        answered = self.writes and name not in ("loss", "perplexity", "token_accuracy")
        rows = number(self.judgement.get("answered_rows" if answered else "num_rows"))
        return number(mapping(self.run.get("data")).get("validation_rows")) if not rows and not answered else rows

    @property
    def forgetting(self) -> dict[str, Any]:
        """General text before and after, as stored; empty where it wasn't measured."""
        return mapping(self.run.get("forgetting"))

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl that hold validation metrics, oldest first."""
        return [row for row in self.rows if any(name.startswith("validation/") for name in row)]


def read_record(folder: Path) -> Record:
    """Everything but the predictions, which stream. ModelError when there is no such folder."""
    if not folder.is_dir():
        raise ModelError("there is no such run folder; `tunewright runs` lists those there are.", where=str(folder))
    problems: list[str] = []
    recipe_text = _read_recipe(folder)
    return Record(
        folder=folder,
        run=_read_object(folder / "run.json", problems),
        judgement=_read_object(folder / "evaluation.json", problems),
        environment=_read_object(folder / "environment.json", problems),
        rows=_read_rows(folder / "metrics.jsonl", problems),
        samples=_read_rows(folder / "samples.jsonl", problems),
        events=_read_rows(folder / "events.jsonl", problems),
        recipe_text=recipe_text,
        recipe=_parse_recipe(recipe_text, problems),
        problems=tuple(problems),
    )


def read_predictions(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of predictions/validation.jsonl, one at a time; unreadable lines are skipped."""
    path = folder / PREDICTIONS
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            row = _parse(line)
            if isinstance(row, dict):
                yield row


def answers(prediction: object, probabilities: object) -> list[Answer]:
    """A stored prediction as labels with probabilities: one, several (multi), or a number without."""
    chances = numbers(probabilities)
    if isinstance(prediction, list):
        return [Answer(str(label), chances.get(str(label))) for label in prediction] or [Answer("none", None)]
    if isinstance(prediction, float):
        return [Answer(f"{prediction:.3f}", None)]
    return [] if prediction is None else [Answer(str(prediction), chances.get(str(prediction)))]


def before_and_after(samples: list[dict[str, Any]]) -> dict[str, tuple[list[Answer], list[Answer]]]:
    """For each prompt: the untrained model's answer (step 0) and the final model's (the last one written)."""
    found: dict[str, tuple[list[Answer], list[Answer]]] = {}
    for sample in samples:
        prompt, said = sample.get("prompt"), answers(sample.get("prediction"), sample.get("probabilities"))
        if not isinstance(prompt, str) or not said:
            continue
        before, after = found.get(prompt, ([], []))
        found[prompt] = (said, after) if sample.get("step") == 0 else (before, said)
    return found


def written_samples(samples: list[dict[str, Any]]) -> list[Sample]:
    """Texts of a model that writes, prompt by prompt: at step 0 and the last ones."""
    first: dict[str, dict[str, Any]] = {}
    last: dict[str, dict[str, Any]] = {}
    for row in samples:
        if isinstance(row.get("prompt"), str) and isinstance(row.get("prediction"), str):
            before = row.get("step") == 0 and row.get("final") is not True
            (first if before else last)[f"{row.get('prompt_id', row['prompt'])}"] = row
    return [_sample(first.get(key, {}), last.get(key, {})) for key in {**first, **last}]


def _sample(before: dict[str, Any], after: dict[str, Any]) -> Sample:
    known = after or before
    return Sample(
        prompt=known["prompt"],
        reference=known["reference"] if isinstance(known.get("reference"), str) else None,
        before=before.get("prediction"),
        after=after.get("prediction"),
        cut=(before.get("stopped") == "length", after.get("stopped") == "length"),
    )


# --- values of any type, made safe to use -----------------------------------------------------------------------


def mapping(value: object) -> dict[str, Any]:
    """The dict, or an empty one."""
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """The finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def numbers(value: object) -> dict[str, float]:
    """The finite numbers of a dict."""
    found = {name: number(one) for name, one in mapping(value).items()}
    return {name: one for name, one in found.items() if one is not None}


def pair(value: object) -> tuple[float, float] | None:
    """[low, high], or None."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def text(value: object) -> str:
    """The text, or an empty one."""
    return value if isinstance(value, str) else ""


def texts_of(value: object) -> list[str]:
    """The texts of a list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def objects(value: object) -> list[dict[str, Any]]:
    """The dicts of a list."""
    return [mapping(one) for one in value if isinstance(one, dict)] if isinstance(value, list) else []


# --- files ------------------------------------------------------------------------------------------------------


def _parse(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _read_object(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        problems.append(f"{path.name} is missing.")
        return {}
    found = _parse(path.read_text(encoding="utf-8", errors="replace"))
    if not isinstance(found, dict):
        problems.append(f"{path.name} can't be read: it isn't a complete JSON object.")
    return mapping(found)


def _read_rows(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    if not path.is_file():
        problems.append(f"{path.name} is missing.")
        return []
    # Split on \n alone: str.splitlines would also break at U+2028, which JSON leaves inside strings.
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    parsed = [_parse(line) for line in lines]
    rows = [row for row in parsed if isinstance(row, dict)]
    # A torn last line is what a kill leaves behind, not a fault.
    torn = len(rows) < len(lines) - (not isinstance(parsed[-1], dict) if parsed else 0)
    if torn:
        problems.append(f"{path.name}: {len(lines) - len(rows):,} of {len(lines):,} lines can't be read.")
    return rows


def _read_recipe(folder: Path) -> str:
    for name in ("recipe.resolved.yaml", "recipe.yaml"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8", errors="replace")
    return ""


def _parse_recipe(words: str, problems: list[str]) -> dict[str, Any]:
    import yaml

    if not words:
        problems.append("recipe.resolved.yaml is missing.")
        return {}
    try:
        return mapping(yaml.safe_load(words))
    except (yaml.YAMLError, ValueError, RecursionError):
        problems.append("recipe.resolved.yaml can't be read as YAML.")
        return {}
