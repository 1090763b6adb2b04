"""What a finished run tells a person, and the JSON object that tells a program the same.

Reads the run folder's files only, so `train`, `demo`, `evaluate` and `runs show` agree. Computes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.cli.align_tables import is_aligned, ranking_lines, transcript_lines, verdict_lines
from tunewright.cli.output import PLAIN_WIDTH, Marks, clock, number, size
from tunewright.cli.tables import EpochRow, PromptRow, epoch_lines, epoch_row, prompt_lines
from tunewright.cli.written_tables import forgetting_lines, metric_lines, sample_lines
from tunewright.recording import read_jsonl

if TYPE_CHECKING:
    from tunewright.evaluation.record import Sample

Summary = Mapping[str, Any]


def to_json(folder: Path, summary: Summary) -> dict[str, Any]:
    """The object that --json prints for a run."""
    report = folder / "report.html"
    passed_on = ("best", "baseline", "intervals", "comparison", "forgetting", "overfitting", "notes", "model", "data")
    passed_on += ("error", "alignment", "length", "annotators", "comparisons", "reward")
    return {
        "run": summary.get("id", folder.name),
        "state": summary.get("state"),
        "metrics": dict(summary.get("metrics") or {}),
        **{name: summary[name] for name in passed_on if summary.get(name) is not None},
        "prompts": _samples_json(folder) if writes(summary) else [_prompt_json(row) for row in prompt_rows(folder)],
        "folder": str(folder),
        "report": str(report) if report.is_file() else None,
    }


def _prompt_json(row: PromptRow) -> dict[str, Any]:
    return {"prompt": row.prompt, "before": row.before, "after": row.after}


def _samples_json(folder: Path) -> list[dict[str, Any]]:
    names = ("prompt", "reference", "before", "after")
    return [{name: getattr(one, name) for name in names} for one in samples(folder)]


def writes(summary: Summary) -> bool:
    """Whether the run's model writes."""
    return (summary.get("data") or {}).get("kind") in ("text", "align")


def prefers(summary: Summary) -> bool:
    """Whether the run's model scores completions."""
    return (summary.get("data") or {}).get("kind") == "preference"


def samples(folder: Path) -> list[Sample]:
    """Prompts with the texts written for them."""
    from tunewright.evaluation.record import written_samples

    return written_samples(list(read_jsonl(folder / "samples.jsonl")))


def epoch_rows(folder: Path, summary: Summary) -> list[EpochRow]:
    """The per-epoch table, out of metrics.jsonl."""
    best = summary.get("best") or {}
    evaluations = [row for row in read_jsonl(folder / "metrics.jsonl") if any("validation/" in name for name in row)]
    return [
        epoch_row(row.get("epoch", 0), row, metric_name(summary), best=row.get("step") == best.get("step"))
        for row in evaluations
    ]


def prompt_rows(folder: Path, wanted: Mapping[str, str] | None = None) -> list[PromptRow]:
    """Each prompt's first answer (of the untrained model, at step 0) and its last (of the final model)."""
    befores: dict[Any, dict[str, Any]] = {}
    afters: dict[Any, dict[str, Any]] = {}
    for row in read_jsonl(folder / "samples.jsonl"):
        key = row.get("prompt_id", row.get("prompt"))
        if row.get("step") == 0 and key not in befores:
            befores[key] = row
        else:
            afters[key] = row
    return [
        PromptRow(r["prompt"], _answer(befores.get(k)), r, (wanted or {}).get(r["prompt"])) for k, r in _read(afters)
    ]


def _read(rows: dict[Any, dict[str, Any]]) -> list[tuple[Any, dict[str, Any]]]:
    return [(key, {**(_answer(row) or {}), "prompt": row["prompt"]}) for key, row in rows.items()]


def _answer(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else {name: row.get(name) for name in ("prediction", "probabilities")}


def metric_name(summary: Summary) -> str:
    """The metric that decides, without its split."""
    name = (summary.get("best") or {}).get("metric")
    known = list(summary.get("metrics") or {})
    if prefers(summary) and "accuracy" in known:  # the loss decides, and says little to a person
        return "accuracy"
    return str(name or ("accuracy" if "accuracy" in known or not known else known[0])).removeprefix("validation/")


def result_lines(
    folder: Path,
    summary: Summary,
    marks: Marks,
    *,
    fit: int = PLAIN_WIDTH,
    wanted: Mapping[str, str] | None = None,
    epochs: bool = True,
) -> list[str]:
    """The end of a run: epochs, best, prompts before and after, the verdict, cost, report."""
    lines: list[str] = []
    rows = epoch_rows(folder, summary)
    if epochs and rows:
        lines += [*epoch_lines(rows, metric_name(summary), marks), ""]
    lines += _written(folder, summary, marks, fit) if writes(summary) else _labelled(folder, marks, fit, wanted)
    lines += [*_best(summary, rows), *([] if writes(summary) else _verdict(summary, marks)), *forgetting_lines(summary)]
    if summary.get("overfitting"):
        lines.append(f" {marks.warning} {summary['overfitting']}")
    lines += _cost(summary, marks)
    report = folder / "report.html"
    lines.append(f" report  {report}" if report.is_file() else f" report  none yet: {command('report', folder)}")
    return lines


def _labelled(folder: Path, marks: Marks, fit: int, wanted: Mapping[str, str] | None) -> list[str]:
    prompts = prompt_rows(folder, wanted)
    return [*prompt_lines(prompts, marks, fit), ""] if prompts else []


def _written(folder: Path, summary: Summary, marks: Marks, fit: int) -> list[str]:
    """Texts before and after, then every metric in pairs."""
    aligned = is_aligned(summary)
    blocks = transcript_lines(folder, marks, fit) if aligned else sample_lines(samples(folder), marks, fit)
    metrics, verdict = metric_lines(summary, marks), verdict_lines(summary) if aligned else []
    return [*blocks, *([""] if blocks else []), *metrics, *([""] if metrics else []), *verdict]


def _best(summary: Summary, rows: list[EpochRow]) -> list[str]:
    best = summary.get("best")
    if not best:
        return []
    if rows and rows[0].step is not None:  # of an aligned model, whose table counts steps
        steps = max(row.step or 0 for row in rows)
        return [f" best step {best['step']} of {steps}: {metric_name(summary)} {number(best['value'])}"]
    last, name = f" of {max(row.epoch for row in rows):g}" if rows else "", metric_name(summary)
    name = str(best.get("metric") or name).removeprefix("validation/")
    return [f" best epoch {best['epoch']:g}{last} (step {best['step']}): {name} {number(best['value'])}"]


def _verdict(summary: Summary, marks: Marks) -> list[str]:
    """`validation 400 rows: accuracy 0.523 -> 0.892 [0.820, 0.940], fixed 47, broke 6 (McNemar p < 0.001)`."""
    name = metric_name(summary)
    after = (summary.get("metrics") or {}).get(name)
    if after is None:
        return []
    comparison = summary.get("comparison") or {}
    before = _plain_metrics(comparison.get("before")).get(name)
    text = f" validation {(summary.get('data') or {}).get('validation_rows', 0):,} rows: {name} "
    text += f"{number(before)} {marks.arrow} {number(after)}" if before is not None else number(after)
    if interval := (summary.get("intervals") or {}).get(name):
        text += f" [{number(interval[0])}, {number(interval[1])}]"
    if comparison.get("fixed") is not None:
        text += f" {marks.dot} fixed {comparison['fixed']} {marks.dot} broke {comparison['broke']}"
        text += f" (McNemar {_p_value(comparison.get('p_value'))})"
    return [text, *_baseline(summary, name, marks)]


def _plain_metrics(side: Any) -> Mapping[str, Any]:
    """Metrics of one side of a comparison, flat or under a key of that name."""
    if not isinstance(side, Mapping):
        return {}
    return side["metrics"] if isinstance(side.get("metrics"), Mapping) else side


def _p_value(value: float | None) -> str:
    if value is None:
        return "p unknown"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _baseline(summary: Summary, name: str, marks: Marks) -> list[str]:
    baseline = (summary.get("baseline") or {}).get(name)
    if baseline is not None and prefers(summary):
        known = _p_value((summary.get("length") or {}).get("p_value"))
        return [f" choosing by length alone: {name} {number(baseline)} ({known})"]
    return [] if baseline is None else [f" without any model: {name} {number(baseline)}"]


def _cost(summary: Summary, marks: Marks) -> list[str]:
    """What was saved, and what it took."""
    model, parts = summary.get("model") or {}, []
    if model.get("saved_bytes"):
        of = f" (base {size(model['base_bytes'])})" if model.get("base_bytes") else ""
        parts.append(f"saved {size(model['saved_bytes'])}{of}")
    if summary.get("seconds"):
        parts.append(f"took {clock(summary['seconds'])}")
    if summary.get("tokens_per_second"):
        parts.append(f"{summary['tokens_per_second']:,.0f} tokens/s")
    if summary.get("peak_memory_bytes"):
        parts.append(f"peak memory {size(summary['peak_memory_bytes'])}")
    return [" " + f" {marks.dot} ".join(parts)] if parts else []


def next_lines(folder: Path, summary: Summary) -> list[str]:
    """Commands to paste next."""
    data = summary.get("data") or {}
    files = [str(data[split]) for split in ("validation", "train") if Path(str(data.get(split, ""))).is_file()]
    rows = shlex.quote(files[0]) if files else "new.jsonl"
    name = summary.get("name") or folder.name
    commands = [
        *([command("chat", folder)] if writes(summary) else []),
        *(ranking_lines(folder) if is_aligned(summary) else []),
        f"{command('predict', folder)} -i {rows} -o predictions.jsonl",
        f"{command('export', folder)} --to merged -o {shlex.quote(f'{name}-merged')}",
        f"{command('push', folder)} you/{name}",
    ]
    return [f" {'next' if i == 0 else '':<7} {text}" for i, text in enumerate(commands)]


def command(verb: str, folder: Path) -> str:
    """`tunewright VERB RUN`, with the run's id where the default runs folder has it, else its path."""
    run = folder.name if folder.parent == Path("runs") else str(folder)
    return f"tunewright {verb} {shlex.quote(run)}"
