"""`tunewright evaluate | compare | report`: what a run is worth, on its own validation rows or on others."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tunewright.cli import output, results
from tunewright.cli.options import DEFAULT_RUNS, AsJson, Quiet, RunName, RunsFolder, found, refuse_checkpoint
from tunewright.errors import GateError, ModelError, UsageError, did_you_mean
from tunewright.runs import RunRef, read_summary

_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def evaluate(
    run: RunName,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="Other labelled data; default: the run's own.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(metavar="'METRIC>=X'", help="Fail with exit code 8 unless it holds: validation/accuracy>=0.9."),
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="COL", help="Column of the text in --data.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COL", help="Column of the label in --data.")] = None,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score a run, and optionally insist on a score."""
    gates = [Gate.parse(each) for each in gate or []]
    ref = found(run, runs)
    summary = read_summary(ref.folder)
    facts = _own_scores(ref, summary) if data is None else _scores_on(ref, data, text, label)
    missed = _check(gates, facts["metrics"])
    shown = {**_scored(ref.folder, summary), **facts, "gates": [gate.to_json(facts["metrics"]) for gate in gates]}
    error = GateError("; ".join(missed)) if missed else None
    if as_json:
        output.print_json(shown | (_error(error) if error else {}))
    elif quiet:
        print(shown["run"])
    else:
        output.show(_lines(facts))
    if error:
        raise output.Reported(error) if as_json else error


def _scored(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    return {"run": summary.get("id", folder.name), "state": summary.get("state")}


def _error(error: GateError) -> dict[str, Any]:
    return {"error": output.failure(error)["error"]}


def _own_scores(ref: RunRef, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The scores that training stored for its final model."""
    refuse_checkpoint(ref)
    if not summary.get("metrics"):
        raise ModelError(f"has no scores: its state is {summary.get('state', 'unknown')}", where=ref.folder.name)
    data = summary.get("data") or {}
    return {
        "data": data["validation"] if isinstance(data.get("validation"), str) else f"{data.get('train')}, held out",
        "rows": data.get("validation_rows") or 0,
        "metrics": dict(summary["metrics"]),
        "intervals": dict(summary.get("intervals") or {}),
    }


def _scores_on(ref: RunRef, data: str, text: str | None, label: str | None) -> dict[str, Any]:
    """The scores of the named model on other rows."""
    from tunewright.serving.reward_model import RewardModel
    from tunewright.serving.scoring import score
    from tunewright.serving.text_scoring import score_writing
    from tunewright.serving.writer import Writer

    model, more = ref.load(), dict[str, Any]()
    if isinstance(model, RewardModel):
        if text is not None or label is not None:
            raise UsageError("comparisons are read as in training; leave --text and --label out", field="--text")
        return _of_comparisons(data, model.judge(data))
    if isinstance(model, Writer):
        if label is not None:
            raise UsageError("this model writes: its accepted answers are in the columns it was trained with, not in "
                             "one of labels", field="--label")  # fmt: skip
        judgement = score_writing(model, data, text=text)
        rows, more = judgement.rows, {"answered_rows": judgement.answered_rows, "notes": list(judgement.notes)}
    else:
        rows, judgement = score(model, data, text=text or "auto", label=label or "auto")
    intervals = {name: [interval.low, interval.high] for name, interval in judgement.intervals.items()}
    return {"data": data, "rows": rows, "metrics": dict(judgement.metrics), "intervals": intervals, **more}


def _of_comparisons(data: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """How often a reward model agrees with people; who always picks the longer one stands beside."""
    names = ("metrics", "intervals", "length", "annotators", "notes")
    return {"data": data, "rows": found["num_rows"], **{name: found[name] for name in names}}


def _lines(facts: Mapping[str, Any]) -> list[str]:
    """Every metric with its interval."""
    rows = [["metric", "value", "95 % interval"]]
    for name, value in facts["metrics"].items():
        interval = facts["intervals"].get(name)
        low_high = f"[{output.number(interval[0])}, {output.number(interval[1])}]" if interval else ""
        rows.append([name, output.number(value), low_high])
    said = [
        f" {sentence}" for sentence in ((facts.get("length") or {}).get("words"), *facts.get("notes", ())) if sentence
    ]
    return [f" {facts['rows']:,} rows of {facts['data']}", "", *output.table(rows, "<><"), *said]


@dataclass(frozen=True)
class Gate:
    """A promise about one metric."""

    metric: str
    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        match = re.fullmatch(r"\s*([\w/]+)\s*(>=|<=|>|<)\s*([-+\d.eE]+)\s*", text)
        try:
            if match:
                return cls(match[1].removeprefix("validation/"), match[2], float(match[3]))
        except ValueError:
            match = None
        raise UsageError(f"can't read {text!r}; expected something like 'validation/accuracy>=0.9'", field="--gate")

    def is_met(self, metrics: Mapping[str, float]) -> bool:
        if self.metric not in metrics:
            near = did_you_mean(self.metric, metrics)
            raise UsageError(f"no metric {self.metric}; there are {', '.join(metrics)}.{near}", field="--gate")
        return bool(_COMPARISONS[self.comparison](metrics[self.metric], self.limit))

    def to_json(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        gate = f"validation/{self.metric}{self.comparison}{self.limit:g}"
        return {"gate": gate, "value": metrics[self.metric], "met": self.is_met(metrics)}


def _check(gates: list[Gate], metrics: Mapping[str, float]) -> list[str]:
    """A sentence for each gate that isn't met."""
    return [
        f"{gate.metric} is {metrics[gate.metric]:.4f}; expected {gate.comparison} {gate.limit:g}"
        for gate in gates
        if not gate.is_met(metrics)
    ]


def compare(
    run_names: Annotated[list[str], typer.Argument(metavar="RUN RUN", help="Two or more runs.")],
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Put runs side by side: metrics with intervals, recipe differences only, the same prompts."""
    if len(run_names) < 2:
        raise UsageError("one run is nothing to compare; give two or more: tunewright compare RUN RUN")
    folders = [found(name, runs).folder for name in run_names]
    for folder in folders:
        if not read_summary(folder).get("metrics"):
            raise ModelError(f"has no scores: its state is {read_summary(folder).get('state')}", where=folder.name)
    from tunewright.cli import comparing
    from tunewright.evaluation.compare import compare_runs

    comparison = compare_runs(folders)
    if as_json:
        output.print_json(comparing.to_json(comparison))
    elif quiet:
        print("\n".join(run.name for run in comparison.runs))
    else:
        output.show(comparing.lines(comparison, output.marks(), output.width()))


def report(
    run: RunName,
    to: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Also copy it there.")] = None,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's report: one HTML file that needs nothing else."""
    from tunewright.evaluation.report import write_report

    folder = found(run, runs).folder
    path = write_report(folder)
    if to is not None:
        path = _copy(path, to)
    if as_json:
        output.print_json({**results.to_json(folder, read_summary(folder)), "report": str(path)})
    else:
        print(path)


def _copy(source: Path, target: Path) -> Path:
    """A copy that is there whole or not at all."""
    import os
    import shutil

    if target.is_dir():
        target = target / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    half_written = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, half_written)
    os.replace(half_written, target)
    return target
