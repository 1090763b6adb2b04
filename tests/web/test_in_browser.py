"""The ranking page in a real Chromium: by keyboard alone, by mouse, without scripts, attacked, and cut off.

Every test fails on a request that would leave this machine and on anything the page complains about.
"""

from __future__ import annotations

import http.server
import json
import signal
import threading

import pytest

from tests.web import desks
from tests.web.browser import CHROMIUM, Browser
from tests.web.serving import Served
from tunewright.cli import app
from tunewright.data.judgements import Judgements

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt install chromium)")
READY = "document.querySelector('.tray .slot') && !document.querySelector('form.htmx-request') && !location.search"


@pytest.fixture(scope="module")
def chromium():
    """One browser for the tests that need nothing special."""
    with Browser() as browser:
        browser.size(1280, 900)
        yield browser


@pytest.fixture
def browser(chromium):
    chromium.call("Network.clearBrowserCookies")
    chromium.errors.clear()
    yield chromium
    assert chromium.strange == []
    # A server that has ended doesn't answer the panel, which asks every 20 seconds.
    assert [error for error in chromium.errors if "CONNECTION_REFUSED" not in error] == []


@pytest.fixture
def database(tmp_path):
    desks.store(tmp_path / "judgements.db", 3, 3).close()
    return tmp_path / "judgements.db"


@pytest.fixture
def served(database):
    with Served(database, "--annotator", "Ana") as running:
        yield running


def enter(browser: Browser, served: Served) -> None:
    browser.open(served.url)
    browser.until(READY)


def prompt(browser: Browser) -> str:
    return browser.js("document.getElementById('main').dataset.prompt || ''")


def hint(browser: Browser) -> str:
    return browser.js("document.querySelector('.hint').textContent")


def chosen(browser: Browser) -> list[int]:
    """The place of each completion as the form would send it."""
    code = "[...document.querySelectorAll('.card')].map(c => +(c.querySelector('input:checked')?.value || 0))"
    return browser.js(code)


def save(browser: Browser) -> None:
    """Enter, and wait for what comes next."""
    before = prompt(browser)
    browser.press("Enter")
    browser.until(f"document.getElementById('main').dataset.prompt !== {json.dumps(before)}")
    browser.until("!document.querySelector('form.htmx-request')")


def test_by_keyboard_alone_from_the_first_prompt_to_training_data(browser, served, database, tmp_path, capsys):
    enter(browser, served)
    assert served.token not in browser.js("location.href")
    assert browser.js("document.cookie") == ""  # scripts can't read the key
    browser.until("document.querySelector('#live .measures')")  # the panel came by itself, and only it
    assert browser.js("new Promise(done => setTimeout(() => done(document.title), 100))").startswith("Rank")

    first = prompt(browser)
    shown = browser.js("[...document.querySelectorAll('[name=shown]')].map(i => i.value)")
    browser.press("3", "1")
    assert chosen(browser) == [2, 3, 1]  # the last one followed
    assert hint(browser) == "3 › 1 › 2. Enter saves it."
    save(browser)
    assert browser.js("document.querySelector('#progress').innerText").split()[:3] == ["1", "judged", "2"]

    second = prompt(browser)
    browser.press("2", "=", "1")
    assert chosen(browser) == [1, 1, 2]
    save(browser)
    assert prompt(browser) not in (first, second)

    browser.press("u")
    browser.until(f"document.getElementById('main').dataset.prompt === {json.dumps(second)}")
    assert chosen(browser) == [1, 1, 2]  # as it was
    assert "Taken back" in browser.text()
    browser.press("n")
    browser.type("second thoughts: 1 is 2")  # keys in a note are letters
    browser.press("Escape", "0")
    assert chosen(browser) == [1, 1, 2]
    save(browser)

    browser.press("s")
    browser.until("document.querySelector('.ending')")
    assert "That was the last one" in browser.text()
    assert browser.js("document.title").startswith("Done")
    browser.press("u")  # even from here
    browser.until("document.querySelectorAll('.card').length === 3 && !document.querySelector('form.htmx-request')")
    browser.press("s")
    browser.until("document.querySelector('.ending')")

    with Judgements.open(database, create=False) as store:
        one, two, three = store.judgements()
        assert one.shown == tuple(shown)
        assert one.ranking == ((shown[2],), (shown[0],), (shown[1],))
        assert 0 < one.seconds < 60
        assert (two.prompt_id, two.note, two.flags) == (second, "second thoughts: 1 is 2", ("both_bad",))
        assert three.flags == ("skip",)

    exported = tmp_path / "comparisons.jsonl"
    assert app.main(["rank", "export", str(database), "-o", str(exported), "-q"]) == 0
    rows = [json.loads(line) for line in exported.read_text().splitlines()]
    assert len(rows) == 6  # three pairs of each of the two rankings
    assert app.main(["rank", "import", str(exported), "-o", str(tmp_path / "again.db"), "-q"]) == 0
    capsys.readouterr()
    with Judgements.open(tmp_path / "again.db", create=False) as store:
        assert sum(len(judgement.ranking) > 1 for judgement in store.judgements()) >= 2


def test_the_keys_one_by_one(browser, served):
    enter(browser, served)
    assert hint(browser) == "Which is best?"
    browser.press("Enter")
    assert hint(browser) == "1, 2 and 3 have no place yet."
    browser.press("2")
    assert (chosen(browser), hint(browser)) == ([0, 1, 0], "2 › ?")
    browser.press("2")  # once more takes it back
    assert chosen(browser) == [0, 0, 0]
    browser.press("2", "3")
    assert chosen(browser) == [3, 1, 2]
    browser.press("1")  # has followed already
    assert chosen(browser) == [3, 1, 2]
    browser.press("1")  # said anew
    assert chosen(browser) == [1, 0, 0]
    browser.press("3", "=")  # the one that followed ties
    assert (chosen(browser), hint(browser)) == ([1, 2, 2], "1 › 2 = 3. Enter saves it.")
    browser.press("Backspace", "Backspace", "Backspace")
    assert chosen(browser) == [0, 0, 0]
    browser.press("=")
    assert (chosen(browser), hint(browser)) == ([1, 1, 1], "All the same. Enter saves it.")
    browser.press("9", "x", "Tab")
    assert chosen(browser) == [1, 1, 1]
    browser.press("1", held=True)  # a key that is held down
    browser.press("1", modifiers=2)  # Ctrl is the browser's
    assert chosen(browser) == [1, 1, 1]


def test_with_two_a_key_is_the_choice(browser, tmp_path):
    desks.store(tmp_path / "two.db", 1, 2).close()
    with Served(tmp_path / "two.db", "--annotator", "Ana") as served:
        enter(browser, served)
        browser.press("1")
        assert chosen(browser) == [1, 2]
        browser.press("2")  # a change of mind
        assert chosen(browser) == [2, 1]
        browser.press("=")
        assert chosen(browser) == [1, 1]


def test_by_mouse(browser, served):
    enter(browser, served)
    browser.drag('.card[data-number="2"] .key', '.slot[data-place="1"]')
    assert chosen(browser) == [0, 1, 0]
    browser.drag('.tray .chip[data-number="3"]', '.slot[data-place="3"]')
    assert chosen(browser) == [0, 1, 3]
    browser.drag('.tray .chip[data-number="2"]', '.slot[data-place="3"]')
    assert chosen(browser) == [0, 3, 3]
    browser.drag('.tray .chip[data-number="3"]', '.slot[data-place="0"]')  # back to those without a place
    assert chosen(browser) == [0, 3, 0]
    browser.drag('.tray .chip[data-number="1"]', ".prompt")  # let go elsewhere: nothing happens
    assert chosen(browser) == [0, 3, 0]
    browser.click('.card[data-number="1"] .key')  # a click takes the best place that is free
    assert chosen(browser) == [1, 3, 2]
    browser.click('.card[data-number="3"] .places label:nth-child(1)')
    assert chosen(browser) == [1, 3, 1]
    before = prompt(browser)
    browser.click("button.primary")
    browser.until(f"document.getElementById('main').dataset.prompt !== {json.dumps(before)}")


def test_without_scripts(database):
    with Served(database) as served, Browser(scripts=False) as browser:
        browser.size(1280, 900)
        browser.open(served.url)
        browser.until("location.pathname === '/name'")  # moved on by the page itself
        browser.until("document.activeElement?.id === 'name'")
        browser.type("Zoë")
        browser.press("Enter")
        browser.until("document.querySelector('.card')")
        assert not browser.js("document.querySelector('kbd')?.offsetParent")  # keys do nothing, so none are shown
        for number, place in ((1, 2), (2, 1), (3, 2)):
            browser.click(f'.card[data-number="{number}"] .places label:nth-child({place})')
        before = prompt(browser)
        browser.click("button.primary")
        browser.until(f"document.getElementById('main').dataset.prompt !== {json.dumps(before)}")
        browser.click('button[form="undo"]')
        browser.until(f"document.getElementById('main').dataset.prompt === {json.dumps(before)}")
        assert chosen(browser) == [2, 1, 2]
        browser.click("button.primary")
        browser.until("document.querySelector('#judged')?.textContent === '1'")
        assert browser.strange == []
    with Judgements.open(database, create=False) as store:
        (judgement,) = store.judgements()
        assert judgement.annotator == "Zoë" and [len(group) for group in judgement.ranking] == [1, 2]


def test_what_isnt_saved_stays_on_the_page(browser, database):
    with Served(database, "--annotator", "Ana") as served:
        enter(browser, served)
        browser.press("2", "1")
        served.end(signal.SIGKILL)
        browser.press("Enter")
        browser.until("document.querySelector('.hint.wrong')")
        assert hint(browser).startswith("Not saved: the server doesn't answer.")
        assert chosen(browser) == [2, 1, 3]
        port = served.port
    with Served(database, "--annotator", "Ana", port=port):
        browser.press("Enter")
        browser.until("document.querySelector('.hint').textContent.includes('started anew')")
        assert chosen(browser) == [2, 1, 3]
    browser.errors.clear()  # that it was refused is no mistake of the page
    with Judgements.open(database, create=False) as store:
        assert store.judgements() == []


def test_texts_never_run_and_never_load(browser, tmp_path):
    texts = [
        "<script>document.title = 'taken'</script>",
        "<img src=x onerror=\"document.title = 'taken'\"><iframe src='http://evil.test/'></iframe>",
        "</div><form action='http://evil.test'><button>Save</button></form>",
        "\u202eright to left \u2066isolated",
    ]
    with Judgements.open(tmp_path / "j.db") as store:
        asked = store.add_prompt("<link rel=stylesheet href=http://evil.test/x.css>", "x:1", None, {})
        for text in texts:
            store.add_completion(asked, text, "run:x", {})
    guidelines = tmp_path / "guide.md"
    guidelines.write_text("![](http://evil.test/a.png) <script>document.title = 'taken'</script> **fine**")
    with Served(tmp_path / "j.db", "--annotator", "Ana", "--guidelines", str(guidelines)) as served:
        enter(browser, served)
        assert browser.js("document.title").startswith("Rank")
        assert browser.js("document.querySelectorAll('.roll img, .roll script, .roll iframe, .roll form').length") == 0
        assert browser.js("document.querySelectorAll('.prose script, .prose img').length") == 0
        assert sorted(browser.js("[...document.querySelectorAll('.card .text')].map(t => t.textContent)")) == sorted(
            texts
        )
        order = browser.js("getComputedStyle(document.querySelector('.card .text')).unicodeBidi")
        assert order == "isolate"


def test_nothing_is_wider_than_the_window(browser, tmp_path):
    """Whatever is long scrolls inside its own box."""
    with Judgements.open(tmp_path / "j.db") as store:
        asked = store.add_prompt("word " * 300, "x:1", None, {})
        for letter in "abcd":
            store.add_completion(asked, letter * 50_000, "run:x", {})
    with Served(tmp_path / "j.db", "--annotator", "A" * 80, "--write") as served:
        enter(browser, served)
        for path in ("/", "/quality", "/write"):
            for width, dark in ((1280, False), (600, True), (360, False)):
                browser.size(width, 800, dark=dark)
                browser.open(f"{served.origin}{path}")
                assert browser.js("document.documentElement.scrollWidth") <= width, (path, width)
        browser.size(1280, 900)
        browser.open(served.origin)
        assert browser.js("document.querySelector('.card .roll').clientHeight") < 900


CONTRAST = """
(() => {
  const known = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const parse = (text) => { known.clearRect(0, 0, 1, 1); known.fillStyle = text; known.fillRect(0, 0, 1, 1);
    const d = known.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const bend = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => c.slice(0, 3).map((v) => bend(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const behind = (element) => { const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]); };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const e = node.parentElement;
    if (!node.textContent.trim() || !e.offsetParent || e.closest('kbd, .unseen, .jump')) continue;
    const below = behind(e), text = over(parse(getComputedStyle(e).color), below);
    const [high, low] = [light(text), light(below)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${e.className || e.tagName}: ${node.textContent.trim()}`);
  }
  return bad;
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_contrast(browser, database, dark):
    """WCAG AA, 4.5 to 1, for every text on the page, chosen or not."""
    with Served(database, "--annotator", "Ana", "--write") as served:
        browser.size(1280, 900, dark=dark)
        enter(browser, served)
        browser.press("2", "1", "0")
        assert browser.js(CONTRAST) == []
        browser.press("Backspace", "Backspace", "Enter")  # the hint that something is missing
        assert browser.js(CONTRAST) == []
        for path in ("/quality", "/write"):
            browser.open(f"{served.origin}{path}")
            assert browser.js(CONTRAST) == []
    browser.size(1280, 900)


def test_focus_goes_through_everything(browser, served):
    """With Tab alone: each control, in the order of the page."""
    enter(browser, served)
    names = []
    for _ in range(60):
        browser.press("Tab")
        code = "(e => [e.tagName, e.name || e.value || e.textContent.trim().slice(0, 20)])(document.activeElement)"
        names.append(tuple(browser.js(code)))
        if names[-1][0] == "BODY":
            break
    reached = [name for _, name in names]
    assert {"place-1", "place-2", "place-3", "flags"} <= set(reached)
    assert reached.index("place-1") < reached.index("place-2") < reached.index("place-3") < reached.index("flags")
    assert any("Note" in name for name in reached)


# ---- attacked from other pages ----


@pytest.fixture
def elsewhere():
    """Another site on this machine: serves whatever page it is given."""
    pages: dict[str, str] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(pages.get(self.path, "").encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield pages, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_another_page_cant_judge_or_read(chromium, served, database, elsewhere):
    """The browser holds the key, and a page of another port asks: by form, by fetch, in a frame."""
    pages, origin = elsewhere
    chromium.call("Network.clearBrowserCookies")
    enter(chromium, served)
    chromium.press("1", "2")
    save(chromium)
    form = f"<form method=post action={served.origin}/undo></form><script>document.forms[0].submit()</script>"
    pages["/form"] = form
    chromium.open(f"{origin}/form")
    chromium.until("document.body.innerText.includes('Another page asked')")
    pages["/fetch"] = f"""<script>
      window.found = [];
      for (const [path, method] of [['/', 'GET'], ['/quality', 'GET'], ['/undo', 'POST'], ['/judgements', 'POST']])
        fetch('{served.origin}' + path, {{ method, credentials: 'include', mode: 'no-cors' }})
          .then(r => r.text()).then(t => found.push(t), () => found.push('refused'));
    </script>"""
    chromium.open(f"{origin}/fetch")
    chromium.until("window.found.length === 4")
    assert set(chromium.js("window.found")) <= {"", "refused"}
    pages["/frame"] = f"<iframe src={served.origin}/ onload='window.loaded = true'></iframe>"
    chromium.open(f"{origin}/frame")
    chromium.until("window.loaded")
    chromium.errors.clear()
    with Judgements.open(database, create=False) as store:
        assert len(store.judgements(withdrawn=True)) == 1


def test_dns_rebinding(database):
    """A name that suddenly means this machine: the address is ours, the name isn't."""
    rules = "--host-resolver-rules=MAP evil.test 127.0.0.1"
    with Served(database, "--annotator", "Ana") as served, Browser(extra=(rules,), also=("evil.test",)) as browser:
        for path in ("/", f"/?token={served.token}", "/static/page.css"):
            browser.open(f"http://evil.test:{served.port}{path}")
            assert "This address isn't ours." in browser.text()
        assert "Question" not in browser.text()


def test_a_link_from_elsewhere_lets_in(browser, served, elsewhere):
    """Somebody sends the address in a chat; strict cookies must survive the way from there."""
    pages, origin = elsewhere
    pages["/chat"] = f"<a href='{served.url}'>come and rank</a>"
    browser.open(f"{origin}/chat")
    browser.click("a")
    browser.until(READY)
    assert "Question" in browser.text()
