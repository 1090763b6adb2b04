"""Rows out of JSON Lines (streamed, a line at a time) and out of a JSON array (loaded, up to a limit).

Stands between `files`, which gives text, and `reading`, which knows which of the two a file is. Stricter than `json`:
no NaN, no repeated key, no endless number or nesting, because each of them would change what is learned unseen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from tunewright.data.examples import Row
from tunewright.data.files import load_text, numbered_lines
from tunewright.data.values import MAX_DEPTH, refuse_deep_nesting, refuse_half_characters, too_deep
from tunewright.errors import DataError

MAX_DIGITS = 100
_SPACE = re.compile(r"[ \t\r\n]*")
_KINDS = {list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}


class _Refused(Exception):
    """Valid for `json`, but not for us: the sentence that says why, and the key concerned."""

    def __init__(self, message: str, field: str | None = None) -> None:
        self.field = field
        super().__init__(message)


def json_line_rows(stream: IO[bytes], name: str) -> Iterator[Row]:
    """One row per line that isn't blank; `where` is the physical line."""
    position = 0
    for number, line in numbered_lines(stream, name):
        text = line.strip()
        if text:
            where = f"{name}:{number}"
            cut = not line.endswith("\n")
            value, end = _parse(text, 0, where, cut=cut)
            if end != len(text):
                raise DataError(_second_value(text, end), where=where)
            yield Row(_checked(value, text, where), where, position)
            position += 1


def json_array_rows(stream: IO[bytes], name: str) -> Iterator[Row]:
    """One row per item of the array; `where` is the line on which it starts, with its number if it shares that line."""
    text = load_text(stream, name)
    at = _skip_space(text, _skip_space(text, 0) + 1)  # past the "[" that told what this file is
    line, counted, last_line, position = 1, 0, 0, 0
    while text[at : at + 1] != "]" or position:
        line, counted = line + text.count("\n", counted, at), at
        where = f"{name}:{line}" + (f" (item {position + 1})" if line == last_line else "")
        value, end = _parse(text, at, where, cut=True)
        yield Row(_checked(value, text[at:end], where), where, position)
        last_line, position = line, position + 1
        at = _skip_space(text, end)
        if text[at : at + 1] == "]":
            break
        at = _after_comma(text, at, f"{name}:{line + text.count(chr(10), counted, at)}")
    _refuse_rest(text, at + 1, name)


def _parse(text: str, start: int, where: str, *, cut: bool) -> tuple[Any, int]:
    """The JSON value at `start`, and where it ends. `cut`: nothing follows this text in the file."""
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise DataError(_explain(error, text, cut), where=where) from None
    except _Refused as error:
        raise DataError(str(error), where=where, field=error.field) from None
    except RecursionError:
        raise too_deep(where) from None


def _checked(value: Any, text: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        expected = 'expected an object such as {"text": "...", "label": "..."}'
        raise DataError(f"found {_KINDS[type(value)]}; {expected}", where=where)
    # Only an escape can bring half a character, and only many brackets a deep nest: others needn't be searched.
    if "\\u" in text:
        refuse_half_characters(value, where)
    if text.count("[") + text.count("{") > MAX_DEPTH:
        refuse_deep_nesting(value, where)
    return value


def _explain(error: json.JSONDecodeError, text: str, cut: bool) -> str:
    """What is wrong with this JSON, in words."""
    rest = text[error.pos :].lstrip()
    unfinished = not rest or error.msg.startswith("Unterminated string")
    if cut and (unfinished or not text.rstrip().endswith(("}", "]"))):
        return "the JSON stops in the middle: the file was cut off; remove this row or copy the file again"
    if unfinished:
        return "holds only a part of a JSON object; expected each object on one line of its own, or one array of all"
    if rest[0] == "'":
        return f"not JSON at column {error.colno}: text stands in single quotes; JSON wants double quotes"
    if rest[0] in "}]" or error.msg.startswith("Illegal trailing comma"):
        return f"not JSON at column {error.colno}: a comma or colon with nothing after it"
    reason = error.msg[0].lower() + error.msg[1:]
    return f"not JSON at column {error.colno}: {reason}, found {_quoted(rest)}"


def _second_value(text: str, end: int) -> str:
    rest = text[end:].lstrip()
    column = len(text) - len(rest) + 1
    if rest[0] in "{[":
        return f"holds more than one JSON value (the second starts at column {column}); give each its own line"
    return f"not JSON at column {column}: found {_quoted(rest)} after a complete value"


def _after_comma(text: str, at: int, where: str) -> int:
    if not text[at:]:
        raise DataError('the JSON array is cut off: "]" is missing; copy the file again', where=where)
    if text[at] != ",":
        found = _quoted(text[at : at + 20])
        raise DataError(f'not JSON: expected "," or "]" between the items of the array, found {found}', where=where)
    return _skip_space(text, at + 1)


def _refuse_rest(text: str, end: int, name: str) -> None:
    rest = _skip_space(text, end)
    if rest < len(text):
        where = f"{name}:{text.count(chr(10), 0, rest) + 1}"
        found = _quoted(text[rest : rest + 20])
        raise DataError(f"found {found} after the end of the JSON array; expected one array in the file", where=where)


def _quoted(text: str) -> str:
    return json.dumps(text[:20], ensure_ascii=False)


def _skip_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f'"{repeated}" stands twice in one object; keep one of them', repeated)
    return values


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused(f"a number has {len(digits)} digits; expected at most {MAX_DIGITS} (write it as text)")
    return int(digits)


def _constant(word: str) -> None:
    raise _Refused(f"{word} is not JSON; write null, or leave the row out")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
