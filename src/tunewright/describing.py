"""What a run says about itself: the facts in run.json, the header on the screen, the environment, the resolved recipe.

Called by the pipeline once all is decided; reads, decides nothing.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

from tunewright import recipe_files
from tunewright.data.preparing import Tokenized
from tunewright.data.written_tokens import WrittenDataset
from tunewright.learning.loop import FitPlan
from tunewright.progress import Header
from tunewright.recipe import Recipe
from tunewright.runtime import Runtime
from tunewright.stages import Base, Trained, versions
from tunewright.tasks.task import Task


def facts(
    recipe: Recipe, task: Task, tokens: Tokenized, base: Base, trained: Trained, fit_plan: FitPlan
) -> dict[str, Any]:
    """What run.json says of the model and the data."""
    source, report = base.source, trained.report
    return {
        "model": {
            "name": source.name,
            "path": source.path,
            "hub_id": source.hub_id,
            "revision": source.revision,
            "model_type": base.loaded.model.config.model_type,
            "method": recipe.trainable.method,
            "parameters": report.total,
            "trainable": report.trainable,
            "trainable_fraction": report.fraction,
            "base_bytes": sum(file.stat().st_size for file in Path(source.path).glob("*.safetensors")),
            "saved_bytes": None,
        },
        "data": {
            "train": recipe.data.train,
            "validation": recipe.data.validation,
            "revision": task.splits.revision,
            "train_rows": len(tokens.train),
            "validation_rows": len(tokens.validation),
            "train_tokens": tokens.train.num_tokens,
            "validation_tokens": tokens.validation.num_tokens,
            "truncated_rows": tokens.train.truncated_rows + tokens.validation.truncated_rows,
            "truncated_tokens": tokens.train.truncated_tokens + tokens.validation.truncated_tokens,
            "max_length": recipe.data.max_length,
            "truncate": recipe.data.truncate,
            **task.describe(),
            **_targets(tokens),
        },
        "steps": fit_plan.total_steps,
        "epochs": fit_plan.total_steps / fit_plan.steps_per_epoch,
    }


def _targets(tokens: Tokenized) -> dict[str, int]:
    """Tokens that are learnt, where the model writes."""
    return {"target_tokens": tokens.train.num_targets} if isinstance(tokens.train, WrittenDataset) else {}


def header(
    recipe: Recipe,
    task: Task,
    tokens: Tokenized,
    base: Base,
    trained: Trained,
    fit_plan: FitPlan,
    runtime: Runtime,
    folder: Path,
    cost: str,
) -> Header:
    """What will happen, in seven lines; `cost` is the estimate."""
    report, spec = trained.report, recipe.trainable
    method = f"lora r={spec.rank} alpha={spec.alpha:g}" if spec.method == "lora" else spec.method
    layers = "" if spec.layers == "all" else f", {spec.layers} layers"
    num_tokens = tokens.train.num_tokens + tokens.validation.num_tokens
    return Header(
        f"train · {folder.name}",
        (
            ("model", f"{base.source.name} · {report.total:,} parameters"),
            ("trainable", f"{report.trainable:,} ({report.fraction:.2%}) · {method}{layers}"),
            ("data", f"{len(tokens.train):,} train · {len(tokens.validation):,} validation · {num_tokens:,} tokens"),
            task.header(recipe),
            (
                "plan",
                f"{_length(recipe, fit_plan)} · {fit_plan.total_steps:,} steps · batch "
                f"{fit_plan.batch_size} · lr {fit_plan.learning_rate:g} · keep {recipe.evaluation.keep} "
                f"{fit_plan.metric.removeprefix('validation/')}",
            ),
            ("machine", f"{runtime.device} · {runtime.precision} · {runtime.threads} threads"),
            ("estimate", cost),
        ),
        folder,
    )


def _length(recipe: Recipe, fit_plan: FitPlan) -> str:
    """How long it learns, as a person counts it."""
    if recipe.samples_completions:
        return f"{fit_plan.total_steps // recipe.updates_per_iteration:,} iterations"
    return f"{fit_plan.total_steps / fit_plan.steps_per_epoch:g} epochs"


def resolved_text(recipe: Recipe, origins: dict[str, str], micro_batch_tokens: int, runtime: Runtime) -> str:
    """The recipe with nothing left to decide: running it again repeats the run."""
    return recipe_files.dump(*decided_here(recipe, origins, micro_batch_tokens, runtime))


def decided_here(
    recipe: Recipe, origins: dict[str, str], micro_batch_tokens: int, runtime: Runtime
) -> tuple[Recipe, dict[str, str]]:
    """The recipe with what this machine decided in it, and where each value comes from."""
    decided = {"micro_batch_tokens": micro_batch_tokens, "device": runtime.device, "precision": runtime.precision}
    training = recipe.training.model_copy(update=decided)
    origins = origins | {
        f"training.{name}": "auto: found on this machine"
        for name in decided
        if getattr(recipe.training, name) == "auto"
    }
    return recipe.model_copy(update={"training": training}), origins


def environment(runtime: Runtime) -> dict[str, Any]:
    """Versions and machine, for environment.json."""
    return {
        "versions": {"python": platform.python_version(), **versions()},
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "device": runtime.device,
        "precision": runtime.precision,
        "threads": runtime.threads,
        "world_size": runtime.world_size,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
