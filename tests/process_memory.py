"""The anonymous memory of processes: the pages of a mapped file belong to the page cache, not to them."""

import multiprocessing
import sys
from pathlib import Path

SPAWN = multiprocessing.get_context("spawn")


def anonymous_bytes(process: int) -> int:
    """The anonymous memory of a process now; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def peak_of(work, *arguments) -> int:
    """The most anonymous memory of `work` in a process of its own, with those that it starts."""
    child = SPAWN.Process(target=work, args=arguments)
    child.start()
    peak = 0
    while child.is_alive():
        peak = max(peak, sum(map(anonymous_bytes, _family(child.pid))))
        child.join(0.02)
    if child.exitcode:
        sys.exit(f"{work.__name__} failed")
    return peak


def _family(process: int) -> list[int]:
    """A process and those that it started."""
    try:
        started = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        started = []
    return [process, *(each for child in map(int, started) for each in _family(child))]
