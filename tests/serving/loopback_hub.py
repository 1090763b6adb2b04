"""A model hub on this machine: the routes that the real huggingface_hub client calls to create, push and download.

For tests only. Repositories live in memory, branch by branch; safetensors arrive as LFS objects, the rest in commits.
As on the Hub, writing wants a token, and what is private isn't there without one. The names in REFUSED are refused on
purpose, and CONTESTED changes between a client's look and its commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

REFUSED = {"owner/gated": 403, "owner/nobody": 401, "owner/busy": 503, "owner/strange": 400, "owner/elsewhere": 404}
CONTESTED = "owner/contested"


class Store:
    """What the hub holds, for a test to look into."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.branches: dict[str, dict[str, list[str]]] = {}  # repository -> branch -> commits, the newest last
        self.contents: dict[str, dict[str, bytes]] = {}  # commit -> path -> content
        self.objects: dict[str, bytes] = {}  # LFS objects by SHA-256

    def create(self, repo: str, *, private: bool) -> None:
        """A repository with the first commit that the Hub itself makes."""
        self.private[repo], self.branches[repo] = private, {"main": []}
        self.commit(repo, "main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})

    def commit(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        """Add or replace files; returns the commit."""
        return self.replace(repo, branch, {**(self.files(repo, branch) or {}), **files})

    def replace(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        """A commit that holds exactly these files."""
        commits = self.branches[repo][branch]
        digest = hashlib.sha1(f"{repo} {branch} {len(commits)}".encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + _sha256(content).encode())
        commits.append(digest.hexdigest())
        self.contents[commits[-1]] = files
        return commits[-1]

    def head(self, repo: str, revision: str = "main") -> str | None:
        """The commit behind a branch's name or a commit of the repository."""
        branches = self.branches.get(repo, {})
        if revision in branches:
            return branches[revision][-1]
        return revision if any(revision in commits for commits in branches.values()) else None

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes] | None:
        """What a revision holds; None where there is no such thing, or it is still empty."""
        branches = self.branches.get(repo, {})
        commit = self.head(repo, revision) if branches.get(revision, True) else None
        return self.contents[commit] if commit else None


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

    # method, pattern of the path, name of the method here that answers with the pattern's groups
    routes = (
        ("POST", r"/api/validate-yaml", "check_card"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/models/([^/]+/[^/]+)/branch/(.+)", "add_branch"),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/(.+)", "modes"),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "slots"),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/(.+)", "add_commit"),
        ("PUT", r"/lfs/([0-9a-f]{64})", "take_object"),
        ("GET", r"/api/models/([^/]+/[^/]+)", "info"),
        ("GET", r"/api/models/([^/]+/[^/]+)/revision/(.+)", "info"),
        ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", "tree"),
        ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path, method = unquote(urlsplit(self.path).path), self.command.replace("HEAD", "GET")
        # An object's address is signed on the Hub, so the client sends no token there.
        if method == "POST" and "authorization" not in self.headers:
            return self._refuse(401)
        for wanted, pattern, name in self.routes:
            if method == wanted and (match := re.fullmatch(pattern, path)):
                return getattr(self, name)(*match.groups())
        return self._refuse(404)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    # ---- writing ----

    def check_card(self) -> None:
        """As the Hub: metadata that isn't YAML, or names an unknown relation, stops the push."""
        metadata = yaml.safe_load(json.loads(self.body)["content"].split("---\n", 2)[1])
        good = metadata.get("base_model_relation", "finetune") in ("adapter", "finetune", "quantized", "merge")
        errors = [] if good else [{"message": '"base_model_relation" is unknown'}]
        self._json({"errors": errors, "warnings": []}, 200 if good else 400)

    def create(self) -> None:
        wanted = json.loads(self.body)
        repo = f"{wanted.get('organization') or 'owner'}/{wanted['name']}"
        if repo in REFUSED:
            return self._refuse(REFUSED[repo])
        there = repo in self.store.branches
        if not there:
            self.store.create(repo, private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        return self._json({"url": f"{self._address}/{repo}", "name": repo, "id": repo}, 409 if there else 200)

    def add_branch(self, repo: str, branch: str) -> None:
        branches = self.store.branches[repo]
        there = branch in branches
        if not there:
            branches[branch] = list(branches["main"])
        self._json({}, 409 if there else 200)

    def modes(self, repo: str, revision: str) -> None:
        if self.store.head(repo, revision) is None:
            return self._refuse(404, "RevisionNotFound" if repo in self.store.branches else "RepoNotFound")
        files = [
            {"path": f["path"], "uploadMode": "lfs" if _is_large(f["path"]) else "regular", "shouldIgnore": False}
            for f in json.loads(self.body)["files"]
        ]
        return self._json({"files": files})

    def slots(self, _: str) -> None:
        objects = [
            {
                **wanted,
                "authenticated": True,
                "actions": {"upload": {"href": f"{self._address}/lfs/{wanted['oid']}", "header": {}}},
            }
            for wanted in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def take_object(self, oid: str) -> None:
        good = _sha256(self.body) == oid
        if good:
            self.store.objects[oid] = self.body
        self._answer(200 if good else 400, b"")

    def add_commit(self, repo: str, branch: str) -> None:
        if repo == CONTESTED:
            return self._refuse(409)
        files = dict(self.store.files(repo, branch) or {})
        for line in self.body.decode().splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.store.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        commit = self.store.replace(repo, branch, files)
        return self._json(
            {"success": True, "commitOid": commit, "commitUrl": f"{self._address}/{repo}/commit/{commit}"}
        )

    # ---- reading ----

    def info(self, repo: str, revision: str = "main") -> None:
        files = self._readable(repo, revision)
        if files is None:
            return
        facts = {"id": repo, "sha": self.store.head(repo, revision), "private": self.store.private[repo], "tags": []}
        self._json({**facts, "siblings": [{"rfilename": path} for path in sorted(files)]})

    def tree(self, repo: str, revision: str) -> None:
        files = self._readable(repo, revision)
        if files is not None:
            self._json([_entry(path, content) for path, content in files.items()])

    def resolve(self, repo: str, revision: str, path: str) -> None:
        files = self._readable(repo, revision)
        if files is None:
            return
        if path not in files:
            return self._refuse(404, "EntryNotFound")
        content, headers = files[path], {"X-Repo-Commit": self.store.head(repo, revision) or ""}
        # The Hub redirects to another host here; on one host the client would take that for a moved repository.
        digest = _sha256(content) if _is_large(path) else _sha1(content)
        return self._answer(200, content, headers | {"ETag": f'"{digest}"'})

    def _readable(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """The revision's files, or None after a refusal was sent."""
        signed_in = "authorization" in self.headers
        if repo in REFUSED:
            self._refuse(REFUSED[repo])
        elif repo not in self.store.branches or (self.store.private[repo] and not signed_in):
            self._refuse(404 if signed_in else 401, "RepoNotFound")
        elif self.store.head(repo, revision) is None:
            self._refuse(404, "RevisionNotFound")
        else:
            return self.store.files(repo, revision)
        return None

    # ---- answering ----

    @property
    def _address(self) -> str:
        return f"http://{self.headers['host']}"

    def _refuse(self, status: int, code: str = "") -> None:
        self._answer(status, b"{}", {"X-Error-Code": code} if code else {})

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    large = {"lfs": {"oid": _sha256(content), "size": len(content), "pointerSize": 128}} if _is_large(path) else {}
    return {"type": "file", "path": path, "size": len(content), "oid": _sha1(content), **large}


def _is_large(path: str) -> bool:
    return path.endswith(".safetensors")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
