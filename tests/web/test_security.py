"""The guard: a table of hostile requests against every route and method, the way in, the headers of every answer."""

from __future__ import annotations

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.web import desks
from tunewright.web.app import FILES, ranking_app
from tunewright.web.desk import Desk
from tunewright.web.security import HEADERS, MAX_BODY_BYTES, Entrance, Guard, new_token

PATHS = [
    "/", "/?undone=1", "/judgements", "/undo", "/name", "/quality", "/write", "/demonstrations", "/demonstrations/undo",
    "/nowhere", "/static/page.css", "/static/../app.py", "/static/%2e%2e/app.py", "//evil.test/", "/?token=",
]  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "GET\x20"]
KEY = f"{desks.ENTRANCE.cookie}={desks.TOKEN}"
GOOD = {"host": desks.HOST, "origin": desks.ORIGIN, "cookie": KEY}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return ranking_app(Desk(desks.store(tmp_path_factory.mktemp("store") / "j.db"), writes=True), desks.ENTRANCE)


@pytest.fixture
def raw(app):
    """A client that adds nothing of its own."""
    return TestClient(app, base_url=desks.ORIGIN, follow_redirects=False)


HOSTILE = {
    "another host": ({"host": "evil.test"}, 421),
    "another host, our port": ({"host": f"evil.test:{desks.PORT}"}, 421),
    "our host, another port": ({"host": "127.0.0.1:1"}, 421),
    "our host, no port": ({"host": "127.0.0.1"}, 421),
    "a name that begins like ours": ({"host": f"127.0.0.1.evil.test:{desks.PORT}"}, 421),
    "a name that ends like ours": ({"host": f"evil-localhost:{desks.PORT}"}, 421),
    "somebody before the at sign": ({"host": f"127.0.0.1@evil.test:{desks.PORT}"}, 421),
    "everybody's address": ({"host": f"0.0.0.0:{desks.PORT}"}, 421),
    "an empty host": ({"host": ""}, 421),
    "a dotted name": ({"host": f"localhost.:{desks.PORT}"}, 421),
    "a number for an address": ({"host": f"2130706433:{desks.PORT}"}, 421),
    "another page": ({"origin": "http://evil.test"}, 403),
    "another port of this machine": ({"origin": "http://127.0.0.1:3000"}, 403),
    "another name of this machine": ({"origin": f"http://localhost:{desks.PORT}"}, 403),
    "another scheme": ({"origin": f"https://{desks.HOST}"}, 403),
    "a hidden page": ({"origin": "null"}, 403),
    "an empty origin": ({"origin": ""}, 403),
    "a page that begins like ours": ({"origin": f"{desks.ORIGIN}.evil.test"}, 403),
    "said to be from elsewhere": ({"sec-fetch-site": "cross-site"}, 403),
    "said to be from a neighbour": ({"sec-fetch-site": "same-site"}, 403),
    "no key": ({"cookie": "theme=dark"}, 401),
    "an empty key": ({"cookie": f"{desks.ENTRANCE.cookie}="}, 401),
    "a wrong key": ({"cookie": f"{desks.ENTRANCE.cookie}={desks.TOKEN}x"}, 401),
    "the key of another port": ({"cookie": f"tunewright_1={desks.TOKEN}"}, 401),
    "a key in another alphabet": ({"cookie": f"{desks.ENTRANCE.cookie}=\xe4"}, 401),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_every_route_and_method_refuses(raw, what):
    """Before routing: the answer doesn't even say whether there is such a page."""
    change, status = HOSTILE[what]
    for path in PATHS:
        for method in ("GET", "HEAD", "POST"):
            headers = [(name, value.encode("latin-1")) for name, value in (GOOD | change).items()]
            answer = raw.request(method, path, headers=headers)
            expected = 401 if status == 401 else status
            assert answer.status_code == expected, (method, path, answer.status_code)
            assert "set-cookie" not in answer.headers
            assert "Question" not in answer.text


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("GET", "HEAD", "POST")])
def test_no_other_method_is_known(raw, method):
    for path in PATHS:
        answer = raw.request(method, path, headers=GOOD)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("name", ["host", "origin"])
def test_a_header_said_twice(raw, name):
    """Two proxies, or an attack on the one that reads the first: neither is ours."""
    headers = [*((k, v) for k, v in GOOD.items()), (name, "evil.test")]
    assert raw.get("/", headers=headers).status_code in (403, 421)


def test_a_form_names_the_page_that_it_comes_from(raw):
    without = {name: value for name, value in GOOD.items() if name != "origin"}
    assert raw.post("/undo", headers=without).status_code == 403
    assert raw.get("/quality", headers=without).status_code == 200


def test_a_form_has_a_length(raw):
    answer = raw.post("/undo", headers=GOOD | {"content-length": str(MAX_BODY_BYTES + 1)})
    assert answer.status_code == 413
    for length in ("-1", "+5", "1e3", "five"):
        assert raw.post("/undo", headers=GOOD | {"content-length": length}).status_code == 411

    def endless():
        yield b"note=a"

    assert raw.post("/judgements", headers=GOOD, content=endless()).status_code == 411


def test_more_than_was_announced_is_not_read(raw):
    kind = {"content-type": "application/x-www-form-urlencoded", "content-length": "10"}
    answer = raw.post("/judgements", headers=GOOD | kind, content=b"a" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 400
    assert "longer than" in answer.text


def test_no_websocket(app):
    sent = []

    async def send(message):
        sent.append(message)

    async def run():
        await app({"type": "websocket", "path": "/", "headers": []}, None, send)

    import asyncio

    asyncio.run(run())
    assert sent == [{"type": "websocket.close", "code": 1008}]


# ---- the way in ----


def test_the_address_sets_the_cookie_and_loses_the_key(raw):
    answer = raw.get(f"/?token={desks.TOKEN}", headers={"host": desks.HOST})
    assert answer.status_code == 200
    assert answer.headers["set-cookie"] == f"{desks.ENTRANCE.cookie}={desks.TOKEN}; HttpOnly; Path=/; SameSite=strict"
    assert 'content="0; url=/"' in answer.text
    assert desks.TOKEN not in answer.text


def test_the_way_in_from_a_letter(raw):
    """A link in a chat comes from another site: as a page that is gone to, with the key, and in no other way."""
    link = {"host": desks.HOST, "sec-fetch-site": "cross-site"}
    went = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert raw.get(f"/?token={desks.TOKEN}", headers=link | went).status_code == 200
    assert raw.get(f"/?token={desks.TOKEN}", headers=link).status_code == 403
    assert raw.get(f"/?token={desks.TOKEN}", headers=link | went | {"sec-fetch-dest": "iframe"}).status_code == 403
    assert raw.get("/?token=wrong", headers=link | went).status_code == 403
    assert raw.get("/", headers=link | went | {"cookie": KEY}).status_code == 403


@pytest.mark.parametrize("query", ["token=", "token=wrong", f"token={desks.TOKEN}&token=x", f"token=x{desks.TOKEN}"])
def test_a_wrong_key_in_the_address(raw, query):
    """Not even with the right one in the cookie: somebody is guessing."""
    for headers in ({"host": desks.HOST}, GOOD):
        answer = raw.get(f"/?{query}", headers=headers)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["//evil.test/", "/a%22%3E%3Cscript%3E", "/quality"])
def test_the_way_in_leads_to_the_first_page(raw, path):
    answer = raw.get(f"{path}?token={desks.TOKEN}", headers={"host": desks.HOST})
    assert 'content="0; url=/"' in answer.text and "<script" not in answer.text


def test_tokens_are_long_and_new():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43


# ---- which addresses are ours ----


@pytest.mark.parametrize(
    ("server", "host", "status"),
    [
        (("127.0.0.1", 8765), "127.0.0.1:8765", 200),
        (("127.0.0.1", 8765), "LOCALHOST:8765", 200),
        (("::1", 8765), "[::1]:8765", 200),
        (("192.168.1.5", 8765), "192.168.1.5:8765", 200),  # listening there was asked for
        (("::ffff:192.168.1.5", 8765), "192.168.1.5:8765", 200),
        (("fe80::1%eth0", 8765), "[fe80::1]:8765", 200),
        (("192.168.1.5", 8765), "192.168.1.6:8765", 421),
        (("192.168.1.5", 8765), "evil.test:8765", 421),
        (("evil.test", 8765), "evil.test:8765", 421),  # only an address of digits is taken from the connection
        (None, "evil.test:8765", 421),
        (("/run/socket", None), "evil.test:8765", 421),
    ],
)
def test_hosts(server, host, status):
    assert status_of(Entrance(desks.TOKEN, 8765), server, host) == status


def test_on_port_80_browsers_leave_the_port_out():
    entrance = Entrance(desks.TOKEN, 80)
    assert status_of(entrance, ("127.0.0.1", 80), "localhost") == 200
    assert status_of(entrance, ("127.0.0.1", 80), "evil.test") == 421


def test_a_name_that_was_asked_for():
    entrance = Entrance(desks.TOKEN, 8765, frozenset({"desk.example"}))
    assert status_of(entrance, ("10.0.0.9", 8765), "desk.example:8765") == 200
    assert status_of(entrance, ("10.0.0.9", 8765), "other.example:8765") == 421


def status_of(entrance: Entrance, server: object, host: str) -> int:
    import asyncio

    sent: list[dict] = []

    async def inside(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    headers = [(b"host", host.encode()), (b"cookie", f"{entrance.cookie}={entrance.token}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers, "server": server}
    asyncio.run(Guard(inside, entrance)(scope, None, send))
    return sent[0]["status"]


# ---- what every answer carries ----


def test_every_answer_carries_the_headers(raw):
    answers = [
        raw.get("/", headers=GOOD),
        raw.get("/quality", headers=GOOD),
        raw.get("/nowhere", headers=GOOD),
        raw.post("/undo", headers=GOOD),
        raw.get("/", headers={"host": "evil.test"}),
        raw.get(f"/?token={desks.TOKEN}", headers={"host": desks.HOST}),
    ]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (answer.url, name)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy


def test_a_program_gets_refusals_as_json(raw):
    answer = raw.get("/", headers={"host": desks.HOST, "accept": "application/json"})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "refused"


# ---- files ----


def test_files_are_these_and_no_others(raw, app):
    for name in FILES:
        answer = raw.get(f"/static/{name}", headers=GOOD)
        assert answer.status_code == 200
        assert answer.headers["cache-control"].startswith("private")
    outside = [
        "/static/", "/static", "/static/vendor/", "/static/vendor/vendor.toml", "/static/../app.py",
        "/static/..%2fapp.py", "/static/%2e%2e/%2e%2e/errors.py", "/static/vendor/..%5c..%5capp.py",
        "/static//etc/passwd", "/static/page.css/",
        "/static/page.css%00.js", "/static/./page.css", "/templates/base.html.j2", "/static/PAGE.CSS",
    ]  # fmt: skip
    for path in outside:
        answer = raw.get(path, headers=GOOD)
        # the client itself may have taken the dots away, and then it is a file of ours or nothing
        assert answer.status_code == 404 or answer.url.path == "/static/page.css", path


def test_a_path_with_dots_as_a_server_gets_it(app):
    """Without a client that tidies it up first."""
    import asyncio

    for path in ("/static/../app.py", "/static/vendor/../../app.py", "/../../etc/passwd", "/static/..\\app.py"):
        sent: list[dict] = []

        async def send(message, sent=sent):
            sent.append(message)

        async def receive():
            return {"type": "http.request", "body": b""}

        headers = [(name.encode(), value.encode()) for name, value in GOOD.items()]
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": headers, "server": ("127.0.0.1", desks.PORT), "root_path": "", "scheme": "http",
        }  # fmt: skip
        asyncio.run(app(scope, receive, send))
        assert sent[0]["status"] == 404, path


def test_a_route_without_the_guard_would_be_noticed(app):
    """Everything hangs below the guard: there is no way to a route but through it."""
    assert isinstance(app, Guard)
    routes = [route for route in app.app.routes if isinstance(route, Route)]
    assert len(routes) >= 10
    with TestClient(app.app, base_url=desks.ORIGIN) as inside:
        assert inside.get("/quality").status_code == 200  # so the refusals above are the guard's doing
