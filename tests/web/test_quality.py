"""The quality page: the measures in words, kept for a moment, made by one thread at a time."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from tests.web import desks
from tunewright.web import desk as desk_module
from tunewright.web import quality as quality_page
from tunewright.web.desk import Desk, Measured, pace


@pytest.fixture
def desk(tmp_path):
    with desks.store(tmp_path / "j.db", 12, 2) as store:
        yield Desk(store, overlap=1.0)


def judge(desk: Desk, annotator: str, best: int) -> None:
    """Each prompt: the completion shown at this place (0 left) is better."""
    for prompt in desk.store.prompts():
        shown = [one.id for one in desk.store.completions(prompt.id)]
        desk.store.record(prompt.id, annotator, shown, [[shown[best]], [shown[1 - best]]], (), "", 3.0)


def found(desk: Desk) -> dict[str, quality_page.Measure]:
    measured = quality_page.measures(Measured().of(desk.store))
    return {one.name: one for one in measured}


def test_nothing_is_known_at_first(desk):
    assert {one.value for one in found(desk).values()} == {"–"}
    assert "it takes two people" in found(desk)["Agreement"].says
    assert "0 of 10 pairs" in found(desk)["Left chosen"].says


def test_a_habit_is_said(desk):
    judge(desk, "Ana", 0)
    left = found(desk)["Left chosen"]
    assert (left.value, left.tone, left.says) == ("100 %", "unsure", "The left one wins more often than chance.")
    assert left.interval[0] > 0.5 and left.at == 1.0
    judge(desk, "Bob", 1)
    left = found(desk)["Left chosen"]
    assert (left.value, left.tone, left.says) == ("50 %", "good", "No habit of the left or right one.")


def test_agreement_is_said(desk):
    judge(desk, "Ana", 0)
    judge(desk, "Bob", 0)
    agreement = found(desk)["Agreement"]
    assert (agreement.value, agreement.tone, agreement.at) == ("1.00", "good", 1.0)
    judge(desk, "Bob", 1)  # thought better of all of it
    agreement = found(desk)["Agreement"]
    assert agreement.tone == "bad" and "guidelines" in agreement.says and agreement.at == 0.0


def test_the_page_shows_people_and_no_model(desk):
    judge(desk, "Ana", 0)
    judge(desk, "Bob", 1)
    browser = desks.client(desk)
    page = browser.get("/quality").text
    assert "Ana</td>" in page and "Bob</td>" in page and "Cohen's kappa" in page
    assert "24 judgements hold 24 pairs" in page
    assert desks.SECRET_ORIGIN not in page
    twin = browser.get("/quality", headers={"accept": "application/json"}).json()
    assert twin["quality"]["judgements"] == 24
    assert twin["measures"][0]["name"] == "Agreement"


def test_measures_are_kept_for_a_moment(desk):
    clock = [0.0]
    measured = Measured(lambda: clock[0])
    assert measured.of(desk.store).judgements == 0
    judge(desk, "Ana", 0)
    assert measured.of(desk.store).judgements == 0
    clock[0] = 1.9
    assert measured.of(desk.store).judgements == 0
    clock[0] = 2.1
    assert measured.of(desk.store).judgements == 12


def test_what_takes_long_is_kept_longer(desk, monkeypatch):
    clock, real = [0.0], desk_module.quality

    def slow(*arguments, **named):
        clock[0] += 1.0
        return real(*arguments, **named)

    monkeypatch.setattr(desk_module, "quality", slow)
    measured = Measured(lambda: clock[0])
    measured.of(desk.store)
    clock[0] = 20.9
    measured.of(desk.store)
    assert clock[0] == 20.9
    clock[0] = 21.1
    measured.of(desk.store)
    assert clock[0] == 22.1


def test_one_thread_measures_and_the_others_dont_wait(desk, monkeypatch):
    measured, real = Measured(lambda: 0.0), desk_module.quality
    measured.of(desk.store)
    measured._until = -1.0
    begun, go, made = threading.Event(), threading.Event(), []

    def slow(*arguments, **named):
        made.append(1)
        begun.set()
        assert go.wait(10)
        return real(*arguments, **named)

    monkeypatch.setattr(desk_module, "quality", slow)
    worker = threading.Thread(target=measured.of, args=(desk.store,))
    worker.start()
    assert begun.wait(10)
    start = time.monotonic()
    for _ in range(50):
        measured.of(desk.store)
    assert time.monotonic() - start < 1
    go.set()
    worker.join()
    assert len(made) == 1


def test_pace(desk):
    assert pace(desk, "Ana")["minutes_left"] is None
    prompts = desk.store.prompts()
    for prompt, seconds in zip(prompts[:3], (10.0, 30.0, 20.0), strict=True):
        shown = [one.id for one in desk.store.completions(prompt.id)]
        desk.store.record(prompt.id, "Ana", shown, [shown], (), "", seconds)
    known = pace(desk, "Ana")
    assert (known["judged"], known["left"], known["seconds_per_judgement"]) == (3, 9, 20.0)
    assert known["minutes_left"] == 3.0
    assert pace(replace(desk, overlap=0.0), "Ana")["left"] == 9
