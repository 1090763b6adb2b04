"""The report of `data check` as lines of text: rows, classes, lengths, findings, tokens, repairs.

Takes what the library found and a width; knows no files. On a pipe the same lines come without colour and unwrapped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tunewright.cli import output
from tunewright.cli.output import Marks, spelt, table
from tunewright.data.findings import percent

if TYPE_CHECKING:
    from tunewright.data.findings import DataReport, Finding, LengthReport
    from tunewright.data.repairing import Repaired
    from tunewright.data.showing import Kind, Piece, ShownRow

BAR = 30
MAX_CLASSES = 12
ROWS_NAMED = 8
PIECES_SHOWN = 120  # of what is kept
CUT_SHOWN = 8  # beside the cut


def report_lines(report: DataReport, signs: Marks, fit: int, missing: str = "") -> list[str]:
    """Everything that was found. `missing`: why tokens weren't counted."""
    said = "; ".join(report.said) or f"text column: {report.text_column}; label column: {report.label_column}"
    lines = [*_wrapped(f"{report.train_name}  {said}", fit, " "), "", *_part_lines(report, signs)]
    if report.kind in ("single", "multi"):
        lines += ["", *_class_lines(report, signs, fit)]
    if report.lengths:
        lines += ["", *_length_lines(report, signs, fit)]
    elif missing:
        lines += ["", *_wrapped(f"tokens not counted: {missing}", fit, " ")]
    lines.append("")
    for finding in report.findings:
        lines += _finding_lines(finding, len(report.parts) > 1, signs, fit)
    return [spelt(line, signs) for line in [*lines, *_silence(report, signs, fit)]]


def _part_lines(report: DataReport, signs: Marks) -> list[str]:
    parts = list(report.parts.items())
    rows = [["", *(part for part, _ in parts)]]
    for name in ("rows", "usable", "empty", "rejected"):
        rows.append([name, *(f"{getattr(part, name):,}" for _, part in parts)])
    lines = table(rows, "<" + ">" * len(parts), cut=signs.cut)
    if report.held_out is not None:
        lines.append(f" of train, a run would hold out {report.held_out:,} rows for validation")
    return lines


def _class_lines(report: DataReport, signs: Marks, fit: int) -> list[str]:
    """Rows per class and part; the largest first where there are too many to show."""
    counts = {part: of.label_counts for part, of in report.parts.items()}
    usable = {part: max(1, of.usable) for part, of in report.parts.items()}
    names = list(counts["train"])
    if len(names) > MAX_CLASSES:
        names = sorted(names, key=lambda name: -counts["train"][name])[: MAX_CLASSES - 1]
    rows = [["class", *(cell for part in counts for cell in (part, ""))]]
    for name in names:
        cells = [name]
        for part, of in counts.items():
            cells += [f"{of.get(name, 0):,}", percent(of.get(name, 0) / usable[part])]
        rows.append(cells)
    lines = table(rows, "<" + ">>" * len(counts), fit=min(fit, 78), cut=signs.cut)
    rest = len(counts["train"]) - len(names)
    return [*lines, f" and {rest:,} smaller classes"] if rest else lines


def _length_lines(report: DataReport, signs: Marks, fit: int) -> list[str]:
    lines: list[str] = []
    for part, of in report.lengths.items():
        lines += ["", *_histogram(part, of, "" if lines else report.length_reason, signs, fit)]
    return lines[1:]


def _histogram(part: str, of: LengthReport, reason: str, signs: Marks, fit: int) -> list[str]:
    texts = sum(of.counts)
    why = f" ({reason})" if reason.startswith("auto") else ""
    lines = _wrapped(
        f"tokens per text of {part}: median {of.median:,}, 95 of 100 at most {of.percentile_95:,}, longest "
        f"{of.longest:,}; kept: {of.max_length:,}{why}",
        fit,
        " ",
    )
    most, digits = max(of.counts), len(f"{max(of.counts):,}")
    for edge, count in zip(of.edges, of.counts, strict=True):
        cut = edge > of.max_length
        size = -(-BAR * count // most) if count else 0
        bar = (("░" if cut else "█") if signs.cut == "…" else ("." if cut else "#")) * size
        lines.append(f" ≤ {edge:>6,}  {count:>{digits},} {100 * count / texts:5.1f} %  {bar}".rstrip())
    if of.cut_rows:
        lines += _wrapped(
            f"cut on the {of.truncate}: {of.cut_rows:,} of {texts:,} texts; never read: {of.cut_tokens:,} of "
            f"{of.tokens:,} tokens ({percent(of.cut_tokens / of.tokens)})",
            fit,
            " ",
        )
    return lines


_SIGNS = {"unusable": ("✗", "x"), "warning": ("⚠", "!"), "note": ("·", "-")}


def _finding_lines(finding: Finding, say_part: bool, signs: Marks, fit: int) -> list[str]:
    sign = _SIGNS[finding.level][0 if signs.cut == "…" else 1]
    part = f"{finding.part}: " if say_part else ""
    lines = _wrapped(f"{sign} {part}{finding.sentence}", fit, " ", "   ")
    if finding.rows:
        named = ", ".join(f"{row:,}" for row in finding.rows[:ROWS_NAMED])
        more = max(0, _num_rows(finding) - ROWS_NAMED)
        word = "row" if len(finding.rows) == 1 else "rows"
        lines.append(f"   {word} {named}{f' and {more:,} more' if more else ''}")
    for example in finding.examples:
        lines += _example_lines(example["rows"], signs, fit)
    if finding.repair:
        lines.append(f"   --fix: {finding.repair}")
    return lines


def _num_rows(finding: Finding) -> int:
    """`count` counts texts or groups for some findings; the rows are what is listed, unless there are too many."""
    return max(len(finding.rows), finding.count)


def _example_lines(rows: Sequence[Any], signs: Marks, fit: int) -> Iterator[str]:
    for row in rows:
        label = f" [{row['label']}]" if row["label"] else ""
        line = f"     {row['where'].rpartition(':')[2]}{label} {row['text']}"
        yield line if len(line) < fit else line[: fit - 1 - len(signs.cut)].rstrip() + signs.cut


def _silence(report: DataReport, signs: Marks, fit: int) -> list[str]:
    sign = "✓" if signs.cut == "…" else "+"
    return _wrapped(f"{sign} none of: {', '.join(report.clean)}", fit, " ", "   ") if report.clean else []


def last_lines(report: DataReport, train: str, fixed: Repaired | None, usable: bool, signs: Marks) -> list[str]:
    """The verdict, and what to do next."""
    name = str(fixed.path) if fixed else report.train_name
    lines = [f" {name}: {'usable' if usable else 'not usable, a run would refuse it'}"]
    if usable:
        lines.append(f" next   tunewright train {fixed.path if fixed else train}")
    if fixed is None and report.repairable and "." in train:
        stem, _, ending = train.rpartition("/")[2].partition(".")
        word = "or" if usable else "next"
        lines.append(f" {word:<6} tunewright data check {train} --fix -o {stem}.fixed.{ending}")
    return [spelt(line, signs) for line in lines]


def repair_lines(fixed: Repaired, signs: Marks, fit: int) -> list[str]:
    """Every repair with its number and rows."""
    lines = [f" wrote {fixed.path}: {fixed.rows_written:,} of {fixed.rows_read:,} rows"]
    for repair in fixed.repairs:
        named = ", ".join(f"{row:,}" for row in repair.rows[:ROWS_NAMED])
        more = repair.count - min(len(repair.rows), ROWS_NAMED)
        word = "row" if repair.count == 1 else "rows"
        where = f" ({word} {named}{f' and {more:,} more' if more > 0 else ''})" if repair.rows else ""
        lines += _wrapped(f"{repair.count:>6,}  {repair.what}{where}", fit, " ", "         ")
    if not fixed.repairs:
        lines.append(" nothing had to be repaired")
    return [spelt(line, signs) for line in lines]


def _wrapped(text: str, fit: int, first: str = "", later: str | None = None) -> list[str]:
    """Lines of at most `fit` columns; a number stays with its percent sign."""
    lines = textwrap.wrap(
        text.replace(" %", "\u00a0%"),
        min(fit, output.PLAIN_WIDTH) - 1,
        initial_indent=first,
        subsequent_indent=first if later is None else later,
        break_on_hyphens=False,
    )
    return [line.replace("\u00a0", " ") for line in lines]


# ---- rows as tokens ----

_STYLES = {"kept": "", "cut": "dim strike", "special": "bold cyan", "unknown": "bold red"}

_AROUND = {"kept": ("", ""), "cut": ("~~", "~~"), "special": ("<", ">"), "unknown": ("?", "?")}


def show_rows(rows: Sequence[ShownRow], stream: TextIO, signs: Marks, fit: int) -> None:
    """Rows as tokens: coloured on a terminal; elsewhere ~~cut~~, [special] and ?unknown?."""
    from rich.text import Text

    live = output.is_live(stream)
    screen = output.console(stream)
    legend = Text(f"\n rows as tokens, {signs.dot} inside a word: ")
    for kind in ("cut", "special", "unknown"):
        legend.append_text(_styled(f"{kind}{' off' if kind == 'cut' else ''}", kind, live)).append(" ")
    screen.print(legend)
    for row in rows:
        facts = f"{row.num('kept') + row.num('special') + row.num('unknown'):,} tokens, {row.num('cut'):,} cut off"
        screen.print(Text(f"\n {row.where}{f' [{row.label}]' if row.label else ''}: {facts}"), soft_wrap=True)
        pieces = _row_text(row, live, signs)
        for line in pieces.wrap(screen, fit - 4) if live else [pieces]:
            line.rstrip()
            screen.print(Text("   ").append_text(line), soft_wrap=True)


def _row_text(row: ShownRow, live: bool, signs: Marks) -> Any:
    from rich.text import Text

    text = Text()
    for piece in _few(row.pieces, signs):
        between = signs.dot if piece.glued else " "
        text.append(between if text.plain else "", _STYLES[piece.kind] if piece.glued else "")
        text.append_text(_styled(piece.text, piece.kind, live))
    return text


def _styled(word: str, kind: Kind, live: bool) -> Any:
    """In colour on a terminal, between marks elsewhere."""
    from rich.text import Text

    before, after = ("", "") if live else _AROUND[kind]
    return Text(f"{before}{word}{after}", _STYLES[kind])


def _few(pieces: Sequence[Piece], signs: Marks) -> list[Piece]:
    """What stands at the cut, and the ends of what is kept."""
    from tunewright.data.showing import Piece

    more: list[Piece] = []
    cut = [i for i, piece in enumerate(pieces) if piece.kind == "cut"]
    before = cut and cut[0] == 0  # cut on the left
    shown_cut = set(cut[-CUT_SHOWN:] if before else cut[:CUT_SHOWN])
    kept = [i for i, piece in enumerate(pieces) if piece.kind != "cut"]
    half = PIECES_SHOWN // 2
    shown = shown_cut | set(kept if len(kept) <= PIECES_SHOWN else kept[:half] + kept[-half:])
    for i, piece in enumerate(pieces):
        if i in shown:
            more.append(piece)
        elif not more or more[-1].text != signs.cut:
            more.append(Piece(signs.cut, piece.kind))
    return more
