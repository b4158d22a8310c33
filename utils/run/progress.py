"""Progress bars, and how long things take in words."""

import sys
from collections.abc import Callable, Iterable

from tqdm import tqdm


def duration(seconds: float) -> str:
    """How long something took: `95 s`, `12 min`, `2 h 05 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else in_minutes(round(seconds / 60))


def in_minutes(minutes: int) -> str:
    """Whole minutes as `12 min` or `2 h 05 min`."""
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def progress(items: Iterable | None, label: str, total: int | None = None) -> tqdm:
    """`items` with a plain progress bar that also reads well in a saved notebook."""
    return tqdm(items, desc=label, total=total, file=sys.stdout, mininterval=0.5, ncols=90)


def counter(label: str, note: object = None) -> Callable[[int, int], None]:
    """A progress bar as a function of (done, total); `note`, such as what was spent, is renewed beside it."""
    bars: list[tqdm] = []

    def show(done: int, total: int) -> None:
        if not bars:
            bars.append(progress(None, label, total))
        if note:
            bars[0].set_postfix_str(str(note), refresh=False)
        bars[0].update(done - bars[0].n)
        if done >= total:
            bars[0].close()

    return show
