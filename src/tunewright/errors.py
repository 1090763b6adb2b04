"""The errors a person can cause, and the exit code of each.

    TunewrightError
    ├── UsageError       2   a command or call that makes no sense
    │   └── RecipeError  2   the recipe says something impossible
    ├── DataError        3   a file, row or column of the data
    ├── ModelError       4   a base model, adapter or checkpoint
    ├── MachineError     5   memory, disk, permissions, a missing package
    ├── NetworkError     6   a hub that can't be reached or refuses
    ├── DivergedError    7   the loss stopped being a number
    ├── GateError        8   a promised metric was not met
    └── StoppedError   130   asked to stop (SIGINT); 143 for SIGTERM

Each is one sentence: where, what was found, what was expected, what to do. The command prints it as one
`error[CODE]` line; the library raises it. Anything else that escapes is our own bug, exit 1.

    try:
        run = tunewright.train("minilm", "reviews.jsonl")
    except tunewright.DataError as error:
        print(error.code, error.where, error.field)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunewrightError(Exception):
    """Base of every error in this package. `where` is file:row, `field` the column or recipe key concerned."""

    exit_code = 1
    code = "bug"

    def __init__(self, message: str, *, where: str | None = None, field: str | None = None) -> None:
        self.message = _one_line(message)
        self.where = _one_line(where) if where else None
        self.field = field
        super().__init__(f"{self.where}: {self.message}" if where else self.message)

    def line(self) -> str:
        """The one line that a command prints."""
        return f"error[{self.code}] {self}"


class UsageError(TunewrightError, ValueError):
    """A command or a call that makes no sense."""

    exit_code = 2
    code = "usage"


class RecipeError(UsageError):
    """The recipe says something impossible, or something unknown."""

    code = "recipe"


class DataError(TunewrightError, ValueError):
    """A file, row or column of the data can't be used."""

    exit_code = 3
    code = "data"


class ModelError(TunewrightError, ValueError):
    """A base model, adapter, checkpoint or run can't be used."""

    exit_code = 4
    code = "model"


class MachineError(TunewrightError, OSError):
    """Memory, disk, permissions, or a package that isn't installed."""

    exit_code = 5
    code = "environment"

    # OSError's own __str__ looks at errno; ours is the sentence.
    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class NetworkError(TunewrightError, ConnectionError):
    """A hub that can't be reached, or that refuses."""

    exit_code = 6
    code = "network"

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class DivergedError(TunewrightError, ArithmeticError):
    """The loss or the gradient stopped being a number."""

    exit_code = 7
    code = "diverged"


class GateError(TunewrightError):
    """A metric is below what was asked for."""

    exit_code = 8
    code = "gate"


class StoppedError(TunewrightError):
    """The run was asked to stop and has saved a checkpoint; resume continues it."""

    exit_code = 130
    code = "stopped"

    def __init__(self, message: str, *, signal_number: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean "X"?` for the nearest known word, whatever its case, or nothing."""
    by_lower = {str(name).lower(): str(name) for name in known}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f' Did you mean "{by_lower[near[0]]}"?' if near else ""


def _one_line(text: str) -> str:
    """Line breaks become spaces, and nothing a file name or column brings can steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
