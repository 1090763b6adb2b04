"""What a model has forgotten: general text before and after, in a number, an interval and words. Pure numpy.

Stands between `forgetting`, which measures nats or hidden states on the general text, and the report. Two measures:
    perplexity   for models with a head for words (next word, or masked words): how much likelier or unlikelier the
                 same tokens have become. This is forgetting.
    drift        for encoders without one: how far the hidden states have moved. A body may move and forget nothing, but
                 one that didn't move forgot nothing.
Runs no model and chooses no text. Documents are what is resampled: tokens of one document go together.

Shapes: N documents, T tokens, D model width. Nats are sums over a document's target tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tunewright.errors import DataError
from tunewright.evaluation.digits import perplexity
from tunewright.evaluation.statistics import Interval, percentiles, resampled_sums
from tunewright.evaluation.wording import decimals, percent

NEGLIGIBLE = 0.01  # of the perplexity: below it nobody would notice, however sure it is
SMALL = 0.05
SHARES_MOVED = (1e-6, 0.05, 0.25)  # of the distance between unrelated tokens
# All of five documents agreeing happens by chance once in sixteen: below six there is no interval to speak of.
FEWEST_DOCUMENTS = 6

Verdict = Literal["forgot", "forgot a little", "kept", "improved", "no clear change"]
Movement = Literal["did not move", "hardly moved", "moved", "moved far"]


@dataclass(frozen=True)
class Retained:
    """Perplexity on the same general text before and after."""

    before: float
    after: float  # infinity where the model has lost its numbers
    interval: Interval | None  # of after / before − 1; None with too few documents
    documents: int
    tokens: int
    masked: bool = False  # of masked words, not of next words

    @property
    def change(self) -> float:
        """After / before − 1: 0.17 is 17 % worse."""
        return self.after / self.before - 1

    @property
    def verdict(self) -> Verdict:
        """Forgetting is said when it is both sure and large enough to matter."""
        if not math.isfinite(self.after) and math.isfinite(self.before):
            return "forgot"
        if self.interval is None:
            return "no clear change"
        low, high = self.interval.low, self.interval.high
        if low > 0 and self.change >= NEGLIGIBLE:
            return "forgot" if self.change >= SMALL else "forgot a little"
        if high < 0 and self.change <= -NEGLIGIBLE:
            return "improved"
        close = abs(self.change) < NEGLIGIBLE and low > -SMALL and high < SMALL
        return "kept" if close else "no clear change"

    def words(self) -> str:
        """`perplexity on general text 21.3 → 24.9: forgot`."""
        name = "masked-word perplexity" if self.masked else "perplexity"
        return f"{name} on general text {perplexity(self.before)} → {perplexity(self.after)}: {self.verdict}"

    def sentence(self) -> str:
        """The same, with what it rests on."""
        texts = _number_of(self.documents)
        if not math.isfinite(self.change):
            return f"{self.words()} ({texts})"
        if self.interval is None:
            return f"{self.words()} ({_signed(self.change)}; {texts}, too few to tell)"
        ends = f"{_signed(self.interval.low)} to {_signed(self.interval.high)}"
        return f"{self.words()} ({_signed(self.change)}, {ends}; {texts})"

    def to_json(self) -> dict[str, Any]:
        """As stored in run.json; null for what isn't a finite number."""
        return {
            "kind": "masked perplexity" if self.masked else "perplexity",
            "before": _finite(self.before),
            "after": _finite(self.after),
            "change": _finite(self.change),
            "interval": self.interval.to_json() if self.interval else None,
            "verdict": self.verdict,
            "words": self.words(),
            "sentence": self.sentence(),
            "documents": self.documents,
            "tokens": self.tokens,
        }


@dataclass(frozen=True)
class Drift:
    """How far the hidden states of the same general text have moved."""

    moved: float  # 1 − cosine between a token before and after, mean over tokens; NaN where states are no numbers
    unrelated: float  # the same between two tokens of the text before, taken at random; NaN with a single token
    interval: Interval | None  # of moved; None with too few documents
    documents: int
    tokens: int

    @property
    def share(self) -> float:
        """Moved, as a share of the distance between unrelated tokens. Cosines alone mean little: in most models all
        hidden states point much the same way."""
        return self.moved / self.unrelated if self.unrelated > 0 else math.nan

    @property
    def verdict(self) -> Movement:
        """By the share; without one, by the distance itself."""
        share = self.share if math.isfinite(self.share) else self.moved
        if share < SHARES_MOVED[0]:
            return "did not move"
        if share < SHARES_MOVED[1]:
            return "hardly moved"
        return "moved" if share < SHARES_MOVED[2] else "moved far"

    def words(self) -> str:
        """`hidden states of general text moved by 4.1 % of the distance between unrelated tokens: hardly moved`."""
        if self.verdict == "did not move":
            return "hidden states of general text: did not move"
        if not math.isfinite(self.moved):
            return "hidden states of general text are no longer numbers"
        far = f"{percent(self.share)} of the distance between unrelated tokens"
        far = far if math.isfinite(self.share) else decimals(self.moved)
        return f"hidden states of general text moved by {far}: {self.verdict}"

    def sentence(self) -> str:
        """The same, with what it rests on."""
        return f"{self.words()} ({_number_of(self.documents)})"

    def to_json(self) -> dict[str, Any]:
        """As stored in run.json; null for what isn't a finite number. The change is the share, which has no before."""
        far, known = self.interval, math.isfinite(self.share)
        return {
            "kind": "drift",
            "before": None,
            "after": None,
            "change": _finite(self.share),
            "interval": [far.low / self.unrelated, far.high / self.unrelated] if far and known else None,
            "moved": _finite(self.moved),
            "unrelated": _finite(self.unrelated),
            "verdict": self.verdict,
            "words": self.words(),
            "sentence": self.sentence(),
            "documents": self.documents,
            "tokens": self.tokens,
        }


@dataclass(frozen=True)
class DocumentDrift:
    """What one document adds."""

    moved: float  # Σ 1 − cosine
    tokens: int
    direction: np.ndarray  # Σ of unit vectors before, float64 [D]


def retained(
    before: np.ndarray,
    after: np.ndarray,
    tokens: np.ndarray,
    *,
    masked: bool = False,
    samples: int = 1000,
    seed: int = 0,
) -> Retained:
    """From the nats of each document before and after, over the same target tokens [N].

    Masked words: the same words must have been masked both times.
    """
    rows = np.column_stack([before, after, tokens]).astype(np.float64)
    rows = rows[rows[:, 2] > 0]
    if not len(rows):
        raise DataError("the general text has no token to measure", field="evaluation.retain")
    old, new, total = rows.sum(axis=0)
    interval = _paired_interval(rows, samples, seed)
    return Retained(_exp(old / total), _exp(new / total), interval, len(rows), int(total), masked)


def document_drift(before: np.ndarray, after: np.ndarray) -> DocumentDrift:
    """Of the hidden states [T, D] of the same tokens, special and padding ones left out."""
    old, new = _directions(before), _directions(after)
    # Half the squared distance of unit vectors is 1 − cosine, and keeps its digits where that is nearly 0.
    return DocumentDrift(float(((old - new) ** 2).sum() / 2), len(old), old.sum(axis=0))


def drift(parts: Sequence[DocumentDrift], *, samples: int = 1000, seed: int = 0) -> Drift:
    """Of all documents."""
    parts = [part for part in parts if part.tokens]
    if not parts:
        raise DataError("the general text has no token to measure", field="evaluation.retain")
    rows = np.array([[part.moved, part.tokens] for part in parts], np.float64)
    moved, tokens = rows.sum(axis=0)
    interval = None
    if len(rows) >= FEWEST_DOCUMENTS and np.isfinite(moved):
        sums = resampled_sums(rows, samples, seed)
        interval = percentiles(sums[:, 0] / sums[:, 1])
    direction = np.sum([part.direction for part in parts], axis=0)
    return Drift(float(moved / tokens), _unrelated(direction, int(tokens)), interval, len(rows), int(tokens))


def _paired_interval(rows: np.ndarray, samples: int, seed: int) -> Interval | None:
    """Of the relative change of perplexity; rows [N, 3] are nats before, nats after, tokens."""
    if np.array_equal(rows[:, 0], rows[:, 1]):
        return Interval(0.0, 0.0)  # the same model: no sample can say otherwise
    if len(rows) < FEWEST_DOCUMENTS or not np.isfinite(rows).all():
        return None
    sums = resampled_sums(np.column_stack([rows[:, 1] - rows[:, 0], rows[:, 2]]), samples, seed)
    return percentiles(np.array([_exp(x) - 1 for x in sums[:, 0] / sums[:, 1]]))


def _unrelated(direction: np.ndarray, tokens: int) -> float:
    """1 − cosine, mean over all pairs of different tokens: Σ_{i≠j} u_i·u_j = |Σu|² − T."""
    pairs = tokens * (tokens - 1)
    return 1 - (float(direction @ direction) - tokens) / pairs if pairs else math.nan


def _directions(states: np.ndarray) -> np.ndarray:
    states = np.asarray(states, np.float64)
    length = np.linalg.norm(states, axis=1, keepdims=True)
    return np.divide(states, length, out=np.zeros_like(states), where=length != 0)


def _exp(nats: float) -> float:
    """exp; infinity for what no number holds, and for what is no number."""
    return math.exp(nats) if nats < 700 else math.inf


def _number_of(documents: int) -> str:
    return f"{documents:,} document{'s' if documents != 1 else ''}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _signed(change: float) -> str:
    return f"{100 * change:+.1f} %" if round(100 * change, 1) else "0.0 %"
