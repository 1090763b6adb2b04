"""`tunewright runs ls | show | rm`: what lies in the runs folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tunewright.cli import output, results
from tunewright.cli.options import DEFAULT_RUNS, AsJson, Quiet, RunName, RunsFolder, example, found, refuse_checkpoint
from tunewright.errors import UsageError
from tunewright.runs import RunRef, list_runs, read_summary, remove_run

app = typer.Typer(help="List, show and remove runs.", no_args_is_help=False, rich_markup_mode="rich")


@app.command("ls", epilog=example("tunewright runs ls"))
def ls(runs: RunsFolder = DEFAULT_RUNS, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List runs, newest last."""
    summaries = list_runs(runs)
    if as_json:
        objects = [results.to_json(runs / str(s.get("id")), s) for s in summaries]
        output.print_json({"run": None, "state": None, "metrics": {}, "runs": objects})
    elif quiet:
        print("".join(f"{summary['id']}\n" for summary in summaries), end="")
    elif not summaries:
        sys.stderr.write(f"no runs in {runs} yet; start one: tunewright train reviews.jsonl\n")
    else:
        output.show(run_table(summaries, output.marks(), output.width()))


def run_table(summaries: list[dict[str, Any]], marks: output.Marks, fit: int) -> list[str]:
    """One line per run."""
    rows = [["run", "state", "score", "rows", "time"]]
    rows += [
        [
            str(summary.get("id")),
            str(summary.get("state")),
            _score(summary),
            f"{(summary.get('data') or {}).get('train_rows') or 0:,}",
            output.clock(summary["seconds"]) if summary.get("seconds") is not None else marks.none,
        ]
        for summary in summaries
    ]
    return output.table(rows, "<<<>>", fit=fit, cut=marks.cut)


def _score(summary: Mapping[str, Any]) -> str:
    name = results.metric_name(summary)
    value = (summary.get("metrics") or {}).get(name)
    return "" if value is None else f"{name} {output.number(value)}"


@app.command("show", epilog=example("tunewright runs show latest"))
def show(run: RunName, runs: RunsFolder = DEFAULT_RUNS, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Show one run: epochs, prompts before and after, verdict."""
    folder = found(run, runs).folder
    summary = read_summary(folder)
    if as_json:
        output.print_json(results.to_json(folder, summary))
    elif quiet:
        print(summary.get("id", folder.name))
    else:
        output.show(
            [*_facts(folder, summary), "", *results.result_lines(folder, summary, output.marks(), fit=output.width())]
        )


def _facts(folder: Path, summary: Mapping[str, Any]) -> list[str]:
    error = summary.get("error") or {}
    model, data = summary.get("model") or {}, summary.get("data") or {}
    facts = {
        "run": f"{summary.get('id', folder.name)}: {summary.get('state', 'unknown')}",
        "error": error.get("message"),
        "model": model.get("name"),
        "data": data.get("train"),
        "folder": folder,
    }
    return [f" {name:<7} {value}" for name, value in facts.items() if value]


@app.command("rm", epilog=example("tunewright runs rm latest --yes"))
def rm(
    run_names: Annotated[list[str], typer.Argument(metavar="RUN", help="Runs to delete.")],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Don't ask.")] = False,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Delete runs with everything in their folders."""
    refs = [_removable(name, runs) for name in run_names]
    names = [ref.folder.name for ref in refs]
    if not yes:
        _confirm(", ".join(names))
    for ref in refs:
        remove_run(ref)
    if as_json:
        output.print_json({"run": names, "state": "removed", "metrics": {}})
    else:
        print("\n".join(names))


def _removable(name: str, runs: Path) -> RunRef:
    ref = found(name, runs)
    refuse_checkpoint(ref)
    return ref


def _confirm(names: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"nobody is here to confirm that {names} may go; add --yes")
    sys.stderr.write(f"delete {names}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was deleted")
