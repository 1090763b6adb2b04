"""A model hub on this machine: the routes that the real huggingface_hub client calls to create, push and download.

For tests only. Repositories live in memory, one commit after another; safetensors travel as LFS objects, the rest in
the commit. `owner/gated`, `owner/busy` and writes without a token are refused, as on the Hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

REFUSED = {"owner/gated": 403, "owner/busy": 503, "owner/nobody": 401}


class Store:
    """What the hub holds, for a test to look into."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}  # repository -> path -> content
        self.private: dict[str, bool] = {}
        self.commits: dict[str, list[str]] = {}
        self.objects: dict[str, bytes] = {}  # LFS objects by SHA-256


@contextmanager
def model_hub() -> Generator[tuple[str, Store]]:
    """Address and store of a hub that lives as long as the context."""
    store = Store()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": store}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", store
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    store: Store
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), parts[4:])
        elif len(parts) > 4 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._refuse(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = unquote(urlsplit(self.path).path)
        if "authorization" not in {name.lower() for name in self.headers}:
            return self._refuse(401)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        repo = "/".join(path.strip("/").split("/")[2:4] if path.startswith("/api/") else path.strip("/").split("/")[:2])
        repo = repo.removesuffix(".git")
        if "/preupload/" in path:
            files = [self._mode(file) for file in json.loads(body)["files"]]
            return self._json({"files": files})
        if path.endswith("/objects/batch"):
            return self._json({"transfer": "basic", "objects": [self._slot(o) for o in json.loads(body)["objects"]]})
        if "/commit/" in path:
            return self._commit(repo, body)
        return self._refuse(404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        oid = self.path.rpartition("/")[2]
        good = hashlib.sha256(content).hexdigest() == oid
        if good:
            self.store.objects[oid] = content
        self._answer(200 if good else 400, b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    # ---- writing ----

    def _create(self, wanted: dict[str, Any]) -> None:
        repo = f"{wanted.get('organization') or 'owner'}/{wanted['name']}"
        if repo in REFUSED:
            return self._refuse(REFUSED[repo])
        self.store.files.setdefault(repo, {})
        self.store.private.setdefault(repo, bool(wanted.get("private")) or wanted.get("visibility") == "private")
        self.store.commits.setdefault(repo, [])
        return self._json({"url": f"http://{self.headers['host']}/{repo}", "name": repo, "id": repo})

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _slot(self, wanted: dict[str, Any]) -> dict[str, Any]:
        href = f"http://{self.headers['host']}/lfs/{wanted['oid']}"
        return {**wanted, "authenticated": True, "actions": {"upload": {"href": href, "header": {}}}}

    def _commit(self, repo: str, body: bytes) -> None:
        files = dict(self.store.files[repo])
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.store.objects[value["oid"]]
        self.store.files[repo] = files
        oid = hashlib.sha1(body).hexdigest()
        self.store.commits[repo].append(oid)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"http://{self.headers['host']}/{repo}/commit/{oid}"})

    # ---- reading ----

    def _api(self, repo: str, rest: list[str]) -> None:
        if repo in REFUSED:
            return self._refuse(REFUSED[repo])
        if repo not in self.store.files:
            return self._refuse(404, "RepoNotFound")
        files = self.store.files[repo]
        if rest[:1] == ["tree"]:
            return self._json([{"type": "file", "path": p, "size": len(c), "oid": _sha1(c)} for p, c in files.items()])
        commit = self._head(repo)
        if rest[:1] == ["revision"] and rest[1] not in ("main", commit):
            return self._refuse(404, "RevisionNotFound")
        siblings = [{"rfilename": path} for path in sorted(files)]
        return self._json({"id": repo, "sha": commit, "private": self.store.private[repo], "tags": [], "siblings": siblings})

    def _resolve(self, repo: str, path: str) -> None:
        content = self.store.files.get(repo, {}).get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        return self._answer(200, content, {"ETag": f'"{_sha1(content)}"', "X-Repo-Commit": self._head(repo)})

    def _head(self, repo: str) -> str:
        return self.store.commits[repo][-1] if self.store.commits[repo] else "0" * 40

    # ---- answering ----

    def _refuse(self, status: int, code: str = "") -> None:
        self._answer(status, b"{}", {"X-Error-Code": code} if code else {})

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
