"""What a set of judgements is worth: agreement, habits (left, longer), pace, contradictions, and who won.

`rank status` prints it and the ranking page shows it while people work, all but `wins`, which is for afterwards. A
ranking of K completions counts as its K (K - 1) / 2 pairs; skipped judgements count nowhere, nor do those without a
ranking. Reads records, no files; the maths are in `agreement`.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunewright.data.judgement_records import Completion, Judgement, Origin, Said
from tunewright.evaluation.agreement import Alpha, Share, clustered_share, cohen_kappa, defined, krippendorff_alpha

Outcome = int  # 1: the first of two is better; -1: the second; 0: a tie


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt as one judgement has them, by id: an order that says nothing about them."""

    prompt_id: str
    first: str
    second: str
    outcome: Outcome
    judgement: int  # id
    annotator: str

    @property
    def unit(self) -> tuple[str, str]:
        """What another person may have judged too."""
        return self.first, self.second


@dataclass(frozen=True)
class TwoPeople:
    """How two people agree."""

    first: str
    second: str
    pairs: int  # of completions that both judged
    same: float  # share of these with the same outcome
    kappa: float  # Cohen's; NaN where it can't be said


@dataclass(frozen=True)
class Triples:
    """Three completions whose pairs were judged apart, so that better than may go in a circle."""

    circles: int
    total: int


@dataclass(frozen=True)
class Person:
    """One annotator's part."""

    name: str
    judged: int
    skipped: int
    all_bad: int
    ties: Share  # of pairs
    left: Share
    seconds: float | None  # median


@dataclass(frozen=True)
class Quality:
    """All of it."""

    judgements: int  # without skipped ones
    skipped: int
    all_bad: int
    pairs: int
    ties: Share
    left: Share  # of decided pairs: the one further left on the page was better
    longer: Share  # of decided pairs of different length: the longer one was better
    nominal: Alpha
    ordinal: Alpha
    people: tuple[Person, ...]
    together: tuple[TwoPeople, ...]
    seconds: float | None  # median
    own_triples: Triples  # within one person
    pooled_triples: Triples  # of the majority

    def to_json(self) -> dict[str, Any]:
        """As printed with --json, and shown on the page."""
        shares = {name: getattr(self, name).to_json() for name in ("ties", "left", "longer", "nominal", "ordinal")}
        people = [
            {**asdict(person), "ties": person.ties.to_json(), "left": person.left.to_json()} for person in self.people
        ]
        together = [{**asdict(two), "kappa": defined(two.kappa)} for two in self.together]
        return {**asdict(self), **shares, "people": people, "together": together}


def quality(
    judgements: Sequence[Judgement], completions: Iterable[Completion], *, samples: int = 1000, seed: int = 0
) -> Quality:
    """Every measure over judgements that stand; `samples` resamples for the intervals of alpha, 0 for none."""
    lengths = {completion.id: length(completion.text) for completion in completions}
    pairs = pairs_of(judgements)
    own, pooled = triples(pairs)
    return Quality(
        judgements=sum(not one.skipped for one in judgements),
        skipped=sum(one.skipped for one in judgements),
        all_bad=sum(one.all_bad for one in judgements),
        pairs=len(pairs),
        ties=_share(pairs, lambda pair: pair.outcome == 0),
        left=left_share(judgements, pairs),
        longer=longer_share(pairs, lengths),
        nominal=_alpha(pairs, "nominal", samples, seed),
        ordinal=_alpha(pairs, "ordinal", samples, seed),
        people=tuple(_person(name, judgements, pairs) for name in sorted({one.annotator for one in judgements})),
        together=tuple(_together(pairs)),
        seconds=_median(judgements),
        own_triples=own,
        pooled_triples=pooled,
    )


def pairs_of(judgements: Iterable[Judgement]) -> list[Pair]:
    """Every two completions that a judgement ranks."""
    found: list[Pair] = []
    for one in judgements:
        if one.skipped:
            continue
        place = {id: number for number, group in enumerate(one.ranking) for id in group}
        for first, second in itertools.combinations(sorted(place), 2):
            outcome = (place[first] < place[second]) - (place[first] > place[second])
            found.append(Pair(one.prompt_id, first, second, outcome, one.id, one.annotator))
    return found


def length(text: Said) -> int:
    """Characters of a text, or of what messages say."""
    if isinstance(text, str):
        return len(text)
    return sum(len(message["content"]) for message in text if isinstance(message.get("content"), str))


# ---- habits ----


def left_share(judgements: Iterable[Judgement], pairs: Iterable[Pair] | None = None) -> Share:
    """How often the completion further left was the better one; 0.5 where the place doesn't matter."""
    known = [one for one in judgements if one.has_places]
    place = {one.id: {id: number for number, id in enumerate(one.shown)} for one in known}

    def left_won(pair: Pair) -> bool:
        first_is_left = place[pair.judgement][pair.first] < place[pair.judgement][pair.second]
        return first_is_left == (pair.outcome > 0)

    asked = pairs_of(known) if pairs is None else pairs
    return _share([pair for pair in asked if pair.outcome and pair.judgement in place], left_won)


def longer_share(pairs: Iterable[Pair], lengths: Mapping[str, int]) -> Share:
    """How often the longer completion was the better one. Not 0.5 may be taste: longer ones can be better."""
    unequal = [pair for pair in pairs if pair.outcome and lengths[pair.first] != lengths[pair.second]]
    return _share(unequal, lambda pair: (lengths[pair.first] > lengths[pair.second]) == (pair.outcome > 0))


def _share(pairs: Iterable[Pair], holds: Callable[[Pair], bool]) -> Share:
    """Of pairs, those of one judgement together."""
    hits, totals = Counter[int](), Counter[int]()
    for pair in pairs:
        totals[pair.judgement] += 1
        hits[pair.judgement] += holds(pair)
    return clustered_share([hits[id] for id in totals], list(totals.values()))


# ---- agreement ----


def _by_unit(pairs: Iterable[Pair]) -> dict[tuple[str, str], dict[str, Outcome]]:
    """What each person said last of each two completions."""
    found: dict[tuple[str, str], dict[str, Outcome]] = defaultdict(dict)
    for pair in pairs:
        found[pair.unit][pair.annotator] = pair.outcome
    return found


def _alpha(pairs: Sequence[Pair], level: Any, samples: int, seed: int) -> Alpha:
    units = _by_unit(pairs)
    prompts = {pair.unit: pair.prompt_id for pair in pairs}
    values = [list(said.values()) for said in units.values()]
    return krippendorff_alpha(values, level, groups=[prompts[unit] for unit in units], samples=samples, seed=seed)


def _together(pairs: Iterable[Pair]) -> Iterable[TwoPeople]:
    both: dict[tuple[str, str], list[tuple[Outcome, Outcome]]] = defaultdict(list)
    for said in _by_unit(pairs).values():
        for first, second in itertools.combinations(sorted(said), 2):
            both[first, second].append((said[first], said[second]))
    for (first, second), outcomes in sorted(both.items()):
        ones, others = zip(*outcomes, strict=True)
        same = sum(one == other for one, other in outcomes) / len(outcomes)
        yield TwoPeople(first, second, len(outcomes), same, cohen_kappa(ones, others))


def _person(name: str, judgements: Iterable[Judgement], every: Iterable[Pair]) -> Person:
    own = [one for one in judgements if one.annotator == name]
    pairs = [pair for pair in every if pair.annotator == name]
    return Person(
        name=name,
        judged=sum(not one.skipped for one in own),
        skipped=sum(one.skipped for one in own),
        all_bad=sum(one.all_bad for one in own),
        ties=_share(pairs, lambda pair: pair.outcome == 0),
        left=left_share(own, pairs),
        seconds=_median(own),
    )


def _median(judgements: Iterable[Judgement]) -> float | None:
    seconds = [one.seconds for one in judgements if one.seconds is not None and not one.skipped]
    return statistics.median(seconds) if seconds else None


# ---- contradictions ----


def triples(pairs: Sequence[Pair]) -> tuple[Triples, Triples]:
    """Circles (a over b over c over a) within each person, and in what the majority says.

    Counted are triples with three decided pairs that no single ranking holds: a ranking can't contradict itself.
    """
    people: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        people[pair.annotator].append(pair)
    own = [_circles(theirs) for theirs in people.values()]
    return Triples(sum(one.circles for one in own), sum(one.total for one in own)), _circles(pairs)


def _circles(pairs: Iterable[Pair]) -> Triples:
    by_prompt: dict[str, dict[tuple[str, str], list[Pair]]] = defaultdict(lambda: defaultdict(list))
    judged: dict[str, set[int]] = defaultdict(set)
    for pair in pairs:
        by_prompt[pair.prompt_id][pair.unit].append(pair)
        judged[pair.prompt_id].add(pair.judgement)
    found = [_circles_of(units) for prompt, units in by_prompt.items() if len(judged[prompt]) > 1]
    return Triples(sum(one.circles for one in found), sum(one.total for one in found))


def _circles_of(units: Mapping[tuple[str, str], list[Pair]]) -> Triples:
    better = {unit: sum(pair.outcome for pair in said) for unit, said in units.items()}
    within = {unit: {pair.judgement for pair in said} for unit, said in units.items()}
    circles = total = 0
    for a, b, c in itertools.combinations(sorted({id for unit in units for id in unit}), 3):
        sides = ((a, b), (b, c), (a, c))
        if not all(better.get(side) for side in sides):
            continue
        if len(set.union(*(within[side] for side in sides))) == 1:
            continue
        total += 1
        ab, bc, ac = (better[side] > 0 for side in sides)
        circles += ab == bc and bc != ac
    return Triples(circles, total)


# ---- who won ----


@dataclass(frozen=True)
class Wins:
    """Two origins compared where both stood in one ranking."""

    first: str
    second: str
    won: int
    tied: int
    lost: int
    same: int  # completions that both wrote, word for word: there was nothing to compare
    share: Share  # of decided pairs that `first` won

    def to_json(self) -> dict[str, Any]:
        """As printed with --json."""
        return {**asdict(self), "share": self.share.to_json()}


def wins(judgements: Iterable[Judgement], origins: Iterable[Origin]) -> list[Wins]:
    """Each two origins against each other, in people's judgement."""
    names: dict[str, set[str]] = defaultdict(set)
    for origin in origins:
        names[origin.completion_id].add(origin.name)
    same = Counter(two for written in names.values() for two in itertools.combinations(sorted(written), 2))
    met: dict[tuple[str, str], list[tuple[Pair, Outcome]]] = defaultdict(list)
    for pair in pairs_of(judgements):
        for one, other in itertools.product(names[pair.first], names[pair.second]):
            if one != other and not names[pair.first] & names[pair.second]:
                key, outcome = ((one, other), pair.outcome) if one < other else ((other, one), -pair.outcome)
                met[key].append((pair, outcome))
    return [_wins(*two, met[two], same[two]) for two in sorted({*met, *same})]


def _wins(first: str, second: str, outcomes: Sequence[tuple[Pair, Outcome]], same: int) -> Wins:
    counts = Counter(outcome for _, outcome in outcomes)
    hits, totals = Counter[int](), Counter[int]()
    for pair, outcome in outcomes:
        if outcome:
            totals[pair.judgement] += 1
            hits[pair.judgement] += outcome > 0
    share = clustered_share([hits[id] for id in totals], list(totals.values()))
    return Wins(first, second, counts[1], counts[0], counts[-1], same, share)
