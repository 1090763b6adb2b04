"""Argilla's datasets as judgements: rankings of fields, or a label that names the better field.

Read are records as `records.to_json` writes them (2.x: `fields`, `responses` by question), those of 1.x (`responses` by
person), and the rows that both put on the Hub (`QUESTION.responses`, or a list of `{user_id, value, status}` under the
question's name). A ranking is a list of field names, best first, or `{rank, value}` where ranks may be equal.
Suggestions are machines' and not read; drafts and discarded responses are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.data.examples import Row, Source
from tunewright.data.judgement_import import PROMPT_NAMES, Brought, Opinion, Told
from tunewright.data.judgement_records import Said
from tunewright.data.values import plain
from tunewright.errors import DataError

_TIE = {"tie", "both", "equal", "same", "draw"}
_UNFINISHED = "responses that are drafts or were discarded"


@dataclass(frozen=True)
class _Answer:
    """One response to one question."""

    question: str
    value: Any
    user: str | None
    status: str = "submitted"


def holds_argilla(columns: Mapping[str, Any]) -> bool:
    """Whether rows with these columns come from Argilla."""
    if isinstance(columns.get("fields"), Mapping) and "responses" in columns:
        return True
    if any(name.endswith(".responses") for name in columns):
        return True
    return any(_is_list_of_answers(value) for value in columns.values())


def argilla(source: Source, told: Told, *, prompt: str | None = None, question: str | None = None) -> Iterator[Brought]:
    """Every record that has a ranking. `prompt`: the field of the prompt; `question`: the one that ranks.

    Raises DataError where no record answers a question that ranks fields.
    """
    found = 0
    asked: Counter[str] = Counter()
    for row in source.rows():
        fields, answers = _fields(row), list(_answers(row))
        asked.update(answer.question for answer in answers)
        one = _brought(row, fields, answers, told, prompt, question)
        found += one is not None
        if one is not None:
            yield one
    if not found:
        there = ", ".join(asked) or "none"
        says = f"no answered question ranks fields of its record, or names the better one; found questions: {there}"
        raise DataError(f"{says}. Name it with --question", where=source.name)


def _brought(
    row: Row, fields: dict[str, Said], answers: Sequence[_Answer], told: Told, prompt: str | None, question: str | None
) -> Brought | None:
    read = [(a, _order(a.value, list(fields))) for a in answers if question in (None, a.question)]
    ranking = [(answer, order) for answer, order in read if order is not None]
    chosen = question or next((answer.question for answer, _ in ranking), None)
    ranked = [name for _, order in ranking for tier in order for name in tier]
    names = [name for name in fields if name in set(ranked)]
    if not names:
        told.left_out["records without an answer that ranks"] += 1
        return None
    asked = prompt or _prompt_field([name for name in fields if name not in names])
    if asked is None or asked not in fields:
        there = ", ".join(fields)
        says = f'there is no field "{prompt}"' if prompt else "no field holds the prompt"
        raise DataError(f"{says}; found {there}. Name one with --prompt", where=row.where, field="fields")
    opinions: list[Opinion] = []
    for answer, order in ranking:
        if answer.question != chosen:
            continue
        if answer.status not in ("submitted", ""):
            told.left_out[_UNFINISHED] += 1
            continue
        opinions.append(Opinion([[names.index(name) for name in tier] for tier in order], answer.user))
    return Brought(fields[asked], [fields[name] for name in names], opinions, row.where)


# ---- shapes of a record ----


def _fields(row: Row) -> dict[str, Said]:
    given = plain(row.values.get("fields"))
    values = given if isinstance(given, Mapping) else row.values
    return {name: text for name, value in values.items() if (text := _text(plain(value))) is not None}


def _text(value: Any) -> Said | None:
    """A text, or a chat field."""
    if isinstance(value, str):
        return value if value.strip() else None
    is_talk = isinstance(value, list) and value and all(isinstance(m, Mapping) and "role" in m for m in value)
    return [dict(message) for message in value] if is_talk else None


def _answers(row: Row) -> Iterator[_Answer]:
    responses = plain(row.values.get("responses"))
    if isinstance(responses, Mapping):  # 2.x: {question: [{value, user_id}]}
        for name, given in responses.items():
            yield from (_Answer(name, one.get("value"), _user(one), one.get("status") or "") for one in _objects(given))
    elif isinstance(responses, list):  # 1.x: [{user_id, status, values: {question: {value}}}]
        for one in _objects(responses):
            for name, given in (one.get("values") or {}).items():
                value = given.get("value") if isinstance(given, Mapping) else given
                yield _Answer(name, value, _user(one), one.get("status") or "")
    else:
        for name, value in row.values.items():
            yield from _column(name, plain(value), row)


def _column(name: str, value: Any, row: Row) -> Iterator[_Answer]:
    """A column of the Hub's rows."""
    if name.endswith(".responses") and isinstance(value, list):  # 2.x, with .users and .status beside it
        users, status = (plain(row.values.get(f"{name}.{part}")) or [] for part in ("users", "status"))
        for number, one in enumerate(value):
            user = str(users[number]) if number < len(users) and users[number] else None
            yield _Answer(name.removesuffix(".responses"), one, user, status[number] if number < len(status) else "")
    elif _is_list_of_answers(value):
        given = value if isinstance(value, list) else _transposed(value)
        yield from (_Answer(name, one.get("value"), _user(one), one.get("status") or "") for one in _objects(given))


def _is_list_of_answers(value: Any) -> bool:
    """Whether a cell holds what people answered, as 1.x wrote it to the Hub: a list, or lists side by side."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, Mapping) and {"user_id", "value", "status"} <= set(first)


def _transposed(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(value, each, strict=False)) for each in zip(*value.values(), strict=False)]


def _objects(given: Any) -> list[Mapping[str, Any]]:
    return [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []


def _user(one: Mapping[str, Any]) -> str | None:
    return str(one["user_id"]) if one.get("user_id") else None


# ---- an answer as an order ----


def _order(value: Any, fields: Sequence[str]) -> list[list[str]] | None:
    """Names of fields, best first, ties together; None where the answer is of another kind."""
    by_spelling = {_spelling(name): name for name in fields}
    if isinstance(value, str):
        return _better_one(value, by_spelling)
    if isinstance(value, Mapping) and "rank" in value and isinstance(value.get("rank"), list):
        value = _transposed(value)
    if not isinstance(value, list) or len(value) < 2:
        return None
    ranks: dict[str, float] = {}
    for number, one in enumerate(value):
        given = one.get("value") if isinstance(one, Mapping) else one
        name = by_spelling.get(_spelling(str(given)))
        rank = one.get("rank") if isinstance(one, Mapping) else number
        if name is None or not isinstance(rank, int | float):
            return None
        ranks[name] = rank
    return [[name for name in ranks if ranks[name] == rank] for rank in sorted(set(ranks.values()))]


def _better_one(value: str, by_spelling: Mapping[str, str]) -> list[list[str]] | None:
    """A label question on two fields that differ in their last letter only: `response_1` or `tie`."""
    numbered = [name for name in by_spelling.values() if re.search(r"[12ab]$", name, re.IGNORECASE)]
    if len(numbered) != 2:
        return None
    if _spelling(value) in _TIE:
        return [numbered]
    best = by_spelling.get(_spelling(value))
    return [[best], [name for name in numbered if name != best]] if best in numbered else None


def _spelling(name: str) -> str:
    """`response-1`, `Response 1` and `response_1` are the same."""
    return "".join(c for c in name.lower() if c.isalnum())


def _prompt_field(others: Sequence[str]) -> str | None:
    by_name = {name.lower(): name for name in others}
    return next((by_name[name] for name in PROMPT_NAMES if name in by_name), others[0] if len(others) == 1 else None)
