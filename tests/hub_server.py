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
        return 200, {"id": "me/x", "private": self.private, "sha": "0" * 40, "siblings": [], "tags": []}


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

    do_GET = do_POST = _take

    def log_message(self, *_):
        pass


def start() -> Hub:
    """A running Hub; `shutdown` and `server_close` end it."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return hub
