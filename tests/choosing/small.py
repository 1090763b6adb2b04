"""Comparisons of tiny real models, and workers that are this process and remember what they were asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests import tiny, whole, writing
from tunewright.choosing.trying import Request
from tunewright.choosing.work import Job, Result, Tell, run
from tunewright.recipe_files import build_recipe

TINY: dict[str, Any] = {"threads": 1, "precision": "fp32", "device": "cpu", "learning_rate": 1e-2, "batch_size": 8}


@cache
def reviews(n: int = 80) -> Path:
    """Toy reviews in which one label in eight is wrong, so that nothing is always right."""
    rows = tiny.sentences(n)
    for row in rows[::8]:
        row["label"] = {"positive": "negative", "negative": "positive"}[row["label"]]
    path = whole.scratch() / f"noisy-{n}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(name: str = "noisy", **changes: Any) -> Any:
    """A classifier's recipe."""
    values = {
        "name": name,
        "model": str(whole.base()),
        "data": {"train": str(reviews()), "validation": 0.3},
        "training": {**TINY, "epochs": 5.0} | changes.pop("training", {}),
        "evaluation": {"bootstrap_samples": 100},
    }
    return build_recipe(values | changes)


def written(name: str = "verdicts", **changes: Any) -> Any:
    """A writer's recipe."""
    values = {
        "name": name,
        "task": "generate",
        "model": str(writing.base()),
        "data": {"train": str(writing.data_file()), "template": writing.TEMPLATE, "validation": 0.3},
        "training": {**TINY, "epochs": 2.0},
        "evaluation": {"bootstrap_samples": 100, "max_new_tokens": 4, "generate_rows": 8},
    }
    return build_recipe(values | changes)


def request(recipe: Any = None, **changes: Any) -> Request:
    """As long as the recipe says, two methods and two seeds."""
    values: dict[str, Any] = {"methods": ("head", "lora"), "seeds": 2, "budget_seconds": None} | changes
    return Request(recipe or labelled(), **values)


@dataclass
class Watched:
    """This process as a worker; `before` may raise, or count."""

    before: Callable[[Job], None] = lambda job: None
    jobs: list[Job] = field(default_factory=list[Job])

    def do(self, job: Job, tell: Tell) -> Result:
        self.jobs.append(job)
        self.before(job)
        return run(job, tell)

    def stop(self) -> bool:
        return False

    @property
    def trained(self) -> list[str]:
        """Names of the recipes that were trained."""
        return [Path(job.recipe).stem for job in self.jobs if job.kind == "train"]
