"""Checks on the values of one row that a tokenizer or a label can't survive, and plain Python in place of NumPy's.

Used by every reader. Doesn't look at columns or types: `columns` and `labels` do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright.errors import DataError

MAX_DEPTH = 100


def refuse_half_characters(values: Mapping[str, Any], where: str) -> None:
    """DataError where text holds half of a surrogate pair (\\ud83d alone), which no encoding can write."""
    for column, value in values.items():
        half = _half_character(column) or _half_character(value)
        if half:
            raise DataError(
                f'column "{column.encode("utf-8", "replace").decode()}" holds \\u{ord(half):04x}, half of a character '
                "(a lone surrogate); remove it, or write both halves",
                where=where,
                field=column,
            )


def refuse_deep_nesting(values: Mapping[str, Any], where: str) -> None:
    """DataError where lists or objects lie more than MAX_DEPTH deep."""
    level: list[Any] = [values]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise too_deep(where)


def too_deep(where: str) -> DataError:
    """The error for a value that is nested without end."""
    return DataError(f"lists or objects are nested more than {MAX_DEPTH} deep; expected text and labels", where=where)


def plain(value: Any) -> Any:
    """A NumPy scalar or array (or a tensor) as plain Python; everything else as it is."""
    convert = None if type(value).__module__ == "builtins" else getattr(value, "tolist", None)
    return convert() if convert else value


def _half_character(value: Any) -> str:
    if isinstance(value, str):
        return "" if value.isascii() else next((c for c in value if "\ud800" <= c <= "\udfff"), "")
    return next((half for inner in _inside(value) if (half := _half_character(inner))), "")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple) else []
