"""What `data check` found, as plain data: numbers, row numbers, a sentence each. Made by `examining`.

Holds no texts but short excerpts, and decides nothing except what "usable" means: `train` would accept the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Level = Literal["unusable", "warning", "note"]
Part = Literal["train", "validation"]

MAX_LISTED = 1_000  # row numbers of one finding that to_json() lists; counts are always exact
EXCERPT_CHARACTERS = 60


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd. `rows` are line numbers (row numbers where the file has no lines)."""

    code: str  # duplicates, leaks, giveaway_word, …
    level: Level
    part: Part
    count: int
    sentence: str
    rows: tuple[int, ...] = ()  # at most MAX_LISTED
    repair: str = ""  # what --fix does about it
    examples: tuple[Mapping[str, Any], ...] = ()  # a few of them with their texts

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "level": self.level,
            "part": self.part,
            "count": self.count,
            "message": self.sentence,
            "rows": list(self.rows),
            "repair": self.repair or None,
            "examples": [dict(example) for example in self.examples],
        }


@dataclass(frozen=True)
class PartReport:
    """The rows of one part. rows = usable + empty + rejected."""

    name: str
    rows: int
    usable: int
    empty: int
    rejected: int
    characters: int  # of the usable texts
    label_counts: Mapping[str, int]  # in the order of the classes; empty for numbers

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"label_counts": dict(self.label_counts)}


@dataclass(frozen=True)
class LengthReport:
    """Tokens per text of one part, special tokens included, against what is kept of each."""

    max_length: int
    truncate: str
    tokens: int  # in all, before cutting
    median: int
    percentile_95: int
    longest: int
    cut_rows: int
    cut_tokens: int
    unknown_tokens: int
    edges: tuple[int, ...]  # bin i holds the texts of at most edges[i] tokens, and more than edges[i - 1]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, lengths: np.ndarray, unknown: np.ndarray, max_length: int, truncate: str) -> LengthReport:
        """From int32 [N], N at least 1."""
        over = np.maximum(lengths.astype(np.int64) - max_length, 0)
        edges = _edges(int(lengths.max()), max_length)
        bins = np.searchsorted(edges, lengths)
        return cls(
            max_length=max_length,
            truncate=truncate,
            tokens=int(lengths.sum(dtype=np.int64)),
            median=int(np.median(lengths)),
            percentile_95=int(np.percentile(lengths, 95)),
            longest=int(lengths.max()),
            cut_rows=int((over > 0).sum()),
            cut_tokens=int(over.sum()),
            unknown_tokens=int(unknown.sum(dtype=np.int64)),
            edges=edges,
            counts=tuple(np.bincount(bins, minlength=len(edges)).tolist()),
        )

    def to_json(self) -> dict[str, Any]:
        histogram = [{"at_most": edge, "texts": n} for edge, n in zip(self.edges, self.counts, strict=True)]
        kept = {name: value for name, value in vars(self).items() if name not in ("edges", "counts")}
        return kept | {"histogram": histogram}


def _edges(longest: int, max_length: int) -> tuple[int, ...]:
    """Six equal bins up to where texts are cut, one to twice that, one for the rest."""
    top = min(longest, max_length)
    inside = sorted({-(-top * i // 6) for i in range(1, 7)})
    outside = [edge for edge in (2 * max_length,) if edge < longest]
    return (*inside, *outside, longest) if longest > max_length else tuple(inside)


@dataclass(frozen=True)
class Spread:
    """So many tokens per row."""

    median: int
    percentile_95: int
    longest: int
    tokens: int  # in all

    @classmethod
    def of(cls, lengths: np.ndarray) -> Spread:
        """From int32 [N], N at least 1."""
        middle, most = np.percentile(lengths, (50, 95))
        return cls(int(middle), int(most), int(lengths.max()), int(lengths.sum(dtype=np.int64)))


@dataclass(frozen=True)
class WrittenLengths:
    """Tokens of the rows of one part, before cutting, and what is cut of them."""

    contexts: Spread  # what is read and not learnt, BOS included
    targets: Spread  # what is learnt, EOS included
    context_cut: int  # tokens
    target_cut: int
    cut_rows: int
    target_cut_rows: int  # rows that lose some of what is learnt
    windows: int | None = None  # pieces that long documents become; nothing of them is cut

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"contexts": vars(self.contexts), "targets": vars(self.targets)}


@dataclass(frozen=True)
class DataReport:
    """The whole examination."""

    train_name: str
    text_column: str
    label_column: str | None
    kind: str | None  # single, multi, number; None where the labels can't be read
    said: tuple[str, ...]  # what was guessed
    parts: Mapping[Part, PartReport]
    lengths: Mapping[Part, LengthReport]  # empty without a tokenizer
    length_reason: str  # where max_length came from
    findings: tuple[Finding, ...]
    looked_for: Mapping[str, tuple[str, ...]]  # every check that was made, in words -> codes of its findings
    held_out: int | None = None  # usable rows of train that a run would hold out for validation
    task: str = "classify"
    format: str = ""  # of a task that writes, as recognised
    learn: str = ""
    written: Mapping[Part, WrittenLengths] = field(default_factory=dict)  # empty without a tokenizer

    @property
    def usable(self) -> bool:
        """Whether `train` would accept it."""
        return all(finding.level != "unusable" for finding in self.findings)

    @property
    def repairable(self) -> bool:
        """Whether `--fix` would change something."""
        return any(finding.repair for finding in self.findings if finding.part == "train")

    @property
    def clean(self) -> tuple[str, ...]:
        """The checks that found nothing."""
        found = {finding.code for finding in self.findings}
        return tuple(words for words, codes in self.looked_for.items() if not found & set(codes))

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `--json` prints it."""
        own = {"format": self.format, "learn": self.learn} if self.kind == "text" else {}
        written = {part: report.to_json() for part, report in self.written.items()}
        return {
            "task": self.task,
            **own,
            **({"written": written} if own else {}),
            "usable": self.usable,
            "text": self.text_column,
            "label": self.label_column,
            "kind": self.kind,
            "guessed": list(self.said),
            "parts": {part: report.to_json() for part, report in self.parts.items()},
            "held_out": self.held_out,
            "tokens": {part: report.to_json() for part, report in self.lengths.items()},
            "max_length_from": self.length_reason or None,
            "findings": [finding.to_json() for finding in self.findings],
            "found_none_of": list(self.clean),
        }


def listed(rows: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    """Row numbers as a finding keeps them."""
    return tuple(sorted(int(row) for row in rows)[:MAX_LISTED])


def percent(share: float) -> str:
    """12.3 %"""
    return f"{100 * share:.1f} %"


def excerpt(text: str) -> str:
    """The beginning of a text on one line, fit to be printed."""
    words = "".join(c if c.isprintable() else "?" for c in " ".join(text[: 4 * EXCERPT_CHARACTERS].split()))
    return words if len(words) <= EXCERPT_CHARACTERS else words[: EXCERPT_CHARACTERS - 1] + "…"
