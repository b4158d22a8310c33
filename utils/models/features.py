"""What the frozen vision tower sees in studies: for the findings probe, the nearest study, and training.

It is computed once for a base model, and kept: features in the run's folder, and while a run trains the
patches that they come from, on the session's disk. What the probe saw is what training reads.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Image, List
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, ProcessorMixin

from utils.run.disk import file_hash, replacing_file
from utils.run.progress import progress
from utils.settings import TrainingSettings

from .bases import find, reads_whole
from .loading import DTYPES, load_model, patches_of

BATCH, BLOCK = 16, 128  # studies at once and in one file of patches, and in one file of features
FOLDER = "features"  # below a run's folder
PATCHES = "patches"  # below a run's scratch folder
NUMBERS = "numbers"  # the column that names a study's views
SPARE = 5e9  # bytes of the disk that stay free, for checkpoints and whatever else a session writes


@dataclass
class Tower:
    """The vision tower of a base model and how many views of a study it sees; loaded when it first sees."""

    base: str
    precision: str
    views: int
    processor: ProcessorMixin
    load: Callable[[], PreTrainedModel] | None = None  # gives a model that has the tower, if one is in memory

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model that has the tower, below an adapter and the head of the language model."""
        loaded = self.load() if self.load else load_model(self.base, precision=self.precision)
        return (loaded.get_base_model() if hasattr(loaded, "get_base_model") else loaded).model

    def close(self) -> None:
        """Let go of the model."""
        vars(self).pop("model", None)

    @cached_property
    def fingerprint(self) -> str:
        """What features depend on beside the studies: the weights' name on the Hub, or a folder's files."""
        base = find(self.base)
        weights = [file_hash(path) for path in sorted(Path(base.weights).glob("*.safetensors"))]
        parts = [*(weights or [base.weights]), self.precision, str(self.views)]
        if base.family == "gemma3":
            parts.append("last layer")  # features of before are of another
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def see(self, studies: Sequence[list]) -> np.ndarray:
        """The features of studies, each given as its list of views: (studies, 2, 2, hidden), float32: of
        the first view, and of the mean over all, the mean and the maximum over the patches, in the layer
        that the language model reads."""
        features = []
        for start in range(0, len(studies), BATCH):
            batch = [study[: self.views] for study in studies[start : start + BATCH]]
            patches = self.look([view for study in batch for view in study])
            features.append(_pooled(patches, list(map(len, batch))))
        return np.concatenate(features)

    @torch.inference_mode()
    def look(self, views: list) -> torch.Tensor:
        """What the language model reads of `views`, each seen whole: (views, patches, hidden)."""
        tower = self.model.vision_tower
        pixels = self.processor.image_processor(views, return_tensors="pt")["pixel_values"]
        whole = pixels[:, 0] if pixels.ndim == 5 else pixels  # of a view's tiles the whole comes first
        weight = next(tower.parameters())
        seen = tower(whole.to(weight.device, weight.dtype), output_hidden_states=True, return_dict=True)
        return patches_of(seen, self.model.config)

    def counts(self, studies: Dataset) -> list[int]:
        """How many views of each study it sees."""
        return [min(count, self.views) for count in studies["views"]]


def _pooled(patches: torch.Tensor, counts: Sequence[int]) -> np.ndarray:
    """`Tower.see` of studies that have so many views each, by the patches of their views."""
    means = torch.stack([patches.mean(1), patches.amax(1)], 1).float().cpu().numpy()
    parts = np.split(means, np.cumsum(counts)[:-1])
    return np.stack([np.stack([part[0], part.mean(0)]) for part in parts])


def study_features(
    tower: Tower,
    studies: Dataset,
    name: str,
    kept: Path | None = None,
    show: Callable[..., Iterable] = progress,
    patches: Path | None = None,
) -> np.ndarray:
    """`Tower.see` of `studies`, called `name`. In the folder `kept` each block is saved, and read again.

    patches: a folder for the patches that are looked at, see `Kept`
    """
    shown = show(blocks(studies), f"{name}: image features")
    return np.concatenate([block_features(tower, block, kept, patches) for block in shown])


def block_features(
    tower: Tower, block: Dataset, kept: Path | None, patches: Path | None = None
) -> np.ndarray:
    """The features of one of `blocks`, read from the folder `kept` or saved there."""
    path = kept and kept / f"{_content(tower.fingerprint, block)}.npy"
    if path and path.exists():
        return np.load(path, allow_pickle=False)
    if patches:
        files = patch_files(tower, block, patches)
        seen = [_pooled(load_file(file)[PATCHES], tower.counts(batch)) for file, batch in files]
        features = np.concatenate(seen)
    else:
        features = tower.see(block["images"])
    if path:
        with replacing_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, features, allow_pickle=False)
    return features


def blocks(studies: Dataset) -> list[Dataset]:
    """`studies` in the portions whose features are saved together: the same ones for the same `studies`."""
    return _blocks(studies, BLOCK)


def _portions(studies: Dataset, size: int) -> list[Dataset]:
    starts = range(0, len(studies), size)
    return [studies.select(range(start, min(start + size, len(studies)))) for start in starts]


_blocks = lru_cache(maxsize=16)(_portions)


@cache  # features and patches are named by the pictures, which are read once for both
def _content(tower: str, block: Dataset) -> str:
    """The name of a file of some studies: what the tower is, by its fingerprint, and what it sees."""
    digest = hashlib.sha256(tower.encode())
    as_stored = block.select_columns(["images"]).cast_column("images", List(Image(decode=False)))
    for study in as_stored["images"]:
        for view in study:
            digest.update(view["bytes"] or view["path"].encode())
        digest.update(b"|")
    return digest.hexdigest()[:16]


class Kept:
    """The patches of the views of some splits, see `patch_files`, read by the `numbers` of each study's
    views."""

    def __init__(self, tower: Tower, splits: dict[str, Dataset], folder: Path):
        self.numbers: dict[str, list[list[int]]] = {name: [] for name in splits}
        self._where: list[tuple[Path, int]] = []  # by number, a view's file and its row there
        for name, studies in splits.items():
            for block in progress(blocks(studies), f"{name}: patches of the views"):
                for path, batch in patch_files(tower, block, folder):
                    first, counts = len(self._where), tower.counts(batch)
                    views = np.arange(first, first + sum(counts))
                    self.numbers[name] += [part.tolist() for part in np.split(views, np.cumsum(counts)[:-1])]
                    self._where += [(path, row) for row in range(sum(counts))]

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


def patch_files(tower: Tower, block: Dataset, folder: Path) -> Iterator[tuple[Path, Dataset]]:
    """The files in `folder` with the patches of one of `blocks`, and the studies of each; made where one is
    not there or not whole, or is of another tower or other pictures."""
    for number, batch in enumerate(_portions(block, BATCH)):
        path = folder / f"{_content(tower.fingerprint, block)}-{number}.safetensors"
        if not _is_whole(path):
            views = [view for study in batch["images"] for view in study[: tower.views]]
            with replacing_file(path) as temporary:
                save_file({PATCHES: tower.look(views).cpu().contiguous()}, temporary)
        yield path, batch


def _is_whole(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):  # refuses a file that is shorter than it says
            return True
    except (FileNotFoundError, SafetensorError):
        return False


def view_bytes(settings: TrainingSettings) -> int:
    """Bytes that a view's patches take on the disk."""
    shape = find(settings.base).shape
    return shape.patches * shape.vision_hidden * DTYPES[settings.precision].itemsize


def room(settings: TrainingSettings, splits: dict[str, Dataset], scratch: Path) -> Path | None:
    """The folder for the patches of `splits` in `scratch`; None where they cannot be kept, or, which is said,
    its disk has no room for them."""
    if not reads_whole(settings.base, settings.image_tokens):
        return None
    folder = scratch / PATCHES
    folder.mkdir(parents=True, exist_ok=True)
    views = sum(min(count, settings.views) for studies in splits.values() for count in studies["views"])
    present = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    missing, free = views * view_bytes(settings) - present, shutil.disk_usage(folder).free
    if missing > 0 and missing + SPARE > free:
        print(
            f"The disk of {scratch} has {free / 1e9:.1f} GB free. Keeping what the vision tower sees takes "
            f"{missing / 1e9:.1f} GB, with {SPARE / 1e9:.0f} to spare: the tower looks again in each epoch."
        )
        return None
    return folder
