"""What a page sends: read within limits, and made into a judgement as the store keeps it.

Without scripts a form says each completion's place; programs send JSON with the ranking itself. `ranking` and `writing`
use both alike. Checks shape only: whether a ranking fits its prompt is the store's to say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from tunewright.errors import UsageError
from tunewright.web.security import MAX_BODY_BYTES

MAX_FIELDS = 100


@dataclass(frozen=True)
class Form:
    """The fields of one request, each with all its values in order; `sent` is the object where it was JSON."""

    fields: tuple[tuple[str, str], ...] = ()
    sent: dict[str, Any] | None = None

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        if self.sent is not None:
            value = self.sent.get(name, [])
            return [str(one) for one in value] if isinstance(value, list) else [str(value)]
        return [value for given, value in self.fields if given == name]

    def one(self, name: str) -> str:
        """A field's last value; empty where there is none or null."""
        if self.sent is not None and self.sent.get(name) is None:
            return ""
        return (self.all(name) or [""])[-1]

    def text(self, name: str) -> str:
        """A field of several lines, which browsers send with the line ends of another age."""
        return self.one(name).replace("\r\n", "\n").replace("\r", "\n")


async def read_form(request: Request) -> Form:
    """The body as fields. UsageError for what isn't a form or JSON object, and for more than the limits."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind and request.headers.get("content-length") == "0":
        return Form()
    if kind not in ("application/x-www-form-urlencoded", "application/json"):
        expected = "expected application/x-www-form-urlencoded or application/json"
        raise UsageError(f'the content type is "{kind}"; {expected}', field="content-type")
    text = await _body(request)
    if kind == "application/json":
        return Form(sent=_json_object(text))
    try:
        return Form(tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="replace")))
    except ValueError:
        raise UsageError(f"the form has more than {MAX_FIELDS} fields") from None


async def _body(request: Request) -> str:
    """At most what the guard lets in, whatever length was announced."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise UsageError(f"the form is longer than {MAX_BODY_BYTES // 1_000_000} MB")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise UsageError("the form isn't UTF-8") from None


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("the body isn't JSON") from None
    if not isinstance(found, dict):
        raise UsageError("the body isn't a JSON object")
    return found


@dataclass(frozen=True)
class Filled:
    """A judgement as a person gave it."""

    prompt_id: str
    shown: tuple[str, ...]  # completion ids, left to right
    places: tuple[int, ...]  # of each of them, 1 the best, equal where tied; 0: none given
    both_bad: bool = False
    skip: bool = False
    note: str = ""
    seconds: float | None = None

    @property
    def flags(self) -> list[str]:
        """As the store names them."""
        return [name for name, there in (("both_bad", self.both_bad), ("skip", self.skip)) if there]

    @property
    def unplaced(self) -> list[int]:
        """Numbers, from 1, of the completions without a place."""
        return [number for number, place in enumerate(self.places, 1) if not place]

    def ranking(self) -> list[list[str]]:
        """Ids, best first, ties together; empty where nothing is ranked. UsageError where some have no place.

        Places need no order of their own: 1, 3, 3 says the same as 1, 2, 2.
        """
        if self.skip or (self.both_bad and not any(self.places)):
            return []
        if self.unplaced:
            *before, last = map(str, self.unplaced)
            missing = f"{', '.join(before)} and {last} have" if before else f"{last} has"
            raise UsageError(f"{missing} no place yet: give each completion one; the same place is a tie")
        return tiers(self.shown, self.places)


def tiers(shown: Sequence[str], places: Sequence[int]) -> list[list[str]]:
    """Completions by place, best first; those of one place together, in the order they were shown."""
    found: dict[int, list[str]] = {}
    for id, place in zip(shown, places, strict=True):
        found.setdefault(place, []).append(id)
    return [found[place] for place in sorted(found)]


def places_of(shown: Sequence[str], ranking: Sequence[Sequence[str]]) -> list[int]:
    """The place of each completion shown, 0 where the ranking doesn't hold it."""
    place = {id: number for number, group in enumerate(ranking, 1) for id in group}
    return [place.get(id, 0) for id in shown]


def filled(form: Form, now: float) -> Filled:
    """What a form or a JSON object says; `now` in seconds since 1970, as `served` in the form."""
    shown = tuple(form.all("shown"))
    if form.sent is not None:
        places, flags = _sent_places(form.sent, shown), form.all("flags")
    else:
        places, flags = _marked_places(form, len(shown)), [*form.all("flags"), form.one("action")]
    return Filled(
        prompt_id=form.one("prompt"),
        shown=shown,
        places=places,
        both_bad="both_bad" in flags,
        skip="skip" in flags,
        note=form.text("note").strip(),
        seconds=_seconds(form, now),
    )


def _marked_places(form: Form, size: int) -> tuple[int, ...]:
    """The radio buttons: place-1 is the place of what stood first."""
    given = [form.one(f"place-{number}") for number in range(1, size + 1)]
    return tuple(int(place) if place.isascii() and place.isdigit() and len(place) < 4 else 0 for place in given)


def _sent_places(sent: dict[str, Any], shown: tuple[str, ...]) -> tuple[int, ...]:
    ranking = sent.get("ranking") or []
    if not isinstance(ranking, list) or not all(isinstance(group, list) for group in ranking):
        raise UsageError("ranking must be a list of lists of completion ids, best first", field="ranking")
    ids = [str(id) for group in ranking for id in group]
    if len(set(ids)) != len(ids) or set(ids) - set(shown):
        raise UsageError("ranking must hold each id of shown once, and no other", field="ranking")
    return tuple(places_of(shown, [[str(id) for id in group] for group in ranking]))


def _seconds(form: Form, now: float) -> float | None:
    """How long it took: the time in which a script saw the page in sight, never more than since the page was sent."""
    since = _number(form.one("served"))
    longest = None if since is None else max(0.0, now - since)
    seen = _number(form.one("seconds"))
    if seen is None or seen < 0:
        return longest
    return seen if longest is None else min(seen, longest)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
