"""Real HTTP servers on the loopback address; `start` gives one that answers chat completions as told."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What a server may send with status 200 that is no completion: pages, an error, what is cut or damaged.
NO_COMPLETIONS = [
    b"<!doctype html>",
    b'"Hello."',
    b'{"error": {"code": 502}}',
    b'{"choices": [{}]}',
    b"{\xff}",
]


def question_of(body: dict) -> str:
    """The report that a request asks to split."""
    return body["messages"][1]["content"].removeprefix("Findings:\n")


class Replies(BaseHTTPRequestHandler):
    """What the handlers of all test servers share: reading what is sent, and answering it."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def send(self, status: int, payload: dict | bytes, cut: int | None = None) -> None:
        """Answer, and hang up after `cut` bytes."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        if status in (429, 500, 503):
            self.send_header("Retry-After", "0.05")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:cut])

    def log_message(self, *_):
        pass


@contextmanager
def serving(server: ThreadingHTTPServer):
    """`server`, answering on a thread of its own until the block ends."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Server(ThreadingHTTPServer):
    """Answers chat completions by `behave(text, turn, body)`: a status, the content, or a whole body."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behave):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.calls, self.lock = behave, [], threading.Lock()
        self.busy = self.most_busy = 0
        self.usage = None

    def handle_error(self, request, client_address):
        """A client that hangs up is no fault of the server."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(Replies):
    def do_POST(self):
        server = self.server
        body = json.loads(self.body())
        text = question_of(body)
        with server.lock:
            turn = sum(call["text"] == text for call in server.calls)
            server.calls.append({"text": text, "body": body, "authorization": self.headers["Authorization"]})
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            answer = server.behave(text, turn, body)
        finally:
            with server.lock:
                server.busy -= 1
        if answer is ConnectionError:
            self.close_connection = True
            return
        if isinstance(answer, bytes):
            self.send(200, answer)
            return
        if isinstance(answer, int):
            self.send(answer, {"error": {"message": f"no: {self.headers['Authorization']}"}})
            return
        message = {"role": "assistant", "content": answer}
        if answer is None:
            message["refusal"] = "I cannot help with that."
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        payload = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        self.send(200, payload | ({"usage": server.usage} if server.usage else {}))


def start(behave):
    """A running server; `shutdown` and `server_close` end it."""
    server = Server(behave)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server
