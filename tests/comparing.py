"""Whole runs of reward models, on tiny real bases: a kind word is better than an unkind one."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from tests import tiny, whole
from tunewright.library import train
from tunewright.runs import Run

METHODS = whole.METHODS
SETTINGS = {name: value for name, value in whole.SETTINGS.items() if name != "evaluation.prompts"} | {
    "training.epochs": 8.0,
    "training.batch_size": 4,
    "data.validation": 0.2,
}


def rows(n: int = 100) -> list[dict[str, Any]]:
    """Prompts with three completions (ranked, kind ones first) or two; some ties, two annotators."""
    generator = random.Random(1)

    def said(kind: str) -> str:
        words = generator.choices(tiny.WORDS["neither"], k=generator.randint(1, 6))
        return " ".join([*words, generator.choice(tiny.WORDS[kind])])

    found: list[dict[str, Any]] = []
    for i in range(n):
        prompt = f"the {generator.choice(tiny.WORDS['neither'])} {i % 7 * 'really '}was"
        completions = [said("negative"), said("positive"), said("positive")]
        common = {"prompt": prompt, "annotator": ("Ada", "Bob")[i % 2]}
        found.append({**common, "completions": completions, "ranking": [[1, 2], [0]]})
    return found


def pairs(n: int = 100) -> list[dict[str, Any]]:
    """The same, two completions a row."""
    return [
        {"prompt": row["prompt"], "chosen": row["completions"][1], "rejected": row["completions"][0]}
        for row in rows(n)
    ]  # fmt: skip


@cache
def data_file(kind: str = "ranked", n: int = 100) -> Path:
    """As JSON lines."""
    path = whole.scratch() / f"comparisons-{kind}-{n}.jsonl"
    made = rows(n) if kind == "ranked" else pairs(n)
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return path


def start(runs: Path, method: str = "lora", kind: str = "bert", data: Any = None, **arguments: Any) -> Run:
    """Train a tiny reward model; `settings` go on top of the usual ones."""
    settings = SETTINGS | METHODS[method] | arguments.pop("settings", {})
    given = str(data_file()) if data is None else data
    return train(str(whole.base(kind)), given, task="reward", settings=settings, runs=runs, **arguments)


@cache
def finished(method: str = "lora", kind: str = "bert") -> Run:
    """A finished run that tests may read but not change."""
    return start(whole.scratch() / "rewards", method, kind, name=f"reward-{method.replace(' ', '')}-{kind}")
