"""`tunewright calibrate`: probabilities that mean what they say, thresholds, and answers left unsaid.

Parses, calls `tasks.calibrating`, prints. What is kept goes beside the model's weights, where `predict` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewright.cli import output
from tunewright.cli.options import (
    DEFAULT_RUNS,
    AsJson,
    LabelColumn,
    Quiet,
    RunName,
    RunsFolder,
    TextColumn,
    found,
    refuse_checkpoint,
)
from tunewright.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tunewright.evaluation.thresholds import Threshold
    from tunewright.runs import RunRef
    from tunewright.tasks.calibrating import Fitted

CURVE_ROWS = 6


def calibrate(
    run: RunName,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="Labelled rows that the run didn't learn; default: its own.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL:AIM>=X", help="Say a label from a threshold on: 'spam:precision>=0.95'. Repeatable."
        ),
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(metavar="X", help="Leave the least sure answers unsaid, so that those given reach this accuracy."),
    ] = None,
    surely: Annotated[
        bool, typer.Option("--surely", help="An aim must hold at the lower end of its 95 % interval.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Forget an earlier calibration.")] = False,
    text: TextColumn = None,
    label: LabelColumn = None,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a classifier's probabilities mean what they say, and decide from which on it answers."""
    ref = found(run, runs)
    refuse_checkpoint(ref)
    if accuracy is not None and not 0 < accuracy <= 1:
        raise UsageError(f"an accuracy of {accuracy:g} can't be reached; expected a share up to 1", field="--accuracy")
    if undo:
        _forget(ref, as_json)
        return
    from tunewright.tasks import calibrating

    wishes = [calibrating.Wish.parse(each) for each in threshold or ()]
    model_folder = ref.model_folder
    rows = (
        calibrating.held_out_of_run(ref)
        if data is None
        else calibrating.held_out_of_file(ref, data, text=text or "auto", label=label or "auto")
    )
    fitted = calibrating.fit(rows, wishes, accuracy, surely=surely)
    path = calibrating.keep(fitted, model_folder)
    if as_json:
        output.print_json(_json(ref, fitted, path))
    elif quiet:
        print(path)
    else:
        output.show(lines(fitted, rows.name, len(rows.labels), output.marks()))


def _forget(ref: RunRef, as_json: bool) -> None:
    """The model answers as it was trained."""
    from tunewright.models.calibrated import FILE

    (ref.model_folder / FILE).unlink(missing_ok=True)
    if as_json:
        output.print_json({"run": ref.folder.name, "state": "uncalibrated", "metrics": {}})
    else:
        print(f"{ref.folder.name} answers as it was trained")


def _json(ref: RunRef, fitted: Fitted, path: Path) -> dict[str, Any]:
    kept = {
        "temperature": fitted.kept.temperature,
        "thresholds_used": dict(fitted.kept.thresholds),
        "abstain_below": fitted.kept.abstain_below,
    }
    return {"run": ref.folder.name, "state": "calibrated", "metrics": {}, **kept, **fitted.to_json(), "file": str(path)}


def lines(fitted: Fitted, name: str, num_rows: int, signs: output.Marks) -> list[str]:
    """What was found, and what follows from it."""
    c = fitted.calibration
    found = [f" {num_rows:,} rows: {name}", "", f" {output.spelt(c.said, signs)}", ""]
    low, high = c.honest_ece.low, c.honest_ece.high
    table = [
        ["", "before", "after", ""],
        ["log loss", output.number(c.loss_before), output.number(c.loss_after), "nats per row"],
        ["calibration error", output.number(c.ece_before), output.number(c.ece_after),
         f"an honest model of so many rows: {low:.3f} to {high:.3f}"],
    ]  # fmt: skip
    found += output.table(table, "<>><")
    if fitted.thresholds:
        found += ["", *output.table(_threshold_rows(fitted.thresholds.items()), "<>>>>")]
    if fitted.curve:
        found += ["", *_curve_lines(fitted)]
    return [*found, "", " kept beside the model: predict uses it (undo: --undo)"]


def _threshold_rows(thresholds: Any) -> list[list[str]]:
    rows = [["label", "from", "precision", "recall", "said of"]]
    for name, one in thresholds:
        rows.append([name, f"{one.value:.3f}", _with_interval(one, "precision"), _with_interval(one, "recall"),
                     f"{one.said_share:.0%} of rows"])  # fmt: skip
    return rows


def _with_interval(one: Threshold, name: str) -> str:
    interval = getattr(one, f"{name}_interval")
    return f"{output.number(getattr(one, name))} [{output.number(interval.low)}, {output.number(interval.high)}]"


def _curve_lines(fitted: Fitted) -> list[str]:
    """Accuracy where only the surest answers are given."""
    rows = [["answers given", "least confidence", "accuracy", "95 % interval"]]
    for point in _some(fitted.curve):
        interval = f"[{point.interval.low:.3f}, {point.interval.high:.3f}]"
        rows.append([f"{point.coverage:.0%}", f"{point.confidence:.3f}", f"{point.accuracy:.3f}", interval])
    found = output.table(rows, ">>>>")
    if one := fitted.abstain:
        found += [
            "",
            f" unsaid below {one.value:.3f}: {one.said_share:.0%} answered, accuracy "
            f"{_with_interval(one, 'precision')} on rows that didn't choose it",
        ]
    return found


def _some(curve: Sequence[Any]) -> list[Any]:
    if len(curve) <= CURVE_ROWS:
        return list(curve)
    step = len(curve) // CURVE_ROWS
    return [*curve[step - 1 :: step][: CURVE_ROWS - 1], curve[-1]]
