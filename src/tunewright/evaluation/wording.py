"""Numbers as a person reads them, and a run's verdict in one sentence.

Shared by `report`, `compare` and whoever prints a metric. Takes values of any type: what isn't a finite number is "—".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunewright.evaluation import alignment, direct_preferences, metrics, preferences, texts
from tunewright.evaluation.digits import metric_digits
from tunewright.evaluation.record import Record, mapping, number, pair, text

NOTHING = "—"
_LABELS: dict[str, tuple[str, str]] = {
    "accuracy": ("accuracy", "share of rows answered right"),
    "macro_f1": ("macro F1", "precision and recall together, every class counted alike"),
    "weighted_f1": ("weighted F1", "the same, each class as often as it occurs"),
    "micro_f1": ("micro F1", "precision and recall of all label decisions together"),
    "mcc": ("MCC", "correlation of answers and truth; 0 is guessing, 1 perfect"),
    "roc_auc": ("ROC-AUC", "chance that a row of the class ranks above one that isn't; 0.5 is guessing"),
    "loss": ("loss", "surprise at the truth, in nats per row; lower is better"),
    "ece": ("calibration error", "mean gap between stated probability and truth; lower is better"),
    "rmse": ("RMSE", "typical error, large ones weigh more; lower is better"),
    "mae": ("MAE", "mean distance from the truth; lower is better"),
    "pearson": ("Pearson", "linear correlation with the truth"),
    "spearman": ("Spearman", "agreement on the order of rows"),
}
METRIC_WORDS = alignment.WORDS | texts.WORDS | direct_preferences.WORDS | _LABELS
# Which way each metric points. The loss, which texts and labels share, points the same way for both.
HIGHER_IS_BETTER: dict[str, bool] = (
    metrics.HIGHER_IS_BETTER | texts.HIGHER_IS_BETTER | alignment.HIGHER_IS_BETTER | direct_preferences.HIGHER_IS_BETTER
)
_MEANINGS_BY_KIND = {
    ("accuracy", "multi"): "share of rows with every label right",
    ("loss", "multi"): "surprise at the truth, in nats per label; lower is better",
    ("loss", "number"): "mean squared error; lower is better",
    ("loss", "text"): "surprise at the truth, in nats per target token; lower is better",
    ("perplexity", "align"): alignment.WORDS["perplexity"][1],
    **{(name, "preference"): words[1] for name, words in preferences.WORDS.items()},
    **{(name, "align"): words[1] for name, words in direct_preferences.WORDS.items()},
}
Tone = Literal["good", "unsure", "bad", "open"]


@dataclass(frozen=True)
class Verdict:
    """Is it better than what there was before?"""

    tone: Tone
    headline: str
    sentence: str


def metric_name(name: str) -> str:
    """A metric's name in a table."""
    return METRIC_WORDS.get(name, (name.replace("_", " "), ""))[0]


def metric_meaning(name: str, kind: str = "single") -> str:
    """What a metric says, in a few words."""
    return _MEANINGS_BY_KIND.get((name, kind)) or METRIC_WORDS.get(name, ("", ""))[1]


def loss_unit(kind: str) -> str:
    """What losses are counted in."""
    units = {
        "multi": "nats per label",
        "number": "squared error",
        "text": "nats per target token",
        "preference": "nats per prompt",
    }
    return units.get(kind, "nats per row")


def metric_order(kind: str) -> list[str]:
    """Metrics of a kind of task, as tables list them."""
    aligned = direct_preferences.WORDS | alignment.WORDS
    return list(
        {"text": texts.WORDS, "align": aligned, "preference": preferences.WORDS}.get(kind, metrics.HIGHER_IS_BETTER)
    )


def decimals(value: object) -> str:
    """Three decimals."""
    found = number(value)
    return NOTHING if found is None else f"{found:.3f}".replace("-0.000", "0.000")


def between(value: object) -> str:
    """[low, high] with three decimals."""
    found = pair(list(value) if isinstance(value, tuple) else value)
    return NOTHING if found is None else f"[{found[0]:.3f}, {found[1]:.3f}]"


def metric_value(value: object, name: str) -> str:
    """A metric in as many digits as it needs."""
    found = number(value)
    return NOTHING if found is None else metric_digits(found, name)


def metric_between(value: object, name: str) -> str:
    """[low, high] in the metric's digits."""
    found = pair(list(value) if isinstance(value, tuple) else value)
    return NOTHING if found is None else f"[{metric_value(found[0], name)}, {metric_value(found[1], name)}]"


def metric_change(value: object, name: str) -> str:
    """A difference, with its sign."""
    found = number(value)
    return NOTHING if found is None else f"{'-' if found < 0 else '+'}{metric_value(abs(found), name)}"


def count(value: object) -> str:
    """A whole number with its thousands apart."""
    found = number(value)
    return NOTHING if found is None else f"{found:,.0f}"


def percent(value: object) -> str:
    """A fraction as a percentage; small ones keep two digits."""
    found = number(value)
    if found is None:
        return NOTHING
    return f"{100 * found:.1f} %" if abs(found) >= 0.01 or not found else f"{100 * found:.2g} %"


def bytes_size(value: object) -> str:
    """Bytes in decimal units, as a disk's label has them."""
    size = number(value)
    if size is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration(value: object) -> str:
    """Seconds as hours, minutes, seconds."""
    found = number(value)
    if found is None:
        return NOTHING
    if found < 10:
        return f"{found:.1f} s"
    minutes, seconds = divmod(round(found), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def chance(value: object) -> str:
    """A p-value."""
    found = number(value)
    if found is None:
        return f"p {NOTHING}"
    return "p < 0.001" if found < 0.001 else f"p = {found:.3f}"


def deciding_metric(record: Record) -> str:
    """The metric that chose the model; for a text's loss the perplexity, which says the same and can be read."""
    stored = text(mapping(record.run.get("best")).get("metric")).removeprefix("validation/")
    if record.kind == "align":
        known = alignment.HIGHER_IS_BETTER | direct_preferences.HIGHER_IS_BETTER
        return stored if stored in known else "reward"
    if record.kind == "preference":
        return "accuracy"
    if not record.writes:
        return stored if stored in metrics.HIGHER_IS_BETTER else metrics.default_metric(record.kind)  # type: ignore[arg-type]
    return "perplexity" if stored in ("loss", "") or stored not in texts.HIGHER_IS_BETTER else stored


def verdict(record: Record) -> Verdict:
    """One sentence with its interval: better than before, and than never reading the text?"""
    name = deciding_metric(record)
    value, state = record.metrics.get(name), text(record.run.get("state"))
    if state in ("failed", "cancelled", "interrupted"):
        message = text(mapping(record.run.get("error")).get("message")) or _no_word(record.name, state)
        return Verdict("bad", f"The run {'was ' if state != 'failed' else ''}{state}.", message)
    if record.kind == "preference" and record.metrics:
        from tunewright.evaluation.report_preferences import verdict as of_preference  # late: it uses the words above

        return of_preference(record)
    if value is None:
        return Verdict("open", "Not judged yet.", "The run folder holds no validation metrics of a final model.")
    if record.kind == "align":
        from tunewright.evaluation.alignment_verdict import verdict as of_aligned  # late: it uses the words above

        return of_aligned(record.run)
    return _judged(record, name, value)


def _no_word(name: str, state: str) -> str:
    return "It left no word why." if state == "failed" else f"`tunewright train --resume {name}` continues it."


def _judged(record: Record, name: str, value: float) -> Verdict:
    baseline = mapping(record.run.get("baseline"))
    blind, before = number(baseline.get(name)), record.untrained.get(name)
    sentence = _sentence(record, name, value, before, blind)
    if blind is None and before is None:
        return Verdict("open", "Judged, with nothing to compare to.", sentence)
    sign = 1 if HIGHER_IS_BETTER[name] else -1
    gains = [sign * (value - rival) for rival in (blind, before) if rival is not None]
    if blind is not None and sign * (value - blind) <= 0:
        return Verdict("bad", "No better than never reading the text.", sentence)
    if min(gains) <= 0:
        return Verdict("bad", "No better than before training.", sentence)
    if _surely_above(record, name, value, blind, sign) and _surely_better(record, name, value, before, sign):
        if record.forgetting.get("verdict") == "forgot":
            return Verdict("unsure", "Better at this task, worse at general text.", sentence)
        return Verdict("good", "Better than before training.", sentence)
    return Verdict("unsure", "Perhaps better; too few rows to be sure.", sentence)


def _surely_above(record: Record, name: str, value: float, rival: float | None, sign: int) -> bool:
    low, high = record.intervals.get(name, (value, value))
    return rival is None or sign * (low if sign > 0 else high) > sign * rival


def _surely_better(record: Record, name: str, value: float, before: float | None, sign: int) -> bool:
    """The paired test knows more than the interval, where there is one: it looks at the same rows twice."""
    p_value = number(record.paired(name).get("p_value"))
    if p_value is not None:
        return p_value < 0.05
    return _surely_above(record, name, value, before, sign)


def _sentence(record: Record, name: str, value: float, before: float | None, blind: float | None) -> str:
    came = f"{metric_value(before, name)} → " if before is not None else ""
    said = f"{_first_upper(metric_name(name))} {came}{metric_value(value, name)}"
    if name in record.intervals:
        said += f" {metric_between(record.intervals[name], name)}"
    rows = count(record.rows_behind(name))
    said += f" on {rows} validation rows" if rows != NOTHING else ""
    if record.writes:
        return f"{said}{_paired_words(record, name)}{_answers_words(record, name)}.{_forgetting_words(record)}"
    comparison = mapping(record.run.get("comparison"))
    if number(comparison.get("fixed")) is not None:
        test = "" if record.kind == "number" else "McNemar "
        changed = f"fixed {count(comparison.get('fixed'))}, broke {count(comparison.get('broke'))}"
        said += f"; {changed} ({test}{chance(comparison.get('p_value'))})"
    if blind is None:
        return f"{said}.{_forgetting_words(record)}"
    guess = {"number": "the mean of the training labels", "multi": "the labels that most rows have"}
    said = f"{said}. Always answering {guess.get(record.kind, 'the commonest label')} would give {decimals(blind)}."
    return said + _forgetting_words(record)


def _paired_words(record: Record, name: str) -> str:
    paired = record.paired(name)
    if number(paired.get("fixed")) is None:
        return ""
    changed = f"{count(paired.get('fixed'))} of them better, {count(paired.get('broke'))} worse"
    return f", {changed} ({chance(paired.get('p_value'))})"


def _answers_words(record: Record, name: str) -> str:
    """The written answers, where another metric decides."""
    said = []
    for other in ("exact_match", "f1", "rouge_l"):
        before, after = record.untrained.get(other), record.metrics.get(other)
        if other != name and after is not None:
            came = f"{metric_value(before, other)} → " if before is not None else ""
            said.append(f"{metric_name(other)} {came}{metric_value(after, other)}")
    rows = count(record.rows_behind("f1"))
    return f"; of {rows} written answers {', '.join(said)}" if said else ""


def _forgetting_words(record: Record) -> str:
    words = text(record.forgetting.get("words"))
    return f" What was forgotten: {words}." if words else ""


def _first_upper(words: str) -> str:
    return words[:1].upper() + words[1:]
