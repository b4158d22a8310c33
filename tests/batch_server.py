"""A stand-in of OpenAI's Batch API on the loopback address."""

import json
import re
from http.server import ThreadingHTTPServer

import loopback


class Server(ThreadingHTTPServer):
    """Takes files and batches; answers a batch once `finish` is called, by `answer(text)`.

    As at OpenAI, what failed is in a file of its own, and a batch fails with which more than `token_limit`
    tokens, at four characters each, would wait.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type | None = None):
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.files, self.batches, self.refuse, self.cut = {}, {}, None, None
        self.token_limit = None

    def fail(self, *errors: dict):
        """Every batch under way fails, for these reasons."""
        for one in self.batches.values():
            if one["status"] == "in_progress":
                one |= {"status": "failed", "errors": {"object": "list", "data": list(errors)}}

    def tokens(self, batch: dict) -> int:
        requests = map(json.loads, self.files[batch["input_file_id"]].splitlines())
        said = (message["content"] for request in requests for message in request["body"]["messages"])
        return sum(map(len, said)) // 4

    def take(self, batch: dict):
        """A new batch, which fails where too much waits."""
        waiting = [one for one in self.batches.values() if one["status"] == "in_progress"]
        self.batches[batch["id"]] = batch
        if self.token_limit and sum(map(self.tokens, [*waiting, batch])) > self.token_limit:
            message = (
                f"Enqueued token limit reached for m in organization org-1. Limit: {self.token_limit:,} "
                "enqueued tokens. Please try again once some in_progress batches have been completed."
            )
            error = {"code": "token_limit_exceeded", "message": message, "line": None, "param": None}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [error]}}

    def finish(self, answer, status="completed"):
        for one in list(self.batches.values()):
            if one["status"] != "in_progress":
                continue
            lines, failed = [], []
            for request in map(json.loads, self.files[one["input_file_id"]].splitlines()):
                content = answer(loopback.question_of(request["body"]))
                result = {"custom_id": request["custom_id"], "error": None}
                if isinstance(content, dict):  # what stands in the file of errors
                    failed.append(json.dumps(result | content))
                elif content:
                    body = {"choices": [{"message": {"content": content}}]}
                    lines.append(json.dumps(result | {"response": {"status_code": 200, "body": body}}))
            one["status"] = status
            for kind, written in (("output", lines), ("error", failed)):
                one[f"{kind}_file_id"] = f"{kind}-{one['id']}" if written else None
                self.files[f"{kind}-{one['id']}"] = "\n".join(written)


class Handler(loopback.Replies):
    def do_POST(self):
        data, server = self.body(), self.server
        if server.refuse:
            return self.send(server.refuse, {"error": {"message": f"no: {self.headers['Authorization']}"}})
        if self.path == "/v1/files":
            name = f"file-{len(server.files)}"
            server.files[name] = re.search(rb"\r\n\r\n(\{.*\})\n*\r\n--", data, re.DOTALL).group(1).decode()
            return self.send(200, {"id": name, "object": "file"})
        name = f"batch-{len(server.batches)}"
        server.take({"id": name, "object": "batch", "status": "in_progress", **json.loads(data)})
        return self.send(200, server.batches[name])

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/v1/files/"):
            return self.send(200, self.server.files[path.split("/")[3]].encode(), self.server.cut)
        if path == "/v1/batches":
            return self.send(
                200, {"object": "list", "data": [*self.server.batches.values()], "has_more": False}
            )
        return self.send(200, self.server.batches[path.split("/")[3]])
