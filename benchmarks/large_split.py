"""Step 1 on a large collection: the peak memory of 100,000 reports against that of 10,000.

    python benchmarks/large_split.py [--reports 100000] [--few 10000] [--server 100000] [--concurrency 32]

By the Batch API (submit, poll, collect, then the split out of the cache) and by a server that is asked many
reports at a time, each against a stand-in on the loopback address that runs in a process of its own. What is
measured is the anonymous memory of the process that splits; what it must hold, the reports and their splits
with the audit, is printed beside it.
"""

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import loopback  # noqa: E402
from process_memory import anonymous_bytes  # noqa: E402

from utils import split  # noqa: E402
from utils.split.offline import split_offline  # noqa: E402

MODEL, KEY = "gpt-4.1-mini", "none"
REPORT = (
    "Heart size is normal. No pleural effusion in the left lung base. A nodule of {} mm in the right lung. "
    "No acute bony abnormality. The mediastinal contours are unremarkable."
)


def main() -> None:
    options = arguments()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="large_split_") as temporary:
        port = spawn.Value("i", 0)
        server = spawn.Process(target=serve, args=(temporary, port), daemon=True)
        server.start()
        while not port.value:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{port.value}/v1"
        for work, most in ((by_batch, options.reports), (by_server, options.server)):
            peaks = {}
            for count in (options.few, most):
                told = spawn.Queue()
                args = (
                    count,
                    address,
                    options.concurrency,
                    Path(temporary) / f"{work.__name__}_{count}",
                    told,
                )
                child = spawn.Process(target=work, args=args)
                child.start()
                held, start = 0, time.perf_counter()
                while child.is_alive():
                    held = max(held, anonymous_bytes(child.pid))
                    child.join(0.02)
                if child.exitcode:
                    sys.exit(f"{work.__name__} failed")
                peaks[count] = held
                print(
                    f"{work.__name__}, {count:,} reports: peak {held / 2**20:,.0f} MiB, {told.get()}, "
                    f"{time.perf_counter() - start:.0f} s, load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
            more = (peaks[most] - peaks[options.few]) / 1024 / max(1, most - options.few)
            print(f"{work.__name__}: {more:.2f} KiB more a report")


def reports(count: int) -> list[str]:
    """`count` reports that are in no other collection."""
    return [REPORT.format(f"{count}.{i}") for i in range(count)]


def by_batch(count: int, address: str, concurrency: int, folder: Path, told) -> None:
    texts, prompt = reports(count), split.load_prompt().text
    before = anonymous_bytes(os.getpid())
    how = {"cache": folder / "answers.jsonl", "base_url": address, "api_key": KEY}
    split.batch.submit(texts, prompt, folder / "batches.json", model=MODEL, **how)
    while set(split.batch.poll(folder / "batches.json", base_url=address, api_key=KEY).values()) != {
        "completed"
    }:
        time.sleep(0.5)
    assert split.batch.collect(texts, prompt, folder / "batches.json", **how) == (count, 0)
    finish(texts, prompt, concurrency, how, before, told)


def by_server(count: int, address: str, concurrency: int, folder: Path, told) -> None:
    texts, prompt = reports(count), split.load_prompt().text
    before = anonymous_bytes(os.getpid())
    how = {"cache": folder / "answers.jsonl", "base_url": address, "api_key": KEY}
    print(split.estimate(texts, MODEL, prompt, cache=how["cache"]))
    finish(texts, prompt, concurrency, how, before, told)


def finish(texts: list[str], prompt: str, concurrency: int, how: dict, before: int, told) -> None:
    """Splits and audits; tells what the process held before, and what it returns."""
    splits, audit = split.split_and_audit(
        texts, "openai", model=MODEL, prompt=prompt, concurrency=concurrency, **how
    )
    assert splits[-1] == split_offline(texts[-1]) and audit["ok"].all() and not audit["repaired"].any()
    size = sum(sys.getsizeof(one) + sum(map(sys.getsizeof, set(one.values()))) for one in splits)
    size += int(audit.memory_usage(deep=True).sum())
    told.put(f"{before / 2**20:,.0f} MiB before the first step, splits and audit {size / 2**20:,.0f} MiB")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.batches = Path(folder), {}

    def complete(self, batch: dict) -> None:
        """Answer the questions of a batch."""
        asked = re.findall(rb'^\{"custom_id".*$', (self.folder / batch["input_file_id"]).read_bytes(), re.M)
        with (self.folder / f"out-{batch['id']}").open("wb") as file:
            for request in map(json.loads, asked):
                body = {"choices": [{"message": {"content": answer(request["body"])}}]}
                told = {"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}}
                file.write(json.dumps(told).encode() + b"\n")
        batch |= {"status": "completed", "output_file_id": f"out-{batch['id']}"}


class Handler(loopback.Replies):
    """Chat completions; and files and batches."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        data, server = self.body(), self.server
        if self.path == "/v1/chat/completions":
            message = {"role": "assistant", "content": answer(json.loads(data))}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            self.send(
                200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            )
        elif self.path == "/v1/files":
            name = f"file-{time.monotonic_ns()}"
            (server.folder / name).write_bytes(data)
            self.send(200, {"id": name, "object": "file"})
        else:
            name, asked = f"batch-{len(server.batches)}", json.loads(data)
            server.batches[name] = {"id": name, "object": "batch", "status": "in_progress", **asked}
            threading.Thread(target=server.complete, args=(server.batches[name],)).start()
            self.send(200, server.batches[name])

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/v1/files/"):
            self.send(200, (self.server.folder / path.split("/")[3]).read_bytes())
        elif path == "/v1/batches":
            self.send(200, {"object": "list", "data": [*self.server.batches.values()], "has_more": False})
        else:
            self.send(200, self.server.batches[path.split("/")[3]])


def answer(body: dict) -> str:
    return json.dumps(split_offline(body["messages"][1]["content"].removeprefix("Findings:\n")))


def serve(folder: str, port) -> None:
    server = Server(folder)
    port.value = server.server_port
    server.serve_forever()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=int, default=100_000, help="by the Batch API")
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--server", type=int, default=100_000, help="reports that a server is asked")
    parser.add_argument("--concurrency", type=int, default=32)
    return parser.parse_args()


if __name__ == "__main__":
    main()
