"""`tunewright doctor`: what is wrong with this machine, if anything, and what to do about it.

Thin: the checks are the library's; this file prints each as soon as it is known.
"""

from __future__ import annotations

import sys
import textwrap

from tunewright.cli import output
from tunewright.cli.options import DEFAULT_RUNS, AsJson, Quiet, RunsFolder
from tunewright.doctor.check import Check
from tunewright.errors import MachineError

_STYLES = {"ok": "green", "warn": "yellow", "bad": "bold red"}
_NAME_WIDTH = 16
_INDENT = " " * (_NAME_WIDTH + 7)


def doctor(runs: RunsFolder = DEFAULT_RUNS, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Check Python, packages, processor, memory, disk, folders and Hub, and say what to fix."""
    from tunewright.doctor.examination import examine

    checks: list[Check] = []
    for check in examine(runs):
        checks.append(check)
        if not as_json and not (quiet and check.state == "ok"):
            show(check)
    stopping = [check.name for check in checks if check.state == "bad"]
    if as_json:
        state = "bad" if stopping else "warn" if any(check.state == "warn" for check in checks) else "ok"
        body = {"run": None, "state": state, "metrics": {}, "checks": [check.to_json() for check in checks]}
        error = _error(stopping) if stopping else None
        output.print_json(body | {"error": output.failure(error)["error"] if error else None})
        if error:
            raise output.Reported(error)
    elif stopping:
        raise _error(stopping)


def _error(stopping: list[str]) -> MachineError:
    return MachineError(f"a run would be stopped by: {', '.join(stopping)}; what to do stands beside each")


def show(check: Check) -> None:
    """One check: state, name, what was found; what to do stands below."""
    signs = output.marks()
    room = max(40, min(output.width(), 120) - len(_INDENT))
    found = textwrap.wrap(output.spelt(check.found, signs), room, break_on_hyphens=False) or [""]
    lines = [f" {check.state:<4}  {check.name:<{_NAME_WIDTH}}{found[0]}", *(_INDENT + line for line in found[1:])]
    if check.advice:
        advice = textwrap.wrap(output.spelt(check.advice, signs), room - 3, break_on_hyphens=False)
        arrows = [f"{signs.arrow} ", *("  " for _ in advice[1:])]
        lines += [f"{_INDENT}{arrow}{line}" for arrow, line in zip(arrows, advice, strict=True)]
    if not output.is_live(sys.stdout):
        output.show(lines)
        sys.stdout.flush()
        return
    from rich.text import Text

    screen = output.console(sys.stdout)
    for number, line in enumerate(lines):
        text = Text(line)
        if number == 0:
            text.stylize(_STYLES[check.state], 1, 5)
        screen.print(text, soft_wrap=True)
