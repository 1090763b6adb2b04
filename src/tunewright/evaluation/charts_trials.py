"""Two more charts: quality against cost with its Pareto front, and a learning curve with its forecast.

Numbers in, one `<svg>` string out, in the manner of `charts` and with its style; costs and sizes lie on a logarithmic
axis. A chart without data is the empty string.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunewright.evaluation import charts
from tunewright.evaluation.charts import WIDTH, Scale, Tone

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, WIDTH - 14, 40, 256
_LINE = 19.0  # height of a row of the legend


@dataclass(frozen=True)
class Place:
    """A candidate: what it costs and how good it is."""

    name: str
    cost: float
    quality: float
    low: float | None = None
    high: float | None = None
    on_front: bool = False  # nothing is better and cheaper


@dataclass(frozen=True)
class Guess:
    """A forecast: value and interval at a size."""

    size: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LogScale:
    """From positive numbers to places on the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return Scale(math.log(self.low), math.log(self.high), self.start, self.end)(math.log(value))


def pareto_chart(
    places: Sequence[Place],
    *,
    title: str,
    x_label: str,
    y_label: str,
    higher_is_better: bool = True,
    say: Callable[[float], str] = lambda value: f"{value:,.4g}",
) -> str:
    """Candidates by cost (logarithmic) and quality with whiskers; the line joins those on the front.

    `say` words a cost.
    """
    places = [p for p in places if math.isfinite(p.cost) and p.cost > 0 and math.isfinite(p.quality)]
    if not places:
        return ""
    x, y, y_ticks = _axes_of([p.cost for p in places], [v for p in places for v in (p.quality, p.low, p.high)])
    parts = _grid(x, y, y_ticks, [(mark, say(mark)) for mark in _log_ticks(x.low, x.high)])
    pointing = f"{y_label} {'↑' if higher_is_better else '↓'} better"
    parts += [charts._text(_RIGHT, _BOTTOM + 38, x_label, "end"), charts._text(0, 16, pointing)]
    parts += _front([p for p in places if p.on_front], x, y)
    sign = -1 if higher_is_better else 1
    ranked = sorted(places, key=lambda p: (sign * p.quality, p.cost))
    for number, place in reversed(list(enumerate(ranked, 1))):  # the best on top
        said = f"{place.name}: {y_label} {_with_interval(place)}, {x_label} {say(place.cost)}"
        parts += _numbered(number, place, x(place.cost), y, said)
    parts += [mark for i, place in enumerate(ranked) for mark in _named(i, place, say)]
    return charts._svg(title, _BOTTOM + 62 + _LINE * len(ranked), parts)


def learning_curve_chart(
    points: Sequence[tuple[float, float]],
    curve: Sequence[Guess],
    *,
    title: str,
    y_label: str,
    x_label: str = "training rows",
    measured: float | None = None,
) -> str:
    """Measured points, the curve through them with its band, dashed beyond the largest size.

    `curve`: in order of size; `measured`: the largest size that was, default: of the points.
    """
    points = [(n, v) for n, v in points if n > 0 and math.isfinite(v)]
    curve = [g for g in curve if g.size > 0 and all(map(math.isfinite, (g.value, g.low, g.high)))]
    if not points or len(curve) < 2:
        return ""
    largest = measured or max(n for n, _ in points)
    values = [v for _, v in points] + [v for g in curve for v in (g.low, g.high)]
    x, y, y_ticks = _axes_of([*(n for n, _ in points), *(g.size for g in curve)], values)
    sizes = _apart(sorted({n for n, _ in points} | {curve[-1].size}), x)
    parts = _grid(x, y, y_ticks, [(n, charts._short(n)) for n in sizes])
    parts += [charts._text(_RIGHT, _BOTTOM + 38, x_label, "end"), charts._text(0, 16, y_label), _band(curve, x, y)]
    parts += _lines(curve, largest, x, y)
    if curve[-1].size > largest:
        parts.append(charts._line(x(largest), _TOP, x(largest), _BOTTOM, "rule"))
    last = curve[-1]
    said = f"{x_label} {last.size:,.0f}: {y_label} {last.value:.3f} [{last.low:.3f}, {last.high:.3f}] expected"
    parts += _whisker(x(last.size), last.low, last.high, y, "warm")
    parts.append(charts._dot(x(last.size), y(last.value), 5, "warm", said))
    parts += [charts._dot(x(n), y(v), 4, "accent", f"{x_label} {n:,.0f}: {y_label} {v:.3f}") for n, v in points]
    return charts._svg(title, _BOTTOM + 44, parts)


# ---- axes ----


def _axes_of(xs: Sequence[float], ys: Sequence[float | None]) -> tuple[LogScale, Scale, list[float]]:
    heights = [v for v in ys if v is not None and math.isfinite(v)]
    ticks = charts.ticks(min(heights), max(heights))
    low, high = min(xs), max(xs)
    low, high = (low / 1.15, high * 1.15) if high / low > 1.0001 else (low / 2, high * 2)
    return LogScale(low, high, _LEFT, _RIGHT), Scale(ticks[0], ticks[-1], _BOTTOM, _TOP), ticks


def _grid(x: LogScale, y: Scale, y_ticks: Sequence[float], marks: Sequence[tuple[float, str]]) -> list[str]:
    rows = [charts._line(_LEFT, y(tick), _RIGHT, y(tick), "grid") for tick in y_ticks]
    rows += [charts._text(_LEFT - 8, y(tick) + 4, charts._short(tick), "end", "number") for tick in y_ticks]
    return rows + [charts._text(x(mark), _BOTTOM + 18, words, "middle", "number") for mark, words in marks]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; the powers alone where that is enough, other digits where nothing fits."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        found = [k * 10.0**p for p in powers for k in steps if low <= k * 10.0**p <= high]
        if len(found) >= 3:
            return found[:: -(-len(found) // 7)]
    return [low, math.sqrt(low * high), high]


def _apart(sizes: Sequence[float], x: LogScale, least: float = 34.0) -> list[float]:
    """Those whose words don't run into each other; the last one is kept."""
    kept: list[float] = []
    for size in reversed(sizes):
        if not kept or x(kept[-1]) - x(size) >= least:
            kept.append(size)
    return kept[::-1]


# ---- marks ----


def _whisker(x: float, low: float | None, high: float | None, y: Scale, tone: Tone) -> list[str]:
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high):
        return []
    return [f'<g opacity="0.55">{charts._line(x, y(low), x, y(high), f"curve stroke-{tone}")}</g>']


def _front(places: Sequence[Place], x: LogScale, y: Scale) -> list[str]:
    """Steps: nothing that costs less is better than the step it stands under."""
    ordered = sorted(places, key=lambda p: (p.cost, p.quality))
    steps: list[str] = []
    for i, place in enumerate(ordered):
        if i:
            steps.append(f"{x(place.cost):.1f},{y(ordered[i - 1].quality):.1f}")
        steps.append(f"{x(place.cost):.1f},{y(place.quality):.1f}")
    if len(ordered) < 2:
        return []
    return [f'<polyline points="{" ".join(steps)}" class="curve stroke-accent dashed"><title>front</title></polyline>']


def _numbered(number: int, place: Place, x: float, y: Scale, said: str) -> list[str]:
    """A dot with its number in it, and the whisker behind."""
    tone: Tone = "accent" if place.on_front else "faint"
    words = f'<text x="{x:.1f}" y="{y(place.quality) + 4:.1f}" text-anchor="middle" class="number on">{number}</text>'
    dot = charts._dot(x, y(place.quality), 9, tone, said)
    return [*_whisker(x, place.low, place.high, y, tone), dot, f'<g pointer-events="none">{words}</g>']


def _named(i: int, place: Place, say: Callable[[float], str]) -> list[str]:
    """A row of the legend below: number, name, quality, cost."""
    top = _BOTTOM + 64 + _LINE * i
    style = "strong" if place.on_front else ""
    return [
        charts._text(20, top, f"{i + 1}", "end", "number"),
        charts._text(30, top, charts._cut(place.name, 27), style=style),
        charts._text(WIDTH - 84, top, _with_interval(place), "end", "number"),
        charts._text(_RIGHT, top, say(place.cost), "end", "number"),
    ]


def _with_interval(place: Place) -> str:
    ends = [end for end in (place.low, place.high) if end is not None and math.isfinite(end)]
    return f"{place.quality:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if len(ends) == 2 else "")


def _band(curve: Sequence[Guess], x: LogScale, y: Scale) -> str:
    there = [f"{x(g.size):.1f},{y(g.high):.1f}" for g in curve]
    back = [f"{x(g.size):.1f},{y(g.low):.1f}" for g in reversed(curve)]
    return f'<polygon points="{" ".join(there + back)}" class="fill-accent" fill-opacity="0.13"/>'


def _lines(curve: Sequence[Guess], largest: float, x: LogScale, y: Scale) -> list[str]:
    found: list[str] = []
    inside, beyond = [g for g in curve if g.size <= largest], [g for g in curve if g.size >= largest]
    if inside and (not beyond or beyond[0] is not inside[-1]):
        beyond = [inside[-1], *beyond]
    for part, dashed in ((inside, ""), (beyond, " dashed")):
        if len(part) > 1:
            path = " ".join(f"{x(g.size):.1f},{y(g.value):.1f}" for g in part)
            found.append(f'<polyline points="{path}" class="curve stroke-accent{dashed}"/>')
    return found
