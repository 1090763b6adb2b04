"""The ranking page without scripts: shown, judged, tied, skipped, undone, by several people, blind, and as JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import pytest

from tests.web import desks
from tunewright.data.judgement_records import Completion
from tunewright.errors import MachineError
from tunewright.web.desk import Desk
from tunewright.web.ranking import MOST_SHOWN, shuffled
from tunewright.web.showing import guidelines_html


@pytest.fixture
def desk(tmp_path):
    with desks.store(tmp_path / "j.db") as store:
        yield Desk(store)


@pytest.fixture
def browser(desk):
    return desks.client(desk)


def submit(browser, page: str, *places: int, **more: str):
    """The form of a page, filled in and sent."""
    return browser.post("/judgements", data=desks.fields(page) | desks.places(*places) | {"action": "save"} | more)


def question(page: str) -> str:
    return re.search(r"Question \d+\?", page)[0]


def texts(page: str) -> list[str]:
    return re.findall(r"Answer \d+\.\d+", page)


# ---- judged ----


def test_a_judgement_from_the_page_to_the_store(browser, desk):
    page = browser.get("/").text
    shown = desks.fields(page)["shown"]
    answer = submit(browser, page, 2, 1, 4, 2, note="  the first two are close ")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    (judgement,) = desk.store.judgements()
    assert judgement.shown == tuple(shown)
    assert judgement.ranking == ((shown[1],), (shown[0], shown[3]), (shown[2],))
    assert (judgement.annotator, judgement.note, judgement.flags) == ("Ana", "the first two are close", ())
    assert 0 <= judgement.seconds < 60
    assert question(browser.get("/").text) != question(page)


def test_all_of_them_to_the_end(browser, desk):
    asked = []
    for left in (3, 2, 1):
        page = browser.get("/").text
        asked.append(question(page))
        assert f"<b>{left}</b> left" in page
        assert submit(browser, page, 1, 2, 3, 4).status_code == 303
    assert sorted(asked) == ["Question 1?", "Question 2?", "Question 3?"]
    page = browser.get("/").text
    assert "That was the last one" in page
    assert "3 of 3 prompts are judged, 3 by you" in page
    assert "tunewright rank export judgements.db" in page
    browser.post("/undo")
    assert question(browser.get("/").text) == asked[-1]


def test_what_cant_be_kept_comes_back_filled_in(browser, desk):
    page = browser.get("/").text
    answer = submit(browser, page, 2, 0, 1, 0, note="half", flags="both_bad")
    assert answer.status_code == 422
    assert "2 and 4 have no place yet" in answer.text
    assert 'role="alert"' in answer.text
    checked = re.findall(r'name="place-(\d)" value="(\d)" checked', answer.text)
    assert checked == [("1", "2"), ("3", "1")]
    assert 'value="both_bad" checked' in answer.text
    assert "\nhalf</textarea>" in answer.text
    assert desks.fields(answer.text)["shown"] == desks.fields(page)["shown"]
    assert not desk.store.judgements()


def test_both_bad_and_skip(browser, desk):
    submit(browser, browser.get("/").text, flags="both_bad")
    submit(browser, browser.get("/").text, 1, 2, 0, 0, action="skip")
    submit(browser, browser.get("/").text, 1, 2, 3, 4, flags="both_bad")
    bad, skipped, ranked = desk.store.judgements()
    assert (bad.flags, bad.ranking) == (("both_bad",), ())
    assert (skipped.flags, skipped.ranking) == (("skip",), ())
    assert (ranked.flags, len(ranked.ranking)) == (("both_bad",), 4)
    page = browser.get("/").text
    assert "2 by you; you skipped 1" in page


def test_sent_twice_it_is_kept_once(browser, desk):
    """A double click, or a browser that tries again because it heard no answer."""
    page = browser.get("/").text
    for _ in range(3):
        assert submit(browser, page, 1, 2, 3, 4).status_code == 303
    assert len(desk.store.judgements(withdrawn=True)) == 1
    submit(browser, page, 4, 3, 2, 1)  # thought better of it, in another tab
    assert len(desk.store.judgements()) == 1
    assert len(desk.store.judgements(withdrawn=True)) == 2


def test_undo_gives_the_prompt_back_as_it_was(browser, desk):
    page = browser.get("/").text
    submit(browser, page, 2, 1, 3, 3, note="close", flags="both_bad")
    answer = browser.post("/undo")
    assert answer.headers["location"] == "/?undone=1"
    again = browser.get("/?undone=1").text
    assert question(again) == question(page)
    assert desks.fields(again)["shown"] == desks.fields(page)["shown"]
    assert re.findall(r'name="place-(\d)" value="(\d)" checked', again) == [
        ("1", "2"),
        ("2", "1"),
        ("3", "3"),
        ("4", "3"),
    ]
    assert "\nclose</textarea>" in again and 'value="both_bad" checked' in again
    assert "Taken back" in again
    assert not desk.store.judgements()
    assert len(desk.store.judgements(withdrawn=True)) == 1  # never deleted


def test_nothing_to_undo(browser):
    assert browser.post("/undo").headers["location"] == "/?undone=0"
    assert "nothing to take back" in browser.get("/?undone=0").text


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"prompt": "nowhere"}, 400),
        ({"shown": ["a", "b", "c", "d"]}, 422),
        ({"shown": []}, 422),
        ({"prompt": ["<script>alert(1)</script>"]}, 400),
        ({"note": "x" * 10_001}, 422),
    ],
)
def test_a_form_that_somebody_made_up(browser, desk, change, status):
    page = browser.get("/").text
    answer = browser.post("/judgements", data=desks.fields(page) | desks.places(1, 2, 3, 4) | change)
    assert answer.status_code == status
    assert "<script>alert" not in answer.text
    assert not desk.store.judgements()


def test_the_same_completion_twice(browser, desk):
    page = browser.get("/").text
    fields = desks.fields(page)
    fields["shown"] = [fields["shown"][0]] * 4
    assert browser.post("/judgements", data=fields | desks.places(1, 2, 3, 4)).status_code == 422
    assert not desk.store.judgements()


# ---- blind and shuffled ----


def test_nothing_says_who_wrote_what(browser, desk):
    for path in ("/", "/quality", "/name"):
        for accept in ("text/html", "application/json"):
            answer = browser.get(path, headers={"accept": accept})
            assert desks.SECRET_ORIGIN not in answer.text
            assert "prompts.jsonl" not in answer.text  # nor where the prompt is from, nor its other columns
            assert "topic" not in answer.text


def test_the_order_is_the_same_when_loaded_again_and_another_for_others(browser, desk):
    first = texts(browser.get("/").text)
    assert texts(browser.get("/").text) == first
    prompt = desk.store.prompts()[0]
    completions = desk.store.completions(prompt.id)
    orders = {tuple(one.text for one in shuffled(completions, name, prompt.id)) for name in "abcdefgh"}
    assert len(orders) > 3


def test_every_place_is_equally_likely():
    """Which completion stands first, over many prompts: chi squared with 3 degrees of freedom, 0.1 % level."""
    completions = [Completion(f"c{number}", "p", "") for number in range(4)]
    firsts = Counter(shuffled(completions, "Ana", f"prompt {number}")[0].id for number in range(2000))
    assert sum((count - 500) ** 2 / 500 for count in firsts.values()) < 16.27


def test_of_many_completions_nine_are_shown(tmp_path):
    with desks.store(tmp_path / "many.db", 1, 12) as store:
        page = desks.client(Desk(store)).get("/").text
        assert len(texts(page)) == MOST_SHOWN == 9
        assert submit(desks.client(Desk(store)), page, *range(1, 10)).status_code == 303
        assert len(store.judgements()[0].shown) == 9


# ---- several people ----


def test_a_name_is_asked_for_first_and_kept(desk):
    browser = desks.client(desk, annotator=None)
    answer = browser.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/name")
    assert browser.post("/judgements", data={"prompt": "x"}).headers["location"] == "/name"
    assert browser.post("/undo").headers["location"] == "/name"
    answer = browser.post("/name", data={"name": "  Zoë   von Ö; x=1 "})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("tunewright_annotator=Zo%C3%AB%20von%20%C3%96%3B%20x%3D1; HttpOnly; Max-Age=")
    assert cookie.endswith("SameSite=strict")
    assert "Zoë von Ö; x=1</b>" in browser.get("/").text


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "a\x00b", "a\u202eb"])
def test_a_name_that_isnt_one(desk, name):
    answer = desks.client(desk, annotator=None).post("/name", data={"name": name})
    assert answer.status_code == 422
    assert "set-cookie" not in answer.headers
    assert "expected 1 to 80 printable characters" in answer.text


@pytest.mark.parametrize("cookie", ["x" * 500, "%ff%00", ""])
def test_a_cookie_that_somebody_made_up_is_no_name(desk, cookie):
    browser = desks.client(desk, annotator=None)
    browser.cookies.set("tunewright_annotator", cookie)
    assert browser.get("/").headers["location"] == "/name"


def test_the_server_knows_who_judges(desk):
    browser = desks.client(replace(desk, annotator="Ana"))
    browser.cookies.set("tunewright_annotator", "Bob")  # of an earlier server on this port
    page = browser.get("/").text
    assert 'dir="auto">Ana</b>' in page and "Bob" not in page
    assert browser.get("/name").status_code == 404
    submit(browser, page, 1, 2, 3, 4)
    assert desk.store.judgements()[0].annotator == "Ana"


def test_two_people_get_different_prompts_and_share_some(desk):
    ana, bob = desks.client(desk), desks.client(desk, "Bob")
    assert question(ana.get("/").text) != question(bob.get("/").text)
    half = replace(desk, overlap=0.5)
    people = [desks.client(half), desks.client(half, "Bob")]
    for _ in range(6):
        for person in people:
            page = person.get("/").text
            if "Question" in page:
                submit(person, page, 1, 2, 3, 4)
    judged = Counter(judgement.prompt_id for judgement in desk.store.judgements())
    assert sorted(judged.values()) == [1, 1, 2] or sorted(judged.values()) == [1, 2, 2]


# ---- hostile texts ----


HOSTILE = [
    "<script>alert(1)</script>",
    "</div></form><form action='http://evil.test'>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} {% include 'x' %}",
    "\u202eevil\u202c \u2066\u2067",
    "# Title\n\n**bold** [link](javascript:alert(1)) ![](http://evil.test/x.png)",
    "\x00\x1b[31m \ud7ff \U0001f600",
    "",
    " \n\n ",
    "a" * 50_000,
]


def test_any_text_is_shown_and_never_run(tmp_path):
    with desks.Judgements.open(tmp_path / "j.db") as store:
        prompt = store.add_prompt("<b>Prompt</b> & co", "x:1", None, {})
        for text in HOSTILE[:MOST_SHOWN]:
            store.add_completion(prompt, text, "run:x", {})
        page = desks.client(Desk(store)).get("/").text
        assert "<script>alert" not in page and "<img src=x" not in page and "<form action=" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "{{ 7 * 7 }}" in page
        assert "**bold** [link](javascript:alert(1))" in page  # Markdown is shown as text
        assert "&lt;b&gt;Prompt&lt;/b&gt; &amp; co" in page
        assert ">empty</div>" in page and ">nothing but spaces</div>" in page
        assert page.count("<li class=") == MOST_SHOWN


def test_a_long_text_is_whole(tmp_path):
    with desks.Judgements.open(tmp_path / "j.db") as store:
        prompt = store.add_prompt("p" * 50_000, "x:1", None, {})
        for letter in "ab":
            store.add_completion(prompt, letter * 50_000, "run:x", {})
        browser = desks.client(Desk(store))
        page = browser.get("/").text
        assert "a" * 50_000 in page and "b" * 50_000 in page and "p" * 50_000 in page
        assert submit(browser, page, 1, 2).status_code == 303


def test_conversations_show_who_speaks(tmp_path):
    with desks.Judgements.open(tmp_path / "j.db") as store:
        asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tea <now>?"}]
        prompt = store.add_prompt(asked, "x:1", None, {})
        call = {"role": "assistant", "content": None, "tool_calls": [{"name": "kettle"}]}
        for answer in ([{"role": "assistant", "content": "Yes."}], [call]):
            store.add_completion(prompt, answer, "run:x", {})
        page = desks.client(Desk(store)).get("/").text
        assert re.findall(r'class="role">(\w+)<', page)[:2] == ["system", "user"]
        assert "Tea &lt;now&gt;?" in page
        assert "kettle" in page


def test_guidelines_are_markdown_without_html():
    text = "# Rules\n\n*True* first.<script>alert(1)</script> [x](javascript:alert(1)) ![y](http://evil.test/a.png)"
    html = guidelines_html(text, markdown=True)
    assert "<h1>Rules</h1>" in html and "<em>True</em>" in html
    assert "<script" not in html and "<img" not in html and 'href="javascript' not in html
    assert guidelines_html("a <b>\n*c*", markdown=False) == '<div class="text">a &lt;b&gt;\n*c*</div>'
    assert guidelines_html(" \n", markdown=True) == ""


# ---- the JSON twin ----


def test_a_program_ranks(desk):
    browser = desks.client(desk)
    as_json = {"accept": "application/json"}
    sheet = browser.get("/", headers=as_json).json()
    assert sheet["prompt"]["text"] == question(browser.get("/").text)
    assert [one["text"] for one in sheet["completions"]] == texts(browser.get("/").text)
    assert sheet["progress"]["left"] == 3
    ids = [one["id"] for one in sheet["completions"]]
    sent = {"prompt": sheet["prompt"]["id"], "shown": ids, "ranking": [[ids[2]], ids[:2], [ids[3]]], "seconds": 4.5}
    answer = browser.post("/judgements", json=sent, headers=as_json)
    assert answer.status_code == 200
    (judgement,) = desk.store.judgements()
    assert answer.json() == {"judgement": judgement.id}
    assert judgement.ranking == ((ids[2],), (ids[0], ids[1]), (ids[3],))
    assert judgement.seconds == 4.5
    assert browser.post("/undo", headers=as_json).json() == {"prompt": judgement.prompt_id}


def test_a_program_gets_problems_as_json(desk):
    browser = desks.client(desk)
    as_json = {"accept": "application/json"}
    assert browser.get("/nowhere", headers=as_json).json()["error"]["code"] == "usage"
    answer = browser.post("/judgements", json={"prompt": "nowhere"}, headers=as_json)
    assert answer.status_code == 400
    assert "there is no prompt" in answer.json()["error"]["message"]
    sheet = browser.get("/", headers=as_json).json()
    sent = {"prompt": sheet["prompt"]["id"], "shown": [one["id"] for one in sheet["completions"]], "ranking": []}
    answer = browser.post("/judgements", json=sent, headers=as_json)
    assert answer.status_code == 422
    assert "no place yet" in answer.json()["problem"]


def test_every_page_has_a_twin(desk):
    browser = desks.client(replace(desk, writes=True))
    for path in ("/", "/name", "/quality", "/write"):
        assert browser.get(path, headers={"accept": "text/html"}).headers["content-type"].startswith("text/html")
        answer = browser.get(path, headers={"accept": "application/json"})
        assert json.loads(answer.text)


# ---- when something is wrong ----


def test_an_empty_store_teaches(tmp_path):
    with desks.Judgements.open(tmp_path / "j.db") as store:
        store.add_prompt("alone", "x:1", None, {})
        page = desks.client(Desk(store)).get("/").text
        assert "Nothing to rank yet" in page
        assert "tunewright rank sample" in page


def test_what_isnt_saved_isnt_acknowledged(desk, monkeypatch):
    browser = desks.client(desk)
    page = browser.get("/").text

    def full(*_, **__):
        raise MachineError("can't be used (database or disk is full)", where="j.db")

    monkeypatch.setattr(desk.store, "record", full)
    answer = submit(browser, page, 1, 2, 3, 4)
    assert answer.status_code == 503
    assert "Not saved. j.db: can&#39;t be used (database or disk is full)" in answer.text


def test_our_own_mistake_shows_no_traceback(desk, monkeypatch):
    browser = desks.client(desk, raise_server_exceptions=False)

    def broken(*_, **__):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(desk.store, "next_task", broken)
    answer = browser.get("/")
    assert answer.status_code == 500
    assert "RuntimeError" in answer.text and "secret detail" not in answer.text and "Traceback" not in answer.text


def test_pages_ask_for_nothing_from_elsewhere(desk):
    browser = desks.client(replace(desk, writes=True, guidelines_html="<p>x</p>"))
    for path in ("/", "/quality", "/name", "/write", "/nowhere"):
        page = browser.get(path).text
        for link in re.findall(r'(?:src|href|action|hx-\w+)="([^"]*)"', page):
            assert not re.match(r"\w+:|//", link), (path, link)
        assert " style=" not in page and "<style" not in page and "onclick" not in page
        assert len(re.findall("<script ", page)) == 2


def test_fields_and_pictures_have_labels(desk):
    """What a screen reader says: every control has a name, every page a heading, a language and a title."""
    browser = desks.client(replace(desk, writes=True))
    for path in ("/", "/quality", "/name", "/write"):
        page = browser.get(path).text
        assert '<html lang="en">' in page and "<title>" in page and "<h1" in page and 'id="main"' in page
        ids = re.findall(r' id="([^"]+)"', page)
        assert len(ids) == len(set(ids)), path
        for control in re.findall(r"<(?:input|textarea)[^>]*>", page):
            if 'type="hidden"' in control or 'type="checkbox"' in control:
                continue
            own = re.search(r' id="([^"]+)"', control)
            assert "aria-label=" in control or (own and f'for="{own[1]}"' in page), control
