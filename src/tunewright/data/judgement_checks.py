"""What a store of judgements keeps and what it refuses, and how a row of it becomes a record.

Under `judgements`, which owns the statements. Everything here answers with a sentence naming the field, since what is
checked comes from a page or a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from sqlite3 import Connection, Row
from typing import Any

from tunewright.data.judgement_records import Flag, Judgement, Prompt
from tunewright.errors import DataError, UsageError

MAX_ANNOTATOR, MAX_NOTE = 80, 10_000  # characters
FLAGS: tuple[Flag, ...] = ("both_bad", "skip", "imported")


# ---- what can be kept ----


def check_prompt(connection: Connection, prompt_id: str) -> Row:
    """The row of a prompt. UsageError where there is none of this id."""
    found = connection.execute("select * from prompt where id = ?", (prompt_id,)).fetchone()
    if found is None:
        raise UsageError(f'there is no prompt "{prompt_id:.40}"', field="prompt_id")
    return found


def check_shown(connection: Connection, prompt_id: str, shown: Sequence[str]) -> None:
    """UsageError for what is no completion of this prompt."""
    check_prompt(connection, prompt_id)
    known = {row["id"] for row in connection.execute("select id from completion where prompt_id = ?", (prompt_id,))}
    if strange := [id for id in shown if id not in known]:
        raise UsageError(f'"{strange[0]:.40}" is no completion of prompt {prompt_id}', field="shown")


def check_ranking(shown: Sequence[str], ranking: Sequence[Sequence[str]], flags: Sequence[Flag]) -> None:
    """UsageError unless each completion shown is ranked once, or none is and a flag says why."""
    ranked = [id for group in ranking for id in group]
    if not shown or len(set(shown)) != len(shown):
        raise UsageError("shown holds a completion twice, or none", field="shown")
    if "skip" in flags and ranked:
        raise UsageError("a skipped prompt has no ranking; leave out the flag, or the ranking", field="flags")
    if not ranked and {"skip", "both_bad"} & set(flags):
        return
    if sorted(ranked) != sorted(shown) or not all(ranking):
        found = f"the ranking holds {len(ranked)} completions; expected each of the {len(shown)} shown, once"
        raise UsageError(found, field="ranking")
    if len(shown) < 2:
        raise UsageError("one completion can't be ranked; expected two or more", field="shown")


def check_note(note: str, seconds: float | None) -> None:
    """UsageError for one that is too long or can't be."""
    if len(whole_text(note)) > MAX_NOTE:
        raise UsageError(f"the note has {len(note):,} characters; expected at most {MAX_NOTE:,}", field="note")
    if seconds is not None and not 0 <= seconds < float("inf"):
        raise UsageError(f"seconds is {seconds}; expected a number of seconds", field="seconds")


def known_flags(given: Sequence[str]) -> tuple[Flag, ...]:
    """In one order. UsageError for a flag that isn't one."""
    if unknown := [flag for flag in given if flag not in FLAGS]:
        raise UsageError(f'"{unknown[0]!s:.40}" is no flag; expected {", ".join(FLAGS)}', field="flags")
    return tuple(flag for flag in FLAGS if flag in given)


def known_name(annotator: str) -> str:
    """As it is kept: people type spaces around their name."""
    name = " ".join(annotator.split())
    if not name or len(name) > MAX_ANNOTATOR or not name.isprintable():
        expected = f"expected 1 to {MAX_ANNOTATOR} printable characters"
        raise UsageError(f"the annotator's name has {len(name)} characters; {expected}", field="annotator")
    return name


def standing_judgement(connection: Connection, prompt_id: str, annotator: str, shown: Sequence[str]) -> Row | None:
    """What this person said of these very completions, in whatever order they were shown."""
    found = connection.execute(
        "select * from judgement where prompt_id = ? and annotator = ? and withdrawn is null",
        (prompt_id, annotator),
    )
    return next((row for row in found if sorted(json.loads(row["shown"])) == sorted(shown)), None)


def says_the_same(standing: Judgement, ranking: Sequence[Sequence[str]], flags: Sequence[Flag]) -> bool:
    """Whether a judgement that comes back from a file is known already, with more about it than the file holds."""
    bad = ("both_bad" in standing.flags) == ("both_bad" in flags)
    return bad and list(map(set, standing.ranking)) == list(map(set, ranking))


# ---- rows and values ----


def as_prompt(row: Row) -> Prompt:
    """A row of the table."""
    return Prompt(row["id"], json.loads(row["text"]), row["source"], row["split"], json.loads(row["row"]))


def as_judgement(row: Row) -> Judgement:
    """A row of the table."""
    values = dict(row)
    ranking = tuple(tuple(group) for group in json.loads(values.pop("ranking")))
    shown, flags = tuple(json.loads(values.pop("shown"))), tuple(json.loads(values.pop("flags")))
    return Judgement(**values, shown=shown, ranking=ranking, flags=flags)


def content_id(value: Any) -> str:
    """Short name of a content; 64 bits, so that two among millions don't meet."""
    return hashlib.sha256(as_json(value).encode()).hexdigest()[:16]


def as_json(value: Any) -> str:
    """One spelling per value. DataError for what JSON can't hold."""
    try:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise DataError(f"can't be kept as JSON ({error!s:.80})") from None
    return whole_text(text)


def whole_text(text: str) -> str:
    """The text, if it is one: half of a surrogate pair can't be stored."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError("holds half a character, which can't be stored; mend the text") from None
    return text


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
