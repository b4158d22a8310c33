"""The plan of a fine-tuning run, before it starts: tokens, trainable weights, memory, hours, sessions.

Every figure is computed from the settings, the base model's shape and the
dataset; nothing was measured on a T4. After its first steps a run replaces
the hours by the rate it goes at. `python -m utils.training.plan` prints the README's
table.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset
from PIL import Image as Pillow
from transformers import ProcessorMixin
from trl.data_utils import prepare_multimodal_messages

from utils.data.studies import read_view
from utils.models.bases import Base, Shape, find, fits_or_stop
from utils.models.loading import load_processor, view_tokens
from utils.settings import TrainingSettings, preset, with_values

T4_MEMORY = 14.56  # GiB that a T4 has for a program in Colab
HEADROOM = 1.0  # GiB for the CUDA context and the gaps that the allocator leaves
T4_BANDWIDTH = 250e9  # bytes a second: about 80 % of the card's 320e9
RATES = {"fp16": (6e12, 10e12, 16e12), "fp32": (2e12, 4e12, 6e12)}  # slow, likely, fast; see `seconds_a_step`
NF4_BYTES = (
    0.5 + 1 / 64 + 4 / (64 * 256)
)  # a weight: 4 bits, an 8-bit scale a 64, a 32-bit scale a 256 of those
WIDTHS = {"fp16": 2, "fp32": 4}
MOMENTS = {"paged_adamw_8bit": 2, "adamw_torch": 8}  # bytes a trained weight
LOGIT_BYTES = 13
PATCH_BYTES = 2 * 3 * 14 * 14 * 4  # pixels of a patch, in two batches
CROPS = {"tiles": 5, "base": 2, "pooled": 2}  # pictures that LLaVA-NeXT's processor makes of a view, at most
SAMPLE = 200  # studies whose tokens are counted
GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What a run will cost. `hours` and `sessions` are (fast, likely, slow); memory is in GiB."""

    tokens: float
    image_tokens: float
    trainable: int
    memory: float
    steps: int
    hours: tuple[float, float, float]
    sessions: tuple[int, int, int]


@dataclass(frozen=True)
class Lengths:
    """Tokens of the studies of a split: means over (a sample of) them, and the longest."""

    mean: float
    image: float
    longest: int
    answer: float


def make_plan(settings: TrainingSettings, studies: Dataset) -> Plan:
    """The plan for fine-tuning on `studies`, the training split, on one T4.

    Raises StepError where the base model cannot be trained with these settings.
    """
    base = fits_or_stop(settings)
    lengths = study_lengths(settings.base, settings.image_tokens, settings.views, studies)
    count = steps(settings, len(studies))
    hours = tuple(
        run_seconds(settings, base, lengths, count, rate) / 3600
        for rate in reversed(RATES[settings.precision])
    )
    return Plan(
        tokens=lengths.mean,
        image_tokens=lengths.image,
        trainable=trainable(settings, base.shape),
        memory=memory(settings, base, lengths.longest) / GIB,
        steps=count,
        hours=hours,
        sessions=tuple(math.ceil(value / settings.hours) if settings.hours else 1 for value in hours),
    )


def steps(settings: TrainingSettings, studies: int) -> int:
    """The optimiser steps that `settings` take on so many training studies."""
    if settings.max_steps > 0:
        return settings.max_steps
    batches = math.ceil(studies / settings.batch_size)
    return math.ceil(settings.epochs * math.ceil(batches / settings.accumulation))


def trainable(settings: TrainingSettings, shape: Shape) -> int:
    """Weights of the adapter: rank x (inputs + outputs), summed over the linear maps that it reaches."""
    sides = shape.layers * sum(map(sum, shape.linears))
    if settings.projector:
        sides += sum(map(sum, shape.projector))
    return settings.lora_rank * sides


def memory(settings: TrainingSettings, base: Base, tokens: int) -> float:
    """Peak bytes that tensors hold on the GPU in a step whose studies have `tokens` tokens each.

    The sum of

    - the language model's linear maps at 0.516 bytes a weight (NF4, double quantisation); embedding,
      head, projector and vision tower in `precision`;
    - the adapter: 4 bytes a weight, 4 its gradient, 2 (8-bit AdamW) or 8 its moments;
    - what gradient checkpointing keeps: a hidden state a token and layer;
    - the views' pixels in 32 bits, of this batch and the next;
    - the larger of: one layer computed again with what its backward pass needs, and the logits.

    A layer keeps for its backward pass, a token: the input of every adapter after dropout and the
    dropout's mask; of each of two norms the input in 32 bits and the result; query, key, value and
    output of attention, before and after rotation; three states of the gated map, and as many
    gradients of it. The logits take 13 bytes each: in 32 bits, a copy shifted by a token, their
    softmax, and what the trainer's own statistics add.

    Counted tensor by tensor on small models this is within 10 % (`benchmarks/t4_step.py`). The CUDA
    context and the allocator's gaps come on top, some 0.5 GiB.
    """
    shape, width = base.shape, WIDTHS[settings.precision]
    linears = shape.layers * sum(i * o for i, o in shape.linears)
    rest = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    rest += sum(i * o for i, o in shape.projector) + vision_weights(shape)
    weights = linears * NF4_BYTES + rest * width
    adapter = trainable(settings, shape) * (8 + MOMENTS[settings.optimizer])
    count = settings.batch_size * tokens
    kept = shape.layers * count * shape.hidden * width
    views = settings.batch_size * settings.views * _crops(settings, base) * shape.patches * PATCH_BYTES
    worst = max(_layer(settings, shape, count), count * shape.vocabulary * LOGIT_BYTES)
    return weights + adapter + kept + views + worst


def _layer(settings: TrainingSettings, shape: Shape, tokens: int) -> float:
    """Bytes for one layer's recomputation and backward pass, on `tokens` tokens; see `memory`."""
    width = WIDTHS[settings.precision]
    query, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    inputs = sum(i for i, _ in shape.linears)
    adapters = inputs * (width + 1) if settings.lora_dropout else inputs * width
    norms = 2 * shape.hidden * (4 + width)
    attention = (2 * (query + keys) + query + 2 * query) * width
    gated = (3 + 3) * shape.intermediate * width
    widest = max(i * o for i, o in shape.linears) * width  # a weight matrix out of its 4 bits
    return tokens * (adapters + norms + attention + gated) + widest


def vision_weights(shape: Shape) -> int:
    """Weights of the vision tower's layers: four square maps and a two-layer map each."""
    wide = 4 * shape.vision_hidden**2 + 2 * shape.vision_hidden * shape.vision_intermediate
    return shape.vision_layers * wide


def seconds_a_step(settings: TrainingSettings, base: Base, tokens: float, rate: float) -> float:
    """Seconds of one optimiser step on a T4 that computes `rate` floating-point operations a second.

    A token costs 6 operations a weight of the language model (2 forward, 2 forward again for
    checkpointing, 2 backward to the inputs; the weights are frozen) and 16 x tokens x attention width
    a layer. The vision tower costs 2 a weight and patch, once. For each batch the 4-bit weights are
    written out in `precision` three times, at the card's bandwidth.

    Where the rates come from: Unsloth's vision notebooks state 315 s for 30 steps of 8 samples with
    Qwen2-VL-7B on a T4, and 958 s with Llama-3.2-11B. They do not state tokens. With 150 tokens a
    sample (a short line of LaTeX as a picture and as text) the first is 6e12 a second after the
    weights' unpacking; with four padded tiles of 1,601 positions for its vision tower the second is
    14e12. The card's peak is 65e12, and 16e12 is a quarter of it. So 10e12 is likely between 6e12 and
    16e12, and hours are given as that range. In 32 bits the peak is 8.1e12, and no run is published.
    """
    shape = base.shape
    weights = shape.layers * sum(i * o for i, o in shape.linears)
    language = 6 * (weights + shape.vocabulary * shape.hidden)
    attention = 16 * tokens * shape.heads * shape.head_dim * shape.layers
    study = tokens * (language + attention) + _vision(settings, base)
    unpacking = 3 * weights * (NF4_BYTES + 2 * WIDTHS[settings.precision]) / T4_BANDWIDTH
    return settings.accumulation * (settings.batch_size * study / rate + unpacking)


def run_seconds(settings: TrainingSettings, base: Base, lengths: Lengths, count: int, rate: float) -> float:
    """Seconds of a run of `count` steps: the steps, the evaluation losses, and the sample reports.

    An evaluation costs a third of a training pass on its studies; a sample report reads the 4-bit
    weights once a token. The download of the base model is not counted.
    """
    weights = base.shape.layers * sum(i * o for i, o in base.shape.linears)
    step = seconds_a_step(settings, base, lengths.mean, rate)
    batch = settings.batch_size * settings.accumulation
    evaluation = step / 3 * settings.evaluate_on / batch
    if settings.samples:
        evaluation += lengths.answer * weights * (NF4_BYTES + 2 * WIDTHS[settings.precision]) / T4_BANDWIDTH
    return count * step + math.ceil(count / settings.evaluate_every) * evaluation


def _vision(settings: TrainingSettings, base: Base) -> float:
    """Operations of the vision tower for a study; below `tiles` it looks at the whole view only."""
    shape, crops = base.shape, _crops(settings, base) if settings.image_tokens == "tiles" else 1
    attention = 4 * shape.patches * shape.vision_hidden * shape.vision_layers
    return settings.views * crops * shape.patches * (2 * vision_weights(shape) + attention)


def _crops(settings: TrainingSettings, base: Base) -> int:
    return CROPS[settings.image_tokens] if base.family == "llava_next" else 1


def study_tokens(processor: ProcessorMixin, rows: Dataset, views: int) -> list[tuple[int, int, int]]:
    """For each study of `rows` its tokens: all, those of its first `views` views, and the answer's."""
    counts = []
    chats = rows.select_columns(["prompt", "completion"])
    for sizes, chat in zip(_sizes(rows.select_columns(["images"])), chats, strict=True):
        sizes = sizes[:views]
        messages = prepare_multimodal_messages(chat["prompt"] + chat["completion"], images=sizes)
        question = processor.apply_chat_template(messages[:1], add_generation_prompt=True)
        answer = processor.apply_chat_template(messages)[len(question) :]
        said = [len(processor.tokenizer.encode(t, add_special_tokens=False)) for t in (question, answer)]
        image = sum(view_tokens(processor, size) for size in sizes)
        counts.append((sum(said) - len(sizes) + image, image, said[1]))  # a view's place holder is a token
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
    total, image, answer = (sum(column) / len(counts) for column in zip(*counts, strict=True))
    return Lengths(total, image, max(count for count, _, _ in counts), answer)


def table() -> str:
    """The README's table: IU X-Ray with the preset `t4` at each budget, and the largest batch that fits.

    A view at `tiles` is the mean of what the processor gives at IU X-Ray's sizes, 2,536 to 2,928. A
    prompt and its answer are taken as 140 tokens, and the longest as 290: the training studies have
    73 words and marks on average, and 148 at most.
    """
    lines = [
        "| `image_tokens` | tokens a study | batch x accumulation | memory | hours | sessions of 3.5 h |",
        "|---|---|---|---|---|---|",
    ]
    for budget, view in {"pooled": 144, "base": 576, "tiles": 2732}.items():
        for batch in (4, 2, 1):
            settings = with_values(
                preset("t4").training,
                {"image_tokens": budget, "batch_size": batch, "accumulation": 16 // batch},
            )
            base, image = find(settings.base), settings.views * view
            size = memory(settings, base, image + 290) / GIB
            if size + HEADROOM <= T4_MEMORY:
                break
        count, lengths = steps(settings, 2069), Lengths(image + 140, image, image + 290, 80)
        slow, likely, fast = (
            run_seconds(settings, base, lengths, count, rate) / 3600 for rate in RATES[settings.precision]
        )
        sessions = [math.ceil(hours / settings.hours) for hours in (fast, likely, slow)]
        lines.append(
            f"| `{budget}` | {image + 140:,} | {batch} x {16 // batch} | {size:.1f} GiB | "
            f"{likely:.1f} ({fast:.1f} to {slow:.1f}) | {sessions[1]} ({sessions[0]} to {sessions[2]}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
