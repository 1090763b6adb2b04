"""The report of `data check` as lines of text: rows, classes, lengths, findings, tokens, repairs.

Takes what the library found and a width; knows no files. On a pipe the same lines come without colour and unwrapped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from tunewright.cli import output
from tunewright.cli.output import Marks, spelt, table
from tunewright.data.findings import percent

if TYPE_CHECKING:
    from tunewright.data.findings import DataReport, Finding, LengthReport
    from tunewright.data.repairing import Repaired
    from tunewright.data.showing import Piece, ShownRow

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
        lines += ["", *_length_lines(report, signs, fit), *_written_lines(report, fit)]
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
        reason = "" if lines else report.length_reason
        lines += ["", *_histogram(part, of, reason, signs, fit, task=report.task)]
    return lines[1:]


def _written_lines(report: DataReport, fit: int) -> list[str]:
    """What is read and what is learnt, and what is cut of each."""
    if not report.written:
        return []
    several = len(report.written) > 1
    rows = [["tokens per row", "median", "95 of 100", "longest", "in all", "cut off"]]
    lines: list[str] = []
    for part, of in report.written.items():
        for name, spread, cut in (("read", of.contexts, of.context_cut), ("learnt", of.targets, of.target_cut)):
            numbers = (spread.median, spread.percentile_95, spread.longest, spread.tokens, cut)
            rows.append([f"{part}: {name}" if several else name, *(f"{number:,}" for number in numbers)])
        texts, longest = report.parts[part].usable, report.lengths[part].max_length
        if of.windows is not None and of.windows > texts:
            says = f"{part}: {texts:,} documents become {of.windows:,} windows of at most {longest:,} tokens"
            lines += _wrapped(f"{says}; nothing is cut", fit, " ")
        elif of.cut_rows:
            side = f"prompts first, on the {report.lengths[part].truncate}"
            lines += _wrapped(f"{part}: {of.cut_rows:,} of {texts:,} rows cut to {longest:,} tokens, {side}", fit, " ")
    return ["", *table(rows, "<>>>>>"), *lines]


def _histogram(
    part: str, of: LengthReport, reason: str, signs: Marks, fit: int, *, task: str = "classify"
) -> list[str]:
    texts = sum(of.counts)
    why = f" ({reason})" if reason.startswith("auto") else ""
    row, kept = "row" if task == "generate" else "text", "read at once" if task == "continue" else "kept"
    lines = _wrapped(
        f"tokens per {row} of {part}: median {of.median:,}, 95 of 100 at most {of.percentile_95:,}, longest "
        f"{of.longest:,}; {kept}: {of.max_length:,}{why}",
        fit,
        " ",
    )
    most, digits = max(of.counts), len(f"{max(of.counts):,}")
    for edge, count in zip(of.edges, of.counts, strict=True):
        cut = edge > of.max_length
        size = -(-BAR * count // most) if count else 0
        bar = (("░" if cut else "█") if signs.cut == "…" else ("." if cut else "#")) * size
        lines.append(f" ≤ {edge:>6,}  {count:>{digits},} {100 * count / texts:5.1f} %  {bar}".rstrip())
    if of.cut_rows and task == "classify":
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


def last_lines(
    report: DataReport, train: str, fixed: Repaired | None, usable: bool, signs: Marks, following: str
) -> list[str]:
    """The verdict, and what to do next. `following`: the command that trains."""
    name = str(fixed.path) if fixed else report.train_name
    lines = [f" {name}: {'usable' if usable else 'not usable, a run would refuse it'}"]
    if usable:
        lines.append(f" next   {following}")
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
_WRITTEN_STYLES = {**_STYLES, "kept": "dim", "special": "reverse"}  # what is only read
_LEARNT_STYLES = {**_STYLES, "kept": "bold green", "special": "bold green reverse"}

_AROUND = {"kept": ("", ""), "cut": ("~~", "~~"), "special": ("<", ">"), "unknown": ("?", "?")}
_AROUND_LEARNT = "**"  # begins and ends a stretch of learnt tokens, where there is no colour
_ASCII_SIGNS = str.maketrans({"↵": "\\n", "␣": "_", "→": "\\t"})


def show_rows(rows: Sequence[ShownRow], stream: TextIO, signs: Marks, fit: int) -> None:
    """Rows as tokens: coloured on a terminal; elsewhere ~~cut~~, <special>, ?unknown? and **learnt**."""
    from rich.text import Text

    from tunewright.data.showing import Piece

    live = output.is_live(stream)
    screen = output.console(stream)
    legend = Text(f"\n rows as tokens, {signs.dot} inside a word: ")
    if any(row.writes for row in rows):
        around = "" if live else _AROUND_LEARNT
        legend.append("only read", _WRITTEN_STYLES["kept"] if live else "").append(" ")
        legend.append(f"{around}learnt{around}", _LEARNT_STYLES["kept"]).append(" ")
    for kind in ("cut", "special", "unknown"):
        shown = Piece(f"{kind}{' off' if kind == 'cut' else ''}", kind)
        legend.append_text(_styled(shown, live, writes=any(row.writes for row in rows))).append(" ")
    screen.print(legend)
    for row in rows:
        learnt = f"{sum(piece.learnt for piece in row.pieces):,} learnt, " if row.writes else ""
        kept = row.num("kept") + row.num("special") + row.num("unknown")
        facts = f"{kept:,} tokens, {learnt}{row.num('cut'):,} cut off"
        screen.print(Text(f"\n {row.where}{f' [{row.label}]' if row.label else ''}: {facts}"), soft_wrap=True)
        pieces = _row_text(row, live, signs)
        for line in pieces.wrap(screen, fit - 4) if live else [pieces]:
            line.rstrip()
            screen.print(Text("   ").append_text(line), soft_wrap=True)


def _row_text(row: ShownRow, live: bool, signs: Marks) -> Any:
    from rich.text import Text

    text, learning = Text(), False
    for piece in _few(row.pieces, signs):
        if not live and piece.learnt != learning:
            text.append("" if piece.learnt else _AROUND_LEARNT)
        between = signs.dot if piece.glued else " "
        text.append(between if text.plain else "", _style(piece, row.writes) if piece.glued else "")
        if not live and piece.learnt and not learning:
            text.append(_AROUND_LEARNT)
        learning = piece.learnt
        shown = replace(piece, text=piece.text.translate(_ASCII_SIGNS)) if signs is output.ASCII_MARKS else piece
        text.append_text(_styled(shown, live, writes=row.writes))
    return text.append(_AROUND_LEARNT) if learning and not live else text


def _style(piece: Piece, writes: bool) -> str:
    return (_LEARNT_STYLES if piece.learnt else _WRITTEN_STYLES if writes else _STYLES)[piece.kind]


def _styled(piece: Piece, live: bool, *, writes: bool) -> Any:
    """In colour on a terminal, between marks elsewhere."""
    from rich.text import Text

    before, after = ("", "") if live else _AROUND[piece.kind]
    return Text(f"{before}{piece.text}{after}", _style(piece, writes))


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
