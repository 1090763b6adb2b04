"""What the report shows of a reward model: its verdict, length as a rival, who agrees with it, comparisons to read.

Called by `report`, which lays out the rest of the page, and by `wording` for the verdict. Reads the record and the
predictions, which stream; computes nothing but which comparisons to show.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunewright.evaluation import wording
from tunewright.evaluation.record import Record, mapping, number, objects, pair, read_predictions, text
from tunewright.evaluation.report_written import shortened
from tunewright.evaluation.wording import Verdict, chance, count, decimals, metric_between, metric_name

MOST_COMPARISONS = 10  # shown
MOST_ANNOTATORS = 20
SURE = 0.05


@dataclass(frozen=True)
class AnnotatorRow:
    """How well the scores agree with one person, as words."""

    name: str
    comparisons: str
    accuracy: str
    interval: str


@dataclass(frozen=True)
class Misjudged:
    """A comparison that the model sees the other way."""

    where: str
    prompt: str
    better: str
    worse: str
    scores: tuple[str, str]
    difference: float


def parts(record: Record) -> dict[str, Any] | None:
    """For the template; None for any other kind of run."""
    if record.kind != "preference":
        return None
    length, reward = mapping(record.run.get("length")), mapping(record.run.get("reward"))
    rows = list(misjudged(record))
    return {
        "comparisons": count(record.judgement.get("comparisons")),
        "ties": number(record.judgement.get("ties")) or 0,
        "length": length_rows(length),
        "length_words": text(length.get("words")),
        "annotators": annotator_rows(record),
        "misjudged": rows,
        "mean": decimals(reward.get("mean")),
        "std": decimals(reward.get("std")),
        "completions": count(reward.get("completions")),
    }


def length_rows(length: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known of length: a name and its words."""
    shares = (
        ("people preferred the longer completion", "people_prefer_longer"),
        ("the model prefers the longer completion", "scores_prefer_longer"),
    )
    found = [(name, wording.percent(length.get(key))) for name, key in shares]
    ranks = number(length.get("spearman"))
    if ranks is not None:
        found.append(("correlation of score and length within prompts, of ranks", decimals(ranks)))
    return [(name, value) for name, value in found if value != wording.NOTHING]


def annotator_rows(record: Record) -> list[AnnotatorRow]:
    """Who judged most first."""
    return [
        AnnotatorRow(
            text(one.get("annotator")),
            count(one.get("comparisons")),
            decimals(one.get("accuracy")),
            wording.between(pair(one.get("interval"))),
        )
        for one in objects(record.judgement.get("annotators"))[:MOST_ANNOTATORS]
    ]


def misjudged(record: Record) -> Iterator[Misjudged]:
    """Comparisons that the model is surest about and people see the other way, the surest first."""
    worst: list[tuple[float, int, Misjudged]] = []
    for place, row in enumerate(read_predictions(record.folder)):
        for one in _wrong(row):
            entry = (one.difference, -place, one)
            (heapq.heappush if len(worst) < MOST_COMPARISONS else heapq.heappushpop)(worst, entry)
    yield from (one for *_, one in sorted(worst, key=lambda entry: entry[:2], reverse=True))


def _wrong(row: dict[str, Any]) -> Iterator[Misjudged]:
    completions, scores = row.get("completions"), row.get("scores")
    if not isinstance(completions, list) or not isinstance(scores, list) or len(completions) != len(scores):
        return
    for one in objects(row.get("comparisons")):
        better, worse = one.get("better"), one.get("worse")
        weight = number(one.get("weight"))
        if not isinstance(better, int) or not isinstance(worse, int) or weight is None or weight <= 0.5:
            continue
        if not (0 <= better < len(scores) and 0 <= worse < len(scores)):
            continue
        high, low = number(scores[better]), number(scores[worse])
        if high is not None and low is not None and low > high:
            texts = [shortened(str(completions[place])) for place in (better, worse)]
            scores = (decimals(high), decimals(low))
            prompt = shortened(text(row.get("prompt")))
            yield Misjudged(text(row.get("row")), prompt, texts[0], texts[1], scores, low - high)


# ---- the verdict ----


def verdict(record: Record) -> Verdict:
    """Does it know what people prefer, and more than that they like long answers?"""
    value = record.metrics.get("accuracy")
    if value is None:
        return Verdict("open", "All comparisons are ties.", "Nobody can be right about a tie; add others to judge by.")
    low, high = record.intervals.get("accuracy", (value, value))
    length, words = mapping(record.run.get("length")), _sentence(record, value)
    rival, p_value = number(length.get("accuracy")), number(length.get("p_value"))
    if high < 0.5 or value <= 0.5:
        return Verdict("bad", "No better than guessing.", words)
    if rival is not None and value <= rival:
        return Verdict("bad", "No better than choosing by length.", words)
    if low <= 0.5:
        return Verdict("unsure", "Perhaps better than guessing; too few comparisons to be sure.", words)
    if rival is not None and (p_value is None or p_value >= SURE):
        return Verdict("unsure", "It knows something; whether more than length is not sure.", words)
    if record.forgetting.get("verdict") == "forgot":
        return Verdict("unsure", "Better at this task, worse at general text.", words)
    return Verdict("good", "It knows what people prefer, and more than length.", words)


def _sentence(record: Record, value: float) -> str:
    before, comparison = record.untrained.get("accuracy"), mapping(record.run.get("comparison"))
    came = f"{decimals(before)} → " if before is not None else ""
    said = f"{metric_name('accuracy').capitalize()} {came}{decimals(value)}"
    if "accuracy" in record.intervals:
        said += f" {metric_between(record.intervals['accuracy'], 'accuracy')}"
    said += f" on {count(record.judgement.get('comparisons'))} comparisons of held-out prompts"
    if number(comparison.get("fixed")) is not None:
        changed = f"fixed {count(comparison.get('fixed'))}, broke {count(comparison.get('broke'))}"
        said += f"; {changed} ({chance(comparison.get('p_value'))})"
    length = mapping(record.run.get("length"))
    rival = number(length.get("accuracy"))
    if rival is None:
        return f"{said}."
    return f"{said}. Choosing by length alone would give {decimals(rival)} ({chance(length.get('p_value'))})."
