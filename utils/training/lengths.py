"""How many tokens studies have for a base model."""

import io
from dataclasses import dataclass
from functools import lru_cache

from datasets import Dataset, Image, List
from PIL import Image as Pillow
from transformers import ProcessorMixin
from trl.data_utils import prepare_multimodal_messages

from utils.models.loading import load_processor, view_tokens

SAMPLE = 200  # studies whose tokens are counted


@dataclass(frozen=True)
class Lengths:
    """Tokens of the studies of a split: means over (a sample of) them, and the longest."""

    mean: float
    image: float
    longest: int
    answer: float


def study_tokens(processor: ProcessorMixin, rows: Dataset, views: int) -> list[tuple[int, int, int]]:
    """For each study of `rows` its tokens: all, those of its first `views` views, and the answer's."""
    columns = rows.select_columns(["images", "prompt", "completion"])
    counts = []
    for row in columns.cast_column("images", List(Image(decode=False))):
        sizes = [_size(view) for view in row["images"][:views]]
        messages = prepare_multimodal_messages(row["prompt"] + row["completion"], images=sizes)
        question = processor.apply_chat_template(messages[:1], add_generation_prompt=True)
        answer = processor.apply_chat_template(messages)[len(question) :]
        said = [len(processor.tokenizer.encode(t, add_special_tokens=False)) for t in (question, answer)]
        image = sum(view_tokens(processor, size) for size in sizes)
        counts.append((sum(said) - len(sizes) + image, image, said[1]))  # a view's place holder is a token
    return counts


def _size(image: dict) -> tuple[int, int]:
    """Height and width of a stored image."""
    with Pillow.open(io.BytesIO(image["bytes"])) as opened:
        return opened.size[::-1]


@lru_cache(maxsize=32)
def study_lengths(base: str, image_tokens: str, views: int, studies: Dataset) -> Lengths:
    """The tokens of `studies` for the model `base`, from at most about `SAMPLE` of them, spread evenly."""
    rows = studies.select(range(0, len(studies), max(1, len(studies) // SAMPLE)))
    counts = study_tokens(load_processor(base, image_tokens), rows, views)
    total, image, answer = (sum(column) / len(counts) for column in zip(*counts, strict=True))
    return Lengths(total, image, max(count for count, _, _ in counts), answer)
