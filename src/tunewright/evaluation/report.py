"""report.html: one page on one run, for a person who has to decide whether to trust the model.

The last step of a run, and `tunewright report` afterwards. Reads the run folder's files only (through `record`) and
computes nothing new: no model, no data file. The page is one file without script or request; every text in it is
escaped, so what a review says is shown, never run. Values are laid out here, the look is report.html.j2 and report.css.
"""

from __future__ import annotations

import functools
import heapq
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunewright import durable
from tunewright.evaluation import charts, report_align, report_preferences, report_written, wording
from tunewright.evaluation.evaluate import overfitting_words
from tunewright.evaluation.figures import confusion_table, figures
from tunewright.evaluation.mistakes import Mistakes, find_mistakes
from tunewright.evaluation.record import (
    Record,
    before_and_after,
    mapping,
    number,
    numbers,
    objects,
    read_record,
    text,
    written_samples,
)

MOST_CLASSES_LISTED = 40
MOST_SENTENCES = 12
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


@dataclass(frozen=True)
class MetricRow:
    """One metric: never reading, untrained, tuned."""

    name: str
    meaning: str
    blind: float | None
    before: float | None
    after: float | None
    interval: tuple[float, float] | None
    decides: bool


@dataclass(frozen=True)
class EpochRow:
    """One evaluation during training; `arrows` compares with the row above."""

    epoch: float | None
    step: float | None
    values: list[float | None]
    arrows: list[str]
    best: bool


class Known(dict[str, Any]):
    """A mapping from a file, for the template: what the file doesn't say is None."""

    def __missing__(self, key: str) -> None:
        return None


def write_report(folder: Path) -> Path:
    """Write report.html into the run folder, whole or not at all."""
    page, target = render(read_record(folder)), folder / "report.html"
    with durable.storing(target):
        durable.write_text(target, page)
    return target


def render(record: Record) -> str:
    """The page as text."""
    return _UNPRINTABLE.sub("�", _template().render(_sections(record)))


@functools.cache
def _template() -> Any:
    import jinja2

    # StrictUndefined: a misspelt name in the template is our bug and shall not look like an empty table.
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("decimals", "between", "count", "percent", "bytes_size", "duration", "chance", "metric_name")
    names += ("metric_value",)
    page.filters.update({name: getattr(wording, name) for name in names})
    page.filters |= {"date": _date, "share": _share}
    return page.get_template("report.html.j2")


def _sections(record: Record) -> dict[str, Any]:
    run, deciding = record.run, wording.deciding_metric(record)
    shown = _shown_metrics(record, deciding)
    return {
        "name": record.name,
        "run": Known(run),
        "model": Known(mapping(run.get("model"))),
        "data": Known(mapping(run.get("data"))),
        "kind": record.kind,
        "verdict": wording.verdict(record),
        "deciding": deciding,
        "loss_unit": wording.loss_unit(record.kind),
        "rows_judged": record.rows_behind("loss"),
        "metrics": [] if record.writes else _metric_rows(record, deciding),
        "written": _written(record, deciding),
        "align": _aligned(record, deciding),
        "preference": report_preferences.parts(record),
        "forgetting": Known(record.forgetting),
        "gain": report_written.gain(record, deciding),
        "warnings": _warnings(record),
        "notes": _notes(record),
        "prompts": {} if record.writes else before_and_after(record.samples),
        "shown": shown,
        "epochs": _epoch_rows(record, shown),
        "per_class": [Known(row) for row in objects(record.judgement.get("per_class"))[:MOST_CLASSES_LISTED]],
        "confused": _confused(record),
        "mistakes": Mistakes([], 0, 0) if record.writes or record.kind == "preference" else find_mistakes(record),
        "recipe": [_split_comment(line) for line in record.recipe_text.splitlines()],
        "environment": _flat(record.environment),
        "problems": record.problems,
        "charts": {name: _trusted(drawing) for name, drawing in _figures(record, deciding).items()},
        "chart_style": _trusted(charts.CHART_STYLE),
    }


def _written(record: Record, deciding: str) -> dict[str, Any]:
    """The parts of a model that writes; empty for every other."""
    if not record.writes:
        return {"metrics": [], "samples": [], "far": [], "answered": None}
    others = record.kind == "align"  # which has sections of its own
    samples = [
        replace(
            one, prompt=report_written.shortened(one.prompt), after=one.after and report_written.shortened(one.after)
        )
        for one in written_samples(record.samples)
    ]
    return {
        "metrics": [] if others else report_written.metric_rows(record, deciding),
        "samples": samples,
        "far": [] if others else report_written.far_rows(record),
        "answered": record.rows_behind("f1"),
    }


def _aligned(record: Record, deciding: str) -> report_align.Aligned | None:
    """The parts of a model that was aligned by a reward."""
    if record.kind != "align":
        return None
    found = report_align.aligned(record, deciding)
    return replace(found, curves=[(heading, _trusted(drawing)) for heading, drawing in found.curves])


def _figures(record: Record, deciding: str) -> dict[str, str]:
    """Drawings by place; of an aligned model who won, and curves in a section of their own."""
    found = figures(record, deciding)
    if record.kind == "align":
        found |= {"verdict": report_align.win_chart(record) or found["verdict"], "loss": "", "metric": ""}
    return found


def _trusted(markup: str) -> Any:
    """Our own drawing, whose texts `charts` has escaped already."""
    import markupsafe

    return markupsafe.Markup(markup)  # noqa: S704


# --- tables -----------------------------------------------------------------------------------------------------


def _metric_rows(record: Record, deciding: str) -> list[MetricRow]:
    blind, before, after = numbers(record.run.get("baseline")), record.untrained, record.metrics
    known = [name for name in wording.metric_order(record.kind) if name in after or name in before]
    return [
        MetricRow(
            name=wording.metric_name(name),
            meaning=wording.metric_meaning(name, record.kind),
            blind=blind.get(name),
            before=before.get(name),
            after=after.get(name),
            interval=record.intervals.get(name),
            decides=name == deciding,
        )
        for name in sorted(known, key=lambda name: name != deciding)
    ]


def _shown_metrics(record: Record, deciding: str) -> list[str]:
    """Columns of the per-epoch table: both losses, what decides, and a few more."""
    found = {name for row in record.evaluations for name in row}
    wanted = [deciding, "macro_f1", "micro_f1", "roc_auc", "mcc", "rmse", "mae", "pearson", "spearman"]
    if record.writes:
        wanted = ["perplexity", deciding, "exact_match", "f1", "rouge_l"]
    if record.kind == "align":
        wanted = [deciding, "accuracy", "score", "kl", "win_rate", "judge", "judge_probability", "distinct_2", "ended"]
    extra = [f"validation/{name}" for name in dict.fromkeys(wanted) if name != "loss"]
    most = 7 if record.kind == "align" else 5 if record.writes else 3
    columns = ["train/loss", "validation/loss", *[name for name in extra if name in found][:most]]
    return [name for name in columns if name in found]


def _epoch_rows(record: Record, shown: list[str]) -> list[EpochRow]:
    best, rows, above = mapping(record.run.get("best")).get("step"), [], dict[str, float]()
    for row in record.evaluations:
        values = [number(row.get(name)) for name in shown]
        arrows = [_arrow(name, value, above.get(name)) for name, value in zip(shown, values, strict=True)]
        above = numbers(row)
        at = number(row.get("epoch")), number(row.get("step"))
        rows.append(EpochRow(*at, values, arrows, best is not None and row.get("step") == best))
    return rows


def _arrow(name: str, value: float | None, above: float | None) -> str:
    """Direction since the row above, and whether that is welcome."""
    if value is None or above is None or round(value, 3) == round(above, 3):
        return ""
    rises = value > above
    welcome = rises == wording.HIGHER_IS_BETTER.get(name.split("/")[-1], True)
    return ("up" if rises else "down") + (" good" if welcome else " bad")


def _warnings(record: Record) -> list[str]:
    said = [text(record.run.get("overfitting")) or overfitting_words(record.evaluations) or ""]
    said += [text(event.get("message")) for event in record.events if event.get("level") in ("warning", "error")]
    return _distinct(said)


def _notes(record: Record) -> list[str]:
    notes, warned = record.run.get("notes"), set(_warnings(record))
    said = [text(note) for note in notes] if isinstance(notes, list) else []
    return _distinct([sentence for sentence in said if sentence not in warned])


def _distinct(sentences: list[str]) -> list[str]:
    return [sentence for sentence in dict.fromkeys(sentences) if sentence][:MOST_SENTENCES]


def _confused(record: Record) -> list[tuple[str, str, int, float]]:
    """The commonest mistakes of a large confusion table: (true, said, rows, share of true)."""
    matrix = confusion_table(record)
    if len(matrix) <= 2:
        return []
    pairs = [
        (record.labels[i], record.labels[j], n, n / sum(row))
        for i, row in enumerate(matrix)
        for j, n in enumerate(row)
        if i != j and n
    ]
    return heapq.nlargest(4, pairs, key=lambda one: one[2])


def _split_comment(line: str) -> tuple[str, str]:
    """A line of the resolved recipe, and where its value came from."""
    value, mark, origin = line.rpartition(" # ")
    return (value.rstrip(), origin.strip()) if mark else (line, "")


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(mapping(value), f"{prefix}{name}.")
        elif isinstance(value, list):
            found.append((prefix + name, " ".join(map(str, value))))
        elif value is not None:
            found.append((prefix + name, str(value)))
    return found


def _date(value: object) -> str:
    """2026-11-23T14:12:09Z as 2026-11-23 14:12 UTC."""
    found = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)", text(value))
    return f"{found[1]} {found[2]} UTC" if found else wording.NOTHING


def _share(value: object) -> float:
    """A fraction that a gauge can show."""
    return min(1.0, max(0.0, number(value) or 0.0))
