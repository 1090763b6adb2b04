"""`tunewright search`: the settings of a recipe's `search:` block, tried out.

Parses, calls `choosing.searching`, prints.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tunewright.cli import boards
from tunewright.cli.options import DEFAULT_RUNS, AsJson, Overrides, Quiet, RunsFolder
from tunewright.cli.train import is_recipe
from tunewright.errors import StoppedError, UsageError


def search(
    subject: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe (.yaml, .yml) with a search: block.")],
    jobs: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="Trials at once, each with its share of the cores.")
    ] = 1,
    on: Annotated[
        Literal["here", "ray"], typer.Option(metavar="WHERE", help="here, or ray: the machines of a Ray cluster.")
    ] = "here",
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of the Ray cluster; default: the one that Ray finds.")
    ] = None,
    overrides: Overrides = None,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Try the values of a recipe's search: block, stop the poor trials, and recommend one."""
    from tunewright.choosing import searching
    from tunewright.choosing.workers import Processes, Workers
    from tunewright.planning.search import load_search

    if not is_recipe(subject):
        raise UsageError(f"{subject} is no recipe (.yaml, .yml); write one with a search: block")
    if address is not None and on != "ray":
        raise UsageError("--address goes with --on ray", field="--address")
    plan = load_search(Path(subject), overrides or [])
    threads = max(1, _cores() // jobs) if jobs > 1 else None
    workers: Workers = Processes(threads)
    if on == "ray":
        from tunewright.choosing.ray_workers import RayWorkers

        workers = RayWorkers(threads or 1, address)
    with boards.following(quiet) as tell:
        try:
            outcome = searching.search(plan, runs, workers, tell, jobs=jobs, threads=threads)
        except StoppedError:
            boards.going_on(shlex.join(["tunewright", *sys.argv[1:]]))
            raise
    boards.show(outcome, "searched", as_json=as_json, quiet=quiet)


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
