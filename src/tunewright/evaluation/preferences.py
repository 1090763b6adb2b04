"""Metrics of scores that are to agree with people: which of two completions is better. Pure numpy, float64.

Stands between the scores of a reward model (or the implicit rewards of DPO) and whoever judges or shows them. Whoever
always picks the longer completion agrees with people surprisingly often, so length alone stands beside as a rival.

Comparisons of one prompt depend on each other: intervals and tests draw whole prompts. Shapes: N prompts, P
comparisons of them all. A metric that is undefined is left out, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.evaluation import statistics
from tunewright.evaluation.metrics import Bin
from tunewright.evaluation.scores import mid_ranks
from tunewright.evaluation.statistics import Interval, Paired
from tunewright.evaluation.texts import p_value

WORDS: dict[str, tuple[str, str]] = {
    "accuracy": ("accuracy", "share of comparisons whose better completion gets the higher score; 0.5 is guessing"),
    "loss": (
        "loss",
        "surprise at what people preferred, in nats per prompt; ln 2 = 0.693 is guessing; lower is better",
    ),
    "margin": ("margin", "mean score of the better completion above the worse one, in log-odds"),
    "ece": ("calibration error", "mean gap between stated probability and truth; lower is better"),
}
HIGHER_IS_BETTER = {"accuracy": True, "margin": True, "loss": False, "ece": False}
BINS = 5  # of confidence from 0.5 to 1: few comparisons are the rule
_NEWTON_STEPS = 50


@dataclass(frozen=True)
class Scored:
    """Comparisons with the scores of both sides."""

    prompts: np.ndarray  # int64 [P], which prompt, 0 to N - 1
    better: np.ndarray  # float64 [P], score of the completion that people found better
    worse: np.ndarray  # float64 [P]
    weights: np.ndarray  # float64 [P], probability that it is better: 1, or 0.5 for a tie
    margins: np.ndarray  # float64 [P], by how much it should be
    better_lengths: np.ndarray  # int64 [P], tokens of the completions
    worse_lengths: np.ndarray  # int64 [P]
    annotators: np.ndarray  # int64 [P], -1 where nobody says

    @classmethod
    def of(cls, dataset: ComparisonDataset, scores: np.ndarray) -> Scored:
        """From the score of every text of a dataset, those of the first prompt first."""
        every, starts = range(len(dataset)), np.cumsum(dataset.num_texts, dtype=np.int64) - dataset.num_texts
        pairs = [dataset.pairs(i) + starts[i] for i in every]
        better, worse = np.concatenate(pairs).T if pairs else np.zeros((2, 0), np.int64)
        texts = dataset.each_text()
        lengths = np.array([int(texts.is_target(i).sum()) for i in range(len(texts))])
        return cls(
            np.repeat(np.arange(len(dataset)), dataset.num_pairs),
            scores[better].astype(np.float64),
            scores[worse].astype(np.float64),
            _joined(dataset.weights, every),
            _joined(dataset.margins, every),
            lengths[better],
            lengths[worse],
            _joined(dataset.annotators, every).astype(np.int64),
        )

    @property
    def differences(self) -> np.ndarray:
        """float64 [P]"""
        return self.better - self.worse

    @property
    def decided(self) -> np.ndarray:
        """bool [P]: no ties, which nobody can get right."""
        return self.weights > 0.5

    @property
    def length_ratios(self) -> np.ndarray:
        """float64 [P]: log of how many times longer the better one is."""
        return np.log(np.maximum(self.better_lengths, 1)) - np.log(np.maximum(self.worse_lengths, 1))


def _joined(part: Callable[[int], np.ndarray], prompts: Iterable[int]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(part(i) for i in prompts)])


# ---- metrics ----


def metrics(scored: Scored) -> dict[str, float]:
    """accuracy, margin and ece over all comparisons but ties; loss over prompts, each weighing 1."""
    found = {"loss": float(prompt_losses(scored.differences, scored).mean())} if len(scored.prompts) else {}
    if not scored.decided.any():
        return found
    differences = scored.differences[scored.decided]
    return {
        "accuracy": float(agreement(differences).mean()),
        "margin": float(differences.mean()),
        "ece": calibration_error(reliability(differences)),
    } | found


def agreement(differences: np.ndarray) -> np.ndarray:
    """1 where the better completion scores higher, 0 where lower, and half where both score the same: [P]."""
    return np.where(differences > 0, 1.0, np.where(differences < 0, 0.0, 0.5))


def losses(differences: np.ndarray, weights: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """−[p log σ(d − m) + (1 − p) log σ(m − d)], in nats: [P]."""
    excess = differences - margins
    return weights * np.logaddexp(0, -excess) + (1 - weights) * np.logaddexp(0, excess)


def prompt_losses(differences: np.ndarray, scored: Scored) -> np.ndarray:
    """The mean loss of each prompt's comparisons: [N]."""
    counts = np.bincount(scored.prompts)
    sums = np.bincount(scored.prompts, losses(differences, scored.weights, scored.margins))
    return sums[counts > 0] / counts[counts > 0]


def reliability(differences: np.ndarray, bins: int = BINS) -> list[Bin]:
    """σ(|d|), the probability that is given to whichever scores higher, against how often people agreed."""
    confidence = 1 / (1 + np.exp(-np.abs(differences)))
    place = np.clip(((confidence - 0.5) * 2 * bins).astype(int), 0, bins - 1)
    right, found = agreement(differences), list[Bin]()
    for number in np.unique(place):
        here = place == number
        low, high = (0.5 + n / (2 * bins) for n in (int(number), int(number) + 1))
        found.append(Bin(low, high, int(here.sum()), float(confidence[here].mean()), float(right[here].mean())))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Mean gap between confidence and agreement, each bin weighing as many comparisons as it holds."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / total


# ---- how sure the numbers are ----


def intervals(scored: Scored, samples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Of every metric but ece, which resampling only pushes up; whole prompts are drawn."""
    found: dict[str, Interval] = {}
    if scored.decided.any():
        differences = scored.differences[scored.decided]
        found["accuracy"] = _share(agreement(differences), scored.prompts[scored.decided], samples, seed)
        found["margin"] = _mean(differences, scored.prompts[scored.decided], samples, seed)
    if len(scored.prompts):
        own = prompt_losses(scored.differences, scored)
        found["loss"] = _mean(own, np.arange(len(own)), samples, seed)
    return {name: one for name, one in found.items() if np.isfinite(one.low)}


def paired(before: np.ndarray, after: np.ndarray, prompts: np.ndarray, samples: int = 1000, seed: int = 0) -> Paired:
    """Two ways to choose between the same completions, by differences [P]: who agrees with people more often?

    McNemar's exact test where each prompt is compared once, else whole prompts are resampled.
    """
    old, new = agreement(before), agreement(after)
    if len(np.unique(prompts)) == len(prompts) and not (np.isin(0.5, old) or np.isin(0.5, new)):
        return statistics.mcnemar(old == 1, new == 1, samples, seed)
    change = new - old
    drawn = _resampled_means(change, prompts, samples, seed)
    fixed, broke = int((change > 0).sum()), int((change < 0).sum())
    return Paired(fixed, broke, p_value(drawn), float(change.mean()), statistics.percentiles(drawn))


def _share(right: np.ndarray, prompts: np.ndarray, samples: int, seed: int) -> Interval:
    """As of any share where prompts are compared once; all right or all wrong is never certain."""
    numbers, first = np.unique(prompts, return_index=True)
    alone = len(numbers) == len(prompts) and not np.isin(0.5, right)
    if alone or np.all(right == 1) or np.all(right == 0):
        return statistics.proportion(right[first] == 1, samples, seed)
    return _mean(right, prompts, samples, seed)


def _mean(values: np.ndarray, prompts: np.ndarray, samples: int, seed: int) -> Interval:
    return statistics.percentiles(_resampled_means(values, prompts, samples, seed))


def _resampled_means(values: np.ndarray, prompts: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Means [S] over S draws of whole prompts."""
    _, number = np.unique(prompts, return_inverse=True)
    sums = np.stack([np.bincount(number, values), np.bincount(number)], axis=1)
    drawn = statistics.resampled_sums(sums, samples, seed)
    return drawn[:, 0] / drawn[:, 1]


# ---- length, the rival ----


@dataclass(frozen=True)
class LengthRival:
    """Chooses by length alone: P(better) = σ(slope · log of the ratio of lengths)."""

    slope: float  # above 0: the longer one is better

    @classmethod
    def fitted(cls, ratios: np.ndarray, weights: np.ndarray) -> LengthRival:
        """Logistic regression on comparisons [P], by Newton's method; a faint pull to 0 keeps it finite."""
        slope, ridge = 0.0, 1e-3
        for _ in range(_NEWTON_STEPS):
            chance = 1 / (1 + np.exp(-np.clip(slope * ratios, -500, 500)))
            gradient = float((ratios * (weights - chance)).sum()) - ridge * slope
            curvature = float((ratios**2 * chance * (1 - chance)).sum()) + ridge
            step = gradient / curvature
            slope += float(np.clip(step, -5, 5))
            if abs(step) < 1e-9:
                break
        return cls(slope)

    def differences(self, scored: Scored) -> np.ndarray:
        """What stands for a difference of scores: [P]."""
        return self.slope * scored.length_ratios

    def metrics(self, scored: Scored) -> dict[str, float]:
        """accuracy and loss, as of scores."""
        differences = self.differences(scored)
        found = {"loss": float(prompt_losses(differences, scored).mean())} if len(scored.prompts) else {}
        decided = {"accuracy": float(agreement(differences[scored.decided]).mean())} if scored.decided.any() else {}
        return decided | found


def length_facts(scored: Scored, rival: LengthRival, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """How much of the score is length, and whether it knows more than that: plain values for run.json."""
    decided, ratios = scored.decided, scored.length_ratios
    found: dict[str, Any] = {"slope": rival.slope, **_correlations(scored)}
    if not decided.any():
        return found
    unequal = decided & (ratios != 0)
    if unequal.any():
        longer_wins = (ratios > 0)[unequal]
        found["people_prefer_longer"] = float(longer_wins.mean())
        found["scores_prefer_longer"] = float(agreement(scored.differences * np.sign(ratios))[unequal].mean())
    by_length, own = rival.differences(scored)[decided], scored.differences[decided]
    test = paired(by_length, own, scored.prompts[decided], samples, seed)
    return found | {
        "accuracy": float(agreement(by_length).mean()),
        "difference": test.difference,
        "interval": test.interval.to_json(),
        "p_value": test.p_value,
        "words": _length_words(test, float(agreement(own).mean()), float(agreement(by_length).mean())),
    }


def _length_words(test: Paired, own: float, by_length: float) -> str:
    both = f"accuracy {own:.3f} against {by_length:.3f}"
    if test.p_value < 0.05 and test.difference > 0:
        return f"it knows more than length: {both} by length alone"
    if test.p_value < 0.05 and test.difference < 0:
        return f"it is worse than choosing by length: {both} by length alone"
    return f"no sure sign that it knows more than length: {both} by length alone"


def _correlations(scored: Scored) -> dict[str, float]:
    """Of score and length within prompts, linear and of ranks; it doesn't matter which of two is called the better."""
    x, y = (np.concatenate([one, -one]) for one in (scored.differences, scored.length_ratios))
    if not np.any(x) or not np.any(y):
        return {}
    return {
        "pearson": float(np.corrcoef(x, y)[0, 1]),
        "spearman": float(np.corrcoef(mid_ranks(x), mid_ranks(y))[0, 1]),
    }


# ---- everything at once ----


def judge(
    scored: Scored, rival: LengthRival, annotators: Sequence[str] = (), samples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Plain values for evaluation.json."""
    num_ties = int((~scored.decided).sum())
    return {
        "kind": "preference",
        "num_rows": len(np.unique(scored.prompts)),
        "comparisons": len(scored.prompts),
        "ties": num_ties,
        "metrics": metrics(scored),
        "intervals": {name: one.to_json() for name, one in intervals(scored, samples, seed).items()},
        "baseline": rival.metrics(scored),
        "length": length_facts(scored, rival, samples, seed),
        "annotators": per_annotator(scored, annotators, samples, seed),
        "reliability": [asdict(one) for one in reliability(scored.differences[scored.decided])],
        "notes": [f"{num_ties:,} of {len(scored.prompts):,} comparisons are ties, which accuracy leaves out"]
        if num_ties
        else [],
    }


def per_annotator(scored: Scored, names: Sequence[str], samples: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """How well the scores agree with each: name, comparisons, accuracy and its interval; who judged most first."""
    found: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        own = scored.decided & (scored.annotators == number)
        if own.any():
            right = agreement(scored.differences[own])
            interval = _share(right, scored.prompts[own], samples, seed)
            found.append(
                {"annotator": name, "comparisons": int(own.sum()), "accuracy": float(right.mean()),
                 "interval": interval.to_json()}
            )  # fmt: skip
    return sorted(found, key=lambda one: -one["comparisons"])
