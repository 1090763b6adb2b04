"""The `tunewright` command: five help panels in the order of the work, one line per error, exit codes by kind.

Each command lives in the file of its panel and imports the library when it is called, so that `--help` is instant. This
file only puts them together and turns errors into lines and exit codes.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Annotated, Any, TextIO

import typer

from tunewright.cli import (
    calibrate,
    chat,
    data,
    data_quality,
    doctor,
    evaluate,
    models,
    output,
    plan,
    rank,
    runs,
    search,
    ship,
    start,
    train,
)
from tunewright.cli.options import example
from tunewright.errors import TunewrightError, UsageError

app = typer.Typer(
    name="tunewright",
    help="Turn a general language model into your specialist, on the machine you have, and know what you got.",
    epilog=example("tunewright demo", "tunewright train reviews.jsonl --validation 0.1"),
    rich_markup_mode="rich",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)

_START = "1. Choose the task, prepare the data, choose the base model"
_TRAIN = "2. Fine-tune"
_EVALUATE = "3. Evaluate"
_USE = "4. Use"
_RUNS = "5. Look after your runs"


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda asked: _show_version() if asked else None,
            is_eager=True,
            help="Show the version.",
        ),
    ] = False,
) -> None:
    pass


def _show_version() -> None:
    from tunewright import __version__

    print(__version__)
    raise typer.Exit


def _add(command: Any, panel: str, *examples: str) -> None:
    app.command(rich_help_panel=panel, epilog=example(*examples))(command)


_add(start.init, _START, "tunewright init reviews --data reviews.csv", "tunewright init")
_add(start.schema, _START, "tunewright schema --field training.learning_rate")
_add(start.demo, _START, "tunewright demo")
_add(doctor.doctor, _START, "tunewright doctor", "tunewright doctor --json")
_add(
    plan.plan,
    _TRAIN,
    "tunewright plan reviews.jsonl --validation 0.1",
    "tunewright plan tunewright.yaml -s training.batch_size=32",
)
_add(
    train.train,
    _TRAIN,
    "tunewright train tunewright.yaml -s training.epochs=3",
    "tunewright train --resume",
    "tunewright train reviews.jsonl --validation 0.1 --model minilm",
)
_add(search.search, _TRAIN, "tunewright search tunewright.yaml", "tunewright search tunewright.yaml --jobs 2")
_add(
    evaluate.evaluate,
    _EVALUATE,
    "tunewright evaluate latest --data test.jsonl",
    "tunewright evaluate latest --gate 'validation/accuracy>=0.9'",
)
_add(evaluate.compare, _EVALUATE, "tunewright compare reviews-1 reviews-2")
_add(calibrate.calibrate, _EVALUATE, "tunewright calibrate latest", "tunewright calibrate latest --accuracy 0.95")
_add(evaluate.report, _EVALUATE, "tunewright report latest -o report.html")
_add(ship.predict, _USE, "tunewright predict latest -i new.jsonl -o predictions.jsonl")
_add(chat.chat, _USE, "tunewright chat latest --side-by-side", "tunewright chat gemma3-270m")
_add(ship.export, _USE, "tunewright export latest --to merged -o my-model")
_add(ship.push, _USE, "tunewright push latest you/reviews")
data_quality.register(data.app)
app.add_typer(data.app, name="data", rich_help_panel=_START, epilog=example("tunewright data check reviews.csv"))
app.add_typer(models.app, name="models", rich_help_panel=_START, epilog=example("tunewright models try reviews.jsonl"))
app.add_typer(rank.app, name="rank", rich_help_panel=_START, epilog=example("tunewright rank serve judgements.db"))
app.add_typer(runs.app, name="runs", rich_help_panel=_RUNS, epilog=example("tunewright runs ls"))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code. Never lets an exception out."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _prepare()
    try:
        return _run(with_optional_run(given) or ["--help"])
    except output.Reported as reported:
        return _tell(reported.error)
    except TunewrightError as error:
        return _tell(error, as_json="--json" in given)
    except (KeyboardInterrupt, typer.Abort):
        return _tell(_stopped(), as_json="--json" in given)
    except BrokenPipeError:
        _close_quietly(sys.stdout)
        return 1
    except Exception as error:
        if os.environ.get("TUNEWRIGHT_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno in _MACHINE:
            return _tell(_refused(error), as_json="--json" in given and error.filename is not None)
        return _tell(_bug(error), as_json="--json" in given)


def _run(arguments: list[str]) -> int:
    """typer in the mode that raises instead of exiting; its own complaints become ours."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="tunewright", standalone_mode=False)
    except typer.TyperException as error:
        sentence = error.format_message().rstrip()
        end = "" if sentence.endswith((".", "?", "!")) else "."
        raise UsageError(f"{sentence}{end} Help: {_help_for(error)}") from None
    if code == 130:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _help_for(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'tunewright'} --help"


def with_optional_run(arguments: list[str]) -> list[str]:
    """Give a bare --resume its value, latest: the word after it is a RUN unless it is an option, a recipe or a file."""
    full = list(arguments)
    if "--resume" not in full:
        return full
    after = full.index("--resume") + 1
    word = full[after] if after < len(full) else "-"
    if word.startswith("-") or train.is_recipe(word) or os.path.isfile(word):
        full.insert(after, "latest")
    return full


def _tell(error: TunewrightError, *, as_json: bool = False) -> int:
    """One line on stderr, with --json also the object; the exit code."""
    if as_json:
        output.print_json(output.failure(error))
    sys.stderr.write(f"{error.line()}\n")
    return error.exit_code


def _stopped() -> TunewrightError:
    from tunewright.errors import StoppedError

    return StoppedError("stopped from the keyboard")


def _bug(error: Exception) -> TunewrightError:
    """Anything unexpected, as one line that asks for a report."""
    text = " ".join(str(error).split())
    shown = text if len(text) <= 200 else text[:199] + "…"
    return TunewrightError(f"{type(error).__name__}: {shown} (TUNEWRIGHT_DEBUG=1 shows the traceback)")


# What no code can be blamed for, wherever it happens.
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE)


def _refused(error: OSError) -> TunewrightError:
    """The disk or the system said no; without a name it was the stream that results go to."""
    from tunewright.errors import MachineError

    if error.filename is None:
        _close_quietly(sys.stdout)
    where = str(error.filename) if error.filename is not None else "standard output"
    return MachineError(f"can't be used ({os.strerror(error.errno or 0)})", where=where)


def _prepare() -> None:
    """Streams that can't fail on a sign they don't know, and libraries that keep quiet and to themselves."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")


def _close_quietly(stream: TextIO) -> None:
    """Nobody reads stdout any more; keep Python from complaining about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
