"""Values as pages show them: texts as turns, numbers and times as people read them, guidelines as HTML.

Filters of the templates. Texts of models and data are only ever escaped; guidelines, which the person who runs the
server wrote, are rendered from Markdown without raw HTML and without images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunewright.data.judgement_records import Said
from tunewright.errors import UsageError

MAX_GUIDELINES_BYTES = 200_000
_PLACES = ("best", "2nd", "3rd")
NOTHING = "–"


def turns(said: Said) -> list[tuple[str, str]]:
    """(role, text) of each message; a plain text is one without a role."""
    if isinstance(said, str):
        return [("", said)]
    return [(str(message.get("role") or "message"), _content(message)) for message in said]


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    rest = {key: value for key, value in message.items() if key != "role" and value is not None}
    return json.dumps(rest if content is None else content, ensure_ascii=False, indent=1)


def place(number: int, of: int) -> str:
    """1 as best, the last as last."""
    if number == of > 1:
        return "worse" if of == 2 else "last"
    if of == 2:
        return "better"
    return _PLACES[number - 1] if number <= len(_PLACES) else f"{number}th"


def count(value: float | None) -> str:
    """12,345."""
    return NOTHING if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """8.5 s, 43 s, 2 min."""
    if value is None:
        return NOTHING
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 100 else minutes(value / 60)


def minutes(value: float | None) -> str:
    """2 min, 1 h 20 min."""
    if value is None:
        return NOTHING
    whole = max(1, round(value))
    hours, rest = divmod(whole, 60)
    return f"{hours} h {rest:02} min" if hours else f"{whole} min"


def percent(value: float | None) -> str:
    """61 %."""
    return NOTHING if value is None else f"{100 * value:.0f} %"


def decimals(value: float | None) -> str:
    """0.62."""
    return NOTHING if value is None else f"{value:.2f}"


FILTERS: dict[str, Callable[..., Any]] = {
    "turns": turns,
    "place": place,
    "count": count,
    "seconds": seconds,
    "minutes": minutes,
    "percent": percent,
    "decimals": decimals,
}


def read_guidelines(path: Path) -> str:
    """The text that tells people how to judge. UsageError where it can't be read."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_GUIDELINES_BYTES + 1)
    except OSError as error:
        raise UsageError(f"can't be read ({error.strerror})", where=str(path), field="--guidelines") from None
    if len(content) > MAX_GUIDELINES_BYTES:
        limit = f"is longer than {MAX_GUIDELINES_BYTES // 1000} kB, which nobody would read"
        raise UsageError(limit, where=str(path), field="--guidelines")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise UsageError("isn't UTF-8 text", where=str(path), field="--guidelines") from None


def guidelines_html(text: str, *, markdown: bool) -> str:
    """Guidelines as HTML that can be put on a page as it is."""
    from html import escape

    if not text.strip():
        return ""
    if not markdown:
        return f'<div class="text">{escape(text)}</div>'
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).disable("image").enable("table").render(text)
