"""How many tokens studies have for a base model, and batches of studies of similar length."""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset
from PIL import Image as Pillow
from torch.utils.data import Sampler
from transformers import ProcessorMixin
from trl.data_utils import prepare_multimodal_messages

from utils.data.studies import read_view
from utils.models.loading import load_processor, view_tokens

from .sizes import ANSWER

SAMPLE = 200  # studies whose tokens are counted


@dataclass(frozen=True)
class Lengths:
    """Tokens of the studies of a split: means over (a sample of) them, and the longest."""

    mean: float
    image: float
    longest: int
    answer: float
    longest_answer: int = ANSWER


def study_tokens(processor: ProcessorMixin, rows: Dataset, views: int) -> list[tuple[int, int, int]]:
    """For each study of `rows` its tokens: all, those of its first `views` views, and the answer's."""
    counts = []
    chats = rows.select_columns(["prompt", "completion"])
    for sizes, chat in zip(_sizes(rows.select_columns(["images"])), chats, strict=True):
        sizes = sizes[:views]
        messages = prepare_multimodal_messages(chat["prompt"] + chat["completion"], images=sizes)
        question = processor.apply_chat_template(messages[:1], add_generation_prompt=True)
        answer = processor.apply_chat_template(messages)[len(question) :]
        texts = processor.tokenizer([question, answer], add_special_tokens=False)["input_ids"]
        asked, answered, image = *map(len, texts), view_tokens(processor, sizes)
        # A view's place holder is a token.
        counts.append((asked + answered - len(sizes) + image, image, answered))
    return counts


def _sizes(images: Dataset) -> Iterator[list[tuple[int, int]]]:
    """Height and width of each study's views. Of a stored PNG only the head is read, of a file, too."""
    side = getattr(images.features["images"].feature, "longest_side", None)  # of views that are files
    for batch in images.with_format("arrow").iter(1000):
        for studies in batch["images"].chunks:
            views = studies.flatten()
            heads = pc.binary_slice(views.field("bytes"), 16, 24).to_pylist()
            sizes = (
                struct.unpack(">II", head)[::-1] if head else _file_size(path, side)
                for head, path in zip(heads, views.field("path").to_pylist(), strict=True)
            )
            yield from (list(islice(sizes, count)) for count in studies.value_lengths().to_pylist())


def _file_size(path: str, side: int) -> tuple[int, int]:
    """Height and width of a file when it is scaled down to `side`."""
    try:
        with Pillow.open(path) as opened:
            width, height = opened.size
    except OSError:  # what the head does not tell, as of DICOM, the picture does
        width, height = read_view(Path(path), side).size
    scale = min(1, side / max(width, height))
    return round(height * scale), round(width * scale)


@lru_cache(maxsize=32)
def study_lengths(base: str, image_tokens: str, views: int, studies: Dataset) -> Lengths:
    """The tokens of `studies` for the model `base`, from at most about `SAMPLE` of them, spread evenly."""
    rows = studies.select(range(0, len(studies), max(1, len(studies) // SAMPLE)))
    counts = study_tokens(load_processor(base, image_tokens), rows, views)
    totals, images, answers = zip(*counts, strict=True)
    total, image, answer = (sum(column) / len(counts) for column in (totals, images, answers))
    return Lengths(total, image, max(totals), answer, max(answers))


class LengthGroupedSampler(Sampler):
    """Studies of similar length in a batch, among `CHUNK` optimiser steps' worth of studies, so that a
    step sees all lengths; the order is each epoch's own. The library's draws from the random state of the
    moment: a run resumed in its second epoch would have another order."""

    CHUNK = 4

    def __init__(self, lengths: list[int], batch: int, accumulation: int, seed: int):
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0
        self.chunk = batch * accumulation * self.CHUNK

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch, with its own order."""
        self.epoch = epoch

    def __iter__(self):
        chance = random.Random(f"{self.seed} {self.epoch}")
        order = chance.sample(range(len(self)), len(self))
        for start in range(0, len(order), self.chunk):
            alike = sorted(order[start : start + self.chunk], key=self.lengths.__getitem__)
            batches = [alike[i : i + self.batch] for i in range(0, len(alike), self.batch)]
            last = [batches.pop()] if len(batches[-1]) < self.batch else []  # a short one stays at the end
            chance.shuffle(batches)
            for batch in (*batches, *last):
                yield from batch
