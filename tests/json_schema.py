"""A small JSON Schema checker: the keywords that ours uses, and an error for any other, so none goes unchecked."""

from __future__ import annotations

from typing import Any

WORDS = {"title", "description", "default", "$defs"}
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}
LIMITS = {
    "minimum": lambda value, limit: value >= limit,
    "maximum": lambda value, limit: value <= limit,
    "exclusiveMinimum": lambda value, limit: value > limit,
    "exclusiveMaximum": lambda value, limit: value < limit,
}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, path: str = "") -> list[str]:
    """What is wrong with a value, a sentence each."""
    root = schema if root is None else root
    found: list[str] = []
    for word, wanted in schema.items():
        if word in WORDS:
            continue
        if word == "$ref":
            found += problems(value, root["$defs"][wanted.removeprefix("#/$defs/")], root, path)
        elif word == "anyOf":
            if all(problems(value, option, root, path) for option in wanted):
                found.append(f"{path}: {value!r} fits none of {len(wanted)} forms")
        elif word == "type":
            found += [] if _is(value, wanted) else [f"{path}: {value!r} is no {wanted}"]
        elif word in ("const", "enum"):
            found += [] if value in (wanted if word == "enum" else [wanted]) else [f"{path}: {value!r} isn't {wanted}"]
        elif word == "required":
            missing = [name for name in wanted if isinstance(value, dict) and name not in value]
            found += [f"{path}.{name} is missing" for name in missing]
        elif word in LIMITS:
            fits = not _is(value, "number") or LIMITS[word](value, wanted)
            found += [] if fits else [f"{path}: {value!r} breaks {word} {wanted}"]
        elif word in ("items", "properties", "additionalProperties"):
            parts = _parts(value, word, schema)
            found += [p for key, part, inner in parts for p in problems(part, inner, root, f"{path}.{key}")]
        elif word == "not":
            found += [f"{path} is unknown"]
        else:
            raise NotImplementedError(f"JSON Schema keyword {word} at {path}")
    return found


def _parts(value: Any, word: str, schema: dict[str, Any]) -> list[tuple[Any, Any, dict[str, Any]]]:
    """(key, part, its schema) of each part that a keyword speaks of."""
    wanted = schema[word]
    if word == "items":
        return [(i, item, wanted) for i, item in enumerate(value)] if isinstance(value, list) else []
    if not isinstance(value, dict):
        return []
    named, refused = schema.get("properties", {}), {"not": {}}
    if word == "properties":
        return [(key, value[key], wanted[key]) for key in value if key in wanted]
    return [(key, value[key], refused if wanted is False else wanted) for key in value if key not in named]


def _is(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        whole = isinstance(value, int) or (kind == "number" and isinstance(value, float))
        return whole and not isinstance(value, bool)
    return isinstance(value, TYPES[kind])
