"""Fault points of `tunewright.durable` in tests: which are passed, and failures struck at one of them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from tunewright import durable


def passed(monkeypatch: Any, work: Callable[[], Any]) -> list[str]:
    """The fault points that the work passes, in order."""
    points: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(durable, "reached", points.append)
        work()
    return points


@contextmanager
def failing(monkeypatch: Any, which: int | Callable[[str], bool], error: BaseException) -> Generator[list[str]]:
    """The system refuses at one fault point, by number or by what is in it, once; what it was is in the list then."""
    struck: list[str] = []
    count = iter(range(10**9))

    def reached(point: str) -> None:
        number = next(count)
        if not struck and (which == number if isinstance(which, int) else which(point)):
            struck.append(point)
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(durable, "reached", reached)
        yield struck
