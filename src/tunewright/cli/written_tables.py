"""What a model that writes has to show at the end of a run: metrics in pairs, prompts as blocks, what was forgotten.

Beside `tables`, which has one line for a prompt; a text needs several. Lays out what run.json and samples.jsonl hold.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewright.cli.output import Marks, number, table
from tunewright.cli.tables import metric_text, metric_words

if TYPE_CHECKING:
    from tunewright.evaluation.record import Sample

COLUMNS = 80  # of a block of text; longer lines are hard to read
PROMPT_LINES = 6
ANSWER_LINES = 4
# In the table's order; evaluation.direct_preferences, evaluation.alignment and evaluation.texts say what they mean.
COMPARED = ("accuracy", "margin", "chosen_change", "rejected_change")
ALIGNED = (
    *("reward", "score", "probability", "win_rate", "judge", "judge_probability", "judge_win_rate", "kl"),
    *("ref_perplexity", "distinct_1", "distinct_2", "repetition", "length", "ended"),
)
METRICS = (
    *("exact_match", "f1", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf", "length_ratio", "stopped"),
    *("perplexity", "token_accuracy", "loss"),
)


def metric_lines(summary: Mapping[str, Any], marks: Marks) -> list[str]:
    """Every metric before and after, its interval, what changed and whether chance explains it."""
    after, before = _numbers(summary.get("metrics")), _numbers(_mapping(summary.get("comparison")).get("before"))
    intervals, paired = (
        _mapping(x) for x in (summary.get("intervals"), _mapping(summary.get("comparison")).get("paired"))
    )
    rows = [
        [
            metric_words(name),
            metric_text(before.get(name), name, marks.none),
            metric_text(after.get(name), name, marks.none),
            _between(intervals.get(name), name),
            *_paired(_mapping(paired.get(name)) or won(summary, name), name),
        ]
        for name in (*COMPARED, *ALIGNED, *METRICS)
        if name in after or name in before
    ]
    heading = ["", "before", "after", "95 % interval", "change", "better", "worse", "p"]
    return table([heading, *rows], "<>>>>>>>") if rows else []


def _paired(paired: Mapping[str, Any], name: str) -> list[str]:
    difference, p_value = paired.get("difference"), paired.get("p_value")
    known = isinstance(difference, int | float)
    change = f"{'-' if difference < 0 else '+'}{metric_text(abs(difference), name, '')}" if known else ""
    chance = "" if not isinstance(p_value, int | float) else "<0.001" if p_value < 0.001 else number(p_value)
    return [change, f"{paired.get('fixed', '')}", f"{paired.get('broke', '')}", chance]


def won(summary: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Prompts that an aligned model won and lost against the untrained one; empty for what is no win rate."""
    found = _mapping(_mapping(_mapping(summary.get("alignment")).get("win_rates")).get(name))
    return {"fixed": found["won"], "broke": found["lost"], "p_value": found.get("p_value")} if "won" in found else {}


def _between(interval: Any, name: str) -> str:
    if not isinstance(interval, Sequence) or len(interval) != 2:
        return ""
    return f"[{', '.join(metric_text(end, name, '') for end in interval)}]"


def sample_lines(samples: Sequence[Sample], marks: Marks, fit: int) -> list[str]:
    """Each prompt, what was wanted, and what was written before and after, as blocks of wrapped text."""
    lines: list[str] = []
    for count, one in enumerate(samples, 1):
        parts = [(f"{count}", one.prompt, PROMPT_LINES, False)]
        parts += [("wanted", one.reference, ANSWER_LINES, False)] if one.reference is not None else []
        parts += [("before", one.before, ANSWER_LINES, one.cut[0]), ("after", one.after, ANSWER_LINES, one.cut[1])]
        for name, words, most, cut in parts:
            if words is not None:
                lines += block(name, words, most, marks, fit, unended=cut)
        lines.append("")
    return lines[:-1]


def block(name: str, words: str, most: int, marks: Marks, fit: int, *, unended: bool = False) -> list[str]:
    """A text under its name: wrapped, its middle left out where it is long, nothing in it that steers a terminal."""
    columns = max(24, min(fit, COLUMNS) - 9 - 4)
    shown = [part for line in words.splitlines() if line.strip() for part in _fitted(printable(line.strip()), columns)]
    shown = shown or ["(nothing)"]
    if len(shown) > most:
        shown = [*shown[: most // 2], marks.cut, *shown[-(most - most // 2 - 1) :]]
    if unended:
        shown[-1] += f" {marks.cut}"
    return [f" {name if i == 0 else '':<6}  {line}".rstrip() for i, line in enumerate(shown)]


def printable(words: str) -> str:
    """Without what moves a cursor or colours a screen: a model may have read such things."""
    return "".join(c if c.isprintable() else "\ufffd" if c != "\t" else " " for c in words)


def _fitted(line: str, columns: int) -> list[str]:
    from rich.cells import chop_cells

    # textwrap counts characters; wide ones take two columns.
    return [part for words in textwrap.wrap(line, columns) for part in chop_cells(words, columns)]


def forgetting_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the run forgot, where that was measured."""
    found = _mapping(summary.get("forgetting"))
    words = found.get("sentence") or found.get("words")
    return [f" forgetting: {words}"] if isinstance(words, str) and words else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(value: Any) -> dict[str, float]:
    return {name: x for name, x in _mapping(value).items() if isinstance(x, int | float) and not isinstance(x, bool)}
