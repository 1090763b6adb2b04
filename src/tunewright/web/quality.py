"""How good the judgements are, while people work: a page, and the panel beside each sheet that shows part of it.

A handler of `app`'s routes. The measures are `evaluation.judgement_quality`'s; here they get words. Never says which
model won: that would end the blindness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunewright.evaluation.agreement import Share
from tunewright.evaluation.judgement_quality import Quality
from tunewright.web import showing
from tunewright.web.desk import Answer, Call, Desk, Page, pace

SURE, FAIR = 0.8, 0.667  # Krippendorff 2004: reliable from .8 on, below .667 no conclusions
_FEW = 10  # pairs: fewer say nothing about habits


@dataclass(frozen=True)
class Measure:
    """One line of the panel."""

    name: str
    value: str
    says: str  # what it means, in words
    tone: str = ""  # good, unsure, bad; the words say the same
    interval: tuple[float, float] | None = None  # to be drawn, 0 to 1
    at: float | None = None  # the value on the same scale
    middle: float | None = None  # where it would be without a habit


def quality_page(desk: Desk, call: Call) -> Answer:
    """All measures: for everybody, and per person."""
    found = desk.measured.of(desk.store)
    values: dict[str, Any] = {"quality": found.to_json(), "measures": [vars(one) for one in measures(found)]}
    values["progress"] = pace(desk, call.annotator) if call.annotator else None
    return Page("quality.html.j2", values | {"annotator": call.annotator or None})


def measures(found: Quality) -> list[Measure]:
    """The lines of the panel."""
    return [
        _agreement(found),
        _habit("Left chosen", found.left, "the left one", "No habit of the left or right one."),
        _habit("Longer chosen", found.longer, "the longer one", "Length doesn't decide."),
        Measure("Ties", showing.percent(_known(found.ties.value)), f"of {showing.count(found.pairs)} pairs"),
        Measure("Pace", showing.seconds(found.seconds), "per judgement, half are quicker"),
        _circles(found),
    ]


def _agreement(found: Quality) -> Measure:
    alpha = found.ordinal
    value = _known(alpha.value)
    if not alpha.units or value is None:
        return Measure("Agreement", showing.NOTHING, "Not known yet: it takes two people on the same prompts.")
    interval = (alpha.interval.low, alpha.interval.high) if alpha.interval else None
    tone = "good" if value >= SURE else "unsure" if value >= FAIR else "bad"
    word = {"good": "People agree.", "unsure": "Fair: enough to go on.", "bad": "Little: are the guidelines clear?"}[
        tone
    ]
    said = f"{word} Krippendorff's alpha, {alpha.units:,} pairs."
    return Measure("Agreement", showing.decimals(value), said, tone, _within(interval), min(1.0, max(0.0, value)))


def _habit(name: str, share: Share, thing: str, none: str) -> Measure:
    value = _known(share.value)
    if value is None or share.interval is None or share.total < _FEW:
        return Measure(name, showing.NOTHING, f"Not known yet: {share.total} of {_FEW} pairs.")
    low, high = share.interval.low, share.interval.high
    if low <= 0.5 <= high:
        said, tone = none, "good"
    else:
        said, tone = f"{thing.capitalize()} wins {'more' if low > 0.5 else 'less'} often than chance.", "unsure"
    return Measure(name, showing.percent(value), said, tone, _within((low, high)), value, 0.5)


def _circles(found: Quality) -> Measure:
    own = found.own_triples
    if not own.total:
        return Measure("Contradictions", showing.NOTHING, "Not known yet: no three were judged in pairs.")
    said = "Nobody contradicts themselves." if not own.circles else "a over b, b over c, and c over a."
    return Measure("Contradictions", f"{own.circles} of {own.total}", said, "unsure" if own.circles else "good")


def _within(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (max(0.0, interval[0]), min(1.0, interval[1]))


def _known(value: float) -> float | None:
    return None if value != value else value
