"""What all pages of one server share, what a handler is given, and what it answers.

A handler is a plain function `(desk, call) -> Page | Move` that runs in a thread; `app` turns its answer into HTML or,
for a program, the same values as JSON. Nothing here draws or checks who may ask.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

from tunewright.data.judgement_checks import known_name
from tunewright.data.judgement_records import Progress
from tunewright.data.judgements import Judgements
from tunewright.errors import UsageError
from tunewright.evaluation.judgement_quality import Quality, quality
from tunewright.web.forms import Form

COOKIE = "tunewright_annotator"
_SAMPLES = 200  # for the interval of alpha: a panel needs no third digit
_KEPT_SECONDS, _COST_FACTOR = 2, 20
_LAST_PROMPTS = 3  # near the end there is no pace to speak of


class Measured:
    """The quality of the judgements, made anew when it is old; one thread makes it, the others take what there is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Quality | None = None
        self._until = 0.0

    def of(self, store: Judgements) -> Quality:
        """At most a few seconds old, or twenty times as old as it took to make."""
        if self._found is not None and (self._clock() < self._until or self._lock.locked()):
            return self._found
        with self._lock:
            if self._found is None or self._clock() >= self._until:
                start = self._clock()
                self._found = quality(store.judgements(), store.completions(), samples=_SAMPLES)
                took = self._clock() - start
                self._until = start + took + max(_KEPT_SECONDS, _COST_FACTOR * took)
            return self._found


@dataclass(frozen=True)
class Desk:
    """The store that people work on, and how."""

    store: Judgements
    overlap: float = 0.0  # share of the prompts that two people judge
    guidelines: str = ""  # as the file says
    guidelines_html: str = ""
    writes: bool = False  # whether people also write completions
    store_name: str = "judgements.db"  # as in the commands that pages tell
    annotator: str | None = None  # who judges; None: each browser says its own
    measured: Measured = field(default_factory=Measured)
    now: Callable[[], float] = time.time


@dataclass(frozen=True)
class Call:
    """One request, let in and read."""

    query: Mapping[str, str] = field(default_factory=dict[str, str])
    form: Form = field(default_factory=Form)
    annotator: str = ""  # empty: not said yet


@dataclass(frozen=True)
class Page:
    """Values for a template; a program gets `values` as they are."""

    template: str
    values: Mapping[str, Any]
    status: int = 200


@dataclass(frozen=True)
class Move:
    """Done; a browser goes on to `place`, a program gets `values`."""

    place: str
    values: Mapping[str, Any]
    annotator: str | None = None  # a name to remember


Answer: TypeAlias = Page | Move
Handler: TypeAlias = Callable[[Desk, Call], Answer]


def annotator_of(cookie: str | None, desk: Desk) -> str:
    """The one name of this server, else what the browser said before; empty for none, and for what can't be one."""
    if desk.annotator is not None:
        return desk.annotator
    try:
        return known_name(unquote(cookie or ""))
    except UsageError:
        return ""


def as_cookie(name: str) -> str:
    """A name in the few characters that cookies may have."""
    return quote(name, safe="")


def pace(desk: Desk, annotator: str) -> dict[str, Any]:
    """How far a person has come, and how long the rest takes at their pace."""
    found: Progress = desk.store.progress(annotator, desk.overlap)
    seconds = found.seconds_per_judgement
    minutes = found.left * seconds / 60 if seconds is not None and found.left >= _LAST_PROMPTS else None
    return {
        "judged": found.judged,
        "skipped": found.skipped,
        "written": found.written,
        "left": found.left,
        "prompts": found.prompts,
        "prompts_judged": found.prompts_judged,
        "seconds_per_judgement": None if seconds is None else round(seconds, 1),
        "minutes_left": None if minutes is None else round(minutes, 1),
    }
