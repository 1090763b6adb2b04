"""The SQLite file under a store of judgements: opened, recognised, migrated, and written in whole transactions.

`judgements` asks; nothing here knows what a judgement is. Write-ahead log, foreign keys, and every commit synced to the
disk before it is acknowledged, so that a killed process or a power cut loses nothing that was. One connection and one
lock: threads take turns, and processes wait for each other's transactions. Not for network drives, whose locks lie.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from tunewright.errors import DataError, MachineError, UsageError

APPLICATION = 0x74776A64  # "twjd" in the file's header: this is a store of judgements
SCRIPTS = ("schema.sql",)  # the n-th brings a file from version n to n + 1
WAIT_SECONDS = 30  # for another process to finish its transaction, which takes milliseconds


class Database:
    """One open file. Statements run inside `reading` or `writing`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Database:
        """The file, made or brought to our version. Raises UsageError, DataError, MachineError."""
        _check_place(path, create)
        with _in_words(path):
            database = cls(path)
            try:
                database._prepare()
            except BaseException:
                database.close()
                raise
        return database

    def close(self) -> None:
        """Let go of the file; nothing is lost without it."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Several reads that see one state."""
        with self._transaction("begin") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """All of it on the disk at the end, or nothing; one inside another is part of that."""
        with self._transaction("begin immediate") as connection:
            yield connection

    def run(self, statement: str, *values: Any) -> None:
        """One statement that can't be in a transaction."""
        with self._lock, _in_words(self.path):
            self._connection.execute(statement, values)

    @contextmanager
    def _transaction(self, begin: str) -> Generator[sqlite3.Connection]:
        with self._lock, _in_words(self.path):
            if self._connection.in_transaction:  # part of a larger one of this thread
                yield self._connection
                return
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    # ---- recognised and migrated ----

    def _prepare(self) -> None:
        connection = self._connection
        connection.execute("pragma trusted_schema = off")  # a stranger's file can't call functions of ours
        self._check()
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")
        if self._number("user_version") < len(SCRIPTS):
            self._migrate()

    def _check(self) -> None:
        """Refuses what isn't ours, and what a newer version of us made."""
        version, application = self._number("user_version"), self._number("application_id")
        kinds = [row[0] for row in self._connection.execute("select type from sqlite_master")]
        where = str(self.path)
        if application != APPLICATION and (kinds or application or version):
            raise DataError("is a database, but not one of judgements; name another file", where=where)
        if set(kinds) - {"table", "index"}:
            raise DataError("holds triggers or views, which a store of judgements never does", where=where)
        if version > len(SCRIPTS):
            newer = f"was written by a newer tunewright (version {version}; this one knows {len(SCRIPTS)})"
            raise DataError(f"{newer}; update tunewright", where=where)

    def _migrate(self) -> None:
        """Every script that is missing, in one transaction; whoever comes second finds it done."""
        with self._transaction("begin immediate") as connection:
            for number in range(self._number("user_version"), len(SCRIPTS)):
                script = (resources.files("tunewright.data") / SCRIPTS[number]).read_text(encoding="utf-8")
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute(f"pragma user_version = {number + 1}")
            connection.execute(f"pragma application_id = {APPLICATION}")

    def _number(self, pragma: str) -> int:
        return int(self._connection.execute(f"pragma {pragma}").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """One by one: sqlite3's own way to run a script would commit in between."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _check_place(path: Path, create: bool) -> None:
    if path.is_dir():
        raise UsageError("is a folder; name a file, such as judgements.db", where=str(path))
    if not create and not path.exists():
        raise UsageError("there is no such file; `tunewright rank sample` makes one", where=str(path))
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"can't be made ({error.strerror})", where=str(path.parent)) from None


@contextmanager
def _in_words(path: Path) -> Generator[None]:
    """SQLite's errors as sentences."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # ours to avoid
    except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
        reason = str(error)
        if "not a database" in reason:
            raise DataError("is no database of judgements; name another file", where=str(path)) from None
        if "malformed" in reason:
            broken = "is damaged and can't be read; go on with a copy that `rank backup` made"
            raise DataError(broken, where=str(path)) from None
        if "locked" in reason:
            waited = f"another process has been writing for {WAIT_SECONDS} seconds; end it, then try again"
            raise MachineError(waited, where=str(path)) from None
        if isinstance(error, sqlite3.OperationalError) and _of_the_machine(reason):
            raise MachineError(f"can't be used ({reason})", where=str(path)) from None
        raise


def _of_the_machine(reason: str) -> bool:
    signs = ("unable to open", "readonly", "disk I/O", "full", "authorized", "permission")
    return any(sign in reason for sign in signs)
