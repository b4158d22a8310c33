"""Step 1 on a large collection: the peak memory of 100,000 reports against that of 10,000.

    python benchmarks/large_split.py [--reports 100000] [--few 10000] [--server 100000] [--concurrency 32]

By the Batch API (submit, poll, collect, then the split out of the cache) and by a server that is asked many
reports at a time, each against a stand-in on the loopback address that runs in a process of its own. What is
measured is the anonymous memory of the process that splits; what it must hold, the reports and their splits
with the audit, is printed beside it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import batch_server  # noqa: E402
import loopback  # noqa: E402
from process_memory import SPAWN, anonymous_bytes, peak_of  # noqa: E402

from utils import split  # noqa: E402
from utils.split.offline import split_offline  # noqa: E402

MODEL, KEY = "gpt-4.1-mini", "none"
REPORT = (
    "Heart size is normal. No pleural effusion in the left lung base. A nodule of {} mm in the right lung. "
    "No acute bony abnormality. The mediastinal contours are unremarkable."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=int, default=100_000, help="by the Batch API")
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--server", type=int, default=100_000, help="reports that a server is asked")
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large_split_") as temporary:
        port = SPAWN.Value("i", 0)
        server = SPAWN.Process(target=serve, args=(port,), daemon=True)
        server.start()
        while not port.value:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{port.value}/v1"
        for work, most in ((by_batch, options.reports), (by_server, options.server)):
            peaks = {}
            for count in (options.few, most):
                notes, folder = SPAWN.Queue(), Path(temporary) / f"{work.__name__}_{count}"
                start = time.perf_counter()
                peaks[count] = peak_of(work, count, address, options.concurrency, folder, notes)
                shown = f"{notes.get()}, {time.perf_counter() - start:.0f} s, load {os.getloadavg()[0]:.1f}"
                peak = f"peak {peaks[count] / 2**20:,.0f} MiB"
                print(f"{work.__name__}, {count:,} reports: {peak}, {shown}", flush=True)
            more = (peaks[most] - peaks[options.few]) / 1024 / max(1, most - options.few)
            print(f"{work.__name__}: {more:.2f} KiB more per report")


def reports(count: int) -> list[str]:
    """`count` reports that are in no other collection."""
    return [REPORT.format(f"{count}.{i}") for i in range(count)]


def by_batch(count: int, address: str, concurrency: int, folder: Path, notes) -> None:
    texts, prompt = reports(count), split.load_prompt().text
    before = anonymous_bytes(os.getpid())
    how = {"cache": folder / "answers.jsonl", "base_url": address, "api_key": KEY}
    split.batch.submit(texts, prompt, folder / "batches.json", model=MODEL, token_limit=10**9, **how)
    while set(split.batch.poll(folder / "batches.json", base_url=address, api_key=KEY).values()) != {
        "completed"
    }:
        time.sleep(0.5)
    assert split.batch.collect(texts, prompt, folder / "batches.json", **how) == (count, 0)
    finish(texts, prompt, concurrency, how, before, notes)


def by_server(count: int, address: str, concurrency: int, folder: Path, notes) -> None:
    texts, prompt = reports(count), split.load_prompt().text
    before = anonymous_bytes(os.getpid())
    how = {"cache": folder / "answers.jsonl", "base_url": address, "api_key": KEY}
    print(split.estimate(texts, MODEL, prompt, cache=how["cache"]))
    finish(texts, prompt, concurrency, how, before, notes)


def finish(texts: list[str], prompt: str, concurrency: int, how: dict, before: int, notes) -> None:
    """Splits and audits; notes what the process held before, and what it returns."""
    splits, audit = split.split_and_audit(
        texts, "openai", model=MODEL, prompt=prompt, concurrency=concurrency, **how
    )
    assert splits[-1] == split_offline(texts[-1]) and audit["ok"].all() and not audit["repaired"].any()
    size = sum(sys.getsizeof(each) + sum(map(sys.getsizeof, set(each.values()))) for each in splits)
    size += int(audit.memory_usage(deep=True).sum())
    notes.put(f"{before / 2**20:,.0f} MiB before the first step, splits and audit {size / 2**20:,.0f} MiB")


class Handler(batch_server.Handler):
    """Chat completions beside the Batch API."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        if self.path != "/v1/chat/completions":
            return super().do_POST()
        message = {"role": "assistant", "content": answer(loopback.question_of(json.loads(self.body())))}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return self.send(
            200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        )


def answer(text: str) -> str:
    return json.dumps(split_offline(text))


def serve(port) -> None:
    """A server that answers each batch a moment after it was handed in."""
    server = batch_server.Server(Handler)
    with loopback.serving(server):
        port.value = server.server_port
        while True:
            server.finish(answer)
            time.sleep(0.2)


if __name__ == "__main__":
    main()
