"""Was it worth it? An aligned run's numbers as a verdict: what rose, whether anyone else agrees, and what it cost.

Read by the report, the end of a run and `compare`. Takes run.json as it is, with values of any type, and computes
nothing. A score that rises is what training is for, so it is never enough for a good word: a judge that training never
saw has to agree, and nothing else may have been broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.evaluation.record import mapping, number, numbers, pair, text
from tunewright.evaluation.wording import Verdict, chance, count, metric_between, metric_name, metric_value

SURE = 0.05
LESS_DIVERSE = 0.10  # of the distinct pairs: a tenth fewer different things to say
MORE_LOOPS = 0.05  # of the repetition
TASK_FORGOTTEN = 0.05  # of the perplexity of completions that the data holds
Outcome = Literal["rose", "fell", "unclear", "unknown"]


@dataclass(frozen=True)
class Standing:
    """What a run's numbers say, before they are put into words."""

    score: Outcome
    judge: Outcome  # unknown: nobody else was asked
    damage: tuple[str, ...]  # what broke, a few words each


def standing(run: Mapping[str, Any]) -> Standing:
    """Of a run.json with metrics, comparison and forgetting."""
    judge: Outcome = "unknown" if judged_by_itself(run) else _outcome(run, "judge")
    return Standing(_outcome(run, "score"), judge, tuple(_damage(run)))


def verdict(run: Mapping[str, Any]) -> Verdict:
    """In one sentence, with its numbers."""
    if mapping(run.get("alignment")).get("method") == "dpo":
        from tunewright.evaluation.direct_preference_verdict import (
            verdict as of_direct,
        )  # late: it uses the parts below

        return of_direct(run)
    found, words = standing(run), sentence(run)
    cost = _joined(found.damage) if found.damage else ""
    match found.score, found.judge:
        case "unknown", _:
            return Verdict("open", "Judged, with nothing to compare to.", words)
        case "fell", _:
            return Verdict("bad", "The score is lower than before training.", words)
        case "unclear", _:
            return Verdict("unsure", "The score has not surely risen.", words)
        case _, "fell":
            return Verdict("bad", "It learnt to please the reward: the judge's score fell.", words)
        case _, "unclear":
            return Verdict("unsure", "The score rose; the judge sees no sure difference.", words)
        case _, "unknown":
            paid = f", and it cost something: {cost}" if cost else ""
            return Verdict("unsure", f"The score rose{paid}; nobody else has judged.", words)
        case _:
            if cost:
                return Verdict("unsure", f"Better, and the judge agrees, at a price: {cost}.", words)
            return Verdict("good", "Better, and a judge that training never saw agrees.", words)


def sentence(run: Mapping[str, Any]) -> str:
    """`By the reward: score 0.512 → 2.310 [2.104, 2.500], 29 of 32 prompts won (win rate 0.91 [0.76, 0.97]). …`."""
    words = f"By the reward: {_rose(run, 'probability', 'score')}{_won(run, 'win_rate')}."
    return words + beside(run)


def beside(run: Mapping[str, Any]) -> str:
    """What stands beside what was trained for: the judge, the distance, diversity, what was forgotten."""
    words = ""
    if judged_by_itself(run):
        words += " The judge is the reward itself and proves nothing."
    elif "judge" in _after(run):
        words += f" By the judge: {_rose(run, 'judge_probability', 'judge')}{_won(run, 'judge_win_rate')}."
    if (moved := _after(run).get("kl")) is not None:
        words += f" It moved {moved:.1f} nats per completion from where it started."
    return words + _diversity(run) + _forgotten(run)


def judged_by_itself(run: Mapping[str, Any]) -> bool:
    """Whether the judge is a source of the reward too."""
    return mapping(run.get("alignment")).get("judge_is_reward") is True


# --- parts ------------------------------------------------------------------------------------------------------


def _after(run: Mapping[str, Any]) -> dict[str, float]:
    return numbers(run.get("metrics"))


def _before(run: Mapping[str, Any]) -> dict[str, float]:
    return numbers(mapping(run.get("comparison")).get("before"))


def _paired(run: Mapping[str, Any], name: str) -> dict[str, Any]:
    return mapping(mapping(mapping(run.get("comparison")).get("paired")).get(name))


def _outcome(run: Mapping[str, Any], name: str) -> Outcome:
    change, p_value = number(_paired(run, name).get("difference")), number(_paired(run, name).get("p_value"))
    if change is None or p_value is None:
        return "unknown"
    if p_value >= SURE or not change:
        return "unclear"
    return "rose" if change > 0 else "fell"


def _damage(run: Mapping[str, Any]) -> list[str]:
    found, before, after = list[str](), _before(run), _after(run)
    if text(mapping(run.get("forgetting")).get("verdict")) in ("forgot", "forgot a little"):
        found.append("general text is partly forgotten")
    wanted, kept = before.get("perplexity"), after.get("perplexity")
    if wanted and kept and kept / wanted - 1 >= TASK_FORGOTTEN and _outcome(run, "perplexity") == "rose":
        found.append("the task learnt before is partly forgotten")
    if _outcome(run, "repetition") == "rose" and after.get("repetition", 0) - before.get("repetition", 0) >= MORE_LOOPS:
        found.append("texts repeat themselves")
    had, has = before.get("distinct_2"), after.get("distinct_2")
    if had and _outcome(run, "distinct_2") == "fell" and has is not None and 1 - has / had >= LESS_DIVERSE:
        found.append("texts are less diverse")
    if _outcome(run, "ended") == "fell" and after.get("ended", 1) < before.get("ended", 0) / 2:
        found.append("texts no longer end")
    return found


def _rose(run: Mapping[str, Any], *names: str) -> str:
    """`score 0.512 → 2.310 [2.104, 2.500]`, of the first of the names that is known."""
    name = next((name for name in names if name in _after(run)), names[-1])
    before, after = _before(run).get(name), _after(run).get(name)
    came = f"{metric_value(before, name)} → " if before is not None else ""
    label = metric_name(name).removeprefix("judge's ")
    said = f"{label} {came}{metric_value(after, name)}"
    ends = pair(mapping(run.get("intervals")).get(name))
    return f"{said} {metric_between(list(ends), name)}" if ends else said


def _won(run: Mapping[str, Any], name: str) -> str:
    found = mapping(mapping(mapping(run.get("alignment")).get("win_rates")).get(name))
    won, lost, tied = (number(found.get(key)) for key in ("won", "lost", "tied"))
    rate, ends = number(found.get("rate")), pair(found.get("interval"))
    if won is None or lost is None or tied is None or rate is None:
        return ""
    even = f", {count(tied)} tied" if tied else ""
    between = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
    return f", {count(won)} of {count(won + lost + tied)} prompts won{even} (win rate {rate:.2f}{between})"


def _diversity(run: Mapping[str, Any]) -> str:
    said = []
    for name in ("distinct_2", "repetition"):
        before, after = _before(run).get(name), _after(run).get(name)
        if before is not None and after is not None:
            p_value = number(_paired(run, name).get("p_value"))
            sure = "" if p_value is None else f" ({chance(p_value)})"
            said.append(f"{metric_name(name)} {metric_value(before, name)} → {metric_value(after, name)}{sure}")
    return f" Still readable? {_upper_first(', '.join(said))}." if said else ""


def _forgotten(run: Mapping[str, Any]) -> str:
    words = text(mapping(run.get("forgetting")).get("words"))
    return f" What was forgotten: {words}." if words else ""


def _joined(parts: tuple[str, ...]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _upper_first(words: str) -> str:
    return words[:1].upper() + words[1:]
