"""`tunewright data check`: what is wrong, or odd, with the data, before anything is trained on it.

Parses, finds the tokenizer, calls `data.examining`, prints the report. `data_lines` makes the lines.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewright.cli import output
from tunewright.cli.options import (
    AsJson,
    CompletionColumn,
    LabelColumn,
    Overrides,
    TaskName,
    Template,
    TextColumn,
    example,
    override,
    typed,
)
from tunewright.cli.train import is_recipe
from tunewright.errors import DataError, TunewrightError, UsageError

if TYPE_CHECKING:
    from tunewright.data.examining import Examined, Tokens
    from tunewright.data.findings import DataReport
    from tunewright.data.repairing import Repaired
    from tunewright.recipe import Recipe

WRITER = "gemma3-270m"  # what is proposed where a model that writes is needed

app = typer.Typer(help="Look at data before training on it.", no_args_is_help=False, rich_markup_mode="rich")


@app.callback()
def _group() -> None:
    """Keeps `check` a command of its own while it is the only one."""


@app.command(
    "check",
    epilog=example(
        "tunewright data check reviews.csv",
        "tunewright data check reviews.csv --fix -o reviews.fixed.csv",
        "tunewright data check tunewright.yaml --show 3",
        "tunewright data check questions.jsonl --task generate --show 3",
    ),
)
def check(
    subject: Annotated[str, typer.Argument(metavar="DATA|RECIPE", help="Data: file, folder or Hub id; or a recipe.")],
    validation: Annotated[
        str | None, typer.Option(metavar="FILE", help="Validation data, to look for leaks between the two.")
    ] = None,
    task: TaskName = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    template: Template = None,
    completion: CompletionColumn = None,
    references: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of the accepted answers (generate).")
    ] = None,
    learn: Annotated[
        str | None, typer.Option(metavar="L", help="What is learnt: completion, all or assistant (generate).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="M", help="Base model whose tokens are counted; default: the recipe's.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", metavar="N", min=1, help="Tokens that are kept of each text.")
    ] = None,
    show: Annotated[int, typer.Option(metavar="N", min=0, help="Show the first N rows as the model's tokens.")] = 0,
    fix: Annotated[bool, typer.Option("--fix", help="Write a repaired copy to -o FILE and say every repair.")] = False,
    target: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where --fix writes; never the data itself.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Look for what makes training fail or its scores lie; exit code 3 if a run would refuse the data."""
    flags = {
        "task": task,
        "data.validation": validation,
        "data.text": text,
        "data.label": label,
        "data.template": template,
        "data.completion": completion,
        "data.references": references,
        "data.learn": learn,
        "model": model,
        "data.max_length": max_length,
    }
    given = [override(key, value) for key, value in flags.items() if value is not None]
    for_writing = any((template, completion, references, learn))
    recipe, said = _recipe(subject, [*given, *(overrides or [])], for_writing=for_writing)
    _check_flags(recipe, fix, target)
    insist = model is not None or show > 0
    _run(recipe, said, _next_command(subject, recipe, target), show=show, target=target, as_json=as_json, insist=insist)


def _recipe(subject: str, overrides: list[str], *, for_writing: bool) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe, with a task that fits the rows where nobody names one, and what is to be said of that."""
    from tunewright.data.examining import open_parts
    from tunewright.data.purpose import purpose_of
    from tunewright.recipe_files import build_recipe, load_recipe

    if is_recipe(subject):
        return load_recipe(Path(subject), overrides), ()
    given = {"data": {"train": subject}}
    if {each.partition("=")[0].strip() for each in overrides} & {"task", "data.text", "data.label", "data.labels"}:
        return build_recipe(given, overrides), ()
    if for_writing:
        return build_recipe({"task": "generate", **given}, overrides), ()
    purpose = purpose_of(open_parts(build_recipe(given, overrides).data)[0])
    return build_recipe({"task": purpose.task, **given}, overrides), (purpose.said,) if purpose.said else ()


def _check_flags(recipe: Recipe, fix: bool, target: Path | None) -> None:
    from tunewright.data.repairing import check_output

    if fix and target is None:
        raise UsageError("--fix writes a copy: say where with -o FILE", field="-o")
    if target is not None and not fix:
        raise UsageError("-o is for --fix, which writes a repaired copy; add --fix", field="-o")
    if target is not None:
        source = Path(recipe.data.train).expanduser()
        check_output(source, target)
        validation = recipe.data.validation
        named = isinstance(validation, str) and target.exists() and Path(validation).exists()
        if named and target.samefile(str(validation)):
            raise UsageError("is the validation data, which is never changed", where=str(target), field="-o")


def _run(
    recipe: Recipe,
    said: tuple[str, ...],
    following: str,
    *,
    show: int,
    target: Path | None,
    as_json: bool,
    insist: bool,
) -> None:
    from tunewright.data.repairing import repair

    tokens, missing = _tokens(recipe, insist)
    with _progress() as on_rows:
        examined = _examined(recipe, tokens, on_rows, said)
    fixed = repair(examined, target) if target is not None else None
    error = _verdict(recipe, examined.report, fixed)
    shown = _shown(recipe, examined, tokens, show)
    if as_json:
        extra = {"shown": [row.to_json() for row in shown], "fixed": fixed.to_json() if fixed else None}
        failed = {"error": output.failure(error)["error"]} if error else {}
        state = "unusable" if error else "usable"
        output.print_json({"run": None, "state": state, "metrics": {}, **examined.report.to_json(), **extra, **failed})
    else:
        _print(recipe, examined, shown, fixed, missing, error, following)
    if error:
        raise output.Reported(error) if as_json else error


def _examined(
    recipe: Recipe, tokens: Tokens | None, on_rows: Callable[[int], None], said: tuple[str, ...] = ()
) -> Examined:
    from tunewright.data.examining import examine
    from tunewright.data.written_examining import examine_written

    if recipe.task == "classify":
        return examine(recipe.data, recipe.training.seed, tokens, on_rows)
    return examine_written(recipe, tokens, on_rows, said)


def _print(
    recipe: Recipe,
    examined: Examined,
    shown: list[Any],
    fixed: Repaired | None,
    missing: str,
    error: DataError | None,
    following: str,
) -> None:
    from tunewright.cli import data_lines

    signs, fit = output.marks(), output.width()
    report = examined.report
    output.show(data_lines.report_lines(report, signs, fit, missing))
    if shown:
        data_lines.show_rows(shown, sys.stdout, signs, fit)
    if fixed:
        output.show(["", *data_lines.repair_lines(fixed, signs, fit)])
    output.show(["", *data_lines.last_lines(report, recipe.data.train, fixed, error is None, signs, following)])


def _next_command(subject: str, recipe: Recipe, fixed: Path | None) -> str:
    """What trains on these data, or on the repaired copy, as they were checked."""
    if is_recipe(subject):
        return f"tunewright train {subject}" + (f" -s data.train={fixed}" if fixed else "")
    words = [] if recipe.task == "classify" else ["--task", recipe.task]
    if recipe.task != "classify":
        named = "model" in recipe.model_fields_set or recipe.task == "continue"
        words += ["--model", recipe.model if named else WRITER]
    for name in ("template", "completion"):
        value = getattr(recipe.data, name)
        words += [f"--{name}", typed(value)] if value is not None else []
    for name in ("references", "learn"):
        if name in recipe.data.model_fields_set:
            words += ["-s", f"data.{name}={getattr(recipe.data, name)}"]
    return f"tunewright train {fixed or subject}" + (f" {shlex.join(words)}" if words else "")


# ---- the tokenizer, and how many tokens are kept ----


def _tokens(recipe: Recipe, insist: bool) -> tuple[Tokens | None, str]:
    """The base model's tokens; without the model, None and why, unless someone asked for it."""
    from tunewright.data.examining import Tokens
    from tunewright.models.finding import resolve_base
    from tunewright.models.opened import load_tokenizer

    if recipe.task == "generate" and "model" not in recipe.model_fields_set:
        missing = f"name the base model that is to write, such as --model {WRITER}"
        if insist:
            raise UsageError(missing, field="--model")
        return None, missing
    try:
        folder = Path(resolve_base(recipe.model, recipe.revision).path)
        return Tokens(load_tokenizer(folder), _decide_length(recipe, folder)), ""
    except TunewrightError as error:
        if insist:
            raise
        return None, str(error)


def _decide_length(recipe: Recipe, folder: Path) -> Callable[[Any, str], tuple[int, str]]:
    """What a run would decide, by its own rule."""
    from transformers import AutoConfig

    from tunewright.defaults import Facts, resolve
    from tunewright.evaluation.metrics import default_metric
    from tunewright.models.context import context_length
    from tunewright.tasks.write import SAMPLED

    context = context_length(AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False))

    def decide(lengths: Any, kind: Any) -> tuple[int, str]:
        if kind == "text":  # completions decide nothing here, but metrics of generated text need some
            completions = lengths[:1] if recipe.task == "generate" else None
            facts = Facts(len(lengths), lengths[:SAMPLED], context, 0, kind, "loss", completions, "completion")
        else:
            facts = Facts(len(lengths), lengths[:2_000], context, 0, kind, default_metric(kind))
        resolved, origins = resolve(recipe, facts)
        assert isinstance(resolved.data.max_length, int)
        return resolved.data.max_length, origins["data.max_length"]

    return decide


# ---- after the examination ----


def _verdict(recipe: Recipe, report: DataReport, fixed: Repaired | None) -> DataError | None:
    """Why a run would refuse the data (the repaired copy, where there is one); None where it wouldn't."""
    if fixed is not None:
        return _refusal(recipe, fixed.path)
    stops = [finding for finding in report.findings if finding.level == "unusable"]
    if not stops:
        return None
    more = f" ({len(stops) - 1} more above)" if len(stops) > 1 else ""
    where = None if stops[0].sentence.startswith(report.parts[stops[0].part].name) else report.parts[stops[0].part].name
    return DataError(f"{stops[0].sentence}{more}", where=where)


def _refusal(recipe: Recipe, train: Path) -> DataError | None:
    """What a run would say to this file, by reading it as a run does."""
    from tunewright.data.preparing import read
    from tunewright.data.sources import open_data

    if recipe.task != "classify":
        other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": str(train)})})
        return _verdict(other, _examined(other, None, lambda rows: None).report, None)
    held_out = recipe.data.validation
    validation = held_out if isinstance(held_out, str) and held_out != "auto" else None
    try:
        read(open_data(train, validation=validation), recipe.data, recipe.training.seed)
    except DataError as error:
        return error
    return None


def _shown(recipe: Recipe, examined: Examined, tokens: Tokens | None, count: int) -> list[Any]:
    from tunewright.data.showing import shown_rows
    from tunewright.data.written_showing import shown_written

    lengths = examined.report.lengths.get("train")
    if not count or tokens is None or lengths is None:
        return []
    if examined.encoder is not None:
        return shown_written(examined.train_source, examined.encoder, count)
    return shown_rows(
        examined.train_source, examined.columns, tokens.tokenizer, count, lengths.max_length, recipe.data.truncate
    )


@contextmanager
def _progress() -> Generator[Callable[[int], None]]:
    """A line on a terminal that counts rows and is gone at the end."""
    if not output.is_live(sys.stderr):
        yield lambda rows: None
        return
    with output.console(sys.stderr).status("reading") as status:
        yield lambda rows: status.update(f"reading: {rows:,} rows")
