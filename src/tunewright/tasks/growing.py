"""A learning curve of a recipe: the metric after 10, 20, 40, 80 and 100 % of its rows, judged on the same ones.

    rows -> stratified parts, each inside the next -> a run (or a frozen head) per part -> metric -> law and forecast

Small parts are drawn several times, since their luck is larger and they cost little. Used by `data learning-curve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.errors import UsageError
from tunewright.evaluation.folds import fold_of
from tunewright.evaluation.leaderboard import resampled_metric
from tunewright.evaluation.learning_curve import LearningCurve, Point, fit_curve
from tunewright.evaluation.metrics import HIGHER_IS_BETTER, default_metric, metrics
from tunewright.tasks.labelled_rows import LabelledRows, Part, Status, features_of
from tunewright.tasks.out_of_fold import Way, quick_logits
from tunewright.tasks.part_runs import logits_of_part, scratch

FRACTIONS = (0.1, 0.2, 0.4, 0.8, 1.0)
STEPS = 20  # parts are multiples of 5 %
MOST_REPEATS = 3
_ERROR_SAMPLES = 200


@dataclass(frozen=True, eq=False)
class Growth:
    """The curve and what it is of."""

    curve: LearningCurve
    metric: str
    num_rows: int  # training rows there are
    num_validation: int
    way: Way


def repeats_of(fraction: float) -> int:
    """How often a part of this size is drawn: about as many rows as 80 % of them once, three times at most."""
    return max(1, min(MOST_REPEATS, int(0.8 / fraction + 1e-9)))


def grow(
    rows: LabelledRows,
    fractions: Sequence[float] = FRACTIONS,
    way: Way = "trained",
    runs: Path = Path("runs"),
    status: Status = lambda words: None,
) -> Growth:
    """Measure and fit. Raises UsageError for fewer than three fractions, or a kind that a frozen head doesn't know."""
    metric = default_metric(rows.kind) if rows.recipe.evaluation.metric == "auto" else rows.recipe.evaluation.metric
    _check(rows, fractions, way)
    learnt, judged, chosen = _sides(rows)
    features = features_of(rows, runs, status) if way == "quick" else None
    points: list[Point] = []
    for fraction in sorted(set(fractions)):
        for repeat in range(repeats_of(fraction)):
            some = learnt[_part_rows(rows, learnt, fraction, repeat)]
            words = f"{len(some):,} rows" + (f", draw {repeat + 1}" if repeats_of(fraction) > 1 else "")
            status(words)
            if features is not None:
                own = features[0] if features[1] is None else features[1]
                logits = quick_logits(rows, features[0], some, own[chosen])
            else:
                path = scratch(rows, "learning-curve") / f"{round(fraction * 100)}-{repeat + 1}.safetensors"
                seed = rows.recipe.training.seed + repeat
                logits = logits_of_part(
                    rows, some, (judged, chosen), path, seed, runs, lambda said, words=words: status(f"{words}: {said}")
                )
            points.append(_point(len(some), logits, judged.labels[chosen], rows.kind, metric))
    curve = fit_curve(points, higher_is_better=HIGHER_IS_BETTER[metric], seed=rows.recipe.training.seed)
    return Growth(curve, metric, len(learnt), len(chosen), way)


def _check(rows: LabelledRows, fractions: Sequence[float], way: Way) -> None:
    wrong = [f for f in fractions if not 1 / STEPS - 1e-9 <= f <= 1]
    if wrong:
        raise UsageError(f"a part of {wrong[0]:g} of the rows; expected 0.05 to 1", field="--fractions")
    if way == "quick" and rows.kind == "number":
        raise UsageError("--quick is for labels, and these are numbers; leave it out", field="--quick")


def _sides(rows: LabelledRows) -> tuple[np.ndarray, Part, np.ndarray]:
    """(rows of train to learn from, the part that judges, its rows)."""
    if rows.validation is not None:
        return rows.data.train_rows, rows.validation, np.arange(len(rows.validation))
    return rows.data.train_rows, rows.train, rows.data.validation_rows


def _part_rows(rows: LabelledRows, learnt: np.ndarray, fraction: float, repeat: int) -> np.ndarray:
    """Indices into `learnt`: classes in proportion, equal texts together, smaller parts inside larger ones."""
    part = rows.train
    folds = fold_of(
        rows.strata(part.labels[learnt]), STEPS, rows.recipe.training.seed + 1000 * repeat, part.hashes[learnt]
    )
    return np.flatnonzero(folds < round(fraction * STEPS))


def _point(size: int, logits: np.ndarray, labels: np.ndarray, kind: Any, metric: str) -> Point:
    value = metrics(logits, labels, kind).get(metric)
    if value is None:
        raise UsageError(f"{metric} is undefined on the validation rows; choose another evaluation.metric")
    spread = resampled_metric(
        lambda some: metrics(logits[some], labels[some], kind).get(metric, float("nan")),
        len(labels), seed=0, samples=_ERROR_SAMPLES,
    )  # fmt: skip
    # All right or all wrong: half a row's worth.
    return Point(size, value, max(float(np.nanstd(spread)), 0.5 / len(labels)))
