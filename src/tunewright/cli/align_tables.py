"""What an aligned model has to show at the end of a run: transcripts with their scores, the verdict, the alignment tax.

Beside `written_tables`, whose table of metrics it shares. Lays out what run.json and the predictions hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.cli.output import Marks, table
from tunewright.cli.tables import metric_text, metric_words
from tunewright.cli.written_tables import ANSWER_LINES, PROMPT_LINES, block
from tunewright.recording import read_jsonl

if TYPE_CHECKING:
    from tunewright.evaluation.alignment_tax import Tax

TRANSCRIPTS = 4  # the report has more
SCORES = ("score", "judge", "kl")


def is_aligned(summary: Mapping[str, Any]) -> bool:
    """Whether the run's model was aligned by a reward."""
    return (summary.get("data") or {}).get("kind") == "align"


def transcript_lines(folder: Path, marks: Marks, fit: int) -> list[str]:
    """The first held-out prompts before and after, whoever won, each completion with its scores."""
    lines: list[str] = []
    rows = itertools.islice(read_jsonl(folder / "predictions" / "validation.jsonl"), TRANSCRIPTS)
    for count, row in enumerate(rows, 1):
        lines += block(f"{count}", str(row.get("prompt", "")), PROMPT_LINES, marks, fit)
        for name, key, ending in (("before", "before", "_before"), ("after", "prediction", "")):
            words = row.get(key)
            if isinstance(words, str):
                cut = row.get(f"stopped{ending}") == "length"
                lines += block(name, words, ANSWER_LINES, marks, fit, unended=cut)
                lines += _scores(row, ending, marks)
        lines.append("")
    return lines[:-1]


def _scores(row: Mapping[str, Any], ending: str, marks: Marks) -> list[str]:
    """Under the completion, indented as its text."""
    found = [(name, row.get(f"{name}{ending}")) for name in SCORES]
    said = [f"{metric_words(name)} {value:.2f}" for name, value in found if isinstance(value, int | float)]
    return [f"         {f' {marks.dot} '.join(said)}"] if said else []


def verdict_lines(summary: Mapping[str, Any]) -> list[str]:
    """Was it worth it, in a line; the table above has the numbers."""
    from tunewright.evaluation.alignment_verdict import verdict

    return [f" verdict: {verdict(summary).headline}"] if summary.get("metrics") else []


def ranking_lines(folder: Path) -> list[str]:
    """Commands by which people compare before and after, blind."""
    from tunewright.evaluation.record import read_record
    from tunewright.evaluation.report_align import rank_commands

    name = folder.name if folder.parent == Path("runs") else str(folder)
    return rank_commands(name, folder, read_record(folder).recipe)[:2]


def tax_lines(tax: Tax, letters: Sequence[str], marks: Marks) -> list[str]:
    """The stages side by side: general text, then the held-out rows of each run; then what each aligned run was worth.

    `letters` are those of the columns: a run's own, and a word for what no run stands for.
    """
    heading = ["alignment tax", *letters]
    rows, group = [heading], ""
    for row in tax.rows:
        if row.rows != group:
            group = row.rows
            rows.append([group, *[""] * len(letters)])
        rows.append([f"  {metric_words(row.metric)}", *(metric_text(v, row.metric, marks.none) for v in row.values)])
    words = [f" {stage.run}: {stage.gained} Price: {stage.paid}." for stage in tax.words]
    return ["", *table(rows, "<" + ">" * len(letters)), *words, *(f" {marks.warning} {note}" for note in tax.notes)]
