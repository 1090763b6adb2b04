"""Metrics of written text: predictions and references in, a table with intervals and paired tests out. Pure numpy.

Stands between `models.generation` (texts) or the objective (nats) and whoever judges a model that writes. Generates
nothing, reads no file.

A metric is a formula of sums over rows, so what each row adds to them is all that an interval or a test needs:
`per_row` holds [N] numbers where the metric is their mean, [N, K] where it is not (lengths; the counts of BLEU and
chrF; nats and tokens of perplexity). exact_match, f1 and rouge_* run from 0 to 1, bleu and chrf from 0 to 100 as
sacrebleu prints them.
A metric that is undefined on these rows, or whose package isn't installed, is left out, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from tunewright.errors import DataError
from tunewright.evaluation import overlap, statistics
from tunewright.evaluation.statistics import Interval, Paired

# What the table says, in its order: a name, and its meaning.
WORDS: dict[str, tuple[str, str]] = {
    "exact_match": ("exact match", "share of answers equal to an accepted one, articles and punctuation aside"),
    "f1": ("F1", "words shared with the nearest accepted answer, precision and recall together"),
    "rouge_1": ("ROUGE-1", "words shared with the reference"),
    "rouge_2": ("ROUGE-2", "pairs of neighbouring words shared with the reference"),
    "rouge_l": ("ROUGE-L", "longest sequence of words shared with the reference, gaps allowed"),
    "bleu": ("BLEU", "runs of one to four words found in the reference, 0 to 100"),
    "chrf": ("chrF", "runs of one to six letters shared with the reference, 0 to 100"),
    "length_ratio": ("length ratio", "words written for each word of the reference; 1 is as long"),
    "stopped": ("stopped", "share of texts that ended by themselves, before the limit"),
    "perplexity": ("perplexity", "between how many words the model is torn at each target token; lower is better"),
    "token_accuracy": ("token accuracy", "share of target tokens that were the model's first choice"),
    "loss": ("loss", "surprise at the truth, in nats per target token; lower is better"),
}
# length_ratio is in neither: it is best at 1, and a judge of nothing.
HIGHER_IS_BETTER: dict[str, bool] = {
    name: name not in ("loss", "perplexity") for name in WORDS if name != "length_ratio"
}
_YES_OR_NO = ("exact_match", "stopped")
_SHARES = (*_YES_OR_NO, "f1", "rouge_1", "rouge_2", "rouge_l")  # means of numbers from 0 to 1


@dataclass(frozen=True)
class TextScores:
    """How N texts fare."""

    metrics: dict[str, float]
    per_row: dict[str, np.ndarray]  # [N] where the metric is their mean, else [N, K]; see the top
    notes: tuple[str, ...] = ()  # how it was counted: other rules than English ones, sacrebleu's signature


def score_texts(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    stopped: Sequence[bool] | None = None,
    stem: Callable[[str], str] | None = None,
) -> TextScores:
    """Each prediction against the accepted answers of its row, the best one counting.

    `stopped`: whether a text ended by itself; None where nobody knows. `stem`: shortens ROUGE's words, as papers do
    that say "stemmed". Raises DataError for a row without a reference.
    """
    if (lone := next((i for i, own in enumerate(references) if not own), None)) is not None:
        raise DataError("there is no reference to compare the prediction with", where=f"row {lone + 1}")
    if not predictions:
        return TextScores({}, {})
    rules = overlap.rules_for(text for own in references for text in own)
    rows = [_row_scores(text, own, rules, stem) for text, own in zip(predictions, references, strict=True)]
    per_row = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    counted, signatures = _sacrebleu_counts(predictions, references)
    per_row |= counted
    if stopped is not None:
        per_row["stopped"] = np.array([float(own) for own, _ in zip(stopped, predictions, strict=True)])
    said = ("words are counted by their letters in any script, not by the English rules of SQuAD and ROUGE",)
    return _table(per_row, (*(said if rules == "any" else ()), *signatures))


def score_likelihoods(nats: np.ndarray, tokens: np.ndarray, hits: np.ndarray | None = None) -> TextScores:
    """Loss, perplexity and token accuracy: nats, target tokens and first choices that were right, summed by row [N]."""
    per_row = {name: np.column_stack([nats, tokens]).astype(np.float64) for name in ("perplexity", "loss")}
    if hits is not None:
        per_row["token_accuracy"] = np.column_stack([hits, tokens]).astype(np.float64)
    return _table(per_row)


def joined(*parts: TextScores) -> TextScores:
    """Several tables of the same rows as one."""
    metrics = {name: value for part in parts for name, value in part.metrics.items()}
    per_row = {name: rows for part in parts for name, rows in part.per_row.items()}
    return TextScores(metrics, per_row, tuple(note for part in parts for note in part.notes))


def perplexity(nats: float, tokens: float) -> float:
    """exp of the mean of nats over tokens; NaN where there is no token, infinity where it is beyond all numbers."""
    return float(_perplexities(np.array([[nats, tokens]], np.float64))[0])


# --- how sure the numbers are -----------------------------------------------------------------------------------


def intervals(scores: TextScores, samples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """The interval of every metric, from the same resamples of rows; binomial for what is yes or no."""
    names = list(scores.metrics)
    resampled = _resampled([scores.per_row[name] for name in names], samples, seed)
    found: dict[str, Interval] = {}
    for name, sums in zip(names, resampled, strict=True):
        rows = scores.per_row[name]
        if name in _YES_OR_NO or (name in _SHARES and (np.all(rows == 0) or np.all(rows == 1))):
            # Resamples of rows that are all 0 would look like certainty.
            found[name] = statistics.proportion(rows == 1, samples, seed)
        else:
            found[name] = statistics.percentiles(_values(name, sums, len(rows)))
    return found


def paired(before: TextScores, after: TextScores, samples: int = 1000, seed: int = 0) -> dict[str, Paired]:
    """Two models on the same rows, for each metric that both have and that has a better side.

    McNemar's test for yes or no, else the paired bootstrap (Koehn 2004). The difference is after − before; fixed and
    broke count the rows that came out better and worse.
    """
    names = [name for name in after.metrics if name in before.metrics and name in HIGHER_IS_BETTER]
    both = [(before.per_row[name], after.per_row[name]) for name in names]
    if any(len(old) != len(new) for old, new in both):
        raise ValueError("the two models were not scored on the same rows")
    resampled = _resampled([_columns(rows) for pair in both for rows in pair], samples, seed)
    found: dict[str, Paired] = {}
    for i, (name, (old, new)) in enumerate(zip(names, both, strict=True)):
        if name in _YES_OR_NO:
            found[name] = statistics.mcnemar(old == 1, new == 1, samples, seed)
            continue
        drawn = [_values(name, sums, len(new)) for sums in resampled[2 * i : 2 * i + 2]]
        change = after.metrics[name] - before.metrics[name]
        found[name] = _compared(name, _row_values(name, new) - _row_values(name, old), change, drawn[1] - drawn[0])
    return found


def _compared(name: str, rows: np.ndarray, change: float, resampled: np.ndarray) -> Paired:
    """From the change of each row [N], of the metric, and of the metric in each resample [S]."""
    rows = rows if HIGHER_IS_BETTER[name] else -rows
    fixed, broke = int((rows > 0).sum()), int((rows < 0).sum())
    return Paired(fixed, broke, p_value(resampled), change, statistics.percentiles(resampled))


def p_value(resampled: np.ndarray) -> float:
    """Two-sided, from resampled differences: how often they fall on the other side of zero.

    Counting the observed one too keeps it above 0 (Davison and Hinkley 1997, 4.2).
    """
    resampled = resampled[np.isfinite(resampled)]
    fewer = min((resampled >= 0).sum(), (resampled <= 0).sum())
    return float(min(1.0, 2 * (fewer + 1) / (len(resampled) + 1)))


def _resampled(rows: Sequence[np.ndarray], samples: int, seed: int) -> list[np.ndarray]:
    """Sums [S, K] of each table of rows over the same S resamples."""
    if not rows:
        return []
    columns = [_columns(table) for table in rows]
    sums = statistics.resampled_sums(np.concatenate(columns, axis=1), samples, seed)
    return np.split(sums, np.cumsum([table.shape[1] for table in columns])[:-1], axis=1)


# --- sums -> metrics --------------------------------------------------------------------------------------------


def _table(per_row: dict[str, np.ndarray], notes: tuple[str, ...] = ()) -> TextScores:
    metrics: dict[str, float] = {}
    for name in (name for name in WORDS if name in per_row):
        rows = _columns(per_row[name])
        value = float(_values(name, rows.sum(axis=0)[None], len(rows))[0]) if len(rows) else np.nan
        if np.isfinite(value):
            metrics[name] = value
    return TextScores(metrics, per_row, notes)


def _values(name: str, sums: np.ndarray, n: int) -> np.ndarray:
    """The metric [S] from its sums [S, K], each over n rows."""
    if name == "perplexity":
        return _perplexities(sums)
    if name in _SACREBLEU:
        metric = _SACREBLEU[name]()
        return np.array([metric._compute_score_from_stats([int(x) for x in own]).score for own in sums])
    return _quotient(sums[:, 0], sums[:, 1] if sums.shape[1] > 1 else np.full(len(sums), float(n)))


def _row_values(name: str, rows: np.ndarray) -> np.ndarray:
    """The metric of each row by itself [N]; 0 where it has none."""
    return np.nan_to_num(_values(name, _columns(rows), 1))


def _perplexities(sums: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.exp(_quotient(sums[:, 0], sums[:, 1]))


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def _columns(rows: np.ndarray) -> np.ndarray:
    return rows[:, None] if rows.ndim == 1 else rows


# --- a row ------------------------------------------------------------------------------------------------------


def _row_scores(
    prediction: str, references: Iterable[str], rules: overlap.Rules, stem: Callable[[str], str] | None
) -> dict[str, Any]:
    """Each metric against the reference that suits it best; the length against the nearest one, as BLEU does."""
    own, *accepted = (overlap.read(text, rules, stem) for text in (prediction, *references))
    lengths = (len(one.words) for one in accepted)
    nearest = min(lengths, key=lambda length: (abs(length - len(own.words)), length))
    return {
        "exact_match": max(overlap.exact_match(own, one) for one in accepted),
        "f1": max(overlap.token_f1(own, one) for one in accepted),
        "rouge_1": max(overlap.rouge_n(own.words, one.words, 1) for one in accepted),
        "rouge_2": max(overlap.rouge_n(own.words, one.words, 2) for one in accepted),
        "rouge_l": max(overlap.rouge_l(own.words, one.words) for one in accepted),
        "length_ratio": (float(len(own.words)), float(nearest)),
    }


# --- sacrebleu, where it is installed ---------------------------------------------------------------------------


def _bleu(tokenize: str = "13a") -> Any:
    from sacrebleu.metrics import BLEU  # type: ignore[import-not-found]

    return BLEU(tokenize=tokenize, force=True)  # force: no advice on standard error


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF  # type: ignore[import-not-found]

    return CHRF()


_SACREBLEU: dict[str, Callable[[], Any]] = {"bleu": _bleu, "chrf": _chrf}


def _sacrebleu_counts(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Counts of each row [N, K], and the signatures that papers ask for; nothing without the package."""
    try:
        metrics = {"bleu": _bleu(_tokenizer(references)), "chrf": _chrf()}
    except ImportError:
        return {}, ()
    streams = list(zip_longest(*references))  # None where a row has fewer
    counts = {
        name: np.array(metric._extract_corpus_statistics(predictions, streams), np.float64)
        for name, metric in metrics.items()
    }
    return counts, tuple(f"{WORDS[name][0]}: {metric.get_signature()}" for name, metric in metrics.items())


def _tokenizer(references: Sequence[Sequence[str]]) -> str:
    """sacrebleu's own default, but where words aren't separated: its Chinese one, or by character."""
    text = "".join(text for own in references for text in own)
    unspaced = overlap.unspaced_letters(text)
    if len(unspaced) <= sum(map(str.isalpha, text)) / 2:
        return "13a"
    return "zh" if all(c >= "\u3400" for c in unspaced) else "char"
