"""The law is scipy's; its forecasts hold the truth as often as they say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import curve_fit

from tunewright.errors import UsageError
from tunewright.evaluation.learning_curve import LearningCurve, Point, PowerLaw, fit_curve, words


def _points(law: PowerLaw, sizes: tuple[int, ...], noise: float, seed: int, said: float = 0.012) -> list[Point]:
    rng = np.random.default_rng(seed)
    return [Point(n, law(n) + float(rng.normal()) * noise, said) for n in sizes]


SIZES = (100, 200, 400, 800, 1600)


@pytest.mark.parametrize("law", [PowerLaw(0.92, 2.0, 0.5), PowerLaw(0.85, 1.1, 0.3), PowerLaw(0.99, 6.0, 0.8)])
def test_the_law_is_the_one_that_scipy_finds(law: PowerLaw) -> None:
    points = _points(law, SIZES, 0.002, seed=1)
    found = fit_curve(points).law
    values = [p.value for p in points]
    expected, _ = curve_fit(
        lambda n, a, b, c: a - b * n**-c, SIZES, values, p0=[0.9, 2, 0.5], sigma=[0.012] * 5,
        bounds=([0, 0, 0.05], [1, 200, 2]), ftol=1e-14, xtol=1e-14, gtol=1e-14, max_nfev=100_000,
    )  # fmt: skip
    fitted = [found(n) for n in (*SIZES, 5000)]
    assert fitted == pytest.approx([expected[0] - expected[1] * n ** -expected[2] for n in (*SIZES, 5000)], abs=2e-5)


def test_a_law_without_noise_is_found_exactly() -> None:
    law = PowerLaw(0.9, 1.5, 0.45)
    found = fit_curve(_points(law, SIZES, 0.0, seed=0)).law
    assert (found.a, found.b, found.c) == pytest.approx((0.9, 1.5, 0.45), abs=1e-4)


def test_losses_fall() -> None:
    points = [Point(n, 0.2 + 3 * n**-0.5, 0.01) for n in SIZES]
    curve = fit_curve(points, higher_is_better=False)
    assert (curve.law.a, -curve.law.b, curve.law.c) == pytest.approx((0.2, 3, 0.5), abs=1e-4)
    assert curve.gain(1600, 3200).value < 0
    assert curve.measured(1e9).low >= 0


@pytest.mark.parametrize("noise", [0.006, 0.012, 0.02])
def test_forecasts_from_half_the_rows_hold_the_truth_19_times_in_20(noise: float) -> None:
    held = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        floor, c = rng.uniform(0, 0.15), rng.choice([0.15, 0.3, 0.5, 1.0])
        law = PowerLaw(1 - floor, float(rng.uniform(0.2, 0.4) - floor) * 100**c, c)
        forecast = fit_curve(_points(law, (100, 200, 400, 500), noise, seed), seed=seed).measured(1000)
        held.append(forecast.low <= law(1000) + rng.normal() * noise <= forecast.high)
    assert np.mean(held) >= 0.9


def test_farther_is_less_certain_and_more_points_are_more() -> None:
    law = PowerLaw(0.9, 1.5, 0.4)
    few, many = (fit_curve(_points(law, SIZES * k, 0.012, seed=3)) for k in (1, 6))

    def width(curve: LearningCurve, n: int) -> float:
        return curve.expected(n).high - curve.expected(n).low

    assert width(few, 3200) < width(few, 12_800)
    assert width(many, 3200) < width(few, 3200)
    assert many.measured(3200).high - many.measured(3200).low > width(many, 3200)


def test_what_twice_the_rows_bring() -> None:
    steep = fit_curve(_points(PowerLaw(0.95, 4.0, 0.6), SIZES * 3, 0.004, seed=0))
    gain, truth = steep.gain(1600, 3200), 4.0 * (1600**-0.6 - 3200**-0.6)
    assert gain.low <= truth <= gain.high
    assert words(steep, "accuracy").startswith("twice the labels (3,200 rows) would give about +")
    flat = fit_curve([Point(n, 0.8, 0.002) for n in SIZES * 3])
    assert "hardly help" in words(flat, "accuracy")
    assert "in rmse" in words(fit_curve([Point(n, 1 + 9 / n, 0.1) for n in SIZES], higher_is_better=False), "rmse")


def test_the_same_points_give_the_same_answer() -> None:
    points = _points(PowerLaw(0.9, 1.5, 0.4), SIZES, 0.01, seed=5)
    once, again = fit_curve(points), fit_curve(points[::-1])
    assert once.to_json([3200]) == again.to_json([3200])
    json.dumps(once.to_json([3200]), allow_nan=False)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([Point(100, 0.8, 0.01), Point(200, 0.8, 0.01), Point(200, 0.8, 0.01)], "through 2 sizes; expected 3"),
        ([Point(n, 0.8, 0.0) for n in SIZES], "standard error above 0"),
        ([Point(n, float("nan"), 0.1) for n in SIZES], "no finite value"),
    ],
)
def test_too_little_to_fit(points: list[Point], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit_curve(points)
