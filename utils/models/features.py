"""What the frozen vision tower sees in studies: features for the findings probe and the nearest study.

The tower is never fine-tuned, so the features of a study are computed once for a base model, and kept.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Image, List
from transformers import PreTrainedModel, ProcessorMixin

from utils.run.disk import file_hash, replacing_file
from utils.run.progress import progress

from .bases import find
from .loading import load_model, patches_of

BATCH, BLOCK = 16, 128  # studies at once, and in one file of features
FOLDER = "features"  # below a run's folder


class Tower:
    """The vision tower of a base model and how many views of a study it sees; loaded when it first sees.

    load: gives a model that has the tower, where one is in memory anyway
    """

    def __init__(
        self,
        base: str,
        precision: str,
        views: int,
        processor: ProcessorMixin,
        load: Callable[[], PreTrainedModel] | None = None,
    ):
        self.base, self.precision, self.views, self.processor = base, precision, views, processor
        self._load = load or (lambda: load_model(base, precision=precision))

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model that has the tower, below an adapter and the head of the language model."""
        loaded = self._load()
        return (loaded.get_base_model() if hasattr(loaded, "get_base_model") else loaded).model

    def close(self) -> None:
        """Let go of the model."""
        vars(self).pop("model", None)

    @cached_property
    def fingerprint(self) -> str:
        """What features depend on beside the studies: the weights' name on the Hub, or a folder's files."""
        place = find(self.base).weights
        files = sorted(Path(place).glob("*.safetensors"))
        weights = [file_hash(path) for path in files] or [place]
        return hashlib.sha256("\n".join([*weights, self.precision, str(self.views)]).encode()).hexdigest()[
            :16
        ]

    def see(self, studies: Sequence[list]) -> np.ndarray:
        """The features of studies, each given as its list of views: (studies, 2, 2, hidden), float32.

        Of the first view, and of the mean over the views that are seen: the mean and the maximum over the
        patches, in the layer that the language model reads.
        """
        starts = range(0, len(studies), BATCH)
        return np.concatenate([self._see(studies[start : start + BATCH]) for start in starts])

    def _see(self, studies: Sequence[list]) -> np.ndarray:
        studies = [study[: self.views] for study in studies]
        return pooled(self.look([view for study in studies for view in study]), list(map(len, studies)))

    @torch.inference_mode()
    def look(self, views: list) -> torch.Tensor:
        """What the language model reads of `views`, each seen whole: (views, patches, hidden)."""
        tower = self.model.vision_tower
        pixels = self.processor.image_processor(views, return_tensors="pt")["pixel_values"]
        whole = pixels[:, 0] if pixels.ndim == 5 else pixels  # of a view's tiles the whole comes first
        weight = next(tower.parameters())
        seen = tower(whole.to(weight.device, weight.dtype), output_hidden_states=True, return_dict=True)
        return patches_of(seen, self.model.config)


def pooled(patches: torch.Tensor, counts: Sequence[int]) -> np.ndarray:
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
    see: Callable[[Dataset], np.ndarray] | None = None,
) -> np.ndarray:
    """`Tower.see` of `studies`, called `name`. In the folder `kept` each block is saved, and read again.

    see: gives the features of a block, where they are not had of its pictures
    """
    found = show(blocks(studies), f"{name}: image features")
    return np.concatenate([block_features(tower, block, kept, see) for block in found])


def blocks(studies: Dataset) -> list[Dataset]:
    """`studies` in the portions whose features are saved together."""
    return portions(studies, BLOCK)


def portions(studies: Dataset, size: int) -> list[Dataset]:
    """`studies` in order, `size` at a time."""
    starts = range(0, len(studies), size)
    return [studies.select(range(start, min(start + size, len(studies)))) for start in starts]


def block_features(
    tower: Tower, block: Dataset, kept: Path | None, see: Callable[[Dataset], np.ndarray] | None = None
) -> np.ndarray:
    """The features of one of `blocks`, read from the folder `kept` or saved there."""
    see = see or (lambda block: tower.see(block["images"]))
    if kept is None:
        return see(block)
    path = kept / f"{content(tower, block)}.npy"
    if not path.exists():
        with replacing_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, see(block), allow_pickle=False)
    return np.load(path, allow_pickle=False)


def content(tower: Tower, block: Dataset) -> str:
    """The name of a file of some studies: what the tower is, and what it sees."""
    digest = hashlib.sha256(tower.fingerprint.encode())
    as_stored = block.select_columns(["images"]).cast_column("images", List(Image(decode=False)))
    for study in as_stored["images"]:
        for view in study:
            digest.update(view["bytes"] or view["path"].encode())
        digest.update(b"|")
    return digest.hexdigest()[:16]
