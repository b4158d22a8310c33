"""A real HTTP server on the loopback address that serves files, as well or as badly as a test tells it to."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class File:
    """What the server answers at one address."""

    content: bytes
    status: int = 200
    kind: str = "application/octet-stream"
    tag: str = '"1"'
    ranges: bool = True
    says_length: bool = True
    drops: list[int] = field(default_factory=list)  # of each answer, the bytes after which it hangs up


class Server(ThreadingHTTPServer):
    """`files` by path; `asked` has (path and query, Range header or None) of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, File] = {}
        self.asked: list[tuple[str, str | None]] = []

    def handle_error(self, request, client_address):
        """A client that hangs up is no fault of the server."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers["Range"]
        self.server.asked.append((self.path, asked))
        file = self.server.files.get(self.path.partition("?")[0]) or File(b"not here", 404)
        content, status, headers = file.content, file.status, {"ETag": file.tag}
        if asked and file.ranges and status == 200 and self.headers["If-Range"] in (None, file.tag):
            start, size = int(asked.removeprefix("bytes=").removesuffix("-")), len(content)
            status = 206 if start < size else 416
            headers["Content-Range"] = (
                f"bytes {start}-{size - 1}/{size}" if start < size else f"bytes */{size}"
            )
            content = content[start:]
        self.send_response(status)
        self.send_header("Content-Type", file.kind)
        if file.says_length:
            self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: file.drops.pop(0)] if file.drops else content)

    def log_message(self, *_):
        pass


def start() -> Server:
    """A running server; `shutdown` and `server_close` end it."""
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server
