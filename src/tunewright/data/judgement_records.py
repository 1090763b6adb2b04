"""The records of a store of judgements: prompts, completions, rankings by people, demonstrations. Plain data.

`judgements` keeps them, the page shows and fills them, `evaluation.agreement` measures them, `judgement_export` turns
them into training data. A text is a string, or a list of messages (`{"role": …, "content": …}`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Said: TypeAlias = str | list[dict[str, Any]]  # a text, or messages
Ranking: TypeAlias = tuple[tuple[str, ...], ...]  # completion ids: best first, ties in one tuple
# imported: whoever gave it to us didn't say in which order the completions were shown.
Flag = Literal["both_bad", "skip", "imported"]


@dataclass(frozen=True)
class Prompt:
    """What was asked."""

    id: str
    text: Said
    source: str  # file:row
    split: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])  # the other columns of its row


@dataclass(frozen=True)
class Completion:
    """One answer to a prompt. Who wrote it isn't here, so that no page can show it; see `Judgements.origins`."""

    id: str
    prompt_id: str
    text: Said


@dataclass(frozen=True)
class Origin:
    """Who wrote a completion, and how."""

    completion_id: str
    name: str  # run:NAME, a base model, or human
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Judgement:
    """One act of one person: completions of a prompt in the order they were shown, ranked."""

    id: int
    prompt_id: str
    annotator: str
    shown: tuple[str, ...]  # completion ids, left to right
    ranking: Ranking  # each of `shown` once; empty where nothing was ranked
    flags: tuple[Flag, ...] = ()
    note: str = ""
    seconds: float | None = None  # from being shown to being judged
    created: str = ""  # ISO 8601, UTC
    withdrawn: str | None = None  # when it was undone

    @property
    def skipped(self) -> bool:
        """Whether the person had no opinion; it counts neither as judged nor as data."""
        return "skip" in self.flags

    @property
    def has_places(self) -> bool:
        """Whether `shown` is the order in which they were seen."""
        return "imported" not in self.flags

    @property
    def all_bad(self) -> bool:
        """Whether none of what was shown is any good."""
        return "both_bad" in self.flags


@dataclass(frozen=True)
class Demonstration:
    """A completion that a person wrote or corrected."""

    id: int
    prompt_id: str
    annotator: str
    text: str
    based_on: str | None = None  # id of the completion that was corrected
    created: str = ""
    withdrawn: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far one person, and everybody together, has come."""

    judged: int  # by this person, skipped ones left out
    skipped: int
    written: int  # demonstrations of this person
    left: int  # prompts that this person would still be given
    prompts: int  # that have two completions or more
    prompts_judged: int  # by anybody
    prompts_judged_twice: int  # by two people or more
    seconds_per_judgement: float | None  # median of this person's newest 50


def plain_json(value: Any) -> Any:
    """The nearest thing that JSON holds: dates as they print, NaN as null."""
    if isinstance(value, Mapping):
        return {str(name): plain_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


def counted(count: int, noun: str) -> str:
    """`1 judgement`, `1,200 judgements`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
