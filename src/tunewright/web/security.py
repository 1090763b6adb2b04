"""Who may ask: the guard that every request passes before any route sees it, and the headers that every answer carries.

A page that somebody visits elsewhere can make their browser send requests here, and by DNS rebinding even read the
answers. So, on every path and method: the Host header must be an address of ours, a POST must come from a page of ours,
and all of it needs the token of this start. `app` wraps the whole application in it, `server` tries it before it opens.
Knows nothing of what is served. Not encrypted: on a network that isn't trusted, an SSH tunnel is.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD", "POST")
MAX_BODY_BYTES = 4_000_000
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

_STYLE = (
    ":root{color-scheme:light dark}body{font:17px/1.6 ui-sans-serif,system-ui,sans-serif;max-width:34rem;"
    "margin:18vh auto 0;padding:0 24px}h1{font-size:1.25rem;letter-spacing:-.01em}p{opacity:.75}a{color:inherit}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "content-security-policy": f"default-src 'self'; style-src 'self' 'sha256-{_STYLE_HASH}'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    # same-origin, not no-referrer: with that, browsers send "Origin: null" for our own forms
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_PAIRS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


def new_token() -> str:
    """256 random bits, for one start."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Entrance:
    """What a request must say to be let in."""

    token: str
    port: int
    names: frozenset[str] = LOOPBACK_NAMES  # host names of ours; the address that a connection came in by is one too

    @property
    def cookie(self) -> str:
        """Cookies are shared by all ports of a host, so each port has a name of its own."""
        return f"tunewright_{self.port}"

    def opens(self, given: str) -> bool:
        """Whether this is the token, in the same time for every wrong one."""
        return secrets.compare_digest(given.encode(), self.token.encode())


@dataclass(frozen=True)
class Refusal:
    """Why a request isn't let in."""

    status: int
    headline: str
    advice: str


_HOST = Refusal(421, "This address isn't ours.", "Open exactly the address that the terminal shows.")
_METHOD = Refusal(405, "Nothing here answers that.", "Pages are read with GET and forms sent with POST.")
_ORIGIN = Refusal(403, "Another page asked for this.", "Only pages of this server may use it.")
_TOKEN = Refusal(
    401, "This page needs its key.", "Open the whole address that the terminal shows; each start has a new one."
)
_LENGTH = Refusal(411, "This form has no length.", "Send it with a Content-Length header.")
_SIZE = Refusal(413, "This is too long.", f"Send at most {MAX_BODY_BYTES // 1_000_000} MB.")


class Guard:
    """The whole application behind one door."""

    def __init__(self, app: ASGIApp, entrance: Entrance) -> None:
        self.app = app
        self.entrance = entrance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no websocket, and nothing to do at start and end
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        asked, sending = _Asked(scope), _with_headers(send)
        if refusal := refused(asked, self.entrance):
            await _say(refusal, asked)(scope, receive, sending)
        elif asked.tokens and asked.method != "POST":
            await _enter(self.entrance)(scope, receive, sending)
        else:
            await self.app(scope, receive, sending)


class _Asked:
    """What a request says of itself; every header is kept each time it is given."""

    def __init__(self, scope: Scope) -> None:
        self._headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.method: str = scope["method"]
        self.arrived_at = _address(scope.get("server"))
        query = scope.get("query_string", b"").decode("latin-1")
        self.tokens = parse_qs(query, keep_blank_values=True).get("token", [])

    def header(self, name: str) -> list[str]:
        """Its values, in order; usually one or none."""
        wanted = name.encode()
        return [value.decode("latin-1").strip() for given, value in self._headers if given.lower() == wanted]

    def cookies(self, name: str) -> list[str]:
        """Values of the cookies of this name."""
        pairs = [part.strip().partition("=") for line in self.header("cookie") for part in line.split(";")]
        return [value for given, _, value in pairs if given == name]


def refused(asked: _Asked, entrance: Entrance) -> Refusal | None:
    """The first reason not to let a request in, from the cheapest lie to the missing key."""
    host = asked.header("host")
    if len(host) != 1 or host[0].lower() not in _hosts(asked, entrance):
        return _HOST
    if asked.method not in METHODS:
        return _METHOD
    if not _from_our_page(asked, entrance, f"http://{host[0].lower()}"):
        return _ORIGIN
    if not _has_key(asked, entrance):
        return _TOKEN
    if asked.method == "POST":
        return _bad_length(asked.header("content-length"))
    return None


def _hosts(asked: _Asked, entrance: Entrance) -> set[str]:
    """Host headers that are ours. An address of digits can't be rebound to us: the browser went to that very one."""
    names = entrance.names | ({asked.arrived_at} if asked.arrived_at else set())
    return {f"{name}:{entrance.port}" for name in names} | (set(names) if entrance.port == 80 else set())


def _from_our_page(asked: _Asked, entrance: Entrance, origin: str) -> bool:
    """A POST names the page that it comes from, which must be ours; anything else may leave that out."""
    said, sites = asked.header("origin"), asked.header("sec-fetch-site")
    if any(one.lower() != origin for one in said) or (asked.method == "POST" and not said):
        return False
    if all(site in ("same-origin", "none") for site in sites):
        return True
    # A link in a letter or a chat: the only way in from elsewhere, and only with the key in it.
    follows_link = asked.header("sec-fetch-mode") == ["navigate"] and asked.header("sec-fetch-dest") == ["document"]
    return asked.method == "GET" and follows_link and bool(asked.tokens) and _has_key(asked, entrance)


def _has_key(asked: _Asked, entrance: Entrance) -> bool:
    """In the address once, which sets the cookie; from then on in the cookie."""
    if asked.tokens and asked.method != "POST":
        return len(asked.tokens) == 1 and entrance.opens(asked.tokens[0])
    return any(entrance.opens(value) for value in asked.cookies(entrance.cookie))


def _bad_length(lengths: list[str]) -> Refusal | None:
    if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit():
        return _LENGTH
    return _SIZE if int(lengths[0][:12]) > MAX_BODY_BYTES else None


def _address(server: object) -> str | None:
    """The address of ours that a connection came in by, as it stands in a Host header."""
    try:
        address = ipaddress.ip_address(str(server[0]).partition("%")[0])  # type: ignore[index]
    except (TypeError, IndexError, ValueError):
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address}]"
    return str(address)


def _enter(entrance: Entrance) -> Response:
    """Keep the key in a cookie and take it out of the address.

    By a page that moves on, not a redirect: after a link from elsewhere a browser keeps a strict cookie back from the
    whole chain of redirects, but not from a step that our own page makes.
    """
    move = '<meta http-equiv="refresh" content="0; url=/">'
    answer = HTMLResponse(_page("Come in", '<p><a href="/">Go on</a></p>', move))
    answer.set_cookie(entrance.cookie, entrance.token, path="/", httponly=True, samesite="strict")
    return answer


def _say(refusal: Refusal, asked: _Asked) -> Response:
    headers = {"allow": ", ".join(METHODS)} if refusal.status == 405 else None
    if wants_json(asked.header("accept")):
        problem = {"code": "refused", "message": f"{refusal.headline} {refusal.advice}"}
        return JSONResponse({"error": problem}, refusal.status, headers)
    body = _page(refusal.headline, f"<p>{refusal.advice}</p>")
    return HTMLResponse(body, refusal.status, headers)


def wants_json(accepts: list[str]) -> bool:
    """Whether a program asks: it names JSON and no page."""
    said = ",".join(accepts).lower()
    return "application/json" in said and "text/html" not in said


def _page(headline: str, more: str, head: str = "") -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{head}<title>tunewright</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="/static/icon.svg"><style>{_STYLE}</style></head>'
        f"<body><h1>{headline}</h1>{more}</body></html>"
    )


def _with_headers(send: Send) -> Send:
    """Every answer carries the headers; what the application says itself (how long a file keeps) stands."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            said = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in _PAIRS if pair[0] not in said)]
        await send(message)

    return sending
