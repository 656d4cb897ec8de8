"""A Hub of one's own: what huggingface_hub asks of huggingface.co, answered from memory on this machine, without Xet.

Model info, trees, references, lists of an owner's models; files by HEAD and GET, with ETags, ranges and redirects;
gated, private, renamed and missing repositories; commits with LFS. Every request is kept, with its token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

GRANTED = "granted"
"""The token of somebody who may have what is gated."""
LARGE = (".safetensors", ".bin", ".pt", ".model")
"""Suffixes of files that go by LFS."""


@dataclass
class Repository:
    """A model: its commits, oldest first, what branches and tags name them, and who may have it."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def add(self, files: Mapping[str, bytes], *refs: str) -> str:
        """Makes a commit that holds these files alone; returns its name."""
        name = hashlib.sha1(
            repr((len(self.commits), sorted(files.items()))).encode(), usedforsecurity=False
        ).hexdigest()
        self.commits[name] = dict(files)
        self.refs |= dict.fromkeys(refs or ("main",), name)
        return name

    def commit(self, revision: str) -> str | None:
        found = self.refs.get(revision, revision)
        return found if found in self.commits else None


@dataclass
class Hub:
    """All that the server knows.

    Attributes:
        repositories: ``org/name`` → the repository.
        moved: old name → new name.
        requests: (method, path with query, token) of each request, in order.
        cut: names of files of which the next answer ends at half of its bytes.
        failing: whether everything is answered with 500.
        stored: SHA-256 → bytes that were uploaded by LFS.
        ranges: ranges that were asked for.
        url: where it is; files that go by LFS are elsewhere, under another host name, as on the Hub.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    failing: bool = False
    stored: dict[str, bytes] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def elsewhere(self) -> str:
        return self.url.replace("127.0.0.1", "localhost")

    def model(self, name: str, files: Mapping[str, bytes] | Path, *refs: str, **facts: bool) -> str:
        """Adds a commit to a model, which is made where it is not there; returns the commit's name."""
        if isinstance(files, Path):
            files = {file.name: file.read_bytes() for file in files.iterdir() if file.is_file()}
        repository = self.repositories.setdefault(name, Repository(**facts))
        return repository.add(files, *refs)

    def asked(self, method: str, part: str) -> int:
        """How many requests of a kind there were."""
        return sum(1 for each, path, _ in self.requests if each == method and part in path)

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a process for which this is the Hub, and whose cache and token lie in a folder."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        return kept | own | more


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answers for a hub, at ``hub.url``, as long as the block lasts."""

    class Handler(_Answers):
        of = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


class _Answers(BaseHTTPRequestHandler):
    of: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        del format, arguments

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.of.requests.append((self.command, self.path, token))
        path, query = unquote(urlsplit(self.path).path), parse_qs(urlsplit(self.path).query)
        try:
            if self.of.failing:
                raise _Refused(500, "", "out of order")
            self._route(path, query, token, body)
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._send(refused.status, json.dumps({"error": refused.message}).encode(), headers)

    def _route(self, path: str, query: dict[str, list[str]], token: str, body: bytes) -> None:
        if path.startswith("/cdn/"):
            return self._bytes(self.of.stored[path.removeprefix("/cdn/")], path, {})
        if self.command in ("POST", "PUT"):
            return self._write(path, token, body)
        if path == "/api/models":
            owner = query.get("author", [""])[0]
            names = [name for name, each in self.of.repositories.items() if name.startswith(f"{owner}/")]
            return self._json(
                [{"id": name, "modelId": name} for name in names if not self.of.repositories[name].private]
            )
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|refs|auth-check)(?:/(.+?))?)?/?", path):
            return self._api(found[1], found[2] or "revision", found[3] or "main", token)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+)/([^/]+)", path):
            return self._resolve(found[1], found[2], found[3], token)
        raise _Refused(404, "", f"no such place: {path}")

    def _repository(self, name: str, token: str) -> Repository:
        found = self.of.repositories.get(name)
        if found is None or (found.private and not token):
            raise _Refused(401 if not token else 404, "RepoNotFound", "Repository not found")
        return found

    def _api(self, name: str, what: str, revision: str, token: str) -> None:
        if name in self.of.moved:
            new = self.path.replace(name, self.of.moved[name], 1)
            return self._send(307, b"", {"Location": new})
        found = self._repository(name, token)
        if what == "auth-check":
            self._check_gate(found, token)
            return self._send(200, b"{}")
        if what == "refs":
            refs = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in found.refs.items()]
            return self._json({"branches": refs, "tags": [], "converts": []})
        commit = found.commit(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = [_entry(file, content) for file, content in found.commits[commit].items()]
        if what == "tree":
            return self._json(
                [{"type": "file", "path": each["rfilename"], "oid": each["blobId"], **each} for each in files]
            )
        facts = {"id": name, "modelId": name, "sha": commit, "siblings": files, "private": found.private, "tags": []}
        return self._json(facts | {"gated": "manual" if found.gated else False, "downloads": 0})

    def _check_gate(self, repository: Repository, token: str) -> None:
        if repository.gated and token != GRANTED:
            raise _Refused(403 if token else 401, "GatedRepo", "Access to this model is restricted")

    def _resolve(self, name: str, revision: str, file: str, token: str) -> None:
        found = self._repository(name, token)
        self._check_gate(found, token)
        commit = found.commit(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        content = found.commits[commit].get(file)
        if content is None:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_entry(file, content)["blobId"]}"'}
        if not file.endswith(LARGE):
            return self._bytes(content, file, headers)
        digest = hashlib.sha256(content).hexdigest()
        self.of.stored[digest] = content
        if file in self.of.cut:
            self.of.cut = self.of.cut - {file} | {f"/cdn/{digest}"}
        more = {
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"{self.of.elsewhere}/cdn/{digest}",
        }
        return self._send(302, b"", headers | more)

    def _bytes(self, content: bytes, called: str, headers: dict[str, str]) -> None:
        """The whole of a file, or from a byte on; cut at half where that was asked for."""
        wanted, status = self.headers.get("Range"), 200
        whole = len(content)
        if wanted:
            self.of.ranges.append(wanted)
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or whole), whole - 1)
            content, status = content[start : end + 1], 206
            headers = headers | {"Content-Range": f"bytes {start}-{end}/{whole}"}
        if called in self.of.cut and self.command == "GET":
            self.of.cut = self.of.cut - {called}
            self._send(status, content[: len(content) // 2], headers | {"Content-Length": str(len(content))})
            self.close_connection = True
            return
        self._send(status, content, headers | {"Accept-Ranges": "bytes"})

    def _write(self, path: str, token: str, body: bytes) -> None:
        if path.startswith("/upload/"):  # to a signed address, without a token
            self.of.stored[path.removeprefix("/upload/")] = body
            return self._send(200, b"")
        if not token:
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        said = {} if path.endswith(("/main",)) and "/commit/" in path else json.loads(body or b"{}")
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            name = f"{said['organization']}/{said['name']}"
            if name in self.of.repositories:
                self._json({"url": f"{self.of.url}/{name}", "error": "You already created this model repo"}, 409)
                return None
            self.of.repositories[name] = Repository(
                private=said.get("visibility") == "private" or bool(said.get("private"))
            )
            self.of.repositories[name].add({})
            return self._json({"url": f"{self.of.url}/{name}"})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            self._repository(found[1], token)
            modes = [(each["path"], "lfs" if each["path"].endswith(LARGE) else "regular") for each in said["files"]]
            return self._json({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes]})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [self._upload(each["oid"], each["size"]) for each in said["objects"]]
            return self._json({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            return self._commit(found[1], found[2], token, [json.loads(line) for line in body.splitlines()])
        raise _Refused(404, "", f"no such place: {path}")

    def _upload(self, digest: str, size: int) -> dict[str, Any]:
        there = {} if digest in self.of.stored else {"actions": {"upload": {"href": f"{self.of.url}/upload/{digest}"}}}
        return {"oid": digest, "size": size, **there}

    def _commit(self, name: str, revision: str, token: str, lines: list[dict[str, Any]]) -> None:
        found = self._repository(name, token)
        files = dict(found.commits[found.refs[revision]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.of.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = found.add(files, revision)
        self._json({"commitUrl": f"{self.of.url}/{name}/commit/{commit}", "commitOid": commit})

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
            self.wfile.flush()


def _entry(file: str, content: bytes) -> dict[str, Any]:
    """A file as listings have it."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    facts: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": blob}
    if file.endswith(LARGE):
        facts["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return facts
