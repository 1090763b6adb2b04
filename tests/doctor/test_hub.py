"""The Hub: reachable, away, silent, failing, or not to be asked."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tunewright.doctor import hub as hub_file
from tunewright.doctor.hub import Hub


@pytest.fixture
def online(monkeypatch):
    """Points the doctor at an address."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return lambda address: monkeypatch.setenv("HF_ENDPOINT", address)


@pytest.fixture
def server():
    """Starts a server on this machine that answers HEAD with a status; gives address and what it was sent."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int):
        sent: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                sent.append(dict(self.headers))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}", sent

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize("status", [200, 401, 404])
def test_any_answer_means_that_it_is_there(online, server, monkeypatch, status):
    address, sent = server(status)
    online(address)
    monkeypatch.setenv("HF_TOKEN", "hf_planted_token")
    check = Hub().check()
    assert check.state == "ok"
    assert check.found.startswith(f"{address} answers in ") and check.found.endswith(" s, with a token")
    assert "hf_planted_token" not in str(check) + str(sent)  # neither shown nor sent


def test_without_a_token_it_says_what_that_means(online, server, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    online(server(200)[0])
    assert Hub().check().found.endswith("without a token, so no private or gated models")


def test_a_hub_that_fails(online, server):
    address, _ = server(503)
    online(address)
    check = Hub().check()
    assert (check.state, check.found) == ("warn", f"{address} can't be reached (it answers 503)")
    assert check.advice.startswith("models and data by Hub id can't be loaded")


def test_nobody_there(online):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        online(f"http://127.0.0.1:{taken.getsockname()[1]}")  # bound, and not listening
        check = Hub().check()
    assert check.state == "warn" and check.found.endswith("can't be reached (ConnectError)")


def test_a_hub_that_never_answers_costs_its_two_seconds_and_no_more(online, monkeypatch):
    monkeypatch.setattr(hub_file, "HUB_SECONDS", 0.3)
    monkeypatch.setattr("httpx2.head", lambda *_, **__: time.sleep(5))  # as a name server that hangs
    online("http://nowhere.invalid")
    begin = time.monotonic()
    check = Hub().check()
    assert time.monotonic() - begin < 2
    assert check.found == "http://nowhere.invalid can't be reached (no answer in 0.3 s)"


@pytest.mark.parametrize("word", ["1", "true", "ON"])
def test_offline_means_that_nothing_is_asked(online, server, monkeypatch, word):
    address, sent = server(200)
    online(address)
    monkeypatch.setenv("HF_HUB_OFFLINE", word)
    check = Hub().check()
    assert check.state == "ok" and "HF_HUB_OFFLINE" in check.found
    assert sent == []
