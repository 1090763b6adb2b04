"""Judgements as training data: comparisons for a reward model or DPO, demonstrations for supervised learning.

    pairs           {prompt, chosen, rejected, label, group, annotator}: each two completions that somebody ranked
    conversational  the same, all of it as messages
    ranked          {prompt, completions, ranking, group, annotator, …}: one row per judgement
    demonstrations  {prompt, completion}: what people wrote

`comparisons` reads the first three, `written` the last. A tie has label 0.5; all rows of one prompt share a `group`, so
that they stay in one batch and one split. Writes no files; says what it left out, with counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Literal, get_args

from tunewright.data.judgement_records import Judgement, Prompt, Said, counted
from tunewright.data.judgements import Judgements
from tunewright.errors import UsageError, did_you_mean

ExportFormat = Literal["pairs", "ranked", "conversational", "demonstrations"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Exported:
    """Rows to be written, and what is to be said of them."""

    rows: list[Row]
    unpaired: list[Row]  # {prompt, completion, label: false}: completions that somebody found bad, all of those shown
    said: tuple[str, ...]
    counts: dict[str, int]


def export(store: Judgements, form: str = "pairs", *, ties: bool = True, unpaired: bool = False) -> Exported:
    """Every judgement that stands, in a format. `ties` False leaves them out of pairs; `unpaired` makes those rows too.

    Raises UsageError for an unknown format, and where there is nothing to export.
    """
    if form not in get_args(ExportFormat):
        known = get_args(ExportFormat)
        raise UsageError(
            f'"{form}" is no format; expected {", ".join(known)}.{did_you_mean(form, known)}', field="--format"
        )
    everything = _Everything(store, as_messages=form == "conversational")
    if form == "demonstrations":
        rows = list(everything.demonstrations(store))
        if not rows:
            raise UsageError(
                "nobody has written anything yet; `tunewright rank serve --write` is for that",
                where=str(store.database.path),
            )
        return Exported(rows, [], (counted(len(rows), "demonstration"),), {"rows": len(rows)})
    return _comparisons(store, everything, form, ties, unpaired)


def _comparisons(store: Judgements, everything: _Everything, form: str, ties: bool, unpaired: bool) -> Exported:
    standing = store.judgements()
    ranked = [one for one in standing if one.ranking and not one.skipped]
    bad = [one for one in standing if one.all_bad]
    rows = [
        row for one in ranked for row in (everything.whole(one) if form == "ranked" else everything.pairs(one, ties))
    ]
    loose = [row for one in bad for row in everything.loose(one)] if unpaired else []
    if not rows and not loose:
        says = "nobody has judged anything yet" if not standing else "no judgement ranks anything"
        raise UsageError(f"{says}; `tunewright rank serve` is for that", where=str(store.database.path))
    all_ties = 0 if form == "ranked" else sum(_num_ties(one) for one in ranked)
    counts = {
        "rows": len(rows),
        "unpaired": len(loose),
        "judgements": len(ranked),
        "ties": all_ties,
        "ties_left_out": 0 if ties else all_ties,
        "both_bad": len(bad),
        "skipped": sum(one.skipped for one in standing),
        "withdrawn": len(store.judgements(withdrawn=True)) - len(standing),
    }
    return Exported(rows, loose, tuple(_words(counts, form, unpaired)), counts)


def _words(counts: dict[str, int], form: str, unpaired: bool) -> Iterator[str]:
    """What there is, and what isn't."""
    what, bad = "ranking" if form == "ranked" else "comparison", counted(counts["both_bad"], "judgement")
    yield f"{counted(counts['rows'], what)} of {counted(counts['judgements'], 'judgement')}"
    if counts["ties_left_out"]:
        yield f"left out: {counted(counts['ties'], 'tie')}"
    elif counts["ties"]:
        have = "has" if counts["ties"] == 1 else "have"
        says = f"{counted(counts['ties'], 'tie')} among them {have} label 0.5"
        yield f"{says}, which other tools may not read (--no-ties leaves them out)"
    if counts["both_bad"] and unpaired:
        yield f"{counted(counts['unpaired'], 'completion')} of {bad} that all are bad, with label false"
    elif counts["both_bad"]:
        yield f"not written: that all are bad, in {bad} (--unpaired FILE writes it)"
    yield from (f"left out: {counts[name]:,} {name}" for name in ("skipped", "withdrawn") if counts[name])


def _num_ties(judgement: Judgement) -> int:
    return sum(len(group) * (len(group) - 1) // 2 for group in judgement.ranking)


class _Everything:
    """Texts by their ids, all of one kind: as soon as one is messages, or they are asked for, all are."""

    def __init__(self, store: Judgements, *, as_messages: bool) -> None:
        self.prompts: dict[str, Prompt] = {prompt.id: prompt for prompt in store.prompts()}
        self.texts: dict[str, Said] = {one.id: one.text for one in store.completions()}
        self.talks = as_messages or any(
            isinstance(text, list) for text in (*self.texts.values(), *(p.text for p in self.prompts.values()))
        )

    def pairs(self, judgement: Judgement, ties: bool) -> Iterator[Row]:
        """Better above worse, then ties, as they were shown."""
        place = {id: number for number, id in enumerate(judgement.shown)}
        groups = [sorted(group, key=lambda id: place[id]) for group in judgement.ranking]
        for number, better in enumerate(groups):
            for chosen, rejected in product(better, (id for worse in groups[number + 1 :] for id in worse)):
                yield self._pair(judgement, chosen, rejected, 1.0)
        for chosen, rejected in (two for group in groups for two in combinations(group, 2) if ties):
            yield self._pair(judgement, chosen, rejected, 0.5)

    def _pair(self, judgement: Judgement, chosen: str, rejected: str, label: float) -> Row:
        return {
            "prompt": self._prompt(judgement.prompt_id),
            "chosen": self._completion(chosen),
            "rejected": self._completion(rejected),
            "label": label,
            "group": judgement.prompt_id,
            "annotator": judgement.annotator,
        }

    def whole(self, judgement: Judgement) -> Iterable[Row]:
        """The row of one judgement: completions as they were shown, ranked by their places."""
        place = {id: number for number, id in enumerate(judgement.shown)}
        row = {
            "prompt": self._prompt(judgement.prompt_id),
            "completions": [self._completion(id) for id in judgement.shown],
            "ranking": [[place[id] for id in group] for group in judgement.ranking],
            "group": judgement.prompt_id,
            "annotator": judgement.annotator,
            "shown_order": judgement.has_places,
            "both_bad": judgement.all_bad,
            "note": judgement.note,
            "seconds": judgement.seconds,
            "created": judgement.created,
        }
        return (row,)

    def loose(self, judgement: Judgement) -> Iterator[Row]:
        """What was found bad, one by one."""
        for id in judgement.shown:
            texts = {"prompt": self._prompt(judgement.prompt_id), "completion": self._completion(id)}
            yield {**texts, "label": False, "annotator": judgement.annotator}

    def demonstrations(self, store: Judgements) -> Iterator[Row]:
        for one in store.demonstrations():
            text = _messages(one.text, "assistant") if self.talks else one.text
            yield {"prompt": self._prompt(one.prompt_id), "completion": text}

    def _prompt(self, id: str) -> Said:
        text = self.prompts[id].text
        return _messages(text, "user") if self.talks else text

    def _completion(self, id: str) -> Said:
        text = self.texts[id]
        return _messages(text, "assistant") if self.talks else text


def _messages(text: Said, role: str) -> Said:
    return [{"role": role, "content": text}] if isinstance(text, str) else text
