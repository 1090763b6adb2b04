"""Whose turn it is: which prompt a person gets next, and how far they have come. Queries for `judgements`.

Each function reads or writes in the transaction that it is given. Judgements that were undone count nowhere; a skipped
one keeps its prompt from the person who skipped it, and from nobody else.
"""

# ruff: noqa: S608 - statements are put together from the texts below; every value is a parameter

from __future__ import annotations

import math
import statistics
import time
from sqlite3 import Connection, Row
from typing import Literal

from tunewright.data.judgement_records import Progress

Work = Literal["judge", "write"]
CLAIM_SECONDS = 15 * 60  # a prompt that somebody looks at isn't given to others for so long
_RECENT = 50  # judgements that the pace is taken from

_RANKABLE = "(select count(*) from completion where completion.prompt_id = prompt.id) >= 2"
_STANDING = "judgement.prompt_id = prompt.id and judgement.withdrawn is null"
_COUNTS = "judgement.flags not like '%\"skip\"%'"
_BY_ME = f"exists (select 1 from judgement where {_STANDING} and annotator = :annotator)"
_BY_ANYBODY = f"exists (select 1 from judgement where {_STANDING} and {_COUNTS})"
_JUDGES = f"(select count(distinct annotator) from judgement where {_STANDING} and {_COUNTS})"
_TAKEN = (
    "exists (select 1 from claim where claim.prompt_id = prompt.id and claim.work = :work "
    "and claim.annotator <> :annotator and claim.since > :since)"
)
_FRESH = f"{_RANKABLE} and not {_BY_ME} and not {_BY_ANYBODY}"
_SECOND = f"{_RANKABLE} and not {_BY_ME} and {_JUDGES} = 1"


# ---- what is on the page now ----


def claimed(connection: Connection, annotator: str, work: Work) -> Row | None:
    """The prompt that this person was given and hasn't finished."""
    done = "judgement" if work == "judge" else "demonstration"
    return connection.execute(
        "select prompt.* from claim join prompt on prompt.id = claim.prompt_id "
        "where claim.annotator = :annotator and claim.work = :work "
        f"and not exists (select 1 from {done} where {done}.prompt_id = prompt.id and {done}.withdrawn is null "
        f"and {done}.annotator = :annotator)",
        {"annotator": annotator, "work": work},
    ).fetchone()


def claim(connection: Connection, annotator: str, work: Work, prompt_id: str) -> None:
    """This person has this prompt before them from now on."""
    connection.execute(
        "insert into claim (annotator, work, prompt_id, since) values (?, ?, ?, ?) "
        "on conflict (annotator, work) do update set prompt_id = excluded.prompt_id, since = excluded.since",
        (annotator, work, prompt_id, time.time()),
    )


def release(connection: Connection, annotator: str, work: Work, prompt_id: str) -> None:
    """This person is done with it."""
    connection.execute(
        "delete from claim where annotator = ? and work = ? and prompt_id = ?", (annotator, work, prompt_id)
    )


# ---- what comes next ----


def to_judge(connection: Connection, annotator: str, overlap: float) -> Row | None:
    """The next prompt for this person; see `Judgements.next_task`."""
    wanted = [_FRESH, _SECOND] if _seconds_left(connection, overlap) else [_FRESH]
    if _is_due(connection, annotator, overlap):
        wanted.reverse()
    found = (_first(connection, annotator, "judge", condition) for condition in wanted)
    return next(filter(None, found), None)


def to_write(connection: Connection, annotator: str) -> Row | None:
    """The prompt with the fewest demonstrations, none of them by this person."""
    standing = "demonstration.prompt_id = prompt.id and demonstration.withdrawn is null"
    mine = f"exists (select 1 from demonstration where {standing} and annotator = :annotator)"
    fewest = f"(select count(*) from demonstration where {standing})"
    return _first(connection, annotator, "write", f"not {mine}", order=f"{fewest}, number")


def _first(connection: Connection, annotator: str, work: Work, condition: str, order: str = "number") -> Row | None:
    values = {"annotator": annotator, "work": work, "since": time.time() - CLAIM_SECONDS}
    return connection.execute(
        f"select * from prompt where {condition} and not {_TAKEN} order by {order} limit 1",
        values,
    ).fetchone()


def _is_due(connection: Connection, annotator: str, overlap: float) -> bool:
    """Whether this person's next prompt is one that another has judged, so that these are spread evenly."""
    done = _count(connection, f"judgement where annotator = ? and withdrawn is null and {_COUNTS}", annotator)
    return math.floor((done + 1) * overlap + 1e-9) > math.floor(done * overlap + 1e-9)


def _seconds_left(connection: Connection, overlap: float) -> int:
    """Prompts that a second person should still judge."""
    wanted = round(overlap * _count(connection, f"prompt where {_RANKABLE}"))
    return max(0, wanted - _count(connection, f"prompt where {_JUDGES} >= 2")) if wanted else 0


# ---- how far ----


def progress(connection: Connection, annotator: str, overlap: float) -> Progress:
    """Counts for one person and for everybody."""
    mine = "judgement where annotator = ? and withdrawn is null and"
    fresh = _count(connection, f"prompt where {_FRESH}", annotator=annotator)
    second = _count(connection, f"prompt where {_SECOND}", annotator=annotator)
    return Progress(
        judged=_count(connection, f"{mine} {_COUNTS}", annotator),
        skipped=_count(connection, f"{mine} not {_COUNTS}", annotator),
        written=_count(connection, "demonstration where annotator = ? and withdrawn is null", annotator),
        left=fresh + min(second, _seconds_left(connection, overlap)),
        prompts=_count(connection, f"prompt where {_RANKABLE}"),
        prompts_judged=_count(connection, f"prompt where {_BY_ANYBODY}"),
        prompts_judged_twice=_count(connection, f"prompt where {_JUDGES} >= 2"),
        seconds_per_judgement=_pace(connection, annotator),
    )


def _pace(connection: Connection, annotator: str) -> float | None:
    newest = connection.execute(
        "select seconds from judgement where annotator = ? and withdrawn is null and seconds is not null "
        f"and {_COUNTS} order by id desc limit {_RECENT}",
        (annotator,),
    ).fetchall()
    return statistics.median(row["seconds"] for row in newest) if newest else None


def _count(connection: Connection, rest: str, *values: str, **named: str) -> int:
    found = connection.execute(f"select count(*) from {rest}", named or values)
    return int(found.fetchone()[0])
