"""A stand-in of OpenAI's Batch API on the loopback address."""

import json
import re
from http.server import ThreadingHTTPServer

import loopback


class Server(ThreadingHTTPServer):
    """Takes files and batches; answers a batch once `finish` is called, by `answer(text)`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type | None = None):
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.files, self.batches, self.refuse, self.cut = {}, {}, None, None

    def finish(self, answer, status="completed"):
        for one in list(self.batches.values()):
            if one["status"] != "in_progress":
                continue
            lines = []
            for request in map(json.loads, self.files[one["input_file_id"]].splitlines()):
                content = answer(loopback.question_of(request["body"]))
                body = {"choices": [{"message": {"content": content}}]}
                response = {"status_code": 200 if content else 500, "body": body if content else {}}
                lines.append(json.dumps({"custom_id": request["custom_id"], "response": response}))
            one |= {"status": status, "output_file_id": f"out-{one['id']}" if lines else None}
            self.files[one["output_file_id"]] = "\n".join(lines)


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
        server.batches[name] = {"id": name, "object": "batch", "status": "in_progress", **json.loads(data)}
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
