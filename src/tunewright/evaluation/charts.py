"""Charts as SVG text: numbers in, one `<svg>` string out. No script, no file, no request.

`report` places them in its page; a notebook or a model card may too, together with `CHART_STYLE`. Colours are CSS
variables (`--ink`, `--faint`, `--line`, `--accent`, `--warm`, `--paper`), so a page decides on light and dark. Every
text is escaped; every mark says its numbers in a `<title>`. A chart without data is the empty string.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH = 440  # of the drawing; the page scales it
_CHAR = 6.4  # mean width of a letter at 12 units
MOST_NUMBERED_CLASSES = 12  # a larger confusion table shows shades only

Tone = Literal["accent", "warm", "faint"]

CHART_STYLE = """
.chart { display: block; width: 100%; height: auto; max-width: 540px; overflow: visible; }
.chart.square { max-width: 400px; }
.chart text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: var(--faint, #667); }
.chart text.strong { fill: var(--ink, #223); font-weight: 600; }
.chart text.number { font-variant-numeric: tabular-nums; }
.chart .grid { stroke: var(--line, #dde); stroke-width: 1; }
.chart .rule { stroke: var(--faint, #667); stroke-width: 1; stroke-dasharray: 3 4; fill: none; }
.chart .stroke-accent { stroke: var(--accent, #0b7a75); } .chart .fill-accent { fill: var(--accent, #0b7a75); }
.chart .stroke-warm { stroke: var(--warm, #c2570c); } .chart .fill-warm { fill: var(--warm, #c2570c); }
.chart .stroke-faint { stroke: var(--faint, #667); } .chart .fill-faint { fill: var(--faint, #667); }
.chart .curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .dashed { stroke-dasharray: 6 4; }
.chart .dot { stroke: var(--paper, #fff); stroke-width: 1.5; }
.chart .track { fill: var(--line, #dde); }
.chart text.on { fill: var(--paper, #fff); }
"""


@dataclass(frozen=True)
class Series:
    """One curve: points in order of x."""

    name: str
    points: Sequence[tuple[float, float]]
    tone: Tone = "accent"
    dashed: bool = False
    dots: bool = True


@dataclass(frozen=True)
class Estimate:
    """One number with its interval, as a row of an interval chart."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    tone: Tone = "faint"


@dataclass(frozen=True)
class Scale:
    """From numbers to places on the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that cover low to high: steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * k for k in (1, 2, 5, 10) if power * k * about >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def line_chart(
    series: Sequence[Series], *, title: str, x_label: str, y_label: str, best: tuple[float, str] | None = None
) -> str:
    """Curves over a shared x; `best` marks one x with a word."""
    shown = [_finite(one) for one in series]
    shown = [one for one in shown if one.points]
    if not shown:
        return ""
    xs = [x for one in shown for x, _ in one.points]
    ys = [y for one in shown for _, y in one.points]
    y_ticks, x_ticks = ticks(min(ys), max(ys)), _inside(ticks(min(xs), max(xs), 6), min(xs), max(xs))
    x = Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, 46, WIDTH - 14)
    y = Scale(y_ticks[0], y_ticks[-1], 216, 40)
    parts = [_legend(shown), *_axes(x, y, x_ticks, y_ticks), _text(WIDTH - 14, 250, x_label, "end")]
    if best and x.low <= best[0] <= x.high:
        parts.append(_best(x(best[0]), best[1]))
    parts += [_curve(one, x, y, x_label, y_label) for one in shown]
    return _svg(title, 254, parts)


def interval_chart(rows: Sequence[Estimate], *, title: str, x_label: str) -> str:
    """Estimates one below the other on one axis, each with its whisker."""
    rows = [row for row in rows if math.isfinite(row.value)]
    if not rows:
        return ""
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None]
    marks = ticks(min(ends), max(ends), 6)
    # Room for half a tick label at either end: the first and last ones stand centred below their line.
    x, bottom = Scale(marks[0], marks[-1], 14, WIDTH - 14), 12 + 40 * len(rows)
    parts = [_line(x(mark), 8, x(mark), bottom, "grid") for mark in marks]
    parts += [_text(x(mark), bottom + 16, _short(mark), "middle", "number") for mark in marks]
    parts += [_estimate(row, x, 12 + 40 * i) for i, row in enumerate(rows)]
    return _svg(title, bottom + 38, [*parts, _text(WIDTH - 14, bottom + 34, x_label, "end")])


def confusion_chart(matrix: Sequence[Sequence[int]], names: Sequence[str], *, title: str) -> str:
    """Heat map: true class down, predicted across, shaded by the share of the true class."""
    if not matrix or len(matrix) != len(names) or any(len(row) != len(names) for row in matrix):
        return ""
    left = min(140.0, 12 + 1.2 * _CHAR * max(len(_cut(name, 16)) for name in names))
    size = min(110.0, (WIDTH - left - 4) / len(names))
    parts = [_text(left, 14, "predicted →"), _text(left - 10, 38, "true ↓", "end")]
    for i, row in enumerate(matrix):
        parts += _confusion_row(row, i, names, left, size)
    return _svg(title, 48 + size * len(names), parts)


def reliability_chart(bins: Sequence[tuple[float, float, int]], *, title: str) -> str:
    """Confidence against the share that was right, (confidence, share, count) each; the dashed line is honesty."""
    bins = [one for one in bins if one[2] > 0 and math.isfinite(one[0]) and math.isfinite(one[1])]
    if not bins:
        return ""
    x, y, most = Scale(0, 1, 46, 316), Scale(0, 1, 286, 16), max(count for *_, count in bins)
    marks = [0.0, 0.25, 0.5, 0.75, 1.0]
    parts = [*_axes(x, y, marks, marks), _line(x(0), y(0), x(1), y(1), "rule")]
    for confidence, share, count in bins:
        said = f"said {confidence:.3f}, right {share:.3f} ({count:,} answers)"
        parts.append(_line(x(confidence), y(confidence), x(confidence), y(share), "stroke-warm"))
        parts.append(_dot(x(confidence), y(share), 4 + 7 * math.sqrt(count / most), "accent", said))
    parts += [_text(x(1), 318, "confidence", "end"), _text(x(0.03), 28, "share right")]
    return _svg(title, 324, parts, width=330)


def bar_chart(rows: Sequence[tuple[str, float]], *, title: str) -> str:
    """Horizontal bars with their names above and counts behind."""
    rows = [row for row in rows if math.isfinite(row[1]) and row[1] >= 0]
    if not rows:
        return ""
    total = sum(count for _, count in rows) or 1
    parts: list[str] = []
    for i, (name, count) in enumerate(rows):
        top = 34 * i
        label = (
            f'<text x="0" y="{top + 13}" class="strong">{escape(_cut(name, 44))}<title>{escape(name)}</title></text>'
        )
        parts += [label, _text(WIDTH, top + 13, f"{count:,.0f} · {count / total:.1%}", "end", "number")]
        parts.append(f'<rect x="0" y="{top + 19}" width="{WIDTH}" height="6" rx="3" class="track"/>')
        parts.append(
            f'<rect x="0" y="{top + 19}" width="{WIDTH * count / total:.1f}" height="6" rx="3" class="fill-accent"/>'
        )
    return _svg(title, 34 * len(rows), parts)


# --- pieces -----------------------------------------------------------------------------------------------------


def _svg(title: str, height: float, parts: Sequence[str], width: float = WIDTH) -> str:
    box = f'viewBox="0 0 {width:g} {height:.4g}"'
    shape = "chart" if width == WIDTH else "chart square"
    return f'<svg class="{shape}" {box} role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _text(x: float, y: float, words: str, anchor: str = "start", style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def _dot(x: float, y: float, radius: float, tone: Tone, said: str) -> str:
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
    return f'<circle {place} class="dot fill-{tone}"><title>{escape(said)}</title></circle>'


def _axes(x: Scale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    rows = [_line(x.start, y(tick), x.end, y(tick), "grid") for tick in y_ticks]
    rows += [_text(x.start - 8, y(tick) + 4, _short(tick), "end", "number") for tick in y_ticks]
    return rows + [_text(x(tick), y.start + 18, _short(tick), "middle", "number") for tick in x_ticks]


def _legend(series: Sequence[Series]) -> str:
    parts, x = [], 46.0
    for one in series:
        parts.append(_line(x, 12, x + 18, 12, _stroke(one)) + _text(x + 24, 16, one.name, style="strong"))
        x += 44 + 1.1 * _CHAR * len(one.name)
    return "".join(parts)


def _stroke(one: Series) -> str:
    return f"curve stroke-{one.tone}" + (" dashed" if one.dashed else "")


def _curve(one: Series, x: Scale, y: Scale, x_label: str, y_label: str) -> str:
    places = [(x(a), y(b)) for a, b in one.points]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    line = f'<polyline points="{path}" class="{_stroke(one)}"><title>{escape(one.name)}</title></polyline>'
    if not one.dots and len(places) > 1:
        return line
    said = [f"{one.name}, {x_label} {a:g}: {y_label} {b:.3f}" for a, b in one.points]
    return line + "".join(_dot(a, b, 4, one.tone, words) for (a, b), words in zip(places, said, strict=True))


def _best(x: float, words: str) -> str:
    anchor = "end" if x > WIDTH - 70 else "start"
    return _line(x, 24, x, 216, "rule") + _text(x + (6 if anchor == "start" else -6), 33, words, anchor, "strong")


def _estimate(row: Estimate, x: Scale, top: float) -> str:
    said = f"{row.value:.3f}"
    if row.low is not None and row.high is not None:
        said += f" [{row.low:.3f}, {row.high:.3f}]"
    middle, whisker = top + 27, ""
    if row.low is not None and row.high is not None:
        whisker = _line(x(row.low), middle, x(row.high), middle, f"curve stroke-{row.tone}")
    name = _text(14, top + 13, _cut(row.name, 38), style="strong")
    number = _text(WIDTH - 14, top + 13, said, "end", "number")
    return f"{name}{number}{whisker}{_dot(x(row.value), middle, 5.5, row.tone, f'{row.name}: {said}')}"


def _confusion_row(row: Sequence[int], i: int, names: Sequence[str], left: float, size: float) -> list[str]:
    total, top = sum(row) or 1, 44 + size * i
    name = _cut(names[i], 16)
    parts = [] if size < 14 else [_text(left - 10, top + size / 2 + 4, name, "end", "strong")]
    for j, count in enumerate(row):
        share, x = count / total, left + size * j
        said = escape(f"{names[i]} called {names[j]}: {count:,} of {total:,} ({share:.1%})")
        tone, box = (
            ("accent" if i == j else "warm"),
            f'x="{x:.1f}" y="{top:.1f}" width="{size:.1f}" height="{size:.1f}"',
        )
        parts.append(f'<rect {box} class="track" opacity="0.45"/>')
        parts.append(f'<rect {box} class="fill-{tone} dot" fill-opacity="{share:.3f}"><title>{said}</title></rect>')
        if len(names) <= MOST_NUMBERED_CLASSES and count:
            style = "number on" if share > 0.55 else "number strong"
            parts.append(_text(x + size / 2, top + size / 2 + 4, f"{count:,}", "middle", style))
        if i == 0 and size >= 14:
            parts.append(
                _text(x + size / 2, 38, _cut(names[j], max(1, int(size / (1.25 * _CHAR)))), "middle", "strong")
            )
    return parts


def _finite(one: Series) -> Series:
    points = [(x, y) for x, y in one.points if math.isfinite(x) and math.isfinite(y)]
    return Series(one.name, points, one.tone, one.dashed, one.dots)


def _inside(marks: Sequence[float], low: float, high: float) -> list[float]:
    return [mark for mark in marks if low <= mark <= high]


def _short(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.4g}" if value else "0"


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: max(1, most - 1)] + "…"
