"""What every check of the doctor comes to: plain data, and what to do where it isn't well.

Made by the other files of this folder, shown by the command. Checks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Check:
    """One thing looked at. `bad`: it would stop a run; `warn`: a run works, but worse than it could."""

    name: str
    state: State
    found: str
    advice: str = ""  # what to do, where it isn't ok
    values: Mapping[str, Any] = field(default_factory=dict)  # the numbers behind the words

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
