"""Label Studio's JSON export as judgements: `Pairwise` (left or right) and `Ranker` (items in order, or in buckets).

A task has `data`, the row that was shown, and `annotations`, one per person, with `result`. Cancelled annotations and
results of other tags are counted; predictions are machines' and not read. The export doesn't hold the labelling
configuration, so what its tags show is found by names, or said: the columns that are compared, the buckets' order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunewright.data.examples import Row, Source
from tunewright.data.judgement_import import PROMPT_NAMES, Brought, Opinion, Told
from tunewright.data.judgement_records import Said
from tunewright.data.values import plain
from tunewright.errors import DataError

_SIDES = {"left": [[0], [1]], "right": [[1], [0]]}


def holds_label_studio(columns: Mapping[str, Any]) -> bool:
    """Whether rows with these columns are tasks of Label Studio."""
    return isinstance(columns.get("data"), Mapping) and "annotations" in columns


def label_studio(
    source: Source,
    told: Told,
    *,
    prompt: str | None = None,
    completions: Sequence[str] = (),
    buckets: Sequence[str] = (),
) -> Iterator[Brought]:
    """Every task with an annotation that ranks.

    prompt: the column of `data` that was asked; completions: the two that a Pairwise compares, left one first; buckets:
    those of a Ranker, best first. DataError naming the task for what can't be told apart without them.
    """
    found = 0
    for row in source.rows():
        data = plain(row.values.get("data"))
        if not isinstance(data, Mapping):
            raise DataError('"data" is no object; expected what was shown', where=row.where, field="data")
        one = _task(row, data, told, prompt, completions, buckets)
        found += one is not None
        if one is not None:
            yield one
    if not found:
        says = "no task has an annotation by a Pairwise or a Ranker; others hold no rankings"
        raise DataError(says, where=source.name, field="annotations")


def _task(
    row: Row,
    data: Mapping[str, Any],
    told: Told,
    prompt: str | None,
    columns: Sequence[str],
    buckets: Sequence[str],
) -> Brought | None:
    shown: list[tuple[str, Said]] = []  # name or id of a completion, and its text
    opinions: list[Opinion] = []
    for annotation in _objects(plain(row.values.get("annotations"))):
        if annotation.get("was_cancelled"):
            told.left_out["annotations that were cancelled"] += 1
            continue
        results = [result for result in _objects(annotation.get("result")) if result.get("type") in _TYPES]
        if not results:
            told.left_out["annotations by other tags than Pairwise and Ranker"] += 1
            continue
        if results[0]["type"] == "pairwise":
            shown = shown or _compared(row, data, results[0], columns, prompt)
            tiers = _SIDES.get(str((results[0].get("value") or {}).get("selected")))
        else:
            shown = shown or _items(row, data)
            tiers = _ordered(row, results[0], [name for name, _ in shown], buckets)
        if not tiers:
            told.left_out["annotations that choose nothing"] += 1
            continue
        opinions.append(_opinion(annotation, tiers, results[0]["type"]))
    if not opinions:
        return None
    asked = _prompt(row, data, prompt, {name for name, _ in shown})
    return Brought(asked, [text for _, text in shown], opinions, row.where, _others(data, shown))


_TYPES = ("pairwise", "ranker")


def _opinion(annotation: Mapping[str, Any], tiers: list[list[int]], kind: str) -> Opinion:
    """Left and right are where they were shown; a Ranker's items start in an order that the export doesn't hold."""
    who, seconds = annotation.get("completed_by"), annotation.get("lead_time")
    name = (who.get("email") or who.get("id")) if isinstance(who, Mapping) else who
    created = annotation.get("created_at")
    return Opinion(
        tiers,
        None if name is None else str(name),
        seconds=float(seconds) if isinstance(seconds, int | float) and seconds >= 0 else None,
        created=created if isinstance(created, str) else None,
        has_places=kind == "pairwise",
    )


# ---- Pairwise ----


def _compared(
    row: Row, data: Mapping[str, Any], result: Mapping[str, Any], columns: Sequence[str], prompt: str | None
) -> list[tuple[str, Said]]:
    """The two columns: as said, as the tags are called, or those whose names end in 1 and 2, or a and b."""
    tags = [name.strip() for name in str(result.get("to_name") or "").split(",")]
    pairs = (columns, tags, *_twins([name for name in data if name != prompt]))
    chosen = next((two for two in pairs if len(two) == 2 and all(_said(data.get(name)) for name in two)), None)
    if chosen is None:
        says = f"which columns were compared can't be told from {', '.join(data)}"
        raise DataError(f"{says}; name the two with --completions LEFT,RIGHT", where=row.where, field="data")
    return [(name, text) for name in chosen if (text := _said(data[name])) is not None]


def _twins(names: Sequence[str]) -> Iterator[list[str]]:
    for ends in ("12", "ab", "AB"):
        stems = {re.sub(f"[{ends}]$", "", name): name for name in names if name[-1:] == ends[0]}
        for stem, first in stems.items():
            if stem + ends[1] in names:
                yield [first, stem + ends[1]]


# ---- Ranker ----


def _items(row: Row, data: Mapping[str, Any]) -> list[tuple[str, Said]]:
    """The list of `{id, title, body}` that was ranked."""
    lists = [value for value in data.values() if isinstance(value, list) and value and all(map(_is_item, value))]
    if len(lists) != 1:
        says = f'{len(lists)} columns of "data" hold items with an id; expected one list of them'
        raise DataError(says, where=row.where, field="data")
    return [(str(item["id"]), str(item.get("body") or item.get("html") or item.get("title"))) for item in lists[0]]


def _is_item(value: Any) -> bool:
    return isinstance(value, Mapping) and "id" in value and any(value.get(name) for name in ("body", "html", "title"))


def _ordered(row: Row, result: Mapping[str, Any], ids: Sequence[str], buckets: Sequence[str]) -> list[list[int]] | None:
    """A list is an order; items of one bucket are ties, and which bucket is better must be said."""
    given = (result.get("value") or {}).get("ranker")
    by_bucket = {name: v for name, v in given.items() if v and name != "_"} if isinstance(given, Mapping) else {}
    if isinstance(given, Mapping) and len(given) == 1 and not buckets:
        given = next(iter(given.values()))
    if isinstance(given, list):
        return _places(row, [[id] for id in given], ids)
    if strange := [name for name in by_bucket if name not in buckets]:
        says = f'the Ranker has a bucket "{strange[0]}"'
        raise DataError(f"{says}; name all of them with --buckets, best first", where=row.where, field="annotations")
    return _places(row, [by_bucket[name] for name in buckets if name in by_bucket], ids)


def _places(row: Row, tiers: Sequence[Sequence[Any]], ids: Sequence[str]) -> list[list[int]]:
    if unknown := [id for tier in tiers for id in tier if str(id) not in ids]:
        says = f'the Ranker names an item "{unknown[0]!s:.40}" that "data" lacks'
        raise DataError(says, where=row.where, field="annotations")
    return [[ids.index(str(id)) for id in tier] for tier in tiers]


# ---- what was shown ----


def _prompt(row: Row, data: Mapping[str, Any], given: str | None, taken: set[str]) -> Said:
    by_name = {name.lower(): name for name in data if name not in taken and _said(data[name]) is not None}
    name = given or next((by_name[name] for name in PROMPT_NAMES if name in by_name), None)
    if name is None and len(by_name) == 1:
        name = next(iter(by_name.values()))
    text = _said(data.get(name or ""))
    if text is None:
        says = (
            f'"{given}" holds no text' if given else f"which column is the prompt can't be told from {', '.join(data)}"
        )
        raise DataError(f"{says}; name it with --prompt", where=row.where, field="data")
    return text


def _said(value: Any) -> Said | None:
    """A text, or a dialogue as the Paragraphs tag shows it."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list) and value and all(isinstance(m, Mapping) and "role" in m for m in value):
        return [dict(message) for message in value]
    return None


def _others(data: Mapping[str, Any], shown: Sequence[tuple[str, Said]]) -> dict[str, Any]:
    compared = {name for name, _ in shown}
    return {name: value for name, value in data.items() if name not in compared and not isinstance(value, list)}


def _objects(given: Any) -> list[Mapping[str, Any]]:
    return [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
