"""The process in which chat templates run: one JSON job per line in, one JSON answer per line out.

A script, run by `templates.Renderer` with `python -I`; imports nothing of ours. Jinja's immutable sandbox keeps a
template from Python's insides; the limits below keep it from files, memory and processes should it get there.
"""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, which marks what an assistant says: only its body matters here."""

    tags = {"generation"}  # noqa: RUF012 - jinja reads it from the class

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Environment(ImmutableSandboxedEnvironment):
    """The sandbox, without any attribute that begins with an underscore."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not attr.startswith("_") and super().is_safe_attribute(obj, attr, value)


def environment() -> Environment:
    """As the chat templates of the Hub expect it."""
    made = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    made.filters["tojson"] = _to_json
    given: dict[str, Any] = made.globals  # pyright: ignore[reportAssignmentType]
    given |= {"raise_exception": _raise, "strftime_now": _now}
    del given["lipsum"]
    return made


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes < and >, which a prompt needs as they are.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(format: str) -> str:
    return datetime.now().strftime(format)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def render(made: Environment, job: dict[str, Any]) -> str:
    """The text, piece by piece, so that one which grows for ever is noticed."""
    pieces, length = [], 0
    for piece in made.from_string(job["template"]).generate(**job["variables"]):
        length += len(piece)
        if length > job["max_characters"]:
            raise ValueError(f"it writes more than {job['max_characters']:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def limit(memory_bytes: int) -> None:
    """From here on: so much memory, no file, no new process; as far as the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _load_late_modules(made: Environment) -> None:
    """What jinja and Python import at the first use, while files may still be opened."""
    for template in (
        "{% for a in range(2) %}{{ a | tojson }}{{ strftime_now('%c') }}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{",
    ):
        with contextlib.suppress(Exception):
            made.from_string(template).render()


def main() -> None:
    """Answer until nobody asks."""
    made = environment()
    _load_late_modules(made)
    limit(int(sys.argv[1]))
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            answer = {"text": render(made, json.loads(line))}
        except MemoryError:
            answer = {"error": "it needs more memory than a template may have"}
        except Exception as error:  # whatever a template does wrong is said, and the next one is served
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
