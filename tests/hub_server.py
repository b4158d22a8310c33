"""A real HTTP server on the loopback address that answers as the Hugging Face Hub does."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The library asks this once a day, on nobody's behalf, and keeps the answer in its home: no part of sharing.
DAILY = "/api/agent-harnesses"


class Hub(ThreadingHTTPServer):
    """One repository: `private` as it is set on the Hub (None: it is not there yet), `there` its files."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.private: bool | None = None
        self.refuses: int | None = None
        self.there: list[str] = []
        self.asked: list[tuple[str, str, object]] = []  # method, path, body
        self.authorizations: set[str | None] = set()
        self.committed: dict[str, bytes] = {}
        self.deleted: list[str] = []
        self.files: dict[str, bytes] = {}  # of the dataset me/x, to be read

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, method: str, path: str, body: object) -> tuple[int, object]:
        if self.refuses:
            return self.refuses, {"error": "Invalid credentials in Authorization header"}
        if path == "/api/repos/create":
            exists = self.private is not None
            if not exists:  # the library says it in one of two ways, by its version
                self.private = body.get("private") is True or body.get("visibility") == "private"
            kind = "datasets/" if body.get("type") == "dataset" else ""
            return 409 if exists else 200, {"url": f"{self.url}/{kind}me/{body['name']}", "error": "exists"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/tree/" in path and self.files:
            below = path.split("/tree/")[1].partition("/")[2]
            return 200, self._listed(below)
        if "/tree/" in path:
            return 200, [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in self.there]
        if "/preupload/" in path:
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [{"path": file["path"], **mode} for file in body["files"]]}
        if "/commit/" in path:
            for line in body:
                if line["key"] == "file":
                    self.committed[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    self.deleted.append(line["value"]["path"])
            return 200, {"commitUrl": f"{self.url}/me/x/commit/1", "commitOid": "1" * 40, "success": True}
        if self.files and not path.startswith("/api/datasets/me/x"):
            return 404, {"error": "Repository not found"}
        return 200, {"id": "me/x", "private": self.private, "sha": "0" * 40, "siblings": [], "tags": []}

    def _listed(self, below: str) -> list[dict]:
        """The files below a folder; of the root its files and folders."""
        kept = {"oid": "0" * 40, "size": 1}
        files = [name for name in self.files if name.startswith(below) and (below or "/" not in name)]
        folders = {name.partition("/")[0] for name in self.files if "/" in name and not below}
        found = [{"type": "file", "path": name, **kept, "size": len(self.files[name])} for name in files]
        return found + [{"type": "directory", "path": name, **kept} for name in sorted(folders)]


class Handler(BaseHTTPRequestHandler):
    def _take(self):
        raw = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        path = self.path.partition("?")[0]
        lines = "/commit/" in path
        body = [json.loads(line) for line in raw.splitlines()] if lines else json.loads(raw or "null")
        if path == DAILY:
            status, content = 404, {"error": "Not found"}
        else:
            self.server.asked.append((self.command, path, body))
            self.server.authorizations.add(self.headers["Authorization"])
            status, content = self.server.answer(self.command, path, body)
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _give(self):
        """A file of the dataset, whole or in part."""
        self.server.authorizations.add(self.headers["Authorization"])
        content = self.server.files.get(self.path.partition("?")[0].split("/resolve/")[1].partition("/")[2])
        asked = self.headers["Range"]
        self.send_response(404 if content is None else 206 if asked else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        content = content or b""
        size = len(content)
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            content = content[int(first) : int(last or size) + 1]
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(content) - 1}/{size}")
        for name, value in (("ETag", '"1"'), ("X-Repo-Commit", "0" * 40), ("Content-Length", len(content))):
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_GET(self):
        self._give() if "/resolve/" in self.path else self._take()

    do_POST, do_HEAD = _take, _give

    def log_message(self, *_):
        pass


def start() -> Hub:
    """A running Hub; `shutdown` and `server_close` end it."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return hub
