"""What a form says: places as a ranking, flags, notes, and how long it took."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from tunewright.errors import UsageError
from tunewright.web.forms import MAX_FIELDS, Filled, Form, filled, places_of, read_form, tiers

SHOWN = ("c", "a", "d", "b")


@pytest.mark.parametrize(
    ("places", "ranking"),
    [
        ((1, 2, 3, 4), [["c"], ["a"], ["d"], ["b"]]),
        ((4, 3, 2, 1), [["b"], ["d"], ["a"], ["c"]]),
        ((1, 1, 2, 2), [["c", "a"], ["d", "b"]]),
        ((1, 3, 3, 4), [["c"], ["a", "d"], ["b"]]),  # 1, 3, 3, 4 says no more than 1, 2, 2, 3
        ((2, 2, 2, 2), [["c", "a", "d", "b"]]),
    ],
)
def test_places_become_a_ranking(places, ranking):
    assert Filled("p", SHOWN, places).ranking() == ranking


@given(st.lists(st.integers(1, 5), min_size=1, max_size=9))
def test_a_ranking_and_its_places_say_the_same(places):
    shown = [f"c{number}" for number in range(len(places))]
    ranking = tiers(shown, places)
    again = places_of(shown, ranking)
    assert tiers(shown, again) == ranking
    for i in range(len(places)):
        for j in range(len(places)):
            assert (places[i] < places[j]) == (again[i] < again[j])


@pytest.mark.parametrize(
    ("places", "words"), [((1, 0, 3, 4), "2 has no place"), ((0, 1, 0, 0), "1, 3 and 4 have no place"),
                          ((0, 1, 2, 0), "1 and 4 have no place")]
)  # fmt: skip
def test_missing_places_are_named(places, words):
    with pytest.raises(UsageError, match=words):
        Filled("p", SHOWN, places).ranking()
    with pytest.raises(UsageError, match=words):
        Filled("p", SHOWN, places, both_bad=True).ranking()


def test_flags_stand_without_a_ranking():
    assert Filled("p", SHOWN, (0, 0, 0, 0), both_bad=True).ranking() == []
    assert Filled("p", SHOWN, (2, 1, 1, 1), both_bad=True).ranking() == [["a", "d", "b"], ["c"]]
    assert Filled("p", SHOWN, (2, 1, 0, 0), skip=True).ranking() == []
    assert Filled("p", SHOWN, (1, 1, 1, 1), both_bad=True, skip=True).flags == ["both_bad", "skip"]


def form(*fields: tuple[str, str]) -> Form:
    return Form((("prompt", "p"), *(("shown", id) for id in SHOWN), *fields))


def test_a_form_as_a_browser_sends_it():
    found = filled(
        form(("place-1", "2"), ("place-2", "1"), ("place-4", "x"), ("flags", "both_bad"), ("note", " a\r\nb ")), 0
    )
    assert found.prompt_id == "p"
    assert found.shown == SHOWN
    assert found.places == (2, 1, 0, 0)
    assert (found.both_bad, found.skip, found.note, found.seconds) == (True, False, "a\nb", None)
    assert filled(form(("action", "skip")), 0).skip


@pytest.mark.parametrize("place", ["-1", "1.5", "٣", "1000", "", "1e1"])
def test_a_place_is_a_small_number(place):
    assert filled(form(("place-1", place)), 0).places[0] == 0


@pytest.mark.parametrize(
    ("served", "seconds", "expected"),
    [
        ("100", "", 20.0),
        ("100", "7.5", 7.5),  # in sight for less than since it was sent
        ("100", "3600", 20.0),  # never more
        ("100", "-1", 20.0),
        ("100", "nan", 20.0),
        ("130", "", 0.0),  # the clock was set back
        ("", "7.5", 7.5),
        ("", "", None),
        ("inf", "inf", None),
    ],
)
def test_seconds(served, seconds, expected):
    assert filled(form(("served", served), ("seconds", seconds)), 120.0).seconds == expected


def test_json_says_the_ranking_itself():
    sent = {"prompt": "p", "shown": list(SHOWN), "ranking": [["d"], ["a", "b"], ["c"]], "flags": [], "note": None}
    found = filled(Form(sent=sent), 0)
    assert found.places == (3, 2, 1, 2)
    assert found.ranking() == [["d"], ["a", "b"], ["c"]]
    assert (found.both_bad, found.skip, found.note) == (False, False, "")
    assert filled(Form(sent={"flags": ["skip"]}), 0).skip


@pytest.mark.parametrize(
    "ranking", [["a", "b"], "ab", [["a"], ["a"]], [["a"], ["z"]], {"a": 1}, [["c", "a", "d", "b", "b"]]]
)
def test_a_ranking_that_isnt_one(ranking):
    with pytest.raises(UsageError, match="ranking must"):
        filled(Form(sent={"prompt": "p", "shown": list(SHOWN), "ranking": ranking}), 0)


# ---- bodies ----


def read(body: bytes, kind: str = "application/x-www-form-urlencoded") -> Form:
    async def receive():
        return {"type": "http.request", "body": body}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}
    return asyncio.run(read_form(Request(scope, receive)))


def test_a_body_as_fields():
    assert read(b"a=1&a=2&b=%C3%A4+%26&c=").fields == (("a", "1"), ("a", "2"), ("b", "ä &"), ("c", ""))
    assert read(b'{"a": [1, 2], "b": null}', "application/json; charset=utf-8").all("a") == ["1", "2"]
    assert read(b"note=%ff").one("note") == "\ufffd"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"a=1", "text/plain", "content type"),  # what a page elsewhere could send without being asked
        (b"a=1", "multipart/form-data; boundary=x", "content type"),
        (b"a=1", "", "content type"),
        (b"&".join([b"a=1"] * (MAX_FIELDS + 1)), "application/x-www-form-urlencoded", "more than 100 fields"),
        (b"\xff", "application/x-www-form-urlencoded", "UTF-8"),
        (b"{", "application/json", "isn't JSON"),
        (b"[1]", "application/json", "isn't a JSON object"),
        (b"[" * 100_000, "application/json", "isn't JSON"),
    ],
)
def test_a_body_that_isnt_a_form(body, kind, words):
    with pytest.raises(UsageError, match=words):
        read(body, kind)
