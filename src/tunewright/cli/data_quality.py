"""`tunewright data doubtful` and `data learning-curve`: are these labels right, and would more of them help?

Parses, calls `tasks.out_of_fold` and `tasks.growing`, prints, writes. Both train; what was trained is kept, so that an
interrupted command goes on where it was.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewright.cli import output
from tunewright.cli.options import DEFAULT_RUNS, AsJson, Overrides, Quiet, RunsFolder, example, found, refuse_checkpoint
from tunewright.cli.train import is_recipe
from tunewright.errors import UsageError

if TYPE_CHECKING:
    from tunewright.recipe import Recipe
    from tunewright.tasks.growing import Growth
    from tunewright.tasks.out_of_fold import Doubtful

SHOWN = 10
SHOWN_CONFLICTS = 3
QuickFlag = Annotated[
    bool, typer.Option("--quick", help="Train only a head on the frozen base model: minutes instead of hours, rougher.")
]


def register(app: typer.Typer) -> None:
    """Put the commands into the group `data`."""
    app.command(
        "doubtful",
        epilog=example(
            "tunewright data doubtful latest",
            "tunewright data doubtful tunewright.yaml -o doubtful.jsonl",
            "tunewright data doubtful reviews.jsonl --quick",
        ),
    )(doubtful)
    app.command(
        "learning-curve",
        epilog=example(
            "tunewright data learning-curve tunewright.yaml", "tunewright data learning-curve reviews.jsonl --quick"
        ),
    )(learning_curve)


# ---- doubtful ----


def doubtful(
    subject: Annotated[
        str, typer.Argument(metavar="RUN|RECIPE|DATA", help="A run: its held-out rows. A recipe or data: every row.")
    ],
    folds: Annotated[
        int | None,
        typer.Option(metavar="K", min=2, max=50, help="Models trained, each on all but 1/K; default: 5, quick 10."),
    ] = None,
    quick: QuickFlag = False,
    target: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write every doubtful row there, as JSONL.")
    ] = None,
    overrides: Overrides = None,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the rows whose label is probably wrong, by models that didn't learn them."""
    from tunewright.tasks import out_of_fold
    from tunewright.tasks.labelled_rows import read_rows

    _refuse_own_data(target, subject)
    recipe = _recipe(subject, overrides)
    if recipe is None:
        ref = found(subject, runs)
        refuse_checkpoint(ref)
        if overrides or quick:
            raise UsageError("a run has answered its held-out rows already; -s and --quick are for a recipe or data")
        listed, name = out_of_fold.doubtful_of_run(ref), ref.folder.name
    else:
        with _status(quiet) as status:
            rows = read_rows(recipe, runs, status)
            listed = out_of_fold.doubtful_rows(
                rows, folds or (10 if quick else 5), "quick" if quick else "trained", runs, status
            )
        name = Path(recipe.data.train).name
    if target is not None:
        _write(target, listed.rows())
    if as_json:
        output.print_json(_doubtful_json(listed, name, target))
    elif quiet:
        print("\n".join(row["row"] for row in listed.rows()))
    else:
        output.show(doubtful_lines(listed, name, output.marks(), output.width()))
        if target is not None:
            output.show(["", f" wrote {target}: {len(listed.doubts):,} rows"])


def _doubtful_json(listed: Doubtful, name: str, target: Path | None) -> dict[str, Any]:
    conflicts = [[listed.where[i] for i in rows.tolist()] for rows in listed.conflicts]
    return {
        "run": None,
        "state": "examined",
        "metrics": listed.metrics,
        "data": name,
        "rows": len(listed.where),
        "estimated_wrong": listed.doubts.estimated_wrong,
        "doubtful": listed.rows(),
        "conflicts": conflicts,
        "file": str(target) if target else None,
    }


def doubtful_lines(listed: Doubtful, name: str, signs: output.Marks, fit: int) -> list[str]:
    """How far to trust the list, the most doubtful rows, and texts with more than one label."""
    metric, value = next(iter(listed.metrics.items()), ("accuracy", float("nan")))
    head = (
        f"{len(listed.where):,} rows of {name}, each answered by a model that didn't learn it "
        f"({metric.replace('_', ' ')} {value:.3f})"
    )
    lines = [*textwrap.wrap(head, min(fit, 100) - 1, initial_indent=" ", subsequent_indent=" "), ""]
    if not len(listed.doubts):
        lines.append(" no label is in doubt")
    else:
        about = round(listed.doubts.estimated_wrong)
        words = (
            f"{len(listed.doubts):,} doubtful labels, the most doubtful first; about {about:,} may be wrong, fewer "
            "where the model is weak. Read them before you change any."
        )
        lines += [*textwrap.wrap(words, min(fit, 100) - 1, initial_indent=" ", subsequent_indent=" "), ""]
        lines += _table(listed, signs, fit)
    return [*lines, *_conflict_lines(listed, signs, fit)]


def _table(listed: Doubtful, signs: output.Marks, fit: int) -> list[str]:
    rows = [["text", "row", "label", "likely", "sure"]]
    for row in listed.rows()[:SHOWN]:
        likely = row["likely"]
        shown = " ".join(f"{verb} {name}" for verb, name in likely.items()) if isinstance(likely, dict) else likely
        given = ", ".join(map(str, row["label"])) if isinstance(row["label"], list) else str(row["label"])
        rows.append([" ".join(row["text"].split()), row["row"], given or signs.none, shown,
                     output.percent_sure(row["probability_of_likely"])])  # fmt: skip
    lines = output.table(rows, "<<<<>", fit=min(fit, 100), cut=signs.cut)
    more = len(listed.doubts) - SHOWN
    return [*lines, f" {signs.cut} {more:,} more: -o FILE writes them all"] if more > 0 else lines


def _conflict_lines(listed: Doubtful, signs: output.Marks, fit: int) -> list[str]:
    if not listed.conflicts:
        return []
    many = len(listed.conflicts)
    which = "1 text has" if many == 1 else f"{many:,} texts have"
    lines = ["", f" {which} more than one label, in equal or nearly equal rows; at best one is right:"]
    for rows in listed.conflicts[:SHOWN_CONFLICTS]:
        places = ", ".join(listed.where[i] for i in rows.tolist()[:4])
        text = " ".join(listed.texts[int(rows[0])].split())
        lines += output.table([[f"  {text}", places]], "<<", fit=min(fit, 100), cut=signs.cut)
    return lines


# ---- learning curve ----


def learning_curve(
    subject: Annotated[str, typer.Argument(metavar="RECIPE|DATA", help="A recipe, or data: file, folder or Hub id.")],
    fractions: Annotated[
        str, typer.Option(metavar="LIST", help="Shares of the training rows to learn from, in steps of 0.05.")
    ] = "0.1,0.2,0.4,0.8,1",
    forecast: Annotated[
        list[int] | None, typer.Option(metavar="ROWS", help="Also say what so many rows would give. Repeatable.")
    ] = None,
    quick: QuickFlag = False,
    target: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the curve there, as a picture (SVG).")
    ] = None,
    overrides: Overrides = None,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what more labels would bring: the metric after parts of the rows, and the law through them."""
    from tunewright.tasks.growing import grow
    from tunewright.tasks.labelled_rows import read_rows

    recipe = _recipe(subject, overrides)
    if recipe is None:
        raise UsageError(f"{subject} is no recipe (.yaml) and no data; a run's recipe is in its folder: recipe.yaml")
    _refuse_own_data(target, subject)
    shares = _shares(fractions)
    with _status(quiet) as status:
        growth = grow(read_rows(recipe, runs, status), shares, "quick" if quick else "trained", runs, status)
    sizes = _forecast_sizes(growth, forecast or [])
    if target is not None:
        from tunewright.recording import write_atomically

        write_atomically(target, picture(growth))
    if as_json:
        facts = {"data": recipe.data.train, "metric": growth.metric, "rows": growth.num_rows, "way": growth.way}
        output.print_json({"run": None, "state": "measured", "metrics": {}, **facts, **growth.curve.to_json(sizes)})
    else:
        shown = curve_lines(growth, sizes, output.marks())
        output.show(shown[-1:] if quiet else shown)


def curve_lines(growth: Growth, sizes: list[int], signs: output.Marks) -> list[str]:
    """Measured points, forecasts, and the sentence that answers the question."""
    from tunewright.evaluation.digits import metric_digits
    from tunewright.evaluation.learning_curve import words

    metric = growth.metric
    rows = [["training rows", metric.replace("_", " "), "95 % interval", ""]]
    for size in sorted({point.size for point in growth.curve.points}):
        values = [point.value for point in growth.curve.points if point.size == size]
        spread = (
            f"{metric_digits(min(values), metric)} to {metric_digits(max(values), metric)}" if len(values) > 1 else ""
        )
        drawn = f"mean of {len(values)}: {spread}" if spread else "measured"
        rows.append([f"{size:,}", metric_digits(sum(values) / len(values), metric), "", drawn])
    for size in sizes:
        one = growth.curve.measured(size)
        interval = f"[{metric_digits(one.low, metric)}, {metric_digits(one.high, metric)}]"
        rows.append([f"{size:,}", metric_digits(one.value, metric), interval, "forecast"])
    law = growth.curve.law
    sign = "-" if law.b >= 0 else "+"
    sentence = words(growth.curve, metric.replace("_", " "), growth.num_rows)
    way = "a head on the frozen base model" if growth.way == "quick" else "a run for each point"
    return [
        f" {way}, judged on the same {growth.num_validation:,} validation rows",
        "",
        *output.table(rows, ">>><"),
        "",
        f" law: {metric.replace('_', ' ')} = {law.a:.3f} {sign} {abs(law.b):.3g} x rows^-{law.c:.2f}",
        f" {output.spelt(sentence, signs)}",
    ]


def picture(growth: Growth) -> str:
    """An SVG file of its own."""
    import numpy as np

    from tunewright.evaluation.charts import CHART_STYLE
    from tunewright.evaluation.charts_trials import Guess, learning_curve_chart

    curve = growth.curve
    sizes = np.geomspace(min(p.size for p in curve.points), 2 * curve.largest, 60)
    guesses = [Guess(n, **vars(curve.expected(n))) for n in sizes.tolist()]
    metric = growth.metric.replace("_", " ")
    drawing = learning_curve_chart(
        [(p.size, p.value) for p in curve.points], guesses, title=f"{metric} by training rows", y_label=metric
    )
    head, tag, rest = drawing.partition(">")
    named = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{named}{tag}<style>{CHART_STYLE}</style>{rest}\n"


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"can't read {text!r}; expected shares like 0.1,0.2,0.4", field="--fractions") from None


def _forecast_sizes(growth: Growth, asked: list[int]) -> list[int]:
    """What was asked, or all the rows there are (when fewer were learnt) and twice as many."""
    own = [growth.num_rows] if growth.curve.largest < growth.num_rows else []
    return sorted({*own, 2 * growth.num_rows, *(size for size in asked if size > 0)})


# ---- shared ----


def _recipe(subject: str, overrides: list[str] | None) -> Recipe | None:
    """From a recipe or from data alone; None for what can only be a run."""
    from tunewright.recipe_files import build_recipe, load_recipe

    if is_recipe(subject):
        return load_recipe(Path(subject), overrides or [])
    if Path(subject).is_file() or (Path(subject).is_dir() and not (Path(subject) / "run.json").exists()):
        return build_recipe({"data": {"train": subject}}, overrides or [])
    return None


def _refuse_own_data(target: Path | None, subject: str) -> None:
    if target is not None and target.exists() and Path(subject).exists() and target.samefile(subject):
        raise UsageError("is the data itself, which is never changed; name another file", where=str(target), field="-o")


def _write(target: Path, rows: list[dict[str, Any]]) -> None:
    from tunewright.recording import write_atomically

    write_atomically(target, (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows))


@contextmanager
def _status(quiet: bool) -> Generator[Callable[[str], None]]:
    """What is being done: a line that changes on a terminal, a line per new thing elsewhere, nothing when quiet."""
    if quiet:
        yield lambda words: None
    elif output.is_live(sys.stderr):
        with output.console(sys.stderr).status("starting") as status:
            yield status.update
    else:
        last = [""]

        def tell(words: str) -> None:
            stage = words.split(":")[0]
            if stage != last[0]:
                last[0] = stage
                print(stage, file=sys.stderr, flush=True)

        yield tell
