"""`tunewright init | demo | schema`: from nothing to a first run, and what a recipe may say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from tunewright.cli import output
from tunewright.cli.options import DEFAULT_RUNS, AsJson, Overrides, Quiet, RunsFolder
from tunewright.errors import UsageError
from tunewright.recording import write_atomically

RECIPE_NAME = "tunewright.yaml"


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write them.")] = Path(),
    data: Annotated[str | None, typer.Option(metavar="F", help="Your labelled data; default: a small sample.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a recipe to start from, with its schema for the editor, and sample data if you have none."""
    from tunewright.cli import starter
    from tunewright.recipe_files import schema as recipe_schema

    recipe = folder / RECIPE_NAME
    if recipe.exists():
        raise UsageError("exists already; remove it, or give another DIR", where=str(recipe))
    text = starter.recipe_for(data, folder) if data else starter.SAMPLE_RECIPE
    written = {folder / ".tunewright" / "schema.json": json.dumps(recipe_schema(), indent=1) + "\n", recipe: text}
    if not data and not (folder / starter.SAMPLE_NAME).exists():
        written[folder / starter.SAMPLE_NAME] = starter.sample_rows()
    for path, content in written.items():
        write_atomically(path, content)
    if as_json:
        output.print_json({"run": None, "state": None, "metrics": {}, "written": [str(path) for path in written]})
    elif quiet:
        print(recipe)
    else:
        output.show([*(f" wrote  {path}" for path in written), f" next   tunewright train {recipe}"])


def schema(
    field: Annotated[str | None, typer.Option(metavar="A.B", help="Only this setting: training.learning_rate.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the JSON Schema of a recipe, or one setting with its type, default and meaning."""
    from tunewright.recipe_files import build_recipe, field_docs
    from tunewright.recipe_files import schema as recipe_schema

    if field is None:
        print(json.dumps(recipe_schema(), indent=1))
        return
    docs = {doc.path: doc for doc in field_docs()}
    inside = [doc for path, doc in docs.items() if path == field or path.startswith(f"{field}.")]
    if not inside:
        build_recipe({}, [f"{field}="])  # raises, naming the nearest setting
    if as_json:
        output.print_json({doc.path: {"type": doc.type, "default": doc.default, "help": doc.help} for doc in inside})
        return
    for doc in inside:
        print(f"{doc.path}: {doc.type}  (default: {doc.default})\n    {doc.help}")


DEMO_FOLDER = Path("tunewright-demo")


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where data and recipe are written.")] = DEMO_FOLDER,
    runs: RunsFolder = DEFAULT_RUNS,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune the packaged model on real movie reviews: about a minute on two cores, and nothing to prepare."""
    from tunewright.cli.train import run_recipe
    from tunewright.data.reviews import PROMPTS, write_reviews
    from tunewright.recipe_files import load_recipe

    if not quiet:
        _say("demo    movie-review sentences that people rated, into positive and negative")
    files = write_reviews(folder)
    recipe = folder / "demo.yaml"
    write_atomically(recipe, demo_recipe(list(PROMPTS)))
    if not quiet:
        _say(
            f"data    {files.num_rated:,} rated sentences, {files.num_clear:,} clear; "
            f"{files.num_train:,} to train, {files.num_validation:,} to validate"
        )
        _say(f"recipe  {recipe}")
    run_recipe(load_recipe(recipe, overrides or []), runs, wanted=PROMPTS, as_json=as_json, quiet=quiet)


def _say(line: str) -> None:
    sys.stderr.write(f" {line}\n")
    sys.stderr.flush()


def demo_recipe(prompts: list[str]) -> str:
    """The demo's YAML; its data lie beside it."""
    lines = "\n".join(f"    - {json.dumps(prompt, ensure_ascii=False)}" for prompt in prompts)
    return f"""task: classify
model: minilm            # a 22-million-parameter encoder that comes as a package
name: demo
data: {{train: train.jsonl, validation: validation.jsonl, text: text, label: label}}
trainable: {{method: lora, rank: 8, targets: all-linear}}
training: {{epochs: 3, batch_size: 16, learning_rate: 1e-3}}
evaluation:
  prompts:               # answered before and after
{lines}
"""
