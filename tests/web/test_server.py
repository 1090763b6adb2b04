"""The server as a process: opened only behind a guard that holds, ended cleanly, killed without losing a judgement."""

from __future__ import annotations

import http.client
import signal
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from tests.web import desks
from tests.web.serving import Served
from tunewright.data.judgements import Judgements
from tunewright.errors import MachineError, UsageError
from tunewright.web import server
from tunewright.web.security import Entrance, Guard


@pytest.fixture
def database(tmp_path):
    desks.store(tmp_path / "judgements.db", 40, 3).close()
    return tmp_path / "judgements.db"


def judge(served: Served) -> int | None:
    """Rank the next prompt as a program; the number of the judgement, None at the end."""
    _, sheet = served.ask("GET", "/")
    if sheet["prompt"] is None:
        return None
    ids = [one["id"] for one in sheet["completions"]]
    sent = {"prompt": sheet["prompt"]["id"], "shown": ids, "ranking": [[id] for id in ids]}
    status, answer = served.ask("POST", "/judgements", sent)
    assert status == 200, answer
    return answer["judgement"]


def test_what_the_terminal_says(database):
    with Served(database, "--annotator", "Ana") as served:
        assert served.said[0] == " 40 prompts to rank, none judged yet\n"
        assert served.url.startswith("http://127.0.0.1:")
        assert judge(served) == 1
        code, out, err = served.end(signal.SIGINT)
    assert code == 130
    assert out.endswith(f" 1 judgement more; all are saved in {database}\n")
    assert err == "error[stopped] stopped from the keyboard\n"


def test_a_termination_is_told_apart(database):
    with Served(database, "-q") as served:
        assert served.said == [f"{served.url}\n"]
        code, out, err = served.end(signal.SIGTERM)
    assert (code, out) == (143, "")
    assert err == "error[stopped] stopped by a signal\n"


def test_each_start_has_a_token_of_its_own(database):
    with Served(database) as first:
        port, token = first.port, first.token
        assert first.ask("GET", "/quality")[0] == 200
        first.end()
    with Served(database, port=port) as second:
        assert second.token != token
        assert second.ask("GET", "/quality", Cookie=f"tunewright_{port}={token}")[0] == 401
        assert second.ask("GET", "/quality")[0] == 200


def test_strangers_are_refused_over_the_wire(database):
    with Served(database, "--annotator", "Ana") as served:
        assert served.ask("GET", "/", Cookie="")[0] == 401
        assert served.ask("GET", "/", Host=f"evil.test:{served.port}")[0] == 421
        assert served.ask("POST", "/undo", [], Origin="http://evil.test")[0] == 403
        for raw in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
                connection.sendall(raw)
                connection.settimeout(2)
                try:
                    answer = connection.recv(4096)
                except (TimeoutError, ConnectionResetError):
                    answer = b""
                assert b" 200 " not in answer and b" 500 " not in answer, raw[:60]
        assert judge(served) == 1  # and it still works
        code, _, err = served.end()
        assert code == 130 and "Traceback" not in err


def test_killed_at_any_moment_nothing_acknowledged_is_lost(database):
    """Three people judge as fast as they can; the server is killed; what it had answered is there."""
    acknowledged: list[int] = []
    for round_ in range(3):
        with Served(database, "--overlap", "1") as served:
            stop = threading.Event()

            def work(name: str, served: Served = served, stop: threading.Event = stop) -> None:
                while not stop.is_set():
                    try:
                        _, sheet = served.ask("GET", "/", Cookie=key(served, name))
                        if sheet.get("prompt") is None:
                            return
                        ids = [one["id"] for one in sheet["completions"]]
                        sent = {"prompt": sheet["prompt"]["id"], "shown": ids, "ranking": [ids]}
                        status, answer = served.ask("POST", "/judgements", sent, Cookie=key(served, name))
                    except (OSError, http.client.HTTPException, ValueError):
                        return
                    assert status == 200
                    acknowledged.append(answer["judgement"])

            workers = [threading.Thread(target=work, args=(name,)) for name in ("Ana", "Bob", "Cyn")]
            for worker in workers:
                worker.start()
            before = len(acknowledged)
            deadline = time.monotonic() + 20
            while len(acknowledged) < before + 8 + round_ and time.monotonic() < deadline:
                time.sleep(0.002)
            served.end(signal.SIGKILL)
            stop.set()
            for worker in workers:
                worker.join(20)
    assert len(acknowledged) >= 24
    with Judgements.open(database, create=False) as store:
        kept = {judgement.id for judgement in store.judgements()}
        assert set(acknowledged) <= kept
        assert len(kept) - len(acknowledged) <= 9  # written, but killed before it could say so
        assert store.database.run("pragma integrity_check") is None


def key(served: Served, name: str) -> str:
    return f"tunewright_{served.port}={served.token}; tunewright_annotator={name}"


# ---- where it listens ----


def test_the_first_free_port(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(server, "DEFAULT_PORT", taken.getsockname()[1])
        place = server.listen("127.0.0.1", None)
        assert place.port != taken.getsockname()[1]
        place.listening.close()
        with pytest.raises(MachineError, match=r"can't be listened on .*another --port"):
            server.listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("host", ["nowhere.invalid", "", "300.1.1.1", "a" * 300, "\x00"])
def test_a_host_that_isnt_one(host):
    with pytest.raises((UsageError, MachineError)) as refused:
        server.listen(host, 0).listening.close()
        pytest.skip("this system takes an empty name for every address")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "loopback", "own"),
    [("127.0.0.1", True, "127.0.0.1"), ("localhost", True, None), ("0.0.0.0", False, "127.0.0.1")],
)
def test_who_can_reach_it(host, loopback, own):
    place = server.listen(host, 0)
    try:
        assert place.is_loopback == loopback
        assert own is None or place.own_address == own
        assert {"localhost", "127.0.0.1"} <= place.names
        assert loopback == (socket.gethostname().lower() not in place.names or socket.gethostname() == "localhost")
    finally:
        place.listening.close()


def test_on_a_network_it_says_what_that_means(database):
    with Served(database, "--host", "0.0.0.0") as served:
        assert "the network can read along" in served.said[1]
        assert served.ask("GET", "/", Cookie="")[0] == 401
        assert served.ask("GET", "/quality")[0] == 200
        strange = f"evil.test:{served.port}"
        assert served.ask("GET", "/quality", Host=strange, Origin=f"http://{strange}")[0] == 421
        shown = urlsplit(served.url)
        assert shown.hostname not in ("0.0.0.0", "127.0.0.1")
        try:
            connection = http.client.HTTPConnection(shown.hostname, served.port, timeout=10)
            connection.request("GET", f"/?{shown.query}")
        except OSError:
            pytest.skip("this machine has no address but the loopback one")
        assert connection.getresponse().status == 200  # the address that it tells is one that it lets in by
        connection.close()


# ---- the own test of the guard ----


def breaches() -> dict[str, type[Guard]]:
    """Guards with a hole, as a mistake of ours might make them."""

    class Open(Guard):
        async def __call__(self, scope, receive, send):
            await self.app(scope, receive, send)

    class AnyHost(Guard):
        async def __call__(self, scope, receive, send):
            ours = (b"host", f"127.0.0.1:{self.entrance.port}".encode())
            scope["headers"] = [ours if name == b"host" else (name, value) for name, value in scope["headers"]]
            await super().__call__(scope, receive, send)

    class AnyOrigin(Guard):
        async def __call__(self, scope, receive, send):
            host = dict(scope["headers"])[b"host"]
            ours = (b"origin", b"http://" + host)
            scope["headers"] = [ours if name == b"origin" else (name, value) for name, value in scope["headers"]]
            await super().__call__(scope, receive, send)

    class AnyKey(Guard):
        async def __call__(self, scope, receive, send):
            good = f"{self.entrance.cookie}={self.entrance.token}".encode()
            rest = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
            scope["headers"] = [*rest, (b"cookie", good)]
            await super().__call__(scope, receive, send)

    return {one.__name__: one for one in (Open, AnyHost, AnyOrigin, AnyKey)}


async def page(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("name", [*breaches(), "Guard"])
def test_a_guard_with_a_hole_serves_nobody(name, monkeypatch):
    made = (breaches() | {"Guard": Guard})[name]
    opened: list[str] = []
    stops: list[object] = []

    def tell(url: str) -> None:
        opened.append(url)
        stops.append(signal.raise_signal(signal.SIGINT))

    def make(entrance: Entrance) -> Guard:
        return made(page, entrance)

    if name == "Guard":
        with pytest.raises(KeyboardInterrupt):
            server.serve(server.listen("127.0.0.1", 0), make, tell)
        assert len(opened) == 1
    else:
        with pytest.raises(MachineError, match=r"refuses to serve: a (request|form) .* was answered with 200"):
            server.serve(server.listen("127.0.0.1", 0), make, tell)
        assert not opened


# ---- the command ----


def test_mistakes_are_one_line(database, tmp_path, capsys, monkeypatch):
    from tunewright.cli import app

    (tmp_path / "latin.md").write_bytes(b"\xff\xfe")
    (tmp_path / "other.txt").write_text("no database")
    cases = [
        (["rank", "serve", str(tmp_path / "none.db")], 2, "there is no such file"),
        (["rank", "serve", str(tmp_path)], 2, "is a folder"),
        (["rank", "serve", str(tmp_path / "other.txt")], 3, "no database of judgements"),
        (["rank", "serve", str(database), "--guidelines", str(tmp_path / "none.md")], 2, "can't be read"),
        (["rank", "serve", str(database), "--guidelines", str(tmp_path / "latin.md")], 2, "isn't UTF-8"),
        (["rank", "serve", str(database), "--annotator", " "], 2, "printable characters"),
        (["rank", "serve", str(database), "--overlap", "1.5"], 2, "overlap"),
        (["rank", "serve", str(database), "--port", "70000"], 2, "port"),
        (["rank", "serve", str(database), "--host", "nowhere.invalid"], 2, "no address of this machine"),
        (["rank", "serve", str(database), "--host", "0.0.0.0", "--annotator", "Ana"], 2, "leave it out"),
    ]
    for arguments, code, words in cases:
        assert app.main(arguments) == code, arguments
        said = capsys.readouterr()
        assert words in said.err and said.err.count("\n") == 1, said.err


def test_it_starts_without_torch(database):
    """A page must not take ten seconds to open."""
    import subprocess
    import sys

    from tests import whole

    code = (
        "import sys; import tunewright.web.app, tunewright.web.server, tunewright.cli.rank_serve;"
        "sys.exit(' '.join({'torch', 'transformers', 'datasets', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=whole.child_environment(), capture_output=True, text=True)
    assert done.stderr.strip() == ""
