"""Was it worth it? A run of DPO as a verdict: what it learnt to prefer, whether it writes better, and what it cost.

Beside `alignment_verdict`, for runs without a reward: there the score has to rise, here the share of held-out
comparisons that the model ranks as people did. Takes run.json as it is, with values of any type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright.evaluation import alignment_verdict
from tunewright.evaluation.alignment_verdict import SURE, Outcome
from tunewright.evaluation.record import mapping, number, numbers, pair, text
from tunewright.evaluation.wording import Verdict, metric_between, metric_value


def is_direct(run: Mapping[str, Any]) -> bool:
    """Whether a run.json is of DPO."""
    return mapping(run.get("alignment")).get("method") == "dpo"


def verdict(run: Mapping[str, Any]) -> Verdict:
    """In one sentence, with its numbers."""
    found, words = alignment_verdict.standing(run), sentence(run)
    cost = " and ".join(found.damage)
    match _learnt(run), found.judge:
        case "unknown", _:
            return Verdict("open", "Judged, with nothing to compare to.", words)
        case "fell", _:
            return Verdict("bad", "It prefers what people found worse.", words)
        case "unclear", _:
            return Verdict("unsure", "It has not surely learnt what people prefer.", words)
        case _, "fell":
            return Verdict("bad", "It ranks as people do, and a judge finds what it writes worse.", words)
        case _, "unclear":
            return Verdict("unsure", "It ranks as people do; a judge sees no sure difference in what it writes.", words)
        case _, "unknown":
            paid = f", and it cost something: {cost}" if cost else ""
            return Verdict("unsure", f"It ranks as people do{paid}; nobody has judged what it writes.", words)
        case _:
            if cost:
                return Verdict("unsure", f"It ranks as people do and writes better, at a price: {cost}.", words)
            return Verdict("good", "It ranks as people do, and a judge finds what it writes better.", words)


def sentence(run: Mapping[str, Any]) -> str:
    """`It ranks 0.740 [0.620, 0.840] of the held-out comparisons as people did (0.5 is guessing). …`."""
    after, ends = numbers(run.get("metrics")), mapping(run.get("intervals"))
    words = f"It ranks {metric_value(after.get('accuracy'), 'accuracy')}"
    if (between := pair(ends.get("accuracy"))) is not None:
        words += f" {metric_between(list(between), 'accuracy')}"
    words += " of the held-out comparisons as people did (0.5 is guessing)"
    chosen, rejected = after.get("chosen_change"), after.get("rejected_change")
    if chosen is not None and rejected is not None:
        words += f": better completions {_likelier(chosen)}, worse ones {_likelier(rejected)}, in nats each"
    length = text(mapping(run.get("length")).get("words"))
    return f"{words}.{f' {length[:1].upper()}{length[1:]}.' if length else ''}{alignment_verdict.beside(run)}"


def _learnt(run: Mapping[str, Any]) -> Outcome:
    """Whether held-out comparisons are ranked better than by guessing."""
    change = mapping(mapping(mapping(run.get("comparison")).get("paired")).get("accuracy"))
    difference, p_value = number(change.get("difference")), number(change.get("p_value"))
    if difference is None or p_value is None:
        return "unknown"
    if p_value >= SURE or not difference:
        return "unclear"
    return "rose" if difference > 0 else "fell"


def _likelier(change: float) -> str:
    return f"{'+' if change >= 0 else '−'}{abs(change):.1f}"
