"""`tunewright rank sample | serve | status | export | import | backup`: people rank what models write.

Thin: `serving.drawing` draws, the page in `web` asks (`rank_serve`), `data.judgements` keeps, `rank_status` prints what
the judgements are worth. What is exported here is what `task: reward` and `align.method: dpo` read.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewright.cli import output, rank_sample, rank_serve
from tunewright.cli.options import AsJson, Quiet, example
from tunewright.cli.rank_sample import NewStore, say
from tunewright.errors import UsageError

if TYPE_CHECKING:
    from tunewright.data.judgement_import import Told

app = typer.Typer(
    help="Rank completions: sample them, judge them in a browser, export what a reward model learns from.",
    no_args_is_help=False,
    rich_markup_mode="rich",
)

Store = Annotated[Path, typer.Argument(metavar="DB", help="The store that `rank sample` or `rank import` made.")]

app.command(
    "sample",
    epilog=example(
        "tunewright rank sample latest --prompts prompts.jsonl -k 4 -o judgements.db",
        "tunewright rank sample gemma3-270m latest --prompts p.jsonl -k 1 -o ab.db",
    ),
)(rank_sample.sample)
app.command("serve", epilog=example("tunewright rank serve judgements.db --guidelines guidelines.md"))(rank_serve.serve)


# ---- export and import ----


@app.command(
    "export",
    epilog=example(
        "tunewright rank export judgements.db -o comparisons.jsonl",
        "tunewright rank export judgements.db --format demonstrations -o d.jsonl",
    ),
)
def export(
    database: Store,
    target: Annotated[str, typer.Option("-o", "--output", metavar="OUT", help="JSONL, CSV or TSV; - is stdout.")] = "-",
    form: Annotated[
        str, typer.Option("--format", metavar="F", help="pairs, conversational, ranked or demonstrations.")
    ] = "pairs",
    unpaired: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write what was found bad: prompt, completion, label false."),
    ] = None,
    ties: Annotated[
        bool, typer.Option("--ties/--no-ties", help="Write ties with label 0.5, or leave them out.")
    ] = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write judgements as training data, and say what was left out. Withdrawn ones always are."""
    if target == "-" and (as_json or quiet):
        raise UsageError("rows go to stdout, so there is no room for --json or -q; give -o FILE", field="-o")
    from tunewright.data.judgement_export import export as rows_of
    from tunewright.data.judgements import Judgements
    from tunewright.serving.writing import check_target, write_rows

    for name in (target, *([unpaired] if unpaired else [])):
        check_target(name, database)
    if unpaired is not None and target != "-" and unpaired.resolve() == Path(target).resolve():
        raise UsageError("is the target of -o; name another file", where=str(unpaired), field="--unpaired")
    with Judgements.open(database, create=False) as store:
        found = rows_of(store, form, ties=ties, unpaired=unpaired is not None)
    write_rows(found.rows, target)
    if unpaired is not None:
        write_rows(found.unpaired, unpaired)
    say(as_json or quiet, list(found.said))
    if as_json:
        output.print_json({"run": None, "state": "succeeded", "metrics": {}, "output": target, **found.counts})
    elif target != "-":
        print(target)


@app.command(
    "import",
    epilog=example(
        "tunewright rank import comparisons.jsonl -o judgements.db",
        "tunewright rank import studio.json --prompt question --completions a,b",
    ),
)
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Our exports, TRL's rows, Argilla's or Label Studio's JSON."),
    ],
    target: NewStore = Path("judgements.db"),
    annotator: Annotated[str, typer.Option(metavar="NAME", help="Who judged, where a file doesn't say.")] = "imported",
    prompt: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of the prompt (Argilla, Label Studio).")
    ] = None,
    completions: Annotated[
        str | None, typer.Option(metavar="LEFT,RIGHT", help="Columns that were compared (Label Studio).")
    ] = None,
    question: Annotated[str | None, typer.Option(metavar="Q", help="The question that ranks (Argilla).")] = None,
    buckets: Annotated[
        str | None, typer.Option(metavar="BEST,...", help="Buckets of a Ranker, best first (Label Studio).")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take over judgements from other tools, a whole file or nothing, and say what couldn't be read."""
    from tunewright.data.judgement_formats import read_judgements
    from tunewright.data.judgements import Judgements

    with Judgements.open(target) as store:
        told = [
            read_judgements(
                store,
                path,
                annotator=annotator,
                prompt=prompt,
                question=question,
                completions=_listed(completions),
                buckets=_listed(buckets),
            )
            for path in files
        ]
    for path, one in zip(files, told, strict=True):
        say(as_json or quiet, [f"{path.name}: {sentence}" for sentence in one.words()])
    if as_json:
        output.print_json({"run": None, "state": "succeeded", "metrics": {}, "output": str(target), **_sum(told)})
    else:
        print(target)


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def _sum(told: list[Told]) -> dict[str, Any]:
    names = ("judgements", "demonstrations", "known")
    return {
        **{name: sum(getattr(one, name) for one in told) for name in names},
        "files": [asdict(one) for one in told],
    }


# ---- status and backup ----


@app.command("status", epilog=example("tunewright rank status judgements.db"))
def status(database: Store, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """How far the ranking is, and what it is worth: agreement, habits, contradictions, who won."""
    from tunewright.cli import rank_status
    from tunewright.data.judgements import Judgements

    with Judgements.open(database, create=False) as store:
        found = rank_status.status(store)
    if as_json:
        output.print_json({"run": None, "state": "succeeded", "metrics": {}, **found.to_json()})
    elif quiet:
        print(found.quality.judgements)
    else:
        output.show(rank_status.lines(found, output.marks(), output.width()))


@app.command("backup", epilog=example("tunewright rank backup judgements.db judgements-2026-11-24.db"))
def backup(
    database: Store,
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    as_json: AsJson = False,
) -> None:
    """Copy the store whole, also while people are ranking."""
    from tunewright.data.judgements import Judgements

    with Judgements.open(database, create=False) as store:
        store.backup(target)
    if as_json:
        output.print_json({"run": None, "state": "succeeded", "metrics": {}, "output": str(target)})
    else:
        print(target)
