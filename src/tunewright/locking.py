"""Locks that end with their process: how a run folder has one writer, and how the dead are told from the living.

A lock is the system's (flock), never a process number, so that a number that was given out again can't lie. It is let
go whatever ends the process. Nothing here writes but the owner's name, for the message of whoever comes second.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

WAIT_SECONDS = 0.3  # a probe of `is_held` takes microseconds; whoever holds longer means it


class Lock:
    """A lock on a file or folder, held until `release` or the end of the process."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    def release(self) -> None:
        """Let go; a second time does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def guards(self, path: Path) -> bool:
        """Whether the path still names what is locked: not when it was removed or moved away."""
        try:
            return self._handle is not None and os.path.samestat(os.stat(path), os.fstat(self._handle))
        except OSError:
            return False

    def sign(self) -> None:
        """Write who holds it into the locked file."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def hold(path: Path, wait_seconds: float = WAIT_SECONDS) -> Lock | None:
    """The lock on this path, a file that is made if need be, or a folder; None while another process has it."""
    import fcntl

    deadline = time.monotonic() + wait_seconds
    while True:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
        lock = Lock(handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.release()
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.01)
            continue
        except OSError:
            lock.release()
            raise
        if lock.guards(path):  # else it was removed between the two calls
            return lock
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a living process holds it. What can't be asked counts as held."""
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def owner(path: Path) -> str:
    """Who signed the lock."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()[:200] or "another process"
    except OSError:
        return "another process"
