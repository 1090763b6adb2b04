"""`tunewright predict | export | push`: use what was made. `chat` has a file of its own."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tunewright.cli import output, results
from tunewright.cli.options import (
    DEFAULT_RUNS,
    AsJson,
    MaxNewTokens,
    Quiet,
    RunName,
    RunsFolder,
    Seed,
    Temperature,
    TextColumn,
    TopP,
    found,
    refuse_checkpoint,
)
from tunewright.errors import ModelError, UsageError
from tunewright.runs import read_summary


class Target(StrEnum):
    """What an export is."""

    merged = "merged"
    adapter = "adapter"


def predict(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Name, unique prefix, `latest`, path, Hub id, or RUN:best, RUN:step-400."),
    ],
    source: Annotated[
        str, typer.Option("-i", "--input", metavar="IN", help="Rows to answer: JSONL or CSV; - is stdin.")
    ],
    target: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help="Where to write them: JSONL or CSV; - is stdout.")
    ] = "-",
    text: TextColumn = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Answer rows: each is written again with its `prediction`, in order, however many there are.

    A classifier adds `probabilities`; a model that writes applies its template to the row's columns and adds `stopped`.
    """
    if target == "-" and (as_json or quiet):
        raise UsageError("rows go to stdout, so there is no room for --json or -q; give -o FILE", field="-o")
    from tunewright.library import load
    from tunewright.serving.answering import answer_file

    given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    settings = {name: value for name, value in given.items() if value is not None}
    found = answer_file(load(run, runs), _place(source), _place(target), text=text, **settings)
    facts = {"rows": found.rows, "cut_rows": found.cut_rows, "cut_tokens": found.cut_tokens}
    if found.cut_rows:
        says = f" {found.cut_rows:,} of {found.rows:,} prompts were too long: {found.cut_tokens:,} tokens left out"
        print(says, file=sys.stderr)
    if as_json:
        output.print_json({"run": run, "state": "succeeded", "metrics": {}, "output": target, **facts})
    elif target != "-":
        print(target)


def _place(name: str) -> Path | str:
    return name if name == "-" else Path(name)


def export(
    run: RunName,
    to: Annotated[Target, typer.Option(help="merged: one model without PEFT; adapter: the small part alone.")],
    target: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to create.")],
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's model as files that other tools load."""
    ref = found(run, runs)
    refuse_checkpoint(ref)
    from tunewright.serving.export import export as write_export

    folder = write_export(ref.model_folder, to.value, target)
    if as_json:
        output.print_json({**results.to_json(ref.folder, read_summary(ref.folder)), "output": str(folder)})
    else:
        print(folder)


def push(
    run: RunName,
    repo: Annotated[str, typer.Argument(metavar="ID", help="Where to on the Hub: you/name.")],
    public: Annotated[bool, typer.Option("--public", help="Let everyone see it; default: private.")] = False,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Upload a run's model and its card to the Hub, in one commit."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UsageError(f'"{repo}" is no Hub id; expected you/name', field="ID")
    from tunewright.serving.hub import push as upload

    folder = found(run, runs).folder
    summary = read_summary(folder)
    if summary.get("state") not in (None, "succeeded"):
        raise ModelError(f"isn't finished: its state is {summary['state']}", where=folder.name)
    url = upload(folder, repo, private=not public)
    if as_json:
        output.print_json({**results.to_json(folder, summary), "url": str(url)})
    else:
        print(url)
