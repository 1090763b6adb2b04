"""The store of judgements: prompts, completions to rank, and what people said of them, in one SQLite file.

`rank sample` and `rank import` fill it, the ranking page shows and judges, `rank export` and `rank status` read. A
judgement is on the disk when `record` returns. Nothing is deleted: undo withdraws. Who wrote a completion is never part
of what a page gets. Draws nothing, measures nothing (`evaluation.agreement` does).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tunewright import durable
from tunewright.data import judgement_turns as turns
from tunewright.data.judgement_checks import (
    MAX_ANNOTATOR,
    MAX_NOTE,
    as_json,
    as_judgement,
    as_prompt,
    check_note,
    check_prompt,
    check_ranking,
    check_shown,
    content_id,
    known_flags,
    known_name,
    now,
    says_the_same,
    standing_judgement,
    whole_text,
)
from tunewright.data.judgement_database import Database
from tunewright.data.judgement_records import (
    Completion,
    Demonstration,
    Judgement,
    Origin,
    Progress,
    Prompt,
    Said,
    plain_json,
)
from tunewright.data.judgement_turns import Work
from tunewright.data.values import plain
from tunewright.errors import UsageError

__all__ = ["MAX_ANNOTATOR", "MAX_NOTE", "Completion", "Demonstration", "Judgement", "Judgements", "Progress", "Prompt"]


class Judgements:
    """An open store. Safe for the threads of a server and for several processes at once."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, path: Path | str, *, create: bool = True) -> Judgements:
        """The store in this file, made or brought to this version where need be.

        Raises UsageError (a folder; no file where `create` is False), DataError (no store of judgements, or one by a
        newer version), MachineError (can't be written).
        """
        return cls(Database.open(Path(path), create=create))

    def close(self) -> None:
        """Let go of the file."""
        self.database.close()

    def __enter__(self) -> Judgements:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def together(self) -> AbstractContextManager[object]:
        """Everything that is kept inside is on the disk at its end, all of it or nothing: for imports."""
        return self.database.writing()

    # ---- filled ----

    def add_prompt(
        self, text: Said, source: str, split: str | None = None, values: Mapping[str, Any] | None = None
    ) -> str:
        """The id of the prompt, which is here once however often it is added; the first row's values stay."""
        id = content_id(text)
        with self.database.writing() as connection:
            connection.execute(
                "insert into prompt (id, text, source, split, row) values (?, ?, ?, ?, ?) on conflict do nothing",
                (id, as_json(text), source, split, as_json(plain_json(plain(values or {})))),
            )
        return id

    def add_completion(
        self, prompt_id: str, text: Said, origin: str | None, settings: Mapping[str, Any] | None = None
    ) -> str:
        """The id of the completion; one that another origin wrote too is here once, with both origins.

        `settings` tell this draw from others of the same origin (temperature, seed, number of the draw). Origin None:
        nobody knows who wrote it.
        """
        id = content_id([prompt_id, text])
        with self.database.writing() as connection:
            check_prompt(connection, prompt_id)
            connection.execute(
                "insert into completion (id, prompt_id, text) values (?, ?, ?) on conflict do nothing",
                (id, prompt_id, as_json(text)),
            )
            if origin is not None:
                connection.execute(
                    "insert into origin (completion_id, prompt_id, name, settings) values (?, ?, ?, ?) "
                    "on conflict do nothing",
                    (id, prompt_id, origin, as_json(dict(settings or {}))),
                )
        return id

    def has_drawn(self, prompt_id: str, origin: str, settings: Mapping[str, Any]) -> bool:
        """Whether this very draw is here already."""
        with self.database.reading() as connection:
            found = connection.execute(
                "select 1 from origin where prompt_id = ? and name = ? and settings = ?",
                (prompt_id, origin, as_json(dict(settings))),
            ).fetchone()
        return found is not None

    # ---- read ----

    def prompts(self) -> list[Prompt]:
        """Every prompt, in the order they were added."""
        with self.database.reading() as connection:
            return [as_prompt(row) for row in connection.execute("select * from prompt order by number")]

    def prompt(self, prompt_id: str) -> Prompt:
        """One prompt. UsageError where there is none of this id."""
        with self.database.reading() as connection:
            return as_prompt(check_prompt(connection, prompt_id))

    def completions(self, prompt_id: str | None = None) -> list[Completion]:
        """Those of a prompt, or of all, in the order they were added: shuffle before showing them."""
        where, values = ("where prompt_id = ?", (prompt_id,)) if prompt_id is not None else ("", ())
        with self.database.reading() as connection:
            found = connection.execute(f"select * from completion {where} order by number", values).fetchall()  # noqa: S608
        return [Completion(row["id"], row["prompt_id"], json.loads(row["text"])) for row in found]

    def origins(self) -> list[Origin]:
        """Who wrote what. Never for a page on which people judge."""
        with self.database.reading() as connection:
            found = connection.execute("select * from origin order by completion_id, name, settings").fetchall()
        return [Origin(row["completion_id"], row["name"], json.loads(row["settings"])) for row in found]

    def judgements(self, *, withdrawn: bool = False) -> list[Judgement]:
        """Every judgement that stands, oldest first, skipped ones included; `withdrawn`: undone ones too."""
        where = "" if withdrawn else "where withdrawn is null"
        with self.database.reading() as connection:
            found = connection.execute(f"select * from judgement {where} order by id").fetchall()  # noqa: S608
        return [as_judgement(row) for row in found]

    def judgement_of(self, prompt_id: str, annotator: str) -> Judgement | None:
        """The newest standing judgement of this person on this prompt."""
        with self.database.reading() as connection:
            found = connection.execute(
                "select * from judgement where prompt_id = ? and annotator = ? and withdrawn is null "
                "order by id desc limit 1",
                (prompt_id, annotator),
            ).fetchone()
        return None if found is None else as_judgement(found)

    def demonstrations(self, *, withdrawn: bool = False) -> list[Demonstration]:
        """What people wrote themselves, oldest first; `withdrawn`: what they undid too."""
        where = "" if withdrawn else "where withdrawn is null"
        with self.database.reading() as connection:
            found = connection.execute(f"select * from demonstration {where} order by id").fetchall()  # noqa: S608
        return [Demonstration(**dict(row)) for row in found]

    # ---- judged ----

    def next_task(self, annotator: str, overlap: float = 0.0) -> Prompt | None:
        """The prompt that this person should judge now; None when there is nothing left for them.

        Asked again it is the same one until it is judged. First come prompts that nobody has judged and nobody else is
        looking at, in their order; among them, evenly, those that another person has judged, until the share `overlap`
        of all prompts has been judged by two.
        """
        annotator = known_name(annotator)
        with self.database.writing() as connection:
            found = turns.claimed(connection, annotator, "judge") or turns.to_judge(connection, annotator, overlap)
            if found is not None:
                turns.claim(connection, annotator, "judge", found["id"])
        return None if found is None else as_prompt(found)

    def record(
        self,
        prompt_id: str,
        annotator: str,
        shown: Sequence[str],
        ranking: Sequence[Sequence[str]],
        flags: Sequence[str] = (),
        note: str = "",
        seconds: float | None = None,
        *,
        created: str | None = None,
    ) -> int:
        """Keep a judgement and return its number once it is on the disk.

        shown: completion ids left to right. ranking: best first, ties in one list, each of `shown` once; empty with the
        flag `skip`, and where it may be with `both_bad`. `imported`: nobody knows in which order they were shown. Sent
        twice it is kept once; a second, other one of the same person on the same completions replaces the first. Raises
        UsageError for what can't be.
        """
        annotator = known_name(annotator)
        known = known_flags(flags)
        check_ranking(shown, ranking, known)
        check_note(note, seconds)
        facts = (as_json(list(shown)), as_json([list(group) for group in ranking]), as_json(list(known)), note)
        with self.database.writing() as connection:
            check_shown(connection, prompt_id, shown)
            standing = standing_judgement(connection, prompt_id, annotator, shown)
            if standing is not None:
                same = tuple(standing[name] for name in ("shown", "ranking", "flags", "note")) == facts
                if same or ("imported" in known and says_the_same(as_judgement(standing), ranking, known)):
                    return int(standing["id"])
                connection.execute("update judgement set withdrawn = ? where id = ?", (now(), standing["id"]))
            id = connection.execute(
                "insert into judgement (prompt_id, annotator, shown, ranking, flags, note, seconds, created) "
                "values (?, ?, ?, ?, ?, ?, ?, ?)",
                (prompt_id, annotator, *facts, seconds, created or now()),
            ).lastrowid
            turns.release(connection, annotator, "judge", prompt_id)
        assert id is not None
        return id

    def undo(self, annotator: str) -> str | None:
        """Withdraw this person's newest judgement; its prompt, which `next_task` gives next. None: nothing to undo."""
        return self._undo(annotator, "judge", "judgement")

    def progress(self, annotator: str, overlap: float = 0.0) -> Progress:
        """How far this person, and everybody, has come; `overlap` as given to `next_task`."""
        annotator = known_name(annotator)
        with self.database.reading() as connection:
            return turns.progress(connection, annotator, overlap)

    # ---- written ----

    def next_to_write(self, annotator: str) -> Prompt | None:
        """The prompt that this person should write a completion for: fewest first. None: they have written all."""
        annotator = known_name(annotator)
        with self.database.writing() as connection:
            found = turns.claimed(connection, annotator, "write") or turns.to_write(connection, annotator)
            if found is not None:
                turns.claim(connection, annotator, "write", found["id"])
        return None if found is None else as_prompt(found)

    def write_demonstration(self, prompt_id: str, annotator: str, text: str, based_on: str | None = None) -> int:
        """Keep what a person wrote, or made of the completion `based_on`; replaces what they wrote here before."""
        annotator = known_name(annotator)
        if not text.strip():
            raise UsageError("the completion is empty; write something, or skip it", field="text")
        with self.database.writing() as connection:
            check_shown(connection, prompt_id, [] if based_on is None else [based_on])
            connection.execute(
                "update demonstration set withdrawn = ? where prompt_id = ? and annotator = ? and withdrawn is null",
                (now(), prompt_id, annotator),
            )
            id = connection.execute(
                "insert into demonstration (prompt_id, annotator, text, based_on, created) values (?, ?, ?, ?, ?)",
                (prompt_id, annotator, whole_text(text), based_on, now()),
            ).lastrowid
            turns.release(connection, annotator, "write", prompt_id)
        assert id is not None
        return id

    def undo_demonstration(self, annotator: str) -> str | None:
        """Withdraw the newest thing this person wrote; its prompt, which `next_to_write` gives next."""
        return self._undo(annotator, "write", "demonstration")

    # ---- kept ----

    def backup(self, path: Path | str) -> None:
        """A whole copy in a new file, while others go on writing. UsageError where the file exists."""
        target = Path(path)
        if target.exists():
            raise UsageError("is there already; name a new file", where=str(target))
        with durable.storing(target), durable.whole_file(target) as temporary:
            temporary.unlink(missing_ok=True)
            self.database.run("vacuum into ?", str(temporary))

    def _undo(self, annotator: str, work: Work, table: str) -> str | None:
        annotator = known_name(annotator)
        with self.database.writing() as connection:
            found = connection.execute(
                f"select id, prompt_id from {table} where annotator = ? and withdrawn is null "  # noqa: S608
                "order by id desc limit 1",
                (annotator,),
            ).fetchone()
            if found is None:
                return None
            connection.execute(f"update {table} set withdrawn = ? where id = ?", (now(), found["id"]))  # noqa: S608
            turns.claim(connection, annotator, work, found["prompt_id"])
        return str(found["prompt_id"])
