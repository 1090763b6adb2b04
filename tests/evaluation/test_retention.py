"""Forgetting is said when it is sure and large enough, and only then."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tunewright.errors import DataError
from tunewright.evaluation import retention as f


def documents(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Nats and tokens of n documents, some easy and some hard."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(50, 200, n)
    return tokens * rng.normal(3.06, 0.5, n), tokens


@pytest.mark.parametrize(("change", "noise", "verdict"), [
    (0.16, 0.1, "forgot"), (0.03, 0.02, "forgot a little"), (-0.1, 0.1, "improved"), (0.002, 0.005, "kept"),
    (0.002, 0.0001, "kept"),  # sure, but nobody would notice
    (0.02, 0.3, "no clear change"), (0.0, 0.5, "no clear change"),
])  # fmt: skip
def test_verdicts(change: float, noise: float, verdict: str) -> None:
    nats, tokens = documents()
    found = f.retained(nats, nats + tokens * np.random.default_rng(1).normal(change, noise, 40), tokens)
    assert found.verdict == verdict, found.sentence()


@pytest.mark.parametrize(("after", "low", "high", "verdict"), [
    (10.02, -0.09, 0.10, "no clear change"),  # nearly the same, but it might as well be 10 % worse
    (10.30, -0.01, 0.045, "no clear change"),
    (9.70, -0.045, 0.01, "no clear change"),
    (9.70, -0.04, -0.02, "improved"),
    (10.50, 0.04, 0.06, "forgot"),
    (10.05, -0.04, 0.04, "kept"),
])  # fmt: skip
def test_verdict_of_an_interval(after: float, low: float, high: float, verdict: str) -> None:
    assert f.Retained(10.0, after, f.Interval(low, high), 40, 4000).verdict == verdict


def test_words() -> None:
    tokens = np.full(10, 100)
    found = f.retained(tokens * math.log(21.3), tokens * math.log(24.9), tokens)
    assert found.words() == "perplexity on general text 21.3 → 24.9: forgot"
    assert found.sentence() == f"{found.words()} (+16.9 %, +16.9 % to +16.9 %; 10 documents)"
    assert f.retained(tokens * math.log(1233.8), tokens * math.log(4.567), tokens, masked=True).words() == (
        "masked-word perplexity on general text 1,234 → 4.57: improved"
    )


def test_the_interval_pairs_documents() -> None:
    """Documents differ by far more than the change does; unpaired, nothing could be seen."""
    nats, tokens = documents()
    found = f.retained(nats, nats + 0.03 * tokens, tokens)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((math.exp(0.03) - 1,) * 2)
    assert found.change == pytest.approx(math.exp(0.03) - 1)
    assert found.before == pytest.approx(math.exp(nats.sum() / tokens.sum()))  # each token counts alike
    assert (found.documents, found.tokens) == (40, tokens.sum())


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng, covered = np.random.default_rng(5), 0
    for seed in range(100):
        nats, tokens = documents(60, seed)
        found = f.retained(nats, nats + tokens * rng.normal(0.05, 0.1, 60), tokens, samples=300, seed=seed).interval
        covered += found is not None and found.low <= math.exp(0.05) - 1 <= found.high
    assert 0.9 <= covered / 100 <= 1


def test_a_few_documents_prove_nothing() -> None:
    nats, tokens = documents(5)
    found = f.retained(nats, nats + 0.3 * tokens, tokens)
    assert (found.interval, found.verdict) == (None, "no clear change")
    assert found.sentence().endswith("(+35.0 %; 5 documents, too few to tell)")


def test_a_frozen_body_kept_everything_whatever_the_number_of_documents() -> None:
    nats, tokens = documents(1)
    found = f.retained(nats, nats, tokens)
    assert (found.verdict, found.change) == ("kept", 0)
    assert found.sentence().endswith("(0.0 %, 0.0 % to 0.0 %; 1 document)")


@pytest.mark.parametrize("broken", [math.nan, math.inf, 1e9])
def test_a_model_that_lost_its_numbers_forgot(broken: float) -> None:
    nats, tokens = documents()
    after = nats.copy()
    after[3] = broken
    found = f.retained(nats, after, tokens)
    assert found.verdict == "forgot"
    assert "→ ∞: forgot" in found.sentence()
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["after"] is None


def test_a_base_without_numbers_can_forget_nothing() -> None:
    nats, tokens = documents()
    assert f.retained(nats * np.inf, nats * np.inf, tokens).verdict == "no clear change"


def test_json_says_all() -> None:
    nats, tokens = documents()
    found = json.loads(json.dumps(f.retained(nats, nats + tokens, tokens).to_json(), allow_nan=False))
    assert found["verdict"] == "forgot"
    assert found["interval"] == pytest.approx([found["change"]] * 2)
    assert found["kind"] == "perplexity" and found["words"] in found["sentence"]


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(DataError, match="no token to measure"):
        f.retained(np.zeros(2), np.zeros(2), np.zeros(2))
    with pytest.raises(DataError, match="no token to measure"):
        f.drift([])


# --- drift ------------------------------------------------------------------------------------------------------


def states(tokens: int, seed: int, shared: float = 0.0) -> np.ndarray:
    """Hidden states that point apart, or (shared) much the same way."""
    return np.random.default_rng(seed).normal(size=(tokens, 64)) + shared


def measured(moved: float, shared: float = 0.0, n: int = 12) -> f.Drift:
    made = [states(30, seed, shared) for seed in range(n)]
    return f.drift([f.document_drift(old, old + moved * states(30, 100 + i)) for i, old in enumerate(made)])


def test_drift_is_one_minus_cosine() -> None:
    old, new = states(50, 0), states(50, 1)
    cosine = (old * new).sum(1) / np.linalg.norm(old, axis=1) / np.linalg.norm(new, axis=1)
    part = f.document_drift(old.astype(np.float32), new.astype(np.float32))
    assert part.moved == pytest.approx((1 - cosine).sum(), rel=1e-6)
    assert f.drift([part]).moved == pytest.approx((1 - cosine).mean(), rel=1e-6)
    assert f.document_drift(old, 7 * old).moved == pytest.approx(0, abs=1e-12)  # longer is not elsewhere
    assert f.document_drift(old, -old).moved == pytest.approx(100)


def test_a_tiny_drift_keeps_its_digits() -> None:
    old = np.zeros((1, 2), np.float32)
    old[0, 0] = 1
    new = np.array([[1, 1e-5]], np.float32)
    assert f.document_drift(old, new).moved == pytest.approx(0.5e-10, rel=1e-4)


def test_unrelated_tokens_are_the_mean_over_all_pairs() -> None:
    made = [states(7, seed, 0.5) for seed in range(3)]
    units = np.concatenate(made) / np.linalg.norm(np.concatenate(made), axis=1, keepdims=True)
    pairs = 1 - (units @ units.T)[~np.eye(21, dtype=bool)]
    assert f.drift([f.document_drift(old, old) for old in made]).unrelated == pytest.approx(pairs.mean())


@pytest.mark.parametrize(("moved", "verdict"), [
    (0.0, "did not move"), (0.1, "hardly moved"), (0.5, "moved"), (2.0, "moved far"),
])  # fmt: skip
def test_movement(moved: float, verdict: str) -> None:
    assert measured(moved).verdict == verdict


def test_movement_is_judged_by_how_far_apart_tokens_lie() -> None:
    """All states pointing one way: small cosines between everything, and the same movement within it."""
    apart, together = measured(0.7), measured(0.7, shared=2.0)
    assert together.moved < apart.moved / 3
    assert together.verdict == apart.verdict == "moved"


def test_drift_in_words_and_json() -> None:
    found = measured(0.1)
    assert found.interval is not None
    assert found.interval.low < found.moved < found.interval.high
    assert found.words() == (
        "hidden states of general text moved by 0.51 % of the distance between unrelated tokens: hardly moved"
    )
    stored = found.to_json()
    assert stored["change"] == pytest.approx(found.moved / found.unrelated)
    assert stored["interval"][0] < stored["change"] < stored["interval"][1]
    assert found.sentence() == f"{found.words()} (12 documents)"
    assert measured(0.0).words() == "hidden states of general text: did not move"
    single = f.drift([f.document_drift(np.ones((1, 2)), np.array([[1.0, 0.0]]))])
    assert single.words() == "hidden states of general text moved by 0.293: moved far"
    assert single.interval is None
    assert json.loads(json.dumps(single.to_json(), allow_nan=False))["change"] is None


def test_states_that_are_no_numbers_are_not_hidden() -> None:
    broken = states(30, 1)
    broken[4, 2] = np.nan
    found = f.drift([f.document_drift(states(30, 0), broken if i == 3 else states(30, 0)) for i in range(8)])
    assert found.verdict == "moved far"
    assert found.words() == "hidden states of general text are no longer numbers"
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["moved"] is None


def test_states_without_direction_are_no_division_by_zero() -> None:
    assert f.document_drift(np.zeros((2, 3)), np.zeros((2, 3))).moved == 0
    assert math.isfinite(f.document_drift(np.zeros((2, 3)), np.ones((2, 3))).moved)
