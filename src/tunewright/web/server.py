"""The server under the pages: a socket, uvicorn in this process, and a test of the guard before anybody gets in.

`rank serve` calls `serve`, which returns when it is asked to stop. Serves what it is given and knows no page. One
process, one machine; not encrypted, so beyond this machine it is for a network that is trusted.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from tunewright.errors import MachineError, UsageError
from tunewright.web.security import LOOPBACK_NAMES, Entrance, new_token

DEFAULT_PORT = 8765
_PORTS_TRIED = 20
_PATIENCE_SECONDS = 10  # for the own test of the guard


@dataclass(frozen=True)
class Place:
    """Where to listen."""

    listening: socket.socket
    host: str  # as asked for
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.listening.getsockname()[0].partition("%")[0]).is_loopback

    @property
    def own_address(self) -> str:
        """An address at which this machine reaches it, as in a URL."""
        address = ipaddress.ip_address(self.listening.getsockname()[0].partition("%")[0])
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "[::1]"
        return str(address) if address.version == 4 else f"[{address}]"

    @property
    def names(self) -> frozenset[str]:
        """Host names that may stand in the address bar; the address a connection came in by is allowed besides."""
        if self.is_loopback:
            return LOOPBACK_NAMES
        machine = socket.gethostname().lower()
        known = {self.host.lower(), machine, f"{machine}.local"}
        return frozenset(LOOPBACK_NAMES | {name for name in known if not _is_address(name)})


def listen(host: str, port: int | None) -> Place:
    """A socket that takes connections; without a port the first free one from 8765 on.

    Raises UsageError for no address of ours, MachineError where the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UsageError(f'"{host:.80}" is no address of this machine; expected 127.0.0.1', field="--host") from None
    tried = range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED) if port is None else [port]
    problem: OSError | None = None
    for number in tried:
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address[0], number, *address[2:]))
            listening.listen(128)
        except OSError as error:
            listening.close()
            problem = error
            continue
        listening.setblocking(False)
        return Place(listening, host, int(listening.getsockname()[1]))
    assert problem is not None
    advice = "give another --port, or end what listens there" if port is not None else "give a --port"
    reason = f"can't be listened on ({problem.strerror}); {advice}"
    raise MachineError(reason, where=f"{host}:{port or DEFAULT_PORT}")


def serve(place: Place, make: Callable[[Entrance], ASGIApp], opened: Callable[[str], None]) -> None:
    """Serve what `make` makes, behind a token of this start; `opened` gets the address to open, once the guard holds.

    Ctrl-C ends it (KeyboardInterrupt, after the requests under way are answered), SIGTERM likewise. Raises MachineError
    where a request without token gets in.
    """
    entrance = Entrance(new_token(), place.port, place.names)
    config = uvicorn.Config(
        make(entrance),
        http="h11",
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_level="warning",
        access_log=False,  # addresses hold the token
        server_header=False,
        proxy_headers=False,
        limit_concurrency=256,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    try:
        asyncio.run(_serve(uvicorn.Server(config), place, entrance, opened))
    finally:
        place.listening.close()


async def _serve(server: uvicorn.Server, place: Place, entrance: Entrance, opened: Callable[[str], None]) -> None:
    serving = asyncio.ensure_future(server.serve(sockets=[place.listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started and not server.should_exit:
        leak = await asyncio.to_thread(_leak, place, entrance)
        if leak:
            server.should_exit = True
            await serving
            raise MachineError(f"refuses to serve: {leak}; this is our mistake, please report it", where=place.host)
        opened(f"http://{_shown(place)}:{place.port}/?token={entrance.token}")
    await serving


def _shown(place: Place) -> str:
    """The address to tell people: what was asked for, or, listening everywhere, the one that others reach."""
    address = ipaddress.ip_address(place.listening.getsockname()[0].partition("%")[0])
    if not address.is_unspecified:
        return f"[{place.host}]" if ":" in place.host else place.host
    with socket.socket(place.listening.family, socket.SOCK_DGRAM) as outward:
        try:
            # Asks the system which of its addresses it would use; nothing is sent.
            outward.connect(("192.0.2.1" if address.version == 4 else "2001:db8::1", 9))
            found = str(outward.getsockname()[0])
        except OSError:
            return socket.gethostname()
    return f"[{found}]" if ":" in found else found


# ---- the guard, tried from outside ----


def _leak(place: Place, entrance: Entrance) -> str | None:
    """What gets in that shouldn't, by asking as a stranger would; None when the guard holds."""
    ours = f"{place.own_address}:{place.port}"
    key = f"{entrance.cookie}={entrance.token}"
    attempts = [
        ("a request without token", 401, "GET", {"Host": ours}),
        ("a request with a wrong token", 401, "GET", {"Host": ours, "Cookie": f"{entrance.cookie}=x"}),
        ("a request for another host", 421, "GET", {"Host": f"elsewhere.invalid:{place.port}", "Cookie": key}),
        ("a form of another page", 403, "POST", {"Host": ours, "Cookie": key, "Origin": "http://elsewhere.invalid"}),
    ]
    for what, expected, method, headers in attempts:
        try:
            found = _ask(place, method, headers)
        except OSError as error:
            return f"its own test couldn't reach it ({error})"
        if found != expected:
            return f"{what} was answered with {found} instead of {expected}"
    return None


def _ask(place: Place, method: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(place.own_address.strip("[]"), place.port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request(method, "/", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
