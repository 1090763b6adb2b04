"""People write and correct completions: kept as demonstrations, one per person and prompt, taken back, passed over."""

from __future__ import annotations

import re

import pytest

from tests.web import desks
from tunewright.web.desk import Desk
from tunewright.web.writing import as_text


@pytest.fixture
def desk(tmp_path):
    with desks.store(tmp_path / "j.db", 3, 2) as store:
        yield Desk(store, writes=True)


@pytest.fixture
def browser(desk):
    return desks.client(desk)


def question(page: str) -> str:
    return re.search(r"Question \d+\?", page)[0]


def fields(page: str) -> dict[str, str]:
    form = page[page.index('<form id="writing"') :]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))


def save(browser, page: str, text: str):
    return browser.post("/demonstrations", data=fields(page) | {"text": text})


def test_only_where_it_was_asked_for(desk, tmp_path):
    browser = desks.client(Desk(desk.store))
    assert browser.get("/write").status_code == 404
    assert browser.post("/demonstrations", data={"prompt": "x", "text": "y"}).status_code == 404
    assert "/write" not in browser.get("/").text


def test_writing_from_the_page_to_the_store(browser, desk):
    page = browser.get("/write").text
    answer = save(browser, page, "  A good answer,\r\nin two lines. ")
    assert (answer.status_code, answer.headers["location"]) == (303, "/write")
    (one,) = desk.store.demonstrations()
    assert (one.annotator, one.text, one.based_on) == ("Ana", "  A good answer,\nin two lines. ", None)
    assert question(browser.get("/write").text) != question(page)
    assert "<b>1</b> written" in browser.get("/write").text


def test_correcting_one(browser, desk):
    page = browser.get("/write").text
    link = re.findall(r'href="(/write\?from=\w+)"', page)[1]
    page = browser.get(link).text
    begun = re.search(r"<textarea[^>]*>\n(Answer \d\.\d)</textarea>", page)[1]
    assert "You are correcting this one" in page
    save(browser, page, f"{begun}, and better")
    (one,) = desk.store.demonstrations()
    (source,) = [c for c in desk.store.completions() if c.id == one.based_on]
    assert source.text == begun and one.text == f"{begun}, and better"
    assert link.endswith(source.id)


def test_an_empty_text_comes_back(browser, desk):
    page = browser.get("/write").text
    answer = save(browser, page, " \n ")
    assert answer.status_code == 422
    assert "the completion is empty" in answer.text
    assert not desk.store.demonstrations()


def test_undo_gives_the_text_back(browser, desk):
    page = browser.get("/write").text
    save(browser, page, "\nbegins with a line")
    assert browser.post("/demonstrations/undo").headers["location"] == "/write?undone=1"
    again = browser.get("/write?undone=1").text
    assert question(again) == question(page)
    # a browser drops the first line end after the tag, so there must be two
    assert ">\n\nbegins with a line</textarea>" in again
    assert not desk.store.demonstrations()
    assert browser.post("/demonstrations/undo").headers["location"] == "/write?undone=0"


def test_a_prompt_that_one_cant_write_for_is_passed_over(browser, desk):
    first = browser.get("/write").text
    passed = re.search(r'href="(/write\?after=\w+)"', first)[1]
    second = browser.get(passed).text
    assert question(second) != question(first)
    answer = save(browser, second, "text")
    third = browser.get(answer.headers["location"]).text
    assert question(third) not in (question(first), question(second))
    answer = save(browser, third, "text")
    assert question(browser.get(answer.headers["location"]).text) == question(first)  # it comes round again
    save(browser, browser.get("/write").text, "text after all")
    assert "You have written for every prompt" in browser.get("/write").text
    assert len(desk.store.demonstrations()) == 3


def test_written_texts_are_never_run(browser, desk):
    page = browser.get("/write").text
    save(browser, page, "</textarea><script>alert(1)</script>")
    browser.post("/demonstrations/undo")
    again = browser.get("/write?undone=1").text
    assert "<script>alert" not in again
    assert "&lt;/textarea&gt;&lt;script&gt;alert(1)" in again


def test_who_wrote_what_isnt_said_here_either(browser):
    assert desks.SECRET_ORIGIN not in browser.get("/write").text
    assert desks.SECRET_ORIGIN not in browser.get("/write", headers={"accept": "application/json"}).text


def test_messages_as_one_text():
    assert as_text("plain") == "plain"
    assert as_text([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": None}]) == "a\n\n"
