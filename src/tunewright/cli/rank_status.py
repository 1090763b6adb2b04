"""What `rank status` prints: how far, how people agree, their habits, contradictions, and which model won.

Lines of at most 80 columns from a `Status`, which `rank` gathers from the store. No measure is made here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewright.cli import output
from tunewright.data.judgement_records import counted

if TYPE_CHECKING:
    from tunewright.data.judgements import Judgements
    from tunewright.evaluation.agreement import Alpha, Share
    from tunewright.evaluation.judgement_quality import Person, Quality, Wins

_COLUMNS = 80
# Said where half isn't in the interval of what was shown at the left, or was longer, and won.
_PLACE, _LENGTH = "shuffled, it should be half", "length may be what is judged"


@dataclass(frozen=True)
class Status:
    """All that is known of a store."""

    prompts: int  # that can be ranked
    prompts_judged: int
    prompts_judged_twice: int
    demonstrations: int
    quality: Quality
    wins: tuple[Wins, ...]

    def to_json(self) -> dict[str, Any]:
        """As printed with --json."""
        own = ("prompts", "prompts_judged", "prompts_judged_twice", "demonstrations")
        quality, wins = self.quality.to_json(), [one.to_json() for one in self.wins]
        return {**{name: getattr(self, name) for name in own}, "quality": quality, "wins": wins}


def status(store: Judgements) -> Status:
    """Read everything."""
    from tunewright.evaluation.judgement_quality import quality, wins

    progress = store.progress("nobody in particular")
    judgements = store.judgements()
    return Status(
        progress.prompts,
        progress.prompts_judged,
        progress.prompts_judged_twice,
        len(store.demonstrations()),
        quality(judgements, store.completions()),
        tuple(wins(judgements, store.origins())),
    )


def lines(found: Status, marks: output.Marks, fit: int) -> list[str]:
    """A screen of it."""
    fit = min(fit, _COLUMNS)
    said = [*_facts(found, marks), *_people(found, marks, fit), *_wins(found, marks, fit)]
    return [output.spelt(part, marks) for line in said for part in output.wrapped(line, fit)]


# ---- parts ----


def _facts(found: Status, marks: output.Marks) -> Iterator[str]:
    quality = found.quality
    twice = f", {found.prompts_judged_twice:,} by two" if found.prompts_judged_twice else ""
    yield f" prompts       {found.prompts_judged:,} of {found.prompts:,} judged{twice}"
    counts = {"skipped": quality.skipped, "all bad": quality.all_bad}
    extra = "".join(f", {count:,} {name}" for name, count in counts.items() if count)
    yield f" judgements    {quality.judgements:,}, which compare {counted(quality.pairs, 'pair')}{extra}"
    if found.demonstrations:
        yield f" written       {counted(found.demonstrations, 'demonstration')}"
    if not quality.pairs:
        return
    if quality.seconds is not None:
        yield f" pace          {_seconds(quality.seconds)} a judgement (median)"
    yield f" ties          {_share(quality.ties, marks)}"
    for name, share, says in (("left", quality.left, _PLACE), ("longer", quality.longer, _LENGTH)):
        yield f" {name:<13} {_share(share, marks)}{_bias(share, says, marks)}"
    yield from _agreement(quality.nominal, quality.ordinal, marks)
    for name, triples in (("circles", quality.own_triples), ("by majority", quality.pooled_triples)):
        if triples.total:
            yield f" {name:<13} {triples.circles:,} of {triples.total:,} triples go in a circle: a over b over c over a"


def _share(share: Share, marks: output.Marks) -> str:
    if share.interval is None:
        return marks.none
    low, high = share.interval.low, share.interval.high
    return f"{100 * share.value:.0f} % of {share.total:,} ({100 * low:.0f}–{100 * high:.0f} %)"


def _bias(share: Share, says: str, marks: output.Marks) -> str:
    """Where half is out of the interval."""
    outside = share.interval is not None and not share.interval.low <= 0.5 <= share.interval.high
    return f"  {marks.warning} {says}" if outside else ""


def _agreement(nominal: Alpha, ordinal: Alpha, marks: output.Marks) -> Iterator[str]:
    """Krippendorff's alpha, by names and with ties in the middle, and what he advises."""
    if math.isnan(nominal.value):
        yield f" agreement     {marks.none} (nobody judged what another had: rank serve --overlap)"
        return
    interval = nominal.interval
    sure = f" ({interval.low:.2f} to {interval.high:.2f})" if interval and not math.isnan(interval.low) else ""
    yield f" agreement     alpha {nominal.value:.2f}{sure}, ordinal {ordinal.value:.2f}, of {nominal.units:,} pairs"
    yield f"               {_reliability(nominal.value)}"


def _reliability(alpha: float) -> str:
    """Krippendorff's advice (2004, 11.4): rely on 0.8 or more, tentatively on 0.667."""
    if alpha >= 0.8:
        return "reliable"
    if alpha >= 0.667:
        return "good enough for careful conclusions"
    return "people see different things: sharpen the guidelines"


def _people(found: Status, marks: output.Marks, fit: int) -> list[str]:
    quality = found.quality
    if len(quality.people) < 2:
        return []
    rows = [["annotator", "judged", "skipped", "ties", "left", "pace"]]
    rows += [_person(person, marks) for person in quality.people]
    said = ["", *output.table(rows, "<>>>>>", fit=fit, cut=marks.cut)]
    if quality.together:
        both = [["together", "pairs", "same", "kappa"]]
        for two in quality.together:
            kappa = marks.none if math.isnan(two.kappa) else f"{two.kappa:.2f}"
            both.append([f"{two.first}, {two.second}", f"{two.pairs:,}", f"{100 * two.same:.0f} %", kappa])
        said += ["", *output.table(both, "<>>>", fit=fit, cut=marks.cut)]
    return said


def _person(person: Person, marks: output.Marks) -> list[str]:
    percent = [marks.none if not share.total else f"{100 * share.value:.0f} %" for share in (person.ties, person.left)]
    pace = marks.none if person.seconds is None else _seconds(person.seconds)
    return [person.name, f"{person.judged:,}", f"{person.skipped:,}", *percent, pace]


def _wins(found: Status, marks: output.Marks, fit: int) -> list[str]:
    """Nothing where one model wrote everything."""
    if not found.wins:
        return []
    rows = [["comparison", "won", "tied", "lost", "same", "of decided"]]
    rows += [
        [
            f"{one.first} over {one.second}",
            *(f"{count:,}" for count in (one.won, one.tied, one.lost, one.same)),
            _share(one.share, marks),
        ]
        for one in found.wins
    ]
    return ["", *output.table(rows, "<>>>>>", fit=fit, cut=marks.cut)]


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else output.clock(seconds)
