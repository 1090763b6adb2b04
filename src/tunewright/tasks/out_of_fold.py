"""Answers to every row by a model that didn't learn it, and from them the labels that are probably wrong.

    rows -> k folds (equal texts together) -> a model per fold, trained on the others -> probabilities -> doubts
                                          └-> a regression on words per fold --------┘ (stacked)

`trained` fine-tunes as the recipe says, once per fold: exact, and as long as that many runs. `quick` trains only a
logistic regression on the frozen base model's features: seconds after one pass over the texts, and less to be trusted
the less the frozen base knows. Either is stacked with a regression on words, whose mistakes are others, as far as that
one adds anything. A finished run's own held-out rows need none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunewright.data.word_features import word_table
from tunewright.errors import UsageError
from tunewright.evaluation.folds import fold_of, train_and_held_out
from tunewright.evaluation.metrics import metrics, probabilities
from tunewright.evaluation.stacking import stacked
from tunewright.evaluation.wrong_labels import Doubts, conflicting_rows, find_doubts
from tunewright.learning.frozen_head import choose_ridge, fit_head, fit_words
from tunewright.runs import RunRef
from tunewright.tasks.calibrating import held_out_of_run
from tunewright.tasks.labelled_rows import LabelledRows, Status, features_of
from tunewright.tasks.part_runs import logits_of_part, scratch

Way = Literal["trained", "quick"]


@dataclass(frozen=True, eq=False)
class Doubtful:
    """The doubtful rows, ready to be shown or written."""

    doubts: Doubts
    names: tuple[str, ...]
    where: list[str]  # of every row asked about
    texts: list[str]
    given: list[Any]  # labels as given
    conflicts: list[np.ndarray]  # rows of each group of nearly equal texts with different labels
    metrics: dict[str, float]  # of the answers the doubts come from: how far to trust them
    multi: bool

    def rows(self) -> list[dict[str, Any]]:
        """One object per doubt, the most doubtful first."""
        d, found = self.doubts, []
        for i, row in enumerate(d.rows.tolist()):
            likely: Any = self.names[int(d.likely[i])]
            if self.multi:
                likely = {"add" if d.missing[i] else "remove": likely}
            found.append(
                {
                    "row": self.where[row],
                    "label": self.given[row],
                    "likely": likely,
                    "probability_of_label": round(float(d.chance_given[i]), 4),
                    "probability_of_likely": round(float(d.chance_likely[i]), 4),
                    "text": self.texts[row],
                }
            )
        return found


def out_of_fold_logits(
    rows: LabelledRows, num_folds: int, way: Way, runs: Path, status: Status = lambda words: None
) -> np.ndarray:
    """float [N, C] for every row of train, each by a model that didn't learn its text. Raises UsageError."""
    part, seed = rows.train, rows.recipe.training.seed
    folds = fold_of(rows.strata(part.labels), num_folds, seed, part.hashes)
    found = np.zeros((len(part), rows.data.labels.num_outputs))
    features = features_of(rows, runs, status)[0] if way == "quick" else None
    for fold, (learnt, judged) in enumerate(train_and_held_out(folds)):
        words = f"fold {fold + 1} of {num_folds}"
        status(words)
        if features is not None:
            found[judged] = quick_logits(rows, features, learnt, features[judged])
            continue
        path = scratch(rows, "out-of-fold") / f"fold-{fold + 1}-of-{num_folds}.safetensors"
        found[judged] = logits_of_part(
            rows, learnt, (part, judged), path, seed, runs, lambda said, words=words: status(f"{words}: {said}")
        )
    return found


def out_of_fold_words(rows: LabelledRows, num_folds: int) -> np.ndarray:
    """float64 [N, C]: the same by logistic regression on the rows' words, on the same folds."""
    part, count = rows.train, rows.data.labels.num_outputs
    folds = fold_of(rows.strata(part.labels), num_folds, rows.recipe.training.seed, part.hashes)
    table, found = word_table(rows.texts(part)), np.zeros((len(part), count))
    for learnt, judged in train_and_held_out(folds):
        head = fit_words(table.part(learnt), part.labels[learnt], count, rows.kind)
        found[judged] = head.logits(table.part(judged))
    return found


def doubtful_rows(
    rows: LabelledRows, num_folds: int = 5, way: Way = "trained", runs: Path = Path("runs"),
    status: Status = lambda words: None,
) -> Doubtful:  # fmt: skip
    """Doubts about the labels of every row of the recipe's train source."""
    _refuse_numbers(rows.kind)
    logits = out_of_fold_logits(rows, num_folds, way, runs, status)
    part, label = rows.train, rows.data.columns.label
    assert label is not None
    texts = rows.texts(part)
    status("reading words")
    logits, _ = stacked([logits, out_of_fold_words(rows, num_folds)], part.labels, rows.kind)
    return Doubtful(
        find_doubts(probabilities(logits, rows.kind), part.labels, rows.kind),
        rows.data.labels.names,
        part.where,
        texts,
        [row[label] for row in part.rows],
        conflicting_rows(texts, np.unique(rows.strata(part.labels), return_inverse=True)[1]),
        metrics(logits, part.labels, rows.kind),
        rows.kind == "multi",
    )


def doubtful_of_run(ref: RunRef) -> Doubtful:
    """Doubts about a finished run's held-out rows, from the answers it kept: nothing is trained."""
    from tunewright.recording import read_jsonl

    held = held_out_of_run(ref)
    _refuse_numbers(held.kind)
    rows = list(read_jsonl(ref.folder / "predictions" / "validation.jsonl"))
    texts = [str(row.get("text", "")) for row in rows]
    strata = np.unique(held.labels, axis=0, return_inverse=True)[1].reshape(len(rows))
    return Doubtful(
        find_doubts(probabilities(held.logits, held.kind), held.labels, held.kind),
        held.names,
        [str(row.get("row")) for row in rows],
        texts,
        [row.get("label") for row in rows],
        conflicting_rows(texts, strata),
        metrics(held.logits, held.labels, held.kind),
        held.kind == "multi",
    )


def _refuse_numbers(kind: str) -> None:
    if kind == "number":
        raise UsageError("these labels are numbers, which no class contradicts; a run's report lists the rows that "
                         "cost most")  # fmt: skip


def quick_logits(rows: LabelledRows, features: np.ndarray, learnt: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """float64 [M, C] of the features `judged` [M, D], by a frozen head fitted on the `learnt` rows of train."""
    labels, count = rows.train.labels[learnt], rows.data.labels.num_outputs
    groups = rows.train.hashes[learnt]
    inner = fold_of(rows.strata(labels), min(5, len(np.unique(groups))), rows.recipe.training.seed, groups)
    ridge = choose_ridge(features[learnt], labels, count, rows.kind, inner)
    return fit_head(features[learnt], labels, count, rows.kind, ridge).logits(judged)
