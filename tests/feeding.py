"""Feeds the command something bad and looks at what comes out: one line, the right exit code, nothing left behind.

The tables of tests/test_bad_*.py are made of `Case`s; `feed` is the oracle of all of them. The command runs in this
process through its real entry point (`app.main`), so that a case costs milliseconds; a few run as real processes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.whole import PYTHON, child_environment
from tunewright.cli import app

SECONDS = 5.0
Content = str | bytes | Callable[[Path], object]  # a callable makes the file itself


@dataclass(frozen=True)
class Case:
    """One bad input: what lies in the folder, what is typed, what has to be said."""

    name: str
    code: int  # exit code
    says: tuple[str, ...]  # all of them stand in the one error line
    files: Mapping[str, Content] = field(default_factory=dict)
    run: tuple[str, ...] = ("train", "data.jsonl")
    leaves: tuple[str, ...] = ()  # what may be new afterwards
    seconds: float = SECONDS


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error[")]


def rows(n: int = 24, **changed: object) -> list[dict[str, object]]:
    """Good rows of two classes; every one gets what is changed."""
    words = ("a good film", "a bad film")
    return [
        {"text": f"{words[i % 2]} number {i}", "label": ("positive", "negative")[i % 2]} | changed for i in range(n)
    ]


def jsonl(*given: object, good: int = 0) -> str:
    """JSON Lines: as many good rows, then those given; text is a line as it stands."""
    lines = [json.dumps(row) for row in rows(good)]
    return "".join(f"{line}\n" for line in lines + [g if isinstance(g, str) else json.dumps(g) for g in given])


def write(folder: Path, files: Mapping[str, Content]) -> None:
    """Make the files of a case."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def tree(folder: Path) -> set[str]:
    """Everything under a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def call(*arguments: str) -> Outcome:
    """The command in this process."""
    import tunewright.pipeline  # noqa: F401 - torch is imported once, and not by the first case of a table

    # Processor time: other tests run beside this one. A command that waits for ever is stopped by pytest's own limit.
    out, err, began = Stream(), Stream(), time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = app.main(list(arguments))
    return Outcome(code, out.text, err.text, time.process_time() - began)


def call_apart(*arguments: str, folder: Path, **environment: str) -> Outcome:
    """The command as a real process in a folder."""
    began = time.perf_counter()
    done = subprocess.run(
        [PYTHON, "-m", "tunewright", *arguments],
        cwd=folder, env={**child_environment(), **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr, time.perf_counter() - began)


class Stream(io.TextIOWrapper):
    """What a pipe is to Python: text over bytes, so that both layers can be written to."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]


def feed(case: Case, folder: Path) -> Outcome:
    """Run a case in a folder, and hold the outcome against the five promises of a bad input."""
    write(folder, case.files)
    before = tree(folder)
    with inside(folder):
        outcome = call(*case.run)
    judge(outcome, case.code, case.says, case.seconds)
    left = {path for path in tree(folder) - before if not path.startswith(case.leaves or "\0")}
    assert not left, f"left behind: {sorted(left)}"
    return outcome


def judge(outcome: Outcome, code: int, says: tuple[str, ...] = (), seconds: float = SECONDS) -> None:
    """One error line that says it all, the exit code of its kind, in time, and no traceback."""
    everything = outcome.out + outcome.err
    assert "Traceback" not in everything, everything
    assert len(outcome.errors) == 1 and outcome.err.endswith("\n"), everything
    assert outcome.err.splitlines()[-1] == outcome.errors[0], everything
    missing = [fragment for fragment in says if fragment not in outcome.errors[0]]
    assert not missing, f"{missing} not in: {outcome.errors[0]}"
    assert outcome.code == code, everything
    assert outcome.errors[0].isprintable()
    assert outcome.seconds < seconds


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def names(cases: list[Case]) -> list[str]:
    """Test ids; two cases of one name would hide each other."""
    found = [case.name for case in cases]
    assert len(set(found)) == len(found), sorted(name for name in found if found.count(name) > 1)
    return found
