"""A dataset hub on this machine: the few routes that the real `huggingface_hub` and `datasets` clients call to read.

For tests only. Serves one dataset repository from a folder, at one commit; owner/gated and owner/busy
refuse, everything else is 404, as on the Hub. The clients take their hub's address at import:
tests use a new process.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def dataset_hub(name: str, files: Path, *, moves: bool = False) -> Generator[str]:
    """Address of a hub whose only dataset is `name`. `moves`: its branch is at another commit when asked again."""
    handler = type("Handler", (_Handler,), {"name": name, "files": files, "moves": moves, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    name: str
    files: Path
    moves: bool
    asked: list[str]  # paths of the branch's state, as they were asked for
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api, resolve = f"/api/datasets/{self.name}", f"/datasets/{self.name}/resolve/"
        if path == "/api/datasets/owner/gated":
            self._missing("GatedRepo", status=403)
        elif path == "/api/datasets/owner/busy":
            self._missing("", status=503)
        elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            self.asked.append(path)
            commit = "f" * 40 if self.moves and len(self.asked) > 1 and COMMIT not in path else COMMIT
            self._json({"id": self.name, "sha": commit, "private": False, "tags": [], "siblings": self._siblings()})
        elif path.startswith(f"{api}/revision/"):
            self._missing("RevisionNotFound")
        elif path.startswith(f"{api}/tree/{COMMIT}"):
            under = path.removeprefix(f"{api}/tree/").partition("/")[2]
            self._json([] if under else [self._entry(file) for file in self._all()])
        elif path.startswith(resolve):
            self._file(self.files / path.removeprefix(resolve).partition("/")[2])
        else:
            self._missing("EntryNotFound" if self.name in path else "RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if not self.path.startswith(f"/api/datasets/{self.name}/paths-info/"):
            return self._missing("RepoNotFound")
        wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        return self._json([self._entry(file) for file in self._all() if file.name in wanted])

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _all(self) -> list[Path]:
        return sorted(self.files.iterdir())

    def _siblings(self) -> list[dict[str, str]]:
        return [{"rfilename": file.name} for file in self._all()]

    def _entry(self, file: Path) -> dict[str, Any]:
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _digest(file)}

    def _file(self, file: Path) -> None:
        if not file.is_file():
            return self._missing("EntryNotFound")
        return self._answer(200, file.read_bytes(), {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": COMMIT})

    def _missing(self, code: str, status: int = 404) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code})

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
