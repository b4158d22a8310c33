"""Where the model looked: the part of the views without which a region's line becomes less likely.

Each part in turn is replaced by what the mean training view shows there, which is anatomy without a finding;
a grey patch would look like one. Then the log-probability of each region's line is compared with the whole's.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from PIL import Image

from utils.regions import REGIONS
from utils.run.progress import progress
from utils.run.workspace import StepError

from .study import StudyReport, lines_of, log_probabilities
from .writer import Writer

GRID = 8  # patches per side
WINDOW = 2  # patches per side of what is replaced at once; windows overlap
BATCH = 8  # changed studies that are read at once
SIDE = 256  # of a mean view, in pixels
POSITIONS = GRID - WINDOW + 1


def passes(views: int) -> int:
    """How often the model reads a study of so many views."""
    return views * POSITIONS**2


def mean_views(studies: Iterable[Sequence[Image.Image]], views: int) -> list[Image.Image]:
    """The mean first, second, ... of the views of `studies`, in grey, SIDE pixels per side."""
    sums, counts = np.zeros((views, SIDE, SIDE)), np.zeros(views)
    for study in studies:
        for number, view in enumerate(study[:views]):
            sums[number] += np.asarray(view.convert("L").resize((SIDE, SIDE)), dtype=float)
            counts[number] += 1
    return [Image.fromarray(np.uint8(np.rint(sums[i] / counts[i]))) for i in range(views) if counts[i]]


def where_it_looked(
    writer: Writer,
    views: Sequence[Image.Image],
    report: StudyReport,
    means: Sequence[Image.Image],
    show: Callable[..., Iterable] = progress,
) -> dict[str, np.ndarray]:
    """By region, (views, GRID, GRID): how much the log-probability of its line, heading and text, drops
    without a patch: the mean over the windows that cover it. Below zero, the line is more likely without.

    views, report: a study and what `read_study` made of it; means: see `mean_views`, the last one stands for
    further views. It takes about `passes` times the `seconds` of `report`. Raises StepError where memory does
    not hold it.
    """
    views, lines = list(views[: report.views]), lines_of(writer.processor, report.tokens)
    if not lines:
        return {}
    tokens = report.tokens[: max(line.stop for line in lines.values())]
    try:
        drops = _drops(writer, views, tokens, means, show)
    except torch.OutOfMemoryError:
        raise StepError("Memory does not hold the studies: restart the runtime and run this alone.") from None
    of_lines = {region: drops[..., line.start : line.stop].sum(-1) for region, line in lines.items()}
    return {region: _by_patch(of_lines[region]) for region in REGIONS if region in lines}


def _drops(writer: Writer, views: list, tokens: list[int], means: Sequence, show) -> np.ndarray:
    """(views, POSITIONS, POSITIONS, tokens): the drop of each token's log-probability, window by window."""
    model, processor = writer.model, writer.processor
    (whole,) = log_probabilities(model, processor, [views], tokens)
    drops = np.zeros((len(views), POSITIONS, POSITIONS, len(tokens)))
    windows = list(np.ndindex(drops.shape[:3]))
    others = [means[min(i, len(means) - 1)].resize(view.size) for i, view in enumerate(views)]
    for batch in show([windows[i : i + BATCH] for i in range(0, len(windows), BATCH)], "looking"):
        studies = [
            [*views[:i], replaced(views[i], others[i], row, column), *views[i + 1 :]]
            for i, row, column in batch
        ]
        for window, sure in zip(batch, log_probabilities(model, processor, studies, tokens), strict=True):
            drops[window] = whole - sure
    return drops


def box(size: tuple[int, int], row: int, column: int, patches: int = 1) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, in pixels, of `patches` x `patches` patches of a view of `size`."""
    width, height = size
    left, right = (round(width * part / GRID) for part in (column, column + patches))
    top, bottom = (round(height * part / GRID) for part in (row, row + patches))
    return left, top, right, bottom


def replaced(view: Image.Image, other: Image.Image, row: int, column: int) -> Image.Image:
    """`view`, in grey, with the window whose first patch is this one from `other`, of the same size."""
    window, changed = box(view.size, row, column, WINDOW), view.convert("L")
    changed.paste(other.crop(window), window)
    return changed


def _by_patch(drops: np.ndarray) -> np.ndarray:
    """(views, GRID, GRID) of windows' drops: for each patch the mean over the windows that cover it."""
    total, count = np.zeros((2, len(drops), GRID, GRID))
    for row, column in np.ndindex(drops.shape[1:]):
        part = slice(None), slice(row, row + WINDOW), slice(column, column + WINDOW)
        total[part] += drops[:, row, column, None, None]
        count[part] += 1
    return total / count
