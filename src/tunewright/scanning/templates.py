"""Chat templates are strangers' programs: how large and under which names they may come, and the one place to run them.

`check_file` and `check_settings` belong to the scan. `Renderer` runs templates in Jinja's sandbox, in a process of its
own (`rendering`) that has little memory, may open no file, and is ended when it takes too long.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.errors import MachineError, ModelError

MAX_TEMPLATE_BYTES = 256 * 2**10  # the longest in use have 30 kB
MAX_TEMPLATES = 32
# Names become file names when a tokenizer is saved.
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,96}")
_START_SECONDS = 30.0


# ---- the scan ----


def check_file(path: Path) -> None:
    """A .jinja file. Raises ModelError."""
    _check_name(path.stem, path)
    if path.stat().st_size > MAX_TEMPLATE_BYTES:
        raise _too_long(path.stat().st_size, path)


def check_settings(body: Any, path: Path) -> None:
    """The templates inside tokenizer_config.json and its kin: a text, a table by name, or a list of both."""
    found = body.get("chat_template") if isinstance(body, dict) else None
    if found is None:
        return
    entries = found if isinstance(found, list) else list(found.items()) if isinstance(found, dict) else [found]
    if len(entries) > MAX_TEMPLATES:
        raise ModelError(f"brings {len(entries):,} chat templates; at most {MAX_TEMPLATES} are read", where=str(path))
    for entry in entries:
        name, template = _named(entry)
        if name is not None:
            _check_name(name, path)
        if not isinstance(template, str):
            raise ModelError("its chat_template is no text", where=str(path), field="chat_template")
        if len(template.encode(errors="replace")) > MAX_TEMPLATE_BYTES:
            raise _too_long(len(template.encode(errors="replace")), path)


def _named(entry: Any) -> tuple[Any, Any]:
    if isinstance(entry, dict):
        return entry.get("name") or "", entry.get("template")
    return entry if isinstance(entry, tuple) else (None, entry)


def _check_name(name: Any, path: Path) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ModelError(
            f"has a chat template called {str(name)[:60]!r}; a name may hold letters, digits, dot, dash and underscore",
            where=str(path),
            field="chat_template",
        )


def _too_long(size: int, path: Path) -> ModelError:
    return ModelError(
        f"has a chat template of {size:,} bytes; at most {MAX_TEMPLATE_BYTES:,} are read",
        where=str(path),
        field="chat_template",
    )


# ---- running one ----


class Renderer:
    """Renders templates in one child process, started at the first use and again after each that had to be ended."""

    def __init__(
        self, *, seconds: float = 2.0, max_characters: int = 2_000_000, memory_bytes: int = 512 * 2**20
    ) -> None:
        self.seconds, self.max_characters, self.memory_bytes = seconds, max_characters, memory_bytes
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def render(self, template: str, variables: Mapping[str, Any]) -> str:
        """The text of a template. Raises ModelError when it fails, takes too long, or writes too much."""
        if len(template.encode(errors="replace")) > MAX_TEMPLATE_BYTES:
            raise ModelError(f"the chat template is longer than {MAX_TEMPLATE_BYTES:,} bytes", field="chat_template")
        job = {"template": template, "variables": dict(variables), "max_characters": self.max_characters}
        answer = self._ask(json.dumps(job).encode() + b"\n")
        if "text" not in answer:
            raise ModelError(f"the chat template can't be used ({answer.get('error')})", field="chat_template")
        return str(answer["text"])

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    stream.close() if stream else None

    def _ask(self, job: bytes) -> dict[str, Any]:
        child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(job)
            child.stdin.flush()
            line = self._line(child.stdout.fileno(), self.seconds)
            answer = json.loads(line)
        except TimeoutError:
            answer = {"error": f"it ran for more than {self.seconds:g} seconds"}
            self.close()
        except (OSError, ValueError):
            answer = {"error": "it needed more memory than a template may have"}
            self.close()
        return answer if isinstance(answer, dict) else {}

    def _start(self) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("rendering.py")
        # -I: no folder of ours or of the template's author on the path, no variable heeded; an empty environment.
        self._child = subprocess.Popen(  # noqa: S603 - no shell, no argument of a person
            [sys.executable, "-I", str(script), str(self.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": ""},
            close_fds=True,
        )
        assert self._child.stdout is not None
        try:
            ready = self._line(self._child.stdout.fileno(), _START_SECONDS)
        except OSError:
            ready = b""
        if ready != b"ready":
            self.close()
            raise MachineError("the process that renders chat templates doesn't start; is jinja2 installed?")
        return self._child

    def _line(self, descriptor: int, seconds: float) -> bytes:
        """One line of the child, waited for no longer than `seconds`."""
        import time

        until, found = time.monotonic() + seconds, bytearray()
        while not found.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise TimeoutError
            piece = os.read(descriptor, 1 << 16)
            if not piece or len(found) > 8 * self.max_characters + 1000:
                raise OSError("the child ended")
            found += piece
        return bytes(found[:-1])
