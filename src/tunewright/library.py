"""The two functions a Python user needs: `train` and `load`. Plain arguments in, a Run or a Predictor out.

Builds a recipe from the arguments and hands it to the pipeline; the command does the same. Never prints or exits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.errors import RecipeError, UsageError
from tunewright.progress import Listener, silent
from tunewright.recipe import IN_MEMORY, Recipe
from tunewright.recipe_files import build_recipe
from tunewright.runs import Run, find_run

if TYPE_CHECKING:
    from tunewright.serving.answering import Opened


def train(
    model: str | Recipe | None = None,
    data: Any = None,
    *,
    task: str = "classify",
    validation: Any = None,
    text: str | None = None,
    label: str | None = None,
    lora: int | bool | None = None,
    full: bool = False,
    head: bool = False,
    name: str | None = None,
    prompts: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    runs: str | Path = "runs",
    resume: str | Path | None = None,
    force: bool = False,
    progress: Listener | None = None,
) -> Run:
    """Fine-tune a model and return the run.

    model: `minilm`, a folder, a Hub id, `run:NAME`, or a whole Recipe. data: a path, a Hub dataset id, a list of dicts,
    a datasets.Dataset or a pandas frame; `validation` likewise, or the fraction to hold out. One of lora (rank), full,
    head says what is trained. `settings` takes any other recipe field by its dotted name. `resume` continues a run,
    with `force` also on other versions, threads or device: near the same weights then, not the same bytes.
    Raises tunewright.UsageError and the other errors of `tunewright.errors`.
    """
    from tunewright.pipeline import fine_tune

    if isinstance(model, Recipe) and isinstance(data, (str, Path)):
        raise UsageError("a Recipe names its own data; change recipe.data.train, or give model and data apart")
    if isinstance(model, Recipe):
        recipe: Recipe | None = model
    elif model is None and resume is not None:
        recipe = None
    else:
        columns = {"text": text, "label": label, "validation": validation}
        recipe = _recipe(model, data, task, columns, _method(lora, full, head), name, prompts, settings or {})
    in_memory = {
        key: value
        for key, value in (("data", data), ("validation", validation))
        if value is not None and not isinstance(value, (str, Path, float))
    }
    return fine_tune(
        recipe,
        **in_memory,
        runs=Path(runs),
        resume=str(resume) if resume is not None else None,
        force=force,
        listener=progress or silent,
    )


def _recipe(
    model: str | None,
    data: Any,
    task: str,
    columns: Mapping[str, Any],
    trainable: Mapping[str, Any],
    name: str | None,
    prompts: Sequence[str],
    settings: Mapping[str, Any],
) -> Recipe:
    """Arguments as a recipe; `settings` goes on top."""
    if data is None:
        raise UsageError("nothing to train on: give data (a path, a list of dicts, a Dataset or a frame)")
    values: dict[str, Any] = {"task": task, "data": {"train": _named(data)}, "trainable": dict(trainable)}
    values["data"] |= {key: _named(value) for key, value in columns.items() if value is not None}
    values |= {key: value for key, value in (("model", model), ("name", name)) if value is not None}
    if prompts:
        values["evaluation"] = {"prompts": list(prompts)}
    return build_recipe(_with_settings(values, settings))


def _with_settings(values: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    for path, value in settings.items():
        *parents, last = path.split(".")
        inner = values
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise RecipeError(f'"{path}" is not a setting', field=path)
        inner[last] = value
    return values


def _named(value: Any) -> Any:
    """Paths and numbers as they are; an object in memory by a word."""
    if isinstance(value, (str, float)):
        return value
    return str(value) if isinstance(value, Path) else IN_MEMORY


def _method(lora: int | bool | None, full: bool, head: bool) -> dict[str, Any]:
    if sum((bool(lora), full, head)) > 1:
        raise UsageError("choose one of lora, full and head")
    if full or head:
        return {"method": "full" if full else "head"}
    if lora and lora is not True:
        return {"method": "lora", "rank": lora}
    return {"method": "lora"} if lora else {}


def load(model: Run | str | Path, runs: str | Path = "runs") -> Opened:
    """What a run, a run's name, a model or adapter folder, or a Hub id can do: a Predictor, a Writer for one that
    writes, or a RewardModel for one that scores completions. So can the name of a packaged base model that writes, or a
    .gguf file."""
    from tunewright.models.gguf import is_gguf
    from tunewright.serving.answering import open_model
    from tunewright.serving.writer import Writer

    if isinstance(model, Run):
        return model.predictor
    path = Path(model)
    if path.is_dir() and not (path / "run.json").exists():
        return open_model(path)
    try:
        ref = find_run(model, Path(runs))
    except UsageError:
        if is_gguf(str(model)):
            return Writer.of_base(str(model))
        if str(model).count("/") == 1 and not path.exists():
            return open_model(str(model))
        raise
    return ref.load()
