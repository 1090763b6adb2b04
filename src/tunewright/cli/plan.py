"""`tunewright plan`: what `train` would decide and cost, without training; exit 5 when it won't fit.

Parses as `train` does, calls `planned.plan_run`, prints. Decides and measures nothing itself.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewright.cli import output
from tunewright.cli.options import (
    DEFAULT_RUNS,
    AsJson,
    BaseModel,
    CompletionColumn,
    LabelColumn,
    Overrides,
    RunsFolder,
    Subject,
    TaskName,
    Template,
    TextColumn,
    Validation,
    override,
)
from tunewright.cli.output import Marks, clock, size, spelt, table
from tunewright.cli.train import fraction_or_file, is_recipe, watching
from tunewright.errors import UsageError
from tunewright.progress import Listener, Phase

if TYPE_CHECKING:
    from tunewright.planned import Planned
    from tunewright.planning.estimate import Part
    from tunewright.recipe import Recipe

KEPT = "\0"  # a space where no line may break
TASKS = ("classify", "generate", "continue")
INDENT = 12  # columns before a row's sentence
WIDEST = 80  # also for pipes: a longer line is hard to read


def plan(
    subject: Subject = None,
    validation: Validation = None,
    model: BaseModel = None,
    task: TaskName = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    template: Template = None,
    completion: CompletionColumn = None,
    runs: RunsFolder = DEFAULT_RUNS,
    overrides: Overrides = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Run three steps to measure, or only count.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Show what a training run would decide and cost: settings, memory, time, disk. Trains nothing."""
    from tunewright.planned import plan_run

    if subject is None:
        raise UsageError("nothing to plan; give a recipe or a data file: tunewright plan reviews.jsonl")
    flags = {
        "data.validation": fraction_or_file(validation),
        "model": model,
        "task": task,
        "data.text": text,
        "data.label": label,
        "data.template": template,
        "data.completion": completion,
    }
    given = [override(key, value) for key, value in flags.items() if value is not None]
    recipe = _recipe(subject, [*given, *(overrides or [])])
    with watching(quiet=as_json) as listener:
        planned = plan_run(recipe, runs=runs, listener=_phases(listener), before_seconds=_age(), probing=probe)
    if as_json:
        output.print_json(planned.to_json())
    else:
        output.show(lines(planned, output.marks(), min(output.width(), WIDEST)))
    if planned.problem is not None:
        raise output.Reported(planned.problem)


def _recipe(subject: str, overrides: list[str]) -> Recipe:
    from tunewright.recipe_files import build_recipe, load_recipe

    return (
        load_recipe(Path(subject), overrides)
        if is_recipe(subject)
        else build_recipe({"data": {"train": subject}}, overrides)
    )


def _phases(listener: Listener) -> Listener:
    """What is happening; the notes come with the plan."""
    return lambda event: listener(event) if isinstance(event, Phase) else None


def _age() -> float:
    """Seconds since this process began: a run's start-up is as long."""
    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())


# ---- what is shown ----


def lines(planned: Planned, marks: Marks, fit: int) -> list[str]:
    """The plan as lines of at most `fit` columns."""
    rows = [row for row in _with_targets(planned, marks) if row[0] != "estimate"]
    shown = [f" plan {marks.dot} {planned.name}", ""]
    for name, sentence in rows:
        shown += _row(name, spelt(sentence, marks), fit)
    shown += [line for note in planned.notes for line in _row("note", spelt(note, marks), fit)]
    return [*shown, "", *_settings(planned, marks, fit), "", *_costs(planned, marks, fit)]


def _with_targets(planned: Planned, marks: Marks) -> list[tuple[str, str]]:
    """The header's rows; where only some tokens are learnt, with how many."""
    learnt = planned.facts["data"].get("target_tokens")
    more = f" {marks.dot} {learnt:,} tokens to learn" if learnt else ""
    return [(name, sentence + more if name == "format" else sentence) for name, sentence in planned.rows]


def _row(name: str, sentence: str, fit: int) -> list[str]:
    wrapped = textwrap.wrap(sentence, max(20, fit - INDENT - 1), break_on_hyphens=False) or [""]
    return [f" {name if i == 0 else '':<{INDENT - 1}}{text}".replace(KEPT, " ") for i, text in enumerate(wrapped)]


def _settings(planned: Planned, marks: Marks, fit: int) -> list[str]:
    """Every value: those decided with their reason, those given, and the defaults in a block."""
    values = _flat(planned)
    shown: list[str] = []
    for path, value in values.items():
        origin = planned.origins.get(path, "default")
        if origin.startswith("auto: "):
            shown += _row("decided", f"{path} {value} {marks.dot} {origin.removeprefix('auto: ')}", fit)
    for word in ("given", "default"):
        named = [
            f"{path}{KEPT}{value}" for path, value in values.items() if planned.origins.get(path, "default") == word
        ]
        shown += _row(word, f" {marks.dot} ".join(named), fit) if named else []
    return [
        f" {'' if i and line.startswith(' decided') else line[1:INDENT].rstrip():<{INDENT - 1}}{line[INDENT:]}"
        for i, line in enumerate(shown)
    ]


def _flat(planned: Planned) -> dict[str, str]:
    """Dotted path -> value as text, of settings that this task has."""
    from tunewright.recipe import ONLY_FOR

    flat: dict[str, str] = {}
    for name, value in planned.recipe.model_dump(mode="json").items():
        inner = value.items() if isinstance(value, dict) and name != "labels" else [(None, value)]
        flat |= {f"{name}.{key}" if key else name: _value(item) for key, item in inner}
    return {path: value for path, value in flat.items() if planned.recipe.task in ONLY_FOR.get(path, TASKS)}


def _value(item: Any) -> str:
    if isinstance(item, list):
        return ", ".join(map(str, item[:6])) + (", …" if len(item) > 6 else "") or "none"
    return "none" if item is None else f"{item:g}" if isinstance(item, float) else str(item)


def _costs(planned: Planned, marks: Marks, fit: int) -> list[str]:
    memory, spent, disk = planned.estimate.memory, planned.estimate.time, planned.estimate.disk
    free = memory.free_bytes + memory.held_bytes
    there = f"{size(free)} {'are' if memory.fits else 'is all there is'}" + (" there" if memory.fits else "")
    moments = [(name, amount) for name, amount in memory.moments.items() if name != "training"]
    cells = [
        ["memory", size(memory.peak_bytes), f"at most; {there}"],
        *_parts(memory.parts, size),
        ["  together, while training", size(memory.moments["training"]), _largest("training", memory.moment)],
        *[[f"  {_MOMENTS[name]}", size(amount), _largest(name, memory.moment)] for name, amount in moments],
        ["time", clock(spent.seconds), _speed(planned)],
        *_parts(spent.parts, lambda seconds: clock(seconds) if seconds >= 1 else "<0:01"),
        ["disk", size(disk.need_bytes), f"at most; {size(disk.free_bytes)} are free"],
        *_parts(disk.parts, size),
    ]
    return table(cells, "<><", fit=fit, cut=marks.cut)


_MOMENTS = {
    "checkpoint": "while saving a checkpoint",
    "reloading": "while checking the saved model",
    "scoring": "while scoring",
    "before": "before planning",
}


def _largest(name: str, moment: str) -> str:
    return "the largest" if name == moment else ""


def _parts(parts: tuple[Part, ...], shown: Callable[[float], str]) -> list[list[str]]:
    return [
        [f"  {part.name}", shown(part.amount), "" if part.how == "computed" else part.how]
        for part in parts
        if part.amount
    ]


def _speed(planned: Planned) -> str:
    """How training uses the machine."""
    estimate = planned.estimate
    if not estimate.probed:
        return "by arithmetic: no step was run"
    training = next(part.amount for part in estimate.time.parts if part.name.startswith("training"))
    share = estimate.flops / max(training, 1e-9) / estimate.gemm_rate
    return f"training at {share:.0%} of {estimate.gemm_rate / 1e9:,.0f} GFLOP/s"
