"""`tunewright models try | ls`: which base model, trained in which way, by evidence.

Parses, calls `choosing.trying`, prints. What is compared and how, `docs/choosing.md` says.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewright.cli import boards, output
from tunewright.cli.options import (
    DEFAULT_RUNS,
    AsJson,
    CompletionColumn,
    LabelColumn,
    Overrides,
    Quiet,
    RunsFolder,
    TaskName,
    Template,
    TextColumn,
    Validation,
    example,
    override,
)
from tunewright.cli.train import fraction_or_file, is_recipe
from tunewright.errors import StoppedError, UsageError

if TYPE_CHECKING:
    from tunewright.recipe import Recipe

app = typer.Typer(help="Try base models on your data, and list those that are here.", no_args_is_help=False,
                  rich_markup_mode="rich")  # fmt: skip


@app.command(
    "try",
    epilog=example(
        "tunewright models try reviews.jsonl --methods head,lora,full",
        "tunewright models try tunewright.yaml --methods head,lora --budget 20m",
    ),
)
def try_(
    subject: Annotated[str, typer.Argument(metavar="RECIPE|DATA", help="A recipe, or data: file, folder or Hub id.")],
    models: Annotated[
        str | None, typer.Option(metavar="A,B", help="Base models: names, folders, Hub ids, run:NAME; default: one.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="M,M", help="Of head, lora, full; default: all, with --models the recipe's own."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Trials of each, with other seeds.")] = 3,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="For all of it: 20m, 1h30m; `none`: each as long as the recipe says.")
    ] = "20m",
    examples: Annotated[
        int, typer.Option(metavar="K", min=0, max=64, help="In the prompt of a base that is only asked (generate).")
    ] = 4,
    name: Annotated[str | None, typer.Option(metavar="N", help="Name of the comparison.")] = None,
    validation: Validation = None,
    task: TaskName = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    template: Template = None,
    completion: CompletionColumn = None,
    overrides: Overrides = None,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare base models and methods on the same rows under one budget, beside baselines, and recommend one."""
    from tunewright.planning.trials import METHODS, seconds_of

    flags = {
        "name": name, "data.validation": fraction_or_file(validation), "task": task, "data.text": text,
        "data.label": label, "data.template": template, "data.completion": completion,
    }  # fmt: skip
    given = [override(key, value) for key, value in flags.items() if value is not None]
    recipe = _recipe(subject, [*given, *(overrides or [])])
    ways = _listed(methods) or (METHODS if recipe.task == "classify" and not models else ())
    chosen = {"models": _listed(models), "methods": ways, "seeds": seeds, "shots": examples}
    _compare(recipe, {**chosen, "budget_seconds": seconds_of(budget)}, runs, as_json=as_json, quiet=quiet)


def _compare(recipe: Recipe, chosen: dict[str, Any], runs: Path, *, as_json: bool, quiet: bool) -> None:
    from tunewright.choosing.trying import Request, try_models
    from tunewright.choosing.workers import Processes

    with boards.following(quiet) as tell:
        try:
            outcome = try_models(Request(recipe, **chosen), runs, Processes(), tell)
        except StoppedError:
            boards.going_on(shlex.join(["tunewright", *sys.argv[1:]]))
            raise
    boards.show(outcome, "compared", as_json=as_json, quiet=quiet)


def _listed(words: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (words or "").split(",") if word.strip())


def _recipe(subject: str, overrides: list[str]) -> Recipe:
    from tunewright.recipe_files import build_recipe, load_recipe, read_yaml

    if not is_recipe(subject):
        return build_recipe({"data": {"train": subject}}, overrides)
    if "search" in read_yaml(Path(subject)):
        raise UsageError("holds a search: block; that is for: tunewright search", where=subject, field="search")
    return load_recipe(Path(subject), overrides)


@app.command("ls", epilog=example("tunewright models ls"))
def ls(runs: RunsFolder = DEFAULT_RUNS, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List base models that need no hub: packaged ones, and finished runs to build on."""
    found = [*_packaged(), *_finished(runs)]
    if as_json:
        output.print_json({"run": None, "state": None, "metrics": {}, "models": found})
    elif quiet:
        print("".join(f"{one['name']}\n" for one in found), end="")
    else:
        rows = [["model", "what it is", "here"], *([one["name"], one["what"], one["here"]] for one in found)]
        more = " also: a folder, a .gguf file, or a Hub id (owner/name)"
        output.show([*output.table(rows, "<<<", fit=output.width(), cut=output.marks().cut), "", more])


def _packaged() -> list[dict[str, str]]:
    import importlib.util

    from tunewright.models.gguf import GGUF_PACKAGES
    from tunewright.models.packaged import PACKAGED

    kinds = {"minilm": "encoder, 22 M parameters: labels", "gemma3-270m": "writes, 268 M parameters: text and labels"}
    modules = {name: one.module for name, one in PACKAGED.items()}
    modules |= {name: one.parts[0].partition("/")[0] for name, one in GGUF_PACKAGES.items()}
    installs = {name: one.install for name, one in (*PACKAGED.items(), *GGUF_PACKAGES.items())}
    return [
        {"name": name, "what": kinds.get(name, "packaged"),
         "here": "yes" if importlib.util.find_spec(module) else installs[name]}
        for name, module in modules.items()
    ]  # fmt: skip


def _finished(runs: Path) -> list[dict[str, str]]:
    from tunewright.runs import list_runs

    found: list[dict[str, str]] = []
    for summary in list_runs(runs):
        if summary.get("state") == "succeeded" and (runs / str(summary.get("id")) / "model").is_dir():
            model = summary.get("model") or {}
            what = f"{summary.get('task')}, {model.get('method')} on {model.get('name')}"
            found.append({"name": f"run:{summary['id']}", "what": what, "here": "yes"})
    return found
