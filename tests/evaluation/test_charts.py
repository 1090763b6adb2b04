"""Charts are well-formed SVG without script, with every text escaped and every mark where its number says."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from tunewright.evaluation import charts

HOSTILE = '<script>alert("x")</script> & co'


def _parse(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)


def _titles(drawing: str) -> list[str]:
    return [node.text or "" for node in _parse(drawing).iter("title")]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.52, 0.93, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (0, 10_000, [0, 2000, 4000, 6000, 8000, 10000]),
        (-3.0, 2.0, [-3, -2, -1, 0, 1, 2]),
    ],
)
def test_ticks_are_round_and_cover(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 0.7, -5.0, 1e9, 1e-9])
def test_ticks_of_a_single_value_still_span_something(value: float) -> None:
    marks = charts.ticks(value, value)
    assert marks[0] <= value <= marks[-1]
    assert marks[0] < marks[-1]


def test_line_chart_says_its_numbers_and_marks_the_best() -> None:
    drawing = charts.line_chart(
        [charts.Series("validation", [(1, 0.331), (2, 0.402)]), charts.Series("train", [(1, 0.4), (2, 0.2)], "warm")],
        title="Loss",
        x_label="epoch",
        y_label="loss",
        best=(1, "★ kept"),
    )
    assert "validation, epoch 2: loss 0.402" in _titles(drawing)
    assert "★ kept" in drawing
    assert _parse(drawing).get("role") == "img"
    heights = [float(c.get("cy", "")) for c in _parse(drawing).iter("circle")]
    assert heights[1] < heights[0]  # a larger loss stands higher: y grows downwards


def test_line_chart_survives_one_point_and_numbers_that_are_not() -> None:
    one = charts.Series("a", [(0, 0.5), (1, math.nan), (math.inf, 1)])
    drawing = charts.line_chart([one], title="t", x_label="x", y_label="y")
    assert len(list(_parse(drawing).iter("circle"))) == 1
    assert "nan" not in drawing.lower()
    assert charts.line_chart([charts.Series("a", [])], title="t", x_label="x", y_label="y") == ""


def test_confusion_chart_counts_and_shades_by_row() -> None:
    drawing = charts.confusion_chart([[8, 2], [0, 5]], ["no", "yes"], title="Confusion")
    assert "no called yes: 2 of 10 (20.0%)" in _titles(drawing)
    shades = [node.get("fill-opacity") for node in _parse(drawing).iter("rect") if node.get("fill-opacity")]
    assert shades == ["0.800", "0.200", "0.000", "1.000"]


def test_large_confusion_charts_drop_numbers_not_cells() -> None:
    names = [f"class {i}" for i in range(40)]
    drawing = charts.confusion_chart([[3] * 40 for _ in names], names, title="Confusion")
    assert len(re.findall("fill-opacity", drawing)) == 1600
    assert ">3</text>" not in drawing


@pytest.mark.parametrize("matrix", [[], [[1]], [[1, 2], [3]], [[1, 2, 3], [4, 5, 6]]])
def test_confusion_that_does_not_fit_its_names_is_not_drawn(matrix: list[list[int]]) -> None:
    assert charts.confusion_chart(matrix, ["a", "b"], title="t") == ""


def test_reliability_dots_sit_on_the_line_when_honest() -> None:
    drawing = charts.reliability_chart([(0.25, 0.25, 10), (0.75, 0.5, 40), (0.1, 0.1, 0)], title="t")
    dots = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in _parse(drawing).iter("circle")]
    assert len(dots) == 2  # the empty bin isn't drawn
    left, width, bottom, height = 46, 270, 286, 270
    assert dots[0] == pytest.approx((left + 0.25 * width, bottom - 0.25 * height))
    assert dots[1] == pytest.approx((left + 0.75 * width, bottom - 0.5 * height), abs=0.06)


def test_interval_chart_writes_value_and_interval() -> None:
    rows = [charts.Estimate("majority", 0.5), charts.Estimate("tuned", 0.892, 0.82, 0.94, "accent")]
    drawing = charts.interval_chart(rows, title="t", x_label="accuracy")
    assert "0.892 [0.820, 0.940]" in drawing
    assert _titles(drawing) == ["majority: 0.500", "tuned: 0.892 [0.820, 0.940]"]
    assert charts.interval_chart([charts.Estimate("a", math.nan)], title="t", x_label="x") == ""


def test_bars_are_shares_of_the_whole() -> None:
    drawing = charts.bar_chart([("a", 30), ("b", 10)], title="t")
    widths = [float(n.get("width", "")) for n in _parse(drawing).iter("rect") if n.get("class") == "fill-accent"]
    assert widths == [330.0, 110.0]
    assert "30 · 75.0%" in drawing


def test_names_are_text_never_markup() -> None:
    series = charts.Series(HOSTILE, [(0, 1), (1, 2)])
    drawings = [
        charts.line_chart([series], title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE, best=(0, HOSTILE)),
        charts.confusion_chart([[1, 1], [1, 1]], [HOSTILE, HOSTILE], title=HOSTILE),
        charts.interval_chart([charts.Estimate(HOSTILE, 1.0)], title=HOSTILE, x_label=HOSTILE),
        charts.bar_chart([(HOSTILE, 1.0)], title=HOSTILE),
    ]
    for drawing in drawings:
        assert not list(_parse(drawing).iter("script"))
        assert "<script" not in drawing
        assert _parse(drawing).get("aria-label") == HOSTILE
