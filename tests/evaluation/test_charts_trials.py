"""The charts of trials: well-formed, every mark with its numbers, names escaped, nothing where there is nothing."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from tunewright.evaluation.charts_trials import Guess, Place, learning_curve_chart, pareto_chart

HOSTILE = '<script>alert("x")</script> & co'
PLACES = [
    Place("lora", 190, 0.864, 0.84, 0.88, on_front=True),
    Place("head", 31, 0.805, 0.78, 0.83, on_front=True),
    Place("full", 240, 0.861),
]


def _titles(drawing: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(drawing).iter("title")]


def test_pareto_says_every_number_and_ranks_the_names() -> None:
    drawing = pareto_chart(PLACES, title="t", x_label="seconds", y_label="accuracy", say=lambda s: f"{s:g} s")
    assert "lora: accuracy 0.864 [0.840, 0.880], seconds 190 s" in _titles(drawing)
    texts = [node.text for node in ElementTree.fromstring(drawing).iter("text")]
    assert [t for t in texts if t in ("lora", "full", "head")] == ["lora", "full", "head"]
    assert "accuracy ↑ better" in texts


def test_costs_are_logarithmic_and_the_front_is_a_staircase() -> None:
    places = [Place("a", 10, 0.5, on_front=True), Place("b", 100, 0.6, on_front=True), Place("c", 1000, 0.7)]
    drawing = pareto_chart(places, title="t", x_label="x", y_label="y")
    dots = sorted(float(c.get("cx", "")) for c in ElementTree.fromstring(drawing).iter("circle"))
    assert dots[1] - dots[0] == pytest.approx(dots[2] - dots[1], abs=0.2)
    [front] = list(ElementTree.fromstring(drawing).iter("polyline"))
    steps = [tuple(map(float, p.split(","))) for p in front.get("points", "").split()]
    assert steps[0][1] == steps[1][1]  # level until the better one is affordable
    assert steps[1][0] == steps[2][0]
    assert steps[2][1] < steps[1][1]


def test_learning_curve_marks_points_and_forecast() -> None:
    curve = [Guess(n, 1 - n**-0.3, 0.9 - n**-0.3, 1.1 - n**-0.3) for n in (100, 200, 400, 800)]
    drawing = learning_curve_chart([(100, 0.75), (200, 0.8), (400, 0.83)], curve, title="t", y_label="accuracy")
    titles = _titles(drawing)
    assert "training rows 400: accuracy 0.830" in titles
    assert any(said.startswith("training rows 800: accuracy 0.865 [") for said in titles)
    root = ElementTree.fromstring(drawing)
    assert len(list(root.iter("polygon"))) == 1
    assert ["dashed" in (line.get("class") or "") for line in root.iter("polyline")] == [False, True]


def test_names_are_text_and_nothing_is_drawn_of_nothing() -> None:
    drawing = pareto_chart([Place(HOSTILE, 1, 0.5)], title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE)
    assert not list(ElementTree.fromstring(drawing).iter("script"))
    assert pareto_chart([Place("a", 0, 0.5), Place("b", 1, math.nan)], title="t", x_label="x", y_label="y") == ""
    assert learning_curve_chart([], [], title="t", y_label="y") == ""
    assert "nan" not in pareto_chart([Place("a", 5, 0.5, math.nan, 1)], title="t", x_label="x", y_label="y")
