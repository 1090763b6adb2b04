"""Write docs/recipe.md and docs/cli.md from the code. `make docs` runs it; a test fails when a page is stale.

python docs/generate.py [--check]
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def recipe_page() -> str:
    """Every setting of the recipe, a table per part."""
    from tunewright.recipe_files import field_docs

    lines = [
        "# Recipe reference",
        "",
        "Every setting, from the classes in `src/tunewright/recipe.py` (written by `docs/generate.py`; don't edit).",
        "A recipe is one YAML file; `-s training.learning_rate=1e-4` puts a value on top. `auto` means that tunewright",
        "decides and writes the value, with its reason, into the run's `recipe.resolved.yaml`.",
    ]
    part = None
    for doc in field_docs():
        name = doc.path.split(".")[0] if "." in doc.path else ""
        if name != part:
            part = name
            lines += [
                "",
                f"## {name or 'Top level'}",
                "",
                "| setting | type | default | meaning |",
                "|---|---|---|---|",
            ]
        cells = [f"`{doc.path}`", _bar(doc.type), f"`{_bar(doc.default)}`", _bar(doc.help)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _bar(text: str) -> str:
    return text.replace("|", "\\|")


def commands() -> list[list[str]]:
    """Every command and group there is, in the order of the help."""
    from typer.main import get_command

    from tunewright.cli.app import app

    def below(group: Any, path: list[str]) -> Iterator[list[str]]:
        for name, command in getattr(group, "commands", {}).items():
            if not command.hidden:
                yield [*path, name]
                yield from below(command, [*path, name])

    return list(below(get_command(app), []))


def cli_page() -> str:
    """The help of every command, as an 80-column terminal shows it."""
    lines = [
        "# Command reference",
        "",
        "The help of every command, as the command prints it (written by `docs/generate.py`; don't edit).",
        "Progress goes to stderr, results to stdout. Exit codes: 0 done, 2 usage or recipe, 3 data, 4 model,",
        "5 environment, 6 network, 7 diverged, 8 gate not met, 130 interrupted, 143 terminated, 1 our own bug.",
        "",
        "## tunewright",
        "",
        _block(help_of([])),
    ]
    for command in commands():
        lines += ["", f"## tunewright {' '.join(command)}", "", _block(help_of(command))]
    return "\n".join(lines) + "\n"


def _block(text: str) -> str:
    return f"```\n{text}\n```"


def help_of(command: list[str]) -> str:
    """What `tunewright COMMAND --help` prints at 80 columns without colour."""
    os.environ |= {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
    from typer.testing import CliRunner

    from tunewright.cli.app import app

    result = CliRunner().invoke(app, [*command, "--help"], prog_name="tunewright")
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


PAGES = {"recipe.md": recipe_page, "cli.md": cli_page}


def main() -> int:
    stale = [name for name, page in PAGES.items() if not _same(HERE / name, page())]
    if "--check" in sys.argv:
        print("\n".join(f"docs/{name} is stale; run: make docs" for name in stale))
        return bool(stale)
    for name in stale:
        (HERE / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"wrote docs/{name}")
    return 0


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
