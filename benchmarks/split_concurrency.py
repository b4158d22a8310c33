"""How much faster many questions at a time are than one after another, against a loopback server.

    python benchmarks/split_concurrency.py [--reports 296] [--sequential 296] [--concurrency 16]

The server takes its `--seconds` for each answer, as a hosted model does. One
after another, `--sequential` reports are enough: the ratio is of the time a report.
"""

import argparse
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import loopback  # noqa: E402

from utils import split  # noqa: E402
from utils.split.offline import split_offline  # noqa: E402

REPORT = (
    "Heart size is normal. No pleural effusion in the left lung base. A nodule of {} mm in the right lung."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=int, default=296, help="reports that are split many at a time")
    parser.add_argument(
        "--sequential", type=int, default=296, help="reports that are split one after another"
    )
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=1.2, help="that the server takes for an answer")
    options = parser.parse_args()
    texts = [REPORT.format(i) for i in range(options.reports)]
    split.split_findings(texts[:1])  # the lexicon's tables are built once

    def answer(text, turn, body):
        time.sleep(options.seconds)
        return json.dumps(split_offline(text))

    server = loopback.start(answer)
    one = seconds_a_report(server, texts[: options.sequential], 1)
    many = seconds_a_report(server, texts, options.concurrency)
    server.shutdown()
    server.server_close()
    print(
        f"one after another: {one:.3f} s a report (n={min(options.sequential, options.reports)}), "
        f"{one * options.reports:.0f} s for {options.reports}"
    )
    print(
        f"{options.concurrency} at a time: {many:.3f} s a report (n={options.reports}), "
        f"{many * options.reports:.1f} s in all"
    )
    print(f"ratio {one / many:.1f}, each answer after {options.seconds} s")


def seconds_a_report(server, texts: list[str], concurrency: int) -> float:
    start = time.perf_counter()
    _, audit = split.split_and_audit(
        texts, "openai", model="m", base_url=server.url, api_key="none", concurrency=concurrency
    )
    seconds = time.perf_counter() - start
    assert audit["ok"].all() and not audit["repaired"].any()
    return seconds / len(texts)


if __name__ == "__main__":
    main()
