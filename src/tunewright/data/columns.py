"""Decides which column is the text and which the label: as named by the person, or guessed and said.

Looks at the first rows of a source and at nothing else; whether every later row has them, `survey` finds out. Guesses
by the names people usually give, then by content: the longest texts, the values that repeat.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewright.data.examples import Source
from tunewright.errors import DataError, did_you_mean

ROWS_LOOKED_AT = 200

# In the order in which they are tried.
TEXT_NAMES = (
    *("text", "sentence", "review", "content", "body", "message", "comment", "tweet", "post", "document"),
    *("utterance", "description", "headline", "title", "question", "prompt", "input"),
)
LABEL_NAMES = (
    *("label", "labels", "sentiment", "class", "category", "categories", "target", "intent", "topic", "topics"),
    *("emotion", "emotions", "tag", "tags", "stars", "rating", "score", "polarity", "y"),
)
LONGEST_LABEL = 80  # characters; longer text is no name of a class


@dataclass(frozen=True)
class Columns:
    """The columns that matter, and a sentence for each one that was guessed."""

    text: str
    label: str | None
    said: tuple[str, ...] = ()


Table = Mapping[str, list[tuple[Any, str]]]  # column -> (value, where) of the rows looked at


def find_columns(source: Source, text: str = "auto", label: str = "auto", *, need_label: bool = True) -> Columns:
    """Text and label column of the source. Without `need_label`, a label is used only when named."""
    table = _first_rows(source)
    for role, name in (("text", text), ("label", label)):
        if name != "auto" and name not in table:
            raise DataError(_unknown(role, name, table), where=source.name, field=name)
    said: list[str] = []
    if text == "auto":
        text = _guess_text({name: table[name] for name in table if name != label}, source)
        said.append(f"text column: {text} (guessed from {_count(table)})")
        _refuse_value_as_header(table, text, source)
    _check_text(table, text)
    if label == "auto":
        if not need_label:
            return Columns(text, None, tuple(said))
        label = _guess_label({name: table[name] for name in table if name != text}, source)
        said.append(f"label column: {label} (guessed from {_count(table)})")
        _refuse_value_as_header(table, label, source)
    if label == text:
        raise DataError(f'"{text}" is named as text and as label; name two columns', where=source.name, field=text)
    return Columns(text, label, tuple(said))


def _first_rows(source: Source) -> Table:
    table: dict[str, list[tuple[Any, str]]] = {}
    for row in itertools.islice(source.rows(), ROWS_LOOKED_AT):
        for column, value in row.values.items():
            table.setdefault(column, []).append((value, row.where))
    return table


def _guess_text(table: Table, source: Source) -> str:
    texts = {name: table[name] for name in table if _is_text(_present(table[name]))}
    if not texts:
        raise DataError(
            f"no column holds text (found {_names(table)}){_inside(table)}", where=source.name, field="text"
        )
    return _usual(texts, TEXT_NAMES) or max(texts, key=lambda name: _mean_length(_present(texts[name])))


def _guess_label(table: Table, source: Source) -> str:
    usual = _usual(table, LABEL_NAMES)
    if usual:
        return usual
    distinct = {name: _distinct(table[name]) for name in table if _is_label(_present(table[name]))}
    if len(table) == 1 and distinct:
        return next(iter(distinct))
    repeating = {name: count for name, count in distinct.items() if 1 < count <= len(table[name]) / 2}
    if not repeating:
        advice = f"name it with data.label{_header_advice(table)}"
        raise DataError(
            f"no column beside the text looks like a label (found {_names(table)}); {advice}",
            where=source.name,
            field="label",
        )
    return min(repeating, key=lambda name: repeating[name])


def _refuse_value_as_header(table: Table, name: str, source: Source) -> None:
    """A guessed column that is called like one of its own values: the first row was taken for a header."""
    if name.lower() not in (*TEXT_NAMES, *LABEL_NAMES) and any(str(value).strip() == name for value, _ in table[name]):
        raise DataError(
            f'the first line calls a column "{name:.60}", which is a value of that column too; put a header line such '
            "as text,label before it, or name the columns with data.text and data.label",
            where=source.name,
            field=name,
        )


def _inside(table: Table) -> str:
    """Where the rows are, when a whole export was given as one object."""
    for name, cells in table.items():
        value = cells[0][0]
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return f'; the rows seem to stand inside "{name}": write them as one array, or one per line'
    return ""


def _check_text(table: Table, text: str) -> None:
    for value, where in table[text]:
        if value is not None and not isinstance(value, str):
            found = f'"{text}" holds {_kind(value)}; expected text (name another column with data.text)'
            raise DataError(found, where=where, field=text)


def _unknown(role: str, name: str, table: Table) -> str:
    near = did_you_mean(name, table) or did_you_mean(name.lower(), table)
    return f'there is no column "{name}" for the {role}; found {_names(table)}.{near}'


def _usual(table: Table, usual_names: tuple[str, ...]) -> str | None:
    """The first column, in the order of `usual_names`, that is called so."""
    by_name = {name.strip().lower(): name for name in reversed(list(table))}
    return next((by_name[name] for name in usual_names if name in by_name), None)


def _present(cells: list[tuple[Any, str]]) -> list[Any]:
    return [value for value, _ in cells if value is not None]


def _is_text(values: list[Any]) -> bool:
    """Mostly text: the odd row that is something else is then named, and not the column passed over."""
    return 2 * sum(isinstance(value, str) for value in values) > len(values)


def _is_label(values: list[Any]) -> bool:
    return bool(values) and all(
        all(map(_one_label, value)) if isinstance(value, list | tuple) else _one_label(value) for value in values
    )


def _one_label(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) <= LONGEST_LABEL)


def _distinct(cells: list[tuple[Any, str]]) -> int:
    """Different values; of lists, different items."""
    values = _present(cells)
    return len({repr(item) for value in values for item in (value if isinstance(value, list | tuple) else [value])})


def _mean_length(values: list[Any]) -> float:
    texts = [value for value in values if isinstance(value, str)]
    return sum(map(len, texts)) / len(texts)


def _kind(value: Any) -> str:
    return {list: "a list", tuple: "a list", dict: "an object", bool: "true or false"}.get(
        type(value), f"the number {value}"
    )


def _count(table: Table) -> str:
    return f"{len(table)} column{'s' if len(table) != 1 else ''}"


def _names(table: Table) -> str:
    names = list(table)
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "none"


def _header_advice(table: Table) -> str:
    """For a table whose first row is data: its columns are called like values."""
    looks_like_data = any(name.replace(".", "", 1).isdigit() or len(name) > 40 for name in table)
    return "; does the file lack a header line?" if looks_like_data else ""
