"""What the vision tower sees in each view, kept on the session's disk: training reads it and runs no tower.

The tower is frozen, so a view's patches are the same in every epoch. The findings probe looks at every
study before training; what it saw in that pass is what training reads.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from utils.run.disk import replacing_file
from utils.run.progress import progress
from utils.settings import TrainingSettings

from .bases import find
from .features import BATCH, Tower, content, pooled, portions

PATCHES = "patches"  # below a run's scratch folder
NUMBERS = "numbers"  # the column that names a study's views
SPARE = 5e9  # bytes of the disk that stay free, for checkpoints and whatever else a session writes
BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}


class Kept:
    """The patches of the views of some splits, in files of `BATCH` studies in a folder.

    `numbers` are, for each split, those of each study's views, by which they are read. A file is named by
    the tower and the pictures, so other ones are seen anew, and so is a file that is damaged.
    """

    def __init__(
        self,
        tower: Tower,
        splits: dict[str, Dataset],
        folder: Path,
        show: Callable[..., Iterable] = progress,
    ):
        self.numbers: dict[str, list[list[int]]] = {}
        self._where: list[tuple[Path, int]] = []
        for name, studies in splits.items():
            self.numbers[name] = []
            for batch in show(portions(studies, BATCH), f"{name}: patches of the views"):
                path, row = patches_file(tower, batch, folder), 0
                for views in (min(count, tower.views) for count in batch["views"]):
                    first = len(self._where)
                    self.numbers[name].append(list(range(first, first + views)))
                    self._where += [(path, row + view) for view in range(views)]
                    row += views

    def numbered(self, dataset: dict[str, Dataset]) -> dict[str, Dataset]:
        """`dataset` with the numbers of each study's views in a column of their own."""
        added = {name: dataset[name].add_column(NUMBERS, numbers) for name, numbers in self.numbers.items()}
        return {**dataset, **added}

    def __getitem__(self, numbers: Sequence[int]) -> torch.Tensor:
        """(views, patches, hidden) of the views with these numbers."""
        views = []
        for path, row in map(self._where.__getitem__, numbers):
            with safe_open(path, "pt") as file:
                views.append(file.get_slice(PATCHES)[row : row + 1])
        return torch.cat(views)


def patches_file(tower: Tower, batch: Dataset, folder: Path) -> Path:
    """The file in `folder` with the patches of the studies of `batch`, looked at where it is not whole."""
    path = folder / f"{content(tower, batch)}.safetensors"
    if not _is_whole(path):
        views = [view for study in batch["images"] for view in study[: tower.views]]
        folder.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as temporary:
            save_file({PATCHES: tower.look(views).cpu().contiguous()}, temporary)
    return path


def see(tower: Tower, block: Dataset, folder: Path) -> np.ndarray:
    """`Tower.see` of the studies of `block`, by the patches in `folder`, which are kept there."""
    features = []
    for batch in portions(block, BATCH):
        with safe_open(patches_file(tower, batch, folder), "pt") as file:
            counts = [min(count, tower.views) for count in batch["views"]]
            features.append(pooled(file.get_tensor(PATCHES), counts))
    return np.concatenate(features)


def can_be_kept(settings: TrainingSettings) -> bool:
    """Whether training can read patches: by LLaVA-NeXT, of whole views."""
    return find(settings.base).family == "llava_next" and settings.image_tokens != "tiles"


def view_bytes(settings: TrainingSettings) -> int:
    """Bytes that a view's patches take on the disk."""
    shape = find(settings.base).shape
    return shape.patches * shape.vision_hidden * BYTES[settings.precision]


def room(settings: TrainingSettings, splits: dict[str, Dataset], scratch: Path) -> Path | None:
    """The folder for the patches of `splits` in `scratch`, None where they cannot be kept.

    Where its disk has no room for them, that is said.
    """
    if not can_be_kept(settings):
        return None
    folder = scratch / PATCHES
    folder.mkdir(parents=True, exist_ok=True)
    views = sum(min(count, settings.views) for studies in splits.values() for count in studies["views"])
    there = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    missing, free = views * view_bytes(settings) - there, shutil.disk_usage(folder).free
    if missing > 0 and missing + SPARE > free:
        print(
            f"The disk of {scratch} has {free / 1e9:.1f} GB free. Keeping what the vision tower sees takes "
            f"{missing / 1e9:.1f} GB, with {SPARE / 1e9:.0f} to spare: the tower looks again in each epoch."
        )
        return None
    return folder


def _is_whole(path: Path) -> bool:
    """Whether the file is there, with all its bytes."""
    try:
        with safe_open(path, "pt"):  # refuses a file that is shorter than it says
            return True
    except (FileNotFoundError, SafetensorError):
        return False
