"""The whole examination of a dataset, behind `tunewright data check`: one pass per part, then every question on arrays.

    sources -gather-> arrays -> rows, labels, lengths, duplicates, conflicts, leaks, giveaways -> DataReport

`written_examining` does the same for rows that are to be written. Stops at nothing that a person could want to know:
bad records are counted and told, and "unusable" is said at the end. `checking` is the quick part that every run makes.
Nothing is changed here; `repairing` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.data import questions
from tunewright.data.asking import Asked, counts
from tunewright.data.columns import Columns, find_columns
from tunewright.data.encoding import Encoder
from tunewright.data.examples import Source, Splits
from tunewright.data.findings import DataReport, Finding, LengthReport, Part, PartReport
from tunewright.data.gathering import CountTokens, Gathered, gather
from tunewright.data.labels import LabelSpec, infer_labels
from tunewright.data.lenient import LenientSource, open_leniently
from tunewright.data.sources import open_data
from tunewright.data.written_tokens import RowEncoder
from tunewright.errors import DataError
from tunewright.recipe import DataRecipe

# Token lengths, kind of label -> max_length and its reason.
DecideLength = Callable[[np.ndarray, str], tuple[int, str]]


@dataclass(frozen=True)
class Tokens:
    """How texts become tokens, and how many of them are kept."""

    tokenizer: Any
    decide_length: DecideLength

    def counter(self) -> CountTokens:
        encoder = Encoder.of(self.tokenizer)
        unknown_id = self.tokenizer.unk_token_id

        def count(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            ids, _, lengths = encoder.encode(texts)
            begins = np.cumsum(lengths, dtype=np.int64) - lengths
            unknown = np.add.reduceat(np.append(ids == unknown_id, False), np.minimum(begins, len(ids)), dtype=np.int32)
            return lengths, np.where(lengths > 0, unknown, 0)

        return count


@dataclass(frozen=True, eq=False)
class Examined:
    """The report, and the arrays behind it for whoever repairs."""

    report: DataReport
    columns: Columns
    labels: LabelSpec | None
    train_source: LenientSource
    train: Gathered
    validation: Gathered | None
    texts: tuple[str, ...]  # columns whose wrongly decoded text `repairing` puts right
    encoder: RowEncoder | None = None  # of a task that writes, cutting to max_length


def open_parts(recipe: DataRecipe) -> tuple[LenientSource, LenientSource | None]:
    """Train and, where it is a file of its own, validation."""
    named = recipe.validation if isinstance(recipe.validation, str) and recipe.validation != "auto" else None
    if _is_file(recipe.train) and (named is None or _is_file(named)):
        return open_leniently(Path(recipe.train).expanduser()), open_leniently(
            Path(named).expanduser()
        ) if named else None
    splits: Splits = open_data(recipe.train, validation=named, revision=recipe.revision)
    held_out = None if isinstance(recipe.validation, float) else splits.validation
    return _lenient(splits.train), _lenient(held_out) if held_out else None


def _is_file(name: str) -> bool:
    return Path(name).expanduser().is_file()


def _lenient(source: Source) -> LenientSource:
    return LenientSource(source)


def examine(
    recipe: DataRecipe,
    seed: int,
    tokens: Tokens | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Examined:
    """Examine the data of a recipe. DataError only where there is nothing to report on."""
    source, held_out_source = open_parts(recipe)
    columns = find_columns(source, recipe.text, recipe.label)
    count = tokens.counter() if tokens else None
    train = gather(source, columns, recipe.labels, count_tokens=count, on_rows=on_rows)
    labels, hopeless = _labels(train, recipe)
    validation = None
    if held_out_source is not None:
        columns_there = find_columns(held_out_source, columns.text, columns.label or "auto")
        validation = gather(
            held_out_source, columns_there, recipe.labels, spec=labels, count_tokens=count, on_rows=on_rows
        )
    lengths, reason = _lengths(train, validation, tokens, labels, recipe)
    asked = Asked(source, held_out_source, columns, labels, train, validation, recipe, seed, lengths)
    findings = [*hopeless, *questions.ask(asked)]
    report = DataReport(
        train_name=source.name,
        text_column=columns.text,
        label_column=columns.label,
        kind=labels.kind if labels else None,
        said=columns.said,
        parts=part_reports(train, validation, labels),
        lengths=lengths,
        length_reason=reason,
        findings=in_order(findings),
        looked_for=questions.looked_for(asked),
        held_out=asked.num_held_out,
    )
    return Examined(report, columns, labels, source, train, validation, (columns.text,))


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The gravest first."""
    return tuple(sorted(findings, key=lambda finding: ("unusable", "warning", "note").index(finding.level)))


def _labels(train: Gathered, recipe: DataRecipe) -> tuple[LabelSpec | None, list[Finding]]:
    """The labels, or the reason why there are none."""
    try:
        return infer_labels(train.survey.labels, recipe.labels), []
    except DataError as error:
        return None, [Finding("labels", "unusable", "train", 1, str(error))]


def part_reports(train: Gathered, validation: Gathered | None, labels: LabelSpec | None) -> dict[Part, PartReport]:
    """Rows of each part."""
    parts: dict[Part, PartReport] = {"train": _part(train, labels)}
    if validation is not None:
        parts["validation"] = _part(validation, labels)
    return parts


def _part(found: Gathered, labels: LabelSpec | None) -> PartReport:
    survey = found.survey
    return PartReport(
        name=survey.name,
        rows=survey.num_rows,
        usable=len(survey),
        empty=len(found.at("empty")),
        rejected=len(found.at("rejected")),
        characters=found.num_characters,
        label_counts=counts(found, labels),
    )


def _lengths(
    train: Gathered, validation: Gathered | None, tokens: Tokens | None, labels: LabelSpec | None, recipe: DataRecipe
) -> tuple[dict[Part, LengthReport], str]:
    if tokens is None or not len(train.tokens):
        return {}, ""
    max_length, reason = tokens.decide_length(train.tokens, labels.kind if labels else "single")
    reports: dict[Part, LengthReport] = {}
    if len(train.tokens):
        reports["train"] = LengthReport.of(train.tokens, train.unknown_tokens, max_length, recipe.truncate)
    if validation is not None and len(validation.tokens):
        reports["validation"] = LengthReport.of(
            validation.tokens, validation.unknown_tokens, max_length, recipe.truncate
        )
    return reports, reason
