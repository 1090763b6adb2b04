"""Other people's files as judgements: our own exports, TRL's rows, Argilla's and Label Studio's JSON.

`recognise` looks at the first rows; each format gives `Brought`: a prompt, its completions, and what people said of
them. `bring` puts them into a store, all of a file or nothing. What can't be read is counted and said, never guessed;
the order in which completions were shown is known of our own rankings only. Comparisons are read by `comparisons`.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright.data.columns import ROWS_LOOKED_AT
from tunewright.data.comparison_reading import Judged, Pair
from tunewright.data.comparisons import Comparisons, is_comparison
from tunewright.data.conversations import Conversation
from tunewright.data.examples import Row, Source
from tunewright.data.judgement_records import Flag, Said, counted
from tunewright.data.judgements import Judgements
from tunewright.data.segments import Segments
from tunewright.data.values import plain
from tunewright.errors import DataError

IMPORTED = "imported"  # the annotator where a file names none
PROMPT_NAMES = ("prompt", "instruction", "input", "question", "query", "context", "text")

Tiers = Sequence[Sequence[int]]  # places among the completions: best first, ties in one list


@dataclass(frozen=True)
class Opinion:
    """What one person said of the completions of a prompt; those that are in no tier they didn't judge."""

    tiers: Tiers
    annotator: str | None
    flags: tuple[Flag, ...] = ()
    note: str = ""
    seconds: float | None = None
    created: str | None = None
    has_places: bool = False  # whether completions stand in the order in which they were shown


@dataclass(frozen=True)
class Brought:
    """One prompt of another file."""

    prompt: Said
    completions: Sequence[Said]
    opinions: Sequence[Opinion]
    where: str
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    demonstration: tuple[str, str | None] | None = None  # text and annotator


@dataclass
class Told:
    """What happened to a file."""

    form: str
    prompts: int = 0
    judgements: int = 0
    demonstrations: int = 0
    known: int = 0  # judgements that were here already
    left_out: Counter[str] = field(default_factory=Counter[str])  # reason -> how many

    def words(self) -> list[str]:
        """Sentences."""
        kept = [counted(self.judgements, "judgement")] if self.judgements or not self.demonstrations else []
        kept += [counted(self.demonstrations, "demonstration")] if self.demonstrations else []
        said = [f"{self.form}: {' and '.join(kept)} of {counted(self.prompts, 'prompt')}"]
        said += [f"{self.known:,} of them were here already"] if self.known else []
        return [*said, *(f"left out: {count:,} {reason}" for reason, count in self.left_out.items())]


def bring(store: Judgements, source: Source, form: str, brought: Iterable[Brought], told: Told, annotator: str) -> None:
    """Keep everything in the store, in one transaction. `annotator`: whoever judged where the file doesn't say."""
    told.form = form
    prompts: set[str] = set()
    nameless: Counter[tuple[str, ...]] = Counter()
    with store.together():
        before = {one.id for one in store.judgements()}
        for one in brought:
            prompt_id = store.add_prompt(one.prompt, one.where, None, one.values)
            ids = [store.add_completion(prompt_id, text, None) for text in one.completions]
            prompts.add(prompt_id)
            for opinion in one.opinions:
                _keep(store, prompt_id, ids, opinion, told, annotator, nameless, before)
            if one.demonstration is not None:
                text, writer = one.demonstration
                store.write_demonstration(prompt_id, writer or annotator, text)
                told.demonstrations += 1
    told.prompts = len(prompts)


def _keep(
    store: Judgements,
    prompt_id: str,
    ids: Sequence[str],
    opinion: Opinion,
    told: Told,
    annotator: str,
    nameless: Counter[tuple[str, ...]],
    before: set[int],
) -> None:
    ranking = _ids(opinion.tiers, ids)
    bad = "both_bad" in opinion.flags
    judged = [id for group in ranking for id in group]
    shown = list(dict.fromkeys(ids)) if bad and not judged else [id for id in dict.fromkeys(ids) if id in set(judged)]
    if len(shown) < 2 and not bad:
        told.left_out["judgements of a completion alone, or of equal ones"] += 1
        return
    if not opinion.has_places:
        shown.sort()
    name = opinion.annotator
    if name is None:  # nobody says that two opinions on the same completions are of one person
        unit = tuple(sorted(shown))
        nameless[unit] += 1
        name = annotator if nameless[unit] == 1 else f"{annotator} {nameless[unit]}"
    flags = opinion.flags if opinion.has_places else (*opinion.flags, "imported")
    id = store.record(prompt_id, name, shown, ranking, flags, opinion.note, opinion.seconds, created=opinion.created)
    told.judgements += 1
    told.known += id in before


def _ids(tiers: Tiers, ids: Sequence[str]) -> list[list[str]]:
    """Tiers of ids; of equal completions the best place counts."""
    seen: set[str] = set()
    found: list[list[str]] = []
    for tier in tiers:
        fresh = [id for id in dict.fromkeys(ids[place] for place in tier) if id not in seen]
        seen.update(fresh)
        found += [fresh] if fresh else []
    return found


# ---- comparisons: TRL's, ShareGPT's, our own ----


def first_values(source: Source) -> dict[str, Any]:
    """Columns of the first rows, with a value of each."""
    columns: dict[str, Any] = {}
    for row in itertools.islice(source.rows(), ROWS_LOOKED_AT):
        for name, value in row.values.items():
            if columns.get(name) is None:
                columns[name] = plain(value)
    return columns


def holds_comparisons(columns: Mapping[str, Any]) -> bool:
    """Whether `comparisons` reads rows with these columns."""
    return is_comparison(columns)


def comparisons(source: Source, told: Told) -> Iterator[Brought]:
    """Rows of chosen and rejected, or of completions and a ranking. Raises DataError naming row and column."""
    found = Comparisons.of(source)
    if found.reading.style == "ranked":
        yield from (_ranked_row(found, row, told) for row in source.rows())
        return
    yield from _put_together(found, source, told)


def _ranked_row(found: Comparisons, row: Row, told: Told) -> Brought:
    judged = found.reading.read(row)
    given = plain(row.values["ranking"])
    tiers = json.loads(given) if isinstance(given, str) else given  # a table holds lists as JSON
    annotator = next((pair.annotator for pair in judged.pairs), None)
    note, seconds, created = (row.values.get(name) for name in ("note", "seconds", "created"))
    told.left_out.update(_lost(row, judged.pairs))
    opinion = Opinion(
        [tier if isinstance(tier, list) else [tier] for tier in tiers],
        annotator,
        ("both_bad",) if row.values.get("both_bad") is True else (),
        note if isinstance(note, str) else "",
        float(seconds) if isinstance(seconds, int | float) and seconds >= 0 else None,
        created if isinstance(created, str) else None,
        has_places=row.values.get("shown_order") is True,
    )
    return Brought(*_texts(found, judged, row), [opinion], row.where, _others(judged.values))


def _put_together(found: Comparisons, source: Source, told: Told) -> Iterator[Brought]:
    """Pairs of one group and person become the ranking that they were made from, where they are all of its pairs."""
    column = found.reading.group
    waiting: dict[tuple[Any, str | None], list[tuple[Row, Judged]]] = defaultdict(list)
    for row in source.rows():
        judged = found.reading.read(row)
        if not judged.pairs:
            told.left_out["judgements of a completion alone, or of equal ones"] += 1
            continue
        told.left_out.update(_lost(row, judged.pairs))
        group = row.values.get(column) if column else None
        key = (row.number, None) if group is None else (str(group), judged.pairs[0].annotator)
        waiting[key].append((row, judged))
    for rows in waiting.values():
        yield from _of_one_person(found, rows)


def _lost(row: Row, pairs: Sequence[Pair]) -> list[str]:
    """What a ranking can't hold."""
    soft = ["probabilities that one is better, taken as decided"] if any(0.5 < p.weight < 1 for p in pairs) else []
    return [*soft, *(["margins"] if row.values.get("margin") is not None else [])]


def _of_one_person(found: Comparisons, rows: Sequence[tuple[Row, Judged]]) -> Iterator[Brought]:
    texts = [_texts(found, judged, row) for row, judged in rows]
    places: dict[str, int] = {}
    completions: list[Said] = []
    pairs: list[Pair] = []
    for (_, said), (_, judged) in zip(texts, rows, strict=True):
        at = []
        for text in said:
            key = json.dumps(text, sort_keys=True, default=str)
            if key not in places:
                places[key] = len(completions)
                completions.append(text)
            at.append(places[key])
        pair = judged.pairs[0]
        pairs.append(Pair(at[pair.better], at[pair.worse], pair.weight, 0.0, pair.annotator))
    first, annotator = rows[0], pairs[0].annotator
    one_prompt = len({json.dumps(prompt, sort_keys=True) for prompt, _ in texts}) == 1
    tiers = _tiers_of(pairs, len(completions)) if one_prompt else None
    if tiers is not None:
        opinion = Opinion(tiers, annotator)
        yield Brought(texts[0][0], completions, [opinion], first[0].where, _others(first[1].values))
        return
    for (prompt, said), (row, judged) in zip(texts, rows, strict=True):
        pair = judged.pairs[0]
        tiers = [[0, 1]] if pair.weight == 0.5 else [[pair.better], [pair.worse]]
        yield Brought(prompt, said, [Opinion(tiers, pair.annotator)], row.where, _others(judged.values))


def _tiers_of(pairs: Sequence[Pair], size: int) -> list[list[int]] | None:
    """The ranking whose pairs these are, each of them once; None where there is no such ranking."""
    above: dict[tuple[int, int], int] = {}
    for pair in pairs:
        outcome = 0 if pair.weight == 0.5 else 1
        if (pair.better, pair.worse) in above:
            return None
        above[pair.better, pair.worse], above[pair.worse, pair.better] = outcome, -outcome
    judged = sorted({place for two in above for place in two})
    if len(above) != len(judged) * (len(judged) - 1) or not judged:
        return None
    wins = {place: sum(above[place, other] for other in judged if other != place) for place in judged}
    tiers = [[place for place in judged if wins[place] == score] for score in sorted(set(wins.values()), reverse=True)]
    rank = {place: number for number, tier in enumerate(tiers) for place in tier}
    holds = all((rank[a] < rank[b]) - (rank[a] > rank[b]) == outcome for (a, b), outcome in above.items())
    return tiers if holds else None


def _texts(found: Comparisons, judged: Judged, row: Row) -> tuple[Said, list[Said]]:
    """The prompt as a model would read it, and the completions."""
    prompt = said(found.format.prompt(Row(judged.values, row.where, row.number)))
    return prompt, [text if isinstance(text, str) else list(text) for text in judged.completions]


def said(read: Segments | Conversation) -> Said:
    """A prompt that was read, as it is kept and shown."""
    if isinstance(read, Conversation):
        return [{"role": m.role, "content": m.content, **m.extra} for m in read.messages]
    return "".join(segment.text for segment in read)


_OURS = {"prompt", "shown_order", "both_bad", "note", "seconds", "created"}


def _others(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _OURS}


# ---- single completions: our own unpaired rows and demonstrations, TRL's KTO rows ----


def holds_completions(columns: Mapping[str, Any]) -> bool:
    """Whether each row is a prompt with one completion, good, bad, or written as an example."""
    return {"prompt", "completion"} <= columns.keys()


def single_completions(source: Source, told: Told) -> Iterator[Brought]:
    """`label` false: a bad completion; without a label: a demonstration."""
    for row in source.rows():
        prompt, completion = (_text_or_messages(row, name) for name in ("prompt", "completion"))
        label, who = row.values.get("label"), row.values.get("annotator")
        annotator = str(who) if who else None
        if label is None:
            text = completion if isinstance(completion, str) else str(completion[-1].get("content") or "")
            yield Brought(prompt, [], [], row.where, demonstration=(text, annotator))
        elif label is False or label in (0, "false", "False"):
            yield Brought(prompt, [completion], [Opinion([], annotator, ("both_bad",))], row.where)
        else:
            told.left_out["completions that are good alone (label true), which ranks nothing"] += 1


def _text_or_messages(row: Row, column: str) -> Said:
    value = plain(row.values.get(column))
    is_talk = isinstance(value, list) and value and all(isinstance(m, Mapping) and "role" in m for m in value)
    if not (isinstance(value, str) and value.strip()) and not is_talk:
        raise DataError(f'"{column}" is empty; expected a text, or messages', where=row.where, field=column)
    return value
