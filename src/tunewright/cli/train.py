"""`tunewright train`: a recipe, or a data file and flags, into a run.

Parses, calls `pipeline.fine_tune` with a listener, prints the end of the run. `demo` shares the second half.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import output, results
from tunewright.cli.options import (
    DEFAULT_RUNS,
    AsJson,
    BaseModel,
    CompletionColumn,
    LabelColumn,
    Overrides,
    Quiet,
    RunsFolder,
    Subject,
    TaskName,
    Template,
    TextColumn,
    Validation,
    found,
    override,
)
from tunewright.cli.plain import PlainLines
from tunewright.cli.screen import Screen
from tunewright.errors import StoppedError, TunewrightError, UsageError
from tunewright.runs import read_summary

if TYPE_CHECKING:
    from tunewright.recipe import Recipe
    from tunewright.runs import Run


def train(
    subject: Subject = None,
    validation: Validation = None,
    model: BaseModel = None,
    task: TaskName = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    template: Template = None,
    completion: CompletionColumn = None,
    name: Annotated[str | None, typer.Option(metavar="N", help="Name of the run.")] = None,
    runs: RunsFolder = DEFAULT_RUNS,
    overrides: Overrides = None,
    resume: Annotated[
        str | None, typer.Option(metavar="[RUN]", help="Continue a stopped run: the latest if none is named.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: go on with other versions, threads or device.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a base model: labelled texts, prompts with completions, or plain text."""
    if force and resume is None:
        raise UsageError("--force goes with --resume: it continues a run on other versions, threads or another device")
    flags = {
        "data.validation": fraction_or_file(validation),
        "model": model,
        "task": task,
        "data.text": text,
        "data.label": label,
        "data.template": template,
        "data.completion": completion,
        "name": name,
    }
    given = [override(key, value) for key, value in flags.items() if value is not None]
    if subject is not None and is_recipe(subject) and _is_chain(subject):
        if resume is not None:
            raise UsageError("a chain goes on by itself where it stopped; leave --resume out")
        from tunewright.cli.chaining import train_chain

        train_chain(Path(subject), [*given, *(overrides or [])], runs, as_json=as_json, quiet=quiet)
        return
    recipe = _recipe(subject, [*given, *(overrides or [])], resume, runs)
    run_recipe(recipe, runs, resume=resume, force=force, as_json=as_json, quiet=quiet)


def _is_chain(subject: str) -> bool:
    from tunewright.chain import is_chain

    return is_chain(Path(subject))


def _recipe(subject: str | None, overrides: list[str], resume: str | None, runs: Path) -> Recipe | None:
    """From a file, from data alone, or, to resume, the run's own, which None stands for."""
    from tunewright.recipe_files import build_recipe, load_recipe

    if subject is None and resume is None:
        raise UsageError("nothing to train on; give a recipe or a data file: tunewright train reviews.jsonl")
    if subject is None and not overrides:
        return None
    if subject is None:
        return load_recipe(found(str(resume), runs).folder / "recipe.yaml", overrides)
    if is_recipe(subject):
        return load_recipe(Path(subject), overrides)
    return build_recipe({"data": {"train": subject}}, overrides)


def is_recipe(subject: str) -> bool:
    """Whether a positional argument names a recipe rather than data."""
    return subject.lower().endswith((".yaml", ".yml"))


def fraction_or_file(value: str | None) -> float | str | None:
    """What --validation means: a share of the data, or data of its own."""
    try:
        return None if value is None else float(value)
    except ValueError:
        return value


def run_recipe(
    recipe: Recipe | None,
    runs: Path,
    *,
    resume: str | None = None,
    force: bool = False,
    wanted: Mapping[str, str] | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Fine-tune while someone watches, then print the end of the run. Raises TunewrightError."""
    from tunewright.pipeline import fine_tune

    with watching(quiet) as listener:
        try:
            run = fine_tune(recipe, runs=runs, resume=resume, force=force, listener=listener)
        except TunewrightError as error:
            listener.close()
            _tell_failure(error, listener.folder, as_json)
            raise
    if _is_main_rank():
        _show(run, drawn=isinstance(listener, Screen), wanted=wanted, as_json=as_json, quiet=quiet)


@contextmanager
def watching(quiet: bool) -> Generator[Screen | PlainLines]:
    """The listener that suits stderr; closed at the end whatever happens."""
    listener: Screen | PlainLines
    if quiet or not _is_main_rank():
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            yield PlainLines(nowhere)
        return
    if output.is_live(sys.stderr):
        listener = Screen(output.console(sys.stderr), output.marks(sys.stderr))
    else:
        listener = PlainLines(sys.stderr)
    try:
        yield listener
    finally:
        listener.close()


def _is_main_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _tell_failure(error: TunewrightError, folder: Path | None, as_json: bool) -> None:
    """How to go on after a stop; with --json the object of the run as it was left."""
    if folder is not None and not (folder / "run.json").exists():  # it failed before anything was learnt
        return
    if isinstance(error, StoppedError) and folder is not None and _is_main_rank():
        sys.stderr.write(f"to continue: {results.command('train --resume', folder)}\n")
    if as_json and folder is not None:
        output.print_json(output.failure(error, run=folder.name, state=read_summary(folder)["state"]))
        raise output.Reported(error)


def _show(run: Run, *, drawn: bool, wanted: Mapping[str, str] | None, as_json: bool, quiet: bool) -> None:
    if as_json:
        output.print_json(results.to_json(run.folder, run.summary))
    elif quiet:
        print(run.id)
    else:
        # On a terminal the epoch rows are still on screen, right above.
        shown_above = drawn and output.is_live(sys.stdout)
        lines = results.result_lines(
            run.folder, run.summary, output.marks(), fit=output.width(), wanted=wanted, epochs=not shown_above
        )
        output.show(["", *lines, "", *results.next_lines(run.folder, run.summary)])
