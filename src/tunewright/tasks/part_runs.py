"""Runs on parts of the rows, each kept as the logits it gives: killed anywhere, the next start goes on.

A part's run lives in a scratch folder while it trains (and resumes there), then only its logits stay. A second call
with the same recipe, rows and versions finds them and trains nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from tunewright import durable, stages
from tunewright.errors import ModelError
from tunewright.progress import Event, Stepped
from tunewright.runs import find_run, read_summary, run_folders
from tunewright.tasks.labelled_rows import LabelledRows, Part, Status, part_recipe


def scratch(rows: LabelledRows, purpose: str) -> Path:
    """The folder of this purpose, these rows and this recipe."""
    return stages.cache_folder() / purpose / rows.fingerprint[:32]


def logits_of_part(
    rows: LabelledRows,
    learnt: np.ndarray,
    judged: tuple[Part, np.ndarray],
    path: Path,
    seed: int,
    runs: Path,
    status: Status,
) -> np.ndarray:
    """float [len(judged), C]: answers to `judged` of the recipe's model after learning `learnt` rows of train.

    `path`: where they are kept. `runs`: where the recipe's `run:NAME` is looked for.
    """
    if path.is_file():
        return load_file(path)["logits"].numpy()
    folder = path.with_suffix(".runs")
    run = _trained(rows, learnt, judged, folder, seed, runs, status)
    logits = load_file(run / "predictions" / "validation-logits.safetensors")["logits"]
    if len(logits) != len(judged[1]):
        raise ModelError(f"{len(logits):,} answers to {len(judged[1]):,} rows; remove it and start again",
                         where=str(run))  # fmt: skip
    with durable.storing(path):
        durable.write_tensors(path, {"logits": logits.to(torch.float32)})
    shutil.rmtree(folder, ignore_errors=True)
    return logits.numpy()


def _trained(
    rows: LabelledRows, learnt: np.ndarray, judged: tuple[Part, np.ndarray], folder: Path, seed: int, runs: Path,
    status: Status,
) -> Path:  # fmt: skip
    """The folder of a finished run on this part: found, continued or begun."""
    from tunewright.pipeline import fine_tune

    part, chosen = judged
    there = run_folders(folder)
    resume = None
    if there:
        run = find_run("latest", folder)
        if read_summary(run.folder).get("state") == "succeeded":
            return run.folder
        resume = run.folder.name
    recipe = part_recipe(rows, "part", seed)
    if recipe.model.startswith("run:"):  # found where the person's runs are, not in the scratch folder
        recipe = recipe.model_copy(
            update={"model": str(find_run(recipe.model.removeprefix("run:"), runs).model_folder)}
        )
    folder.mkdir(parents=True, exist_ok=True)
    return fine_tune(
        None if resume else recipe,
        data=[rows.train.rows[i] for i in learnt.tolist()],
        validation=[part.rows[i] for i in chosen.tolist()],
        runs=folder,
        resume=resume,
        listener=_telling(status),
    ).folder


def _telling(status: Status) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        if isinstance(event, Stepped):
            status(f"step {event.step:,} of {event.total_steps:,}")

    return tell
