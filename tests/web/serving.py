"""`tunewright rank serve` as a process of its own, for tests that kill it, and for the browser."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests import whole


class Served:
    """A running server; leaves nothing behind."""

    def __init__(self, database: Path, *arguments: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "tunewright", "rank", "serve", str(database), "--port", str(port), *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=whole.child_environment(),
            cwd=database.parent,
        )  # fmt: skip
        self.said: list[str] = []
        self.url = self._url()
        self.port = urlsplit(self.url).port or 0
        self.token = parse_qs(urlsplit(self.url).query)["token"][0]
        self.origin = f"http://127.0.0.1:{self.port}"

    def _url(self) -> str:
        for line in self.process.stdout:
            self.said.append(line)
            if "?token=" in line:
                return line.split()[-1]
        raise AssertionError(f"{''.join(self.said)}{self.process.stderr.read()}")

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """As a program that has the key; status and JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        known = {
            "Host": f"127.0.0.1:{self.port}",
            "Origin": self.origin,
            "Cookie": f"tunewright_{self.port}={self.token}",
            "Accept": "application/json",
        }
        content = None
        if isinstance(body, list):
            content = urlencode(body)
            known["Content-Type"] = "application/x-www-form-urlencoded"
        elif body is not None:
            content = json.dumps(body)
            known["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=content, headers=known | headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith("{") else text
        finally:
            connection.close()

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Exit code, the rest of stdout, stderr."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
