"""Labels that are probably wrong: confident learning from probabilities of a model that didn't learn the row.

    out-of-fold probabilities + given labels -> which pairs of classes are confused, how often -> doubtful rows, ranked

A row counts as class j when it is as sure of j as the rows labelled j are on average; rows that count as another class
than their label's say how many labels are wrong, and the rows least sure of their own label are named. Where texts are
nearly the same and labels differ, at least one is wrong whatever a model thinks: `conflicting_rows`.

Trains nothing and reads no file. Probabilities must come from folds: a model is never in doubt about a row it learnt.
Source: Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (2021), section 3; rows
are chosen by "prune by noise rate" (3.2). Shapes: N rows, C classes; the joint [C, C] is given label down, true across.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunewright.data.checking import conflicting
from tunewright.data.near_duplicates import Texts, near_groups, sketch
from tunewright.data.splitting import first_of_each
from tunewright.data.survey import text_hash
from tunewright.data.words import WordStore
from tunewright.evaluation.metrics import Kind
from tunewright.evaluation.scores import roc_auc

Rank = Literal["margin", "own"]


@dataclass(frozen=True, eq=False)
class Doubts:
    """Rows whose label is in doubt, the most doubtful first; K of them."""

    rows: np.ndarray  # int64 [K] index among the rows asked about
    given: np.ndarray  # int64 [K] the label's class; of several labels, the label that is there or missing
    likely: np.ndarray  # int64 [K] the class the model sees; of several labels the same as given
    chance_given: np.ndarray  # float64 [K] probability that the label as given is right
    chance_likely: np.ndarray  # float64 [K] probability of the class the model sees
    missing: np.ndarray  # bool [K] several labels: the label isn't given and probably holds
    joint: np.ndarray  # float64 [C, C] estimated rows by given label and true one (several labels: [C, 2, 2])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def estimated_wrong(self) -> float:
        """Labels that are wrong, in all."""
        squares = self.joint.reshape(-1, *self.joint.shape[-2:])
        return float(sum(square.sum() - np.trace(square) for square in squares))


def find_doubts(chances: np.ndarray, labels: np.ndarray, kind: Kind) -> Doubts:
    """The rows whose label a model that didn't learn them doubts.

    chances: float [N, C], out of fold; labels: int [N] (single) or 0/1 [N, C] (multi). Numbers have no doubts of this
    kind: rank them by their squared error.
    """
    chances = np.asarray(chances, np.float64)
    return _of_several(chances, np.asarray(labels)) if kind == "multi" else _of_one(chances, np.asarray(labels))


def confident_joint(chances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Estimated rows [C, C] by given label (down) and true label (across); its rows sum to the counts of the labels.

    C[i, j] counts rows labelled i that are at least as sure of j as rows labelled j are on average; of several such j
    the surest. Then each row of the table is scaled to the rows that have the label (eq. 3 of the paper).
    """
    num_classes = chances.shape[1]
    counts = np.bincount(labels, minlength=num_classes)
    counted, classes = _counts_as(chances, labels)
    cells = np.bincount(labels[counted] * num_classes + classes, minlength=num_classes**2)
    joint = cells.reshape(num_classes, num_classes).astype(np.float64)
    # A class nobody counts as: its rows are taken to be right, as far as anyone can tell.
    empty = joint.sum(axis=1) == 0
    joint[empty, empty] = 1.0
    return joint * (counts / np.maximum(joint.sum(axis=1), 1e-300))[:, None]


def scores(chances: np.ndarray, labels: np.ndarray, rank: Rank = "margin") -> np.ndarray:
    """How well each label [N] fits, in [0, 1]; the smallest are the most doubtful.

    own: its probability. margin: the same less the largest other one's, halved around 0.5.
    """
    own = np.take_along_axis(chances, labels[:, None], axis=1)[:, 0]
    if rank == "own":
        return own
    others = chances.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    return (own - others.max(axis=1) + 1) / 2


def conflicting_rows(texts: list[str], keys: np.ndarray) -> list[np.ndarray]:
    """Rows of each group of equal or nearly equal texts that has more than one label, the earliest group first.

    keys: int [N], equal labels by equal numbers.
    """
    store = WordStore()
    for text in texts:
        store.add(text)
    words = store.close()
    hashes = _text_hashes(texts)
    groups = near_groups(Texts(words, sketch(words), first_of_each(hashes)))
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return conflicting(groups[first[inverse]], np.asarray(keys))


def found_at(ranked: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(precision, recall) after each row of a ranking, where it is known which rows are wrong (bool [N])."""
    hits = np.cumsum(np.asarray(wrong)[ranked])
    return hits / np.arange(1, len(ranked) + 1), hits / max(1, int(np.sum(wrong)))


def ranking_area(fit: np.ndarray, wrong: np.ndarray) -> float:
    """Chance that a wrong label fits worse than a right one; 0.5: the ranking knows nothing."""
    return roc_auc(-np.asarray(fit, np.float64), np.asarray(wrong, bool))


# ---- parts ----


def _of_one(chances: np.ndarray, labels: np.ndarray) -> Doubts:
    joint = confident_joint(chances, labels)
    chosen = _pruned(chances, labels, joint)
    fit = scores(chances, labels)
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(fit[rows], kind="stable")]
    likely = chances[rows].argmax(axis=1)
    at = np.arange(len(rows))
    own = chances[rows, labels[rows]]
    return Doubts(rows, labels[rows], likely, own, chances[rows][at, likely], np.zeros(len(rows), bool), joint)


def _of_several(chances: np.ndarray, hot: np.ndarray) -> Doubts:
    """Each label is a question of its own with two classes: not there, there."""
    joints, found = [], []
    for label, (chance, there) in enumerate(zip(chances.T, hot.T > 0, strict=True)):
        pair = np.stack([1 - chance, chance], axis=1)
        doubts = _of_one(pair, there.astype(np.int64))
        joints.append(doubts.joint)
        found.append((doubts, label))
    ranked = [
        (doubts.chance_given[i], int(doubts.rows[i]), label, bool(doubts.given[i] == 0), doubts.chance_likely[i])
        for doubts, label in found
        for i in range(len(doubts))
    ]
    ranked.sort(key=lambda entry: entry[:3])
    columns = list(zip(*ranked, strict=True)) or [()] * 5
    own, rows, labels, missing, likely = (np.array(column) for column in columns)
    labels = labels.astype(np.int64)
    return Doubts(rows.astype(np.int64), labels, labels, own.astype(np.float64), likely.astype(np.float64),
                  missing.astype(bool), np.stack(joints))  # fmt: skip


def _counts_as(chances: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows that count as some class, which): sure enough of it, and surer than of any other such class."""
    limits = np.array([_mean(chances[labels == c, c]) for c in range(chances.shape[1])])
    enough = chances >= limits - 1e-12
    counted = np.flatnonzero(enough.any(axis=1))
    return counted, np.where(enough, chances, -np.inf)[counted].argmax(axis=1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.inf


def _pruned(chances: np.ndarray, labels: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """bool [N]: from each off-diagonal cell as many rows as it holds, those with the largest p_j - p_i.

    A row whose own label is the likeliest is never in doubt, whatever the cell says.
    """
    chosen = np.zeros(len(labels), bool)
    for given, true in np.argwhere(np.round(joint) >= 1).tolist():
        if given == true:
            continue
        rows = np.flatnonzero(labels == given)
        gap = chances[rows, true] - chances[rows, given]
        wanted = round(float(joint[given, true]))
        chosen[rows[np.argsort(-gap, kind="stable")[:wanted]]] = True
    return chosen & (chances.argmax(axis=1) != labels)


def _text_hashes(texts: list[str]) -> np.ndarray:
    return np.array([text_hash(text) for text in texts], np.uint64)
