"""Options that several commands share, declared once, and how a RUN is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tunewright.errors import UsageError
from tunewright.runs import RunRef, find_run


def new_lines(template: str | None) -> str | None:
    """A template as meant: a shell hands on `\\n` as two characters, and nobody wants those in a prompt."""
    if template is None or Path(template).is_file():
        return template
    return template.replace("\\n", "\n").replace("\\t", "\t")


def typed(template: str) -> str:
    """The same as it is typed, on one line."""
    return template.replace("\n", "\\n").replace("\t", "\\t")


RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Name, unique prefix, `latest`, path, or RUN:best, RUN:step-400.")
]
Subject = Annotated[
    str | None, typer.Argument(metavar="RECIPE|DATA", help="A recipe (.yaml, .yml), or data: file, folder or Hub id.")
]
Validation = Annotated[
    str | None, typer.Option(metavar="FILE|FRACTION", help="Data to evaluate on, or the share of DATA to hold out.")
]
BaseModel = Annotated[
    str | None,
    typer.Option(metavar="M", help="Base model: minilm, gemma3-270m, a folder, a .gguf file, a Hub id or run:NAME."),
]
TaskName = Annotated[
    str | None, typer.Option(metavar="T", help="What to learn: classify, generate, continue, reward or align.")
]

Template = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT|FILE",
        callback=new_lines,
        help="Prompt and completion over the columns: 'Q: {question}\\nA: {answer}'.",
    ),
]
CompletionColumn = Annotated[
    str | None, typer.Option("--completion", metavar="COL", help="Column of what must be written (generate).")
]
TextColumn = Annotated[str | None, typer.Option(metavar="COL", help="Column of the text; guessed if not given.")]
LabelColumn = Annotated[str | None, typer.Option(metavar="COL", help="Column of the label; guessed if not given.")]
MaxNewTokens = Annotated[
    int | None, typer.Option(metavar="N", help="Tokens of an answer at most; default: what training chose.")
]
Temperature = Annotated[
    float | None, typer.Option(metavar="T", help="0, the default, takes the likeliest token; 1 draws as the model is.")
]
TopP = Annotated[
    float | None, typer.Option(metavar="P", help="Draw from the likeliest tokens that hold this probability.")
]
Seed = Annotated[int | None, typer.Option(metavar="S", help="Of what is drawn; the same seed writes the same.")]
RunsFolder = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder that holds the runs.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-s", "--set", metavar="KEY=VALUE", help="Set one value of the recipe: training.epochs=3. Repeatable."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but the id or path.")]
DEFAULT_RUNS = Path("runs")


def found(run: str, runs: Path) -> RunRef:
    """The run a person means. Raises ModelError."""
    return find_run(run, runs)


def refuse_checkpoint(ref: RunRef) -> None:
    """For commands that know only whole runs, so that a checkpoint isn't silently taken for its final model."""
    if ref.checkpoint is not None:
        raise UsageError(f"{ref.checkpoint} is a checkpoint; give the run's own name: {ref.folder.name}")


def override(key: str, value: Any) -> str:
    """A flag as an override; JSON spelling keeps text text, so that --name 7 isn't read as a number."""
    return f"{key}={json.dumps(value)}"


def example(*commands: str) -> str:
    """The end of a command's help: lines to paste."""
    return "\n\n".join(["Example:" if len(commands) == 1 else "Examples:", *commands])
