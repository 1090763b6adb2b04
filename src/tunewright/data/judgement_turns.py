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

_COUNTS = "flags not like '%\"skip\"%'"
# Prompts that can be ranked, with how many people have judged each, and whether this person has seen it.
_PROMPTS = f"""(
    select prompt.*, coalesce(done.people, 0) as people, coalesce(done.mine, 0) as mine
    from prompt
    join (select prompt_id from completion group by prompt_id having count(*) >= 2) as several
        on several.prompt_id = prompt.id
    left join (
        select prompt_id, max(annotator = :annotator) as mine,
            count(distinct case when {_COUNTS} then annotator end) as people
        from judgement where withdrawn is null group by prompt_id
    ) as done on done.prompt_id = prompt.id
) as prompt"""
_FRESH, _SECOND = "people = 0 and mine = 0", "people = 1 and mine = 0"
_TAKEN = (
    "exists (select 1 from claim where claim.prompt_id = prompt.id and claim.work = :work "
    "and claim.annotator <> :annotator and claim.since > :since)"
)


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
    wanted = [_FRESH, _SECOND] if _seconds_left(_everybody(connection, annotator), overlap) else [_FRESH]
    if _is_due(connection, annotator, overlap):
        wanted.reverse()
    found = (_first(connection, annotator, "judge", _PROMPTS, condition) for condition in wanted)
    return next(filter(None, found), None)


def to_write(connection: Connection, annotator: str) -> Row | None:
    """The prompt with the fewest demonstrations, none of them by this person."""
    standing = "demonstration.prompt_id = prompt.id and demonstration.withdrawn is null"
    mine = f"exists (select 1 from demonstration where {standing} and annotator = :annotator)"
    fewest = f"(select count(*) from demonstration where {standing})"
    return _first(connection, annotator, "write", "prompt", f"not {mine}", order=f"{fewest}, number")


def _first(
    connection: Connection, annotator: str, work: Work, prompts: str, condition: str, order: str = "number"
) -> Row | None:
    values = {"annotator": annotator, "work": work, "since": time.time() - CLAIM_SECONDS}
    return connection.execute(
        f"select * from {prompts} where {condition} and not {_TAKEN} order by {order} limit 1",
        values,
    ).fetchone()


def _is_due(connection: Connection, annotator: str, overlap: float) -> bool:
    """Whether this person's next prompt is one that another has judged, so that these are spread evenly."""
    done = _count(connection, f"judgement where annotator = ? and withdrawn is null and {_COUNTS}", annotator)
    return math.floor((done + 1) * overlap + 1e-9) > math.floor(done * overlap + 1e-9)


def _everybody(connection: Connection, annotator: str) -> Row:
    """How many prompts there are, of each kind."""
    return connection.execute(
        f"select count(*) as prompts, coalesce(sum(people > 0), 0) as judged, coalesce(sum(people > 1), 0) as twice, "
        f"coalesce(sum({_FRESH}), 0) as fresh, coalesce(sum({_SECOND}), 0) as seconds from {_PROMPTS}",
        {"annotator": annotator},
    ).fetchone()


def _seconds_left(everybody: Row, overlap: float) -> int:
    """Prompts that a second person should still judge."""
    return max(0, round(overlap * everybody["prompts"]) - everybody["twice"])


# ---- how far ----


def progress(connection: Connection, annotator: str, overlap: float) -> Progress:
    """Counts for one person and for everybody."""
    mine = "judgement where annotator = ? and withdrawn is null and"
    everybody = _everybody(connection, annotator)
    return Progress(
        judged=_count(connection, f"{mine} {_COUNTS}", annotator),
        skipped=_count(connection, f"{mine} not {_COUNTS}", annotator),
        written=_count(connection, "demonstration where annotator = ? and withdrawn is null", annotator),
        left=everybody["fresh"] + min(everybody["seconds"], _seconds_left(everybody, overlap)),
        prompts=everybody["prompts"],
        prompts_judged=everybody["judged"],
        prompts_judged_twice=everybody["twice"],
        seconds_per_judgement=_pace(connection, annotator),
    )


def _pace(connection: Connection, annotator: str) -> float | None:
    newest = connection.execute(
        "select seconds from judgement where annotator = ? and withdrawn is null and seconds is not null "
        f"and {_COUNTS} order by id desc limit {_RECENT}",
        (annotator,),
    ).fetchall()
    return statistics.median(row["seconds"] for row in newest) if newest else None


def _count(connection: Connection, rest: str, annotator: str) -> int:
    return int(connection.execute(f"select count(*) from {rest}", (annotator,)).fetchone()[0])
