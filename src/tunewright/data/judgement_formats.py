"""Which of the known formats a file of judgements is in, and the file into a store.

`judgement_import` reads comparisons and single completions, `judgement_import_argilla` and
`judgement_import_label_studio` those tools' JSON; this file chooses among them by the first rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewright.data.examples import Source
from tunewright.data.judgement_import import (
    Brought,
    Told,
    bring,
    comparisons,
    first_values,
    holds_comparisons,
    holds_completions,
    single_completions,
)
from tunewright.data.judgement_import_argilla import argilla, holds_argilla
from tunewright.data.judgement_import_label_studio import holds_label_studio, label_studio
from tunewright.data.judgements import Judgements
from tunewright.data.reading import open_file
from tunewright.errors import DataError


def read_judgements(
    store: Judgements,
    path: Path,
    *,
    annotator: str = "imported",
    prompt: str | None = None,
    question: str | None = None,
    completions: Sequence[str] = (),
    buckets: Sequence[str] = (),
) -> Told:
    """Everything of a file in the store, or nothing. Raises DataError naming the row, for a format nobody knows too."""
    source = open_file(path)
    told = Told("")
    columns = first_values(source)
    if holds_label_studio(columns):
        form, brought = (
            "Label Studio",
            label_studio(source, told, prompt=prompt, completions=completions, buckets=buckets),
        )
    elif holds_argilla(columns):
        form, brought = "Argilla", argilla(source, told, prompt=prompt, question=question)
    else:
        form, brought = _plain(source, columns, told)
    bring(store, source, form, brought, told, annotator)
    return told


def _plain(source: Source, columns: Mapping[str, Any], told: Told) -> tuple[str, Iterator[Brought]]:
    if holds_comparisons(columns):
        return "comparisons", comparisons(source, told)
    if holds_completions(columns):
        return "prompts with a completion", single_completions(source, told)
    there = ", ".join(columns) or "none"
    says = f"the columns ({there}) hold no judgements we can read; expected prompt, chosen and rejected"
    raise DataError(
        f"{says}, prompt, completions and ranking, or an export of Argilla or Label Studio", where=source.name
    )
