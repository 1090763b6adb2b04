"""Completions of held-out prompts as numbers: score, distance from the reference, diversity, who won. Pure numpy.

Stands between `tasks.align_scoring`, which lets a model write and asks the reward, and everyone who judges an aligned
model. Generates nothing, runs no model, reads no file.

A reward that rises says only that it was optimised. So beside it stand what it cost (nats of distance from the
reference), a judge that training never saw, and what shows when a model has learnt to please: loops, the same words
for every prompt, texts that never end or end at once.

Shapes: N prompts with one completion each, the same prompts before and after; S resamples; G distinct n-grams.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tunewright.evaluation import statistics
from tunewright.evaluation.agreement import wilson
from tunewright.evaluation.overlap import any_words
from tunewright.evaluation.statistics import Interval, Paired
from tunewright.evaluation.texts import p_value

# What the table says, in its order: a name, and its meaning.
WORDS: dict[str, tuple[str, str]] = {
    "reward": ("reward", "score less the price of the distance from the reference: what training maximises"),
    "score": ("score", "what the reward gives a completion, on average"),
    "probability": ("probability", "belief of the classifier behind the reward that a completion is as wanted"),
    "win_rate": (
        "win rate",
        "share of prompts whose completion scores above the untrained model's; 0.5 is no difference",
    ),
    "judge": ("judge", "score by a judge that training never saw"),
    "judge_probability": ("judge's probability", "belief of that judge that a completion is as wanted"),
    "judge_win_rate": ("judge's win rate", "share of prompts won by that judge's score; 0.5 is no difference"),
    "kl": ("KL", "nats by which a completion's words have moved from the reference: the price"),
    "ref_perplexity": ("reference's perplexity", "how surprising the completions are to the starting model"),
    "perplexity": ("perplexity", "of the completions that the data holds; what is kept of the task learnt before"),
    "distinct_1": ("distinct words", "share of all words written that differ; low: every text says the same"),
    "distinct_2": ("distinct pairs", "share of all pairs of neighbouring words that differ"),
    "repetition": ("repetition", "share of a text's runs of four words that it has had already; loops are near 1"),
    "length": ("length", "tokens of a completion"),
    "ended": ("ended", "share of completions that ended by themselves, before the limit"),
}
# What is better when it is more, or less; a length is neither.
HIGHER_IS_BETTER: dict[str, bool] = {
    **dict.fromkeys(("reward", "score", "probability", "win_rate"), True),
    **dict.fromkeys(("judge", "judge_probability", "judge_win_rate"), True),
    **dict.fromkeys(("distinct_1", "distinct_2"), True),
    **dict.fromkeys(("kl", "perplexity", "repetition"), False),
}
BY_REWARD = ("reward", "score", "probability", "win_rate")  # on the scale of the run's own reward
_PERPLEXITIES = ("ref_perplexity", "perplexity")
_DISTINCT = {"distinct_1": 1, "distinct_2": 2}
# Prompts can come out better or worse by these; a distance only grows, and diversity belongs to all texts together.
BY_PROMPT = frozenset(HIGHER_IS_BETTER) - {"kl", *_DISTINCT}
_MEANS = ("reward", "score", "probability", "judge", "judge_probability", "kl", "repetition", "length", "ended")
REPEATED_RUN = 4  # words; seq-rep-4 of Welleck et al. 2020
_MOST_CELLS = 20_000_000_000  # of an exchange test; fewer resamples where there are more


@dataclass(frozen=True)
class Completions:
    """What N prompts were answered with, and what was measured of it; see `WORDS`."""

    texts: Sequence[str]
    score: np.ndarray  # float64 [N], by the reward
    kl: np.ndarray  # float64 [N], nats per completion
    ref_nats: np.ndarray  # float64 [N], −log p of the completion's tokens by the reference, summed
    length: np.ndarray  # int64 [N], tokens, with the one that ended it
    ended: np.ndarray  # bool [N]
    more: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])  # float64 [N]: judge, probability, …
    wanted: np.ndarray | None = None  # float64 [M, 2], nats and tokens of M completions that the data holds


@dataclass(frozen=True)
class AlignScores:
    """How N completions fare."""

    metrics: dict[str, float]
    per_row: dict[str, np.ndarray]  # [N] where the metric is their mean, [M, 2] nats and tokens of a perplexity
    texts: Sequence[str]


@dataclass(frozen=True)
class WinRate:
    """Two models on the same prompts: who has the higher score."""

    won: int
    lost: int
    tied: int

    @property
    def rate(self) -> float:
        """Share won, a tie as half; 0.5 is no difference."""
        return (self.won + self.tied / 2) / self.rows

    @property
    def rows(self) -> int:
        return self.won + self.lost + self.tied

    @property
    def interval(self) -> Interval:
        """Wilson's, with halves for ties: never narrower than the ties allow, and honest at 0 and at 1."""
        return wilson(self.rate, self.rows)

    @property
    def p_value(self) -> float:
        """Exact sign test on the prompts that weren't tied."""
        return statistics.sign_test(self.won, self.lost)

    def to_json(self) -> dict[str, object]:
        """As stored in run.json."""
        counts = {"rate": self.rate, "won": self.won, "lost": self.lost, "tied": self.tied}
        return {**counts, "interval": self.interval.to_json(), "p_value": self.p_value}


# --- metrics ----------------------------------------------------------------------------------------------------


def measured(found: Completions, kl_coef: float, before: Completions | None = None) -> AlignScores:
    """Every metric there is; win rates where the untrained model's completions of the same prompts are given.

    A metric that these texts don't have (distinct words where nothing was written) is left out, never NaN.
    """
    columns = {"score": found.score, "kl": found.kl, "reward": found.score - kl_coef * found.kl, **found.more}
    columns |= {"length": found.length, "ended": found.ended, "repetition": _repetitions(found.texts)}
    per_row = {name: np.asarray(columns[name], np.float64) for name in _MEANS if name in columns}
    per_row["ref_perplexity"] = np.column_stack([found.ref_nats, found.length]).astype(np.float64)
    if found.wanted is not None:
        per_row["perplexity"] = found.wanted
    metrics = {name: _value(name, rows) for name, rows in per_row.items()}
    metrics |= {name: distinct(found.texts, n) for name, n in _DISTINCT.items()}
    metrics |= {name: won.rate for name, won in win_rates(before, found).items()} if before else {}
    return AlignScores({name: metrics[name] for name in WORDS if math.isfinite(metrics.get(name, math.nan))},
                       per_row, found.texts)  # fmt: skip


def win_rates(before: Completions, after: Completions) -> dict[str, WinRate]:
    """By the reward, and by the judge where there is one."""
    same = np.array([old == new for old, new in zip(before.texts, after.texts, strict=True)], bool)
    pairs = {"win_rate": (before.score, after.score)}
    if "judge" in before.more and "judge" in after.more:
        pairs["judge_win_rate"] = (before.more["judge"], after.more["judge"])
    # The same text may get another last digit in another batch, which is no victory.
    return {name: win_rate(old, np.where(same, old, new)) for name, (old, new) in pairs.items() if len(new)}


def win_rate(before: np.ndarray, after: np.ndarray) -> WinRate:
    """Scores [N] of the same prompts; scores that are equal within rounding are a tie."""
    tied = np.isclose(after, before, rtol=1e-6, atol=1e-6)
    won = int(((after > before) & ~tied).sum())
    return WinRate(won, int(len(tied) - tied.sum()) - won, int(tied.sum()))


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct-n (Li et al. 2016): different runs of n words among all of them; NaN where there is none.

    Over all texts together, so that one good answer given to every prompt shows. Longer texts repeat more, whoever
    wrote them: read it beside the length.
    """
    runs = [run for text in texts for run in _runs(any_words(text), n)]
    return len(set(runs)) / len(runs) if runs else math.nan


def repetition(text: str, n: int = REPEATED_RUN) -> float:
    """Seq-rep-n (Welleck et al. 2020): share of a text's runs of n words that stood in it before; 0 below n words."""
    runs = _runs(any_words(text), n)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _repetitions(texts: Sequence[str]) -> np.ndarray:
    return np.array([repetition(text) for text in texts], np.float64)


def _runs(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _value(name: str, rows: np.ndarray) -> float:
    if not len(rows):
        return math.nan
    return float(_values(name, _sums(rows)[None], len(rows))[0])


def _sums(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1).sum(axis=0)


def _values(name: str, sums: np.ndarray, rows: int) -> np.ndarray:
    """The metric [S] from its sums [S, K] over so many rows."""
    if name not in _PERPLEXITIES:
        return sums[:, 0] / rows
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.exp(sums[:, 0] / sums[:, 1])


# --- how sure the numbers are -----------------------------------------------------------------------------------


def intervals(
    scores: AlignScores, samples: int = 1000, seed: int = 0, won: Mapping[str, WinRate] | None = None
) -> dict[str, Interval]:
    """Of every metric but diversity: a resample holds rows twice, which by itself makes texts less distinct.

    Rows that are all alike have none: no resample would differ, which would look like certainty.
    """
    found: dict[str, Interval] = {}
    for name in (name for name in scores.metrics if name in scores.per_row):
        rows = scores.per_row[name]
        if name != "ended" and np.all(rows == rows[0]):
            continue
        if name == "ended":
            found[name] = wilson(float(rows.mean()), len(rows))
        else:
            sums = statistics.resampled_sums(rows.reshape(len(rows), -1), samples, seed)
            found[name] = statistics.percentiles(_values(name, sums, len(rows)))
    return found | {name: one.interval for name, one in (won or {}).items()}


def paired(before: AlignScores, after: AlignScores, samples: int = 1000, seed: int = 0) -> dict[str, Paired]:
    """The same prompts before and after, for each metric that both have; the difference is after − before.

    Paired bootstrap of the prompts; McNemar's test for `ended`. Diversity belongs to all texts together: it is tested
    by exchanging the two texts of prompts at random, and has no prompts that came out better or worse.
    """
    found: dict[str, Paired] = {}
    for name in (name for name in after.metrics if name in before.metrics):
        if name in _DISTINCT:
            found[name] = _exchanged(before.texts, after.texts, _DISTINCT[name], samples, seed)
        elif name == "ended":
            found[name] = statistics.mcnemar(before.per_row[name] == 1, after.per_row[name] == 1, samples, seed)
        else:
            found[name] = _compared(name, before, after, samples, seed)
    return found


def _compared(name: str, before: AlignScores, after: AlignScores, samples: int, seed: int) -> Paired:
    old, new = (one.per_row[name].reshape(len(one.per_row[name]), -1) for one in (before, after))
    if len(old) != len(new):
        raise ValueError("the two models were not scored on the same rows")
    drawn = statistics.resampled_sums(np.concatenate([old, new], axis=1), samples, seed)
    width, rows = old.shape[1], len(old)
    change = _values(name, drawn[:, width:], rows) - _values(name, drawn[:, :width], rows)
    sign = 1 if HIGHER_IS_BETTER.get(name, True) else -1
    by_row = sign * (_by_row(new) - _by_row(old))
    counts = int((by_row > 0).sum()), int((by_row < 0).sum())
    difference = after.metrics[name] - before.metrics[name]
    return Paired(*counts, p_value(change), difference, statistics.percentiles(change))


def _by_row(rows: np.ndarray) -> np.ndarray:
    """A mean's own number, or the nats per token."""
    return rows[:, 0] / np.maximum(rows[:, 1], 1) if rows.shape[1] > 1 else rows[:, 0]


def _exchanged(before: Sequence[str], after: Sequence[str], n: int, samples: int, seed: int) -> Paired:
    """Paired exchange test of distinct-n: how often chance assigns the texts of each prompt as unevenly.

    The interval is where differences lie that chance alone gives, put around the observed one.
    """
    rows, shared, single, totals = _presence([*before, *after], n)
    count = len(before)
    room = _MOST_CELLS // max(1, 2 * rows * max(1, shared.shape[1]))
    chosen = np.random.default_rng(seed).random((max(100, min(samples, room)), count)) < 0.5
    chosen[0] = False  # as it was
    exchanged = np.concatenate([chosen, ~chosen], axis=1)  # [S, 2N]: which texts are taken for the later model's
    later = _distinct_of(exchanged, shared, single, totals)
    difference = later - _distinct_of(~exchanged, shared, single, totals)
    p = float((np.abs(difference) >= abs(difference[0]) - 1e-12).mean())
    spread = statistics.percentiles(difference[1:])
    return Paired(0, 0, p, float(difference[0]), Interval(difference[0] + spread.low, difference[0] + spread.high))


def _presence(texts: Sequence[str], n: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Texts, float32 [texts, G] of the n-grams that several of them hold, how many each alone holds, and has in all."""
    runs = [_runs(any_words(text), n) for text in texts]
    owners: dict[tuple[str, ...], set[int]] = {}
    for i, own in enumerate(runs):
        for run in own:
            owners.setdefault(run, set()).add(i)
    several = [held for held in owners.values() if len(held) > 1]
    shared = np.zeros((len(texts), len(several)), np.float32)
    for column, held in enumerate(several):
        shared[list(held), column] = 1
    alone = np.bincount([next(iter(held)) for held in owners.values() if len(held) == 1], minlength=len(texts))
    return len(texts), shared, alone.astype(np.float64), np.array([len(own) for own in runs], np.float64)


def _distinct_of(taken: np.ndarray, shared: np.ndarray, alone: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Distinct-n [S] of the texts taken, bool [S, texts]."""
    weights, found = taken.astype(np.float32), taken @ alone
    for start in range(0, shared.shape[1], 4096):
        found = found + (weights @ shared[:, start : start + 4096] > 0).sum(axis=1)
    return found / np.maximum(taken @ totals, 1)
