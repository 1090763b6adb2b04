"""A model hub on this machine: the routes that the real `huggingface_hub` client calls to create, commit and download.

For tests only. Keeps repositories as commits of {path: bytes}, asks for a token as the Hub does (a private repository is
"not there" without one), takes weights through LFS and serves them by redirect. `refuse` makes it fail on purpose. The
client's default address is read at import, so pass `endpoint=`, or start a process with HF_ENDPOINT.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

WRITER = "hf_writerwriterwriter"
READER = "hf_readerreaderreader"  # signed in, but may not write
LFS = (".safetensors", ".bin")


@dataclass
class Repository:
    """One model repository."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # commit -> path -> content
    branches: dict[str, str] = field(default_factory=dict)  # branch -> commit

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        parent = self.branches.get(branch, "")
        content = json.dumps([parent, sorted((path, _sha256(body)) for path, body in files.items())])
        self.branches[branch] = hashlib.sha1(content.encode()).hexdigest()
        self.commits[self.branches[branch]] = files
        return self.branches[branch]

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        """What is on the main branch."""
        return self.commits[self.branches["main"]]


@dataclass
class Hub:
    """What the server holds, and what it was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS
    asked: list[str] = field(default_factory=list)  # "POST /api/repos/create"
    cards: list[dict[str, Any]] = field(default_factory=list)  # metadata of each README.md sent to be checked
    _refusals: list[tuple[str, int, str]] = field(default_factory=list)

    def refuse(self, pattern: str, status: int, message: str = "") -> None:
        """Answer this status to every request whose "METHOD /path" matches."""
        self._refusals.append((pattern, status, message))

    def refusal(self, request: str) -> tuple[int, str] | None:
        return next(((status, text) for pattern, status, text in self._refusals if re.search(pattern, request)), None)

    def add(self, name: str, files: dict[str, bytes], *, private: bool = False) -> Repository:
        """A repository that is already there."""
        self.repositories[name] = Repository(private)
        self.repositories[name].commit("main", files)
        return self.repositories[name]


@contextmanager
def model_hub() -> Generator[Hub]:
    """A hub without repositories, for as long as the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    # (method, pattern of the path, name of the method that answers, whether it writes)
    routes = (
        ("POST", r"/api/repos/create", "create", True),
        ("POST", r"/api/validate-yaml", "check_card", False),
        ("POST", r"/api/models/([^/]+/[^/]+)/branch/(.+)", "add_branch", True),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/(.+)", "preupload", True),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/(.+)", "add_commit", True),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch", True),
        ("PUT", r"/lfs/([0-9a-f]{64})", "lfs_upload", False),
        ("GET", r"/lfs/([0-9a-f]{64})", "lfs_download", False),
        ("GET", r"/api/models/([^/]+/[^/]+)", "info", False),
        ("GET", r"/api/models/([^/]+/[^/]+)/revision/(.+)", "info", False),
        ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", "tree", False),
        ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "file", False),
    )

    def do_GET(self) -> None:
        self.body = self._read_body()
        path, method = unquote(urlsplit(self.path).path), "GET" if self.command == "HEAD" else self.command
        self.hub.asked.append(f"{self.command} {path}")
        if refusal := self.hub.refusal(self.hub.asked[-1]):
            return self._refuse(refusal[0], message=refusal[1])
        for wanted, pattern, name, writes in self.routes:
            if method == wanted and (match := re.fullmatch(pattern, path)):
                if writes and self._token() != WRITER:
                    return self._refuse(401 if not self._token() else 403, message="no write access")
                return getattr(self, name)(*match.groups())
        return self._refuse(404)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    # ---- writing ----

    def create(self) -> None:
        wanted = json.loads(self.body)
        name = f"{wanted['organization'] or 'me'}/{wanted['name']}"
        status = 409 if name in self.hub.repositories else 200
        if status == 200:
            self.hub.add(name, {".gitattributes": b""}, private=wanted.get("visibility") == "private")
        self._json({"url": f"{self.hub.url}/{name}", "id": name}, status)

    def check_card(self) -> None:
        import yaml

        _, front, _ = json.loads(self.body)["content"].split("---\n", 2)
        metadata = yaml.safe_load(front)
        relation = metadata.get("base_model_relation", "finetune")
        bad = [] if relation in ("adapter", "finetune") else [{"message": '"base_model_relation" is unknown'}]
        self.hub.cards.append(metadata)
        self._json({"errors": bad, "warnings": []}, 400 if bad else 200)

    def add_branch(self, name: str, branch: str) -> None:
        repository = self.hub.repositories[name]
        if branch in repository.branches:
            return self._json({"error": "exists"}, 409)
        repository.branches[branch] = repository.branches["main"]
        return self._json({})

    def preupload(self, name: str, revision: str) -> None:
        if name not in self.hub.repositories:
            return self._refuse(404, "RepoNotFound")
        if not self.hub.repositories[name].resolve(revision):
            return self._refuse(404, "RevisionNotFound")
        modes = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LFS) else "regular", "shouldIgnore": False}
            for f in json.loads(self.body)["files"]
        ]
        return self._json({"files": modes})

    def lfs_batch(self, _: str) -> None:
        objects = [
            {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}"}}}
            for o in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if _sha256(self.body) != oid:
            return self._refuse(400)
        self.hub.objects[oid] = self.body
        return self._json({})

    def add_commit(self, name: str, revision: str) -> None:
        repository = self.hub.repositories[name]
        files = dict(repository.commits[repository.branches[revision]])
        for line in self.body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(revision, files)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    # ---- reading ----

    def info(self, name: str, revision: str = "main") -> None:
        if not (repository := self._readable(name)):
            return self._refuse(404 if self._token() else 401, "RepoNotFound", "Repository not found")
        if not (commit := repository.resolve(revision)):
            return self._refuse(404, "RevisionNotFound")
        siblings = [{"rfilename": path} for path in repository.commits[commit]]
        return self._json(
            {"id": name, "sha": commit, "private": repository.private, "tags": [], "siblings": siblings}
            | {"cardData": _card(repository.commits[commit])}
        )

    def tree(self, name: str, revision: str) -> None:
        repository = self._readable(name)
        if not repository or not (commit := repository.resolve(revision)):
            return self._refuse(404, "RevisionNotFound" if repository else "RepoNotFound")
        return self._json([_entry(path, body) for path, body in repository.commits[commit].items()])

    def file(self, name: str, revision: str, path: str) -> None:
        repository = self._readable(name)
        commit = repository.resolve(revision) if repository else None
        if not repository or not commit:
            return self._refuse(404, "RepoNotFound")
        body = repository.commits[commit].get(path)
        if body is None:
            return self._refuse(404, "EntryNotFound")
        if not path.endswith(LFS):
            return self._answer(200, body, {"ETag": f'"{_sha1(body)}"', "X-Repo-Commit": commit})
        self.hub.objects[_sha256(body)] = body
        linked = {"X-Linked-Etag": f'"{_sha256(body)}"', "X-Linked-Size": str(len(body)), "X-Repo-Commit": commit}
        return self._answer(302, b"", {"Location": f"{self.hub.url}/lfs/{_sha256(body)}", **linked})

    def lfs_download(self, oid: str) -> None:
        self._answer(200, self.hub.objects[oid], {"ETag": f'"{oid}"'})

    # ---- parts ----

    def _readable(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        return repository if repository and (not repository.private or self._token() in (WRITER, READER)) else None

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _refuse(self, status: int, code: str = "", message: str = "") -> None:
        self._answer(status, b'{"error": "refused"}', {"X-Error-Code": code, "X-Error-Message": message})

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(path: str, body: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(body), "oid": _sha1(body)}
    if path.endswith(LFS):
        entry["lfs"] = {"oid": _sha256(body), "size": len(body), "pointerSize": 128}
    return entry


def _card(files: dict[str, bytes]) -> dict[str, Any] | None:
    import yaml

    parts = files.get("README.md", b"").decode().split("---\n", 2)
    return yaml.safe_load(parts[1]) if len(parts) == 3 else None


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _sha1(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()
