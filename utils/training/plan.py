"""The plan of a fine-tuning run, before it starts: tokens, trainable weights, memory, hours, sessions.

Every figure is computed, none was measured on a GPU. After its first steps a run replaces the hours by its
own rate. `python -m utils.training.plan --card L4 --gpus 2` prints the table of docs/training.md for other
cards.
"""

import math
from dataclasses import dataclass

from datasets import Dataset

from utils.models.bases import Base, Shape, computes_or_stop, find, fits_or_stop, reads_whole
from utils.run.machine import T4, Card, asked_cards, cards_in_words
from utils.settings import TrainingSettings

from .lengths import Lengths, study_lengths
from .sizes import GIB, crops, fits, layers_recomputed, memory, smaller_batch, to_save_memory, trainable
from .speeds import Hours, between, both, loading_hours, looking_hours, rates, unpacking, vision_operations

# Bytes per second between two cards, a third of what PCIe 3.0 x16 has: without NVLink or direct access.
LINK = 5e9
# Tokens of a study's two views, see `iu_xray`.
IU_XRAY_VIEWS = {"pooled": 2 * 144, "frontal": 576 + 144, "base": 2 * 576, "tiles": 2 * 2732}


@dataclass(frozen=True)
class Plan:
    """What a run will cost on `gpus` cards like `card`; memory is in GiB, of each card.

    `hours`, of them those of the `look` at the radiographs, and `sessions` are (fast, likely, slow), None
    where the card's speed is not known. `advice` says what to change, if anything.
    """

    tokens: float
    image_tokens: float
    trainable: int
    memory: float
    recomputed: int
    layers: int
    steps: int
    look: Hours | None
    hours: Hours | None
    sessions: tuple[int, int, int] | None
    card: Card = T4
    gpus: int = 1
    advice: str = ""


def make_plan(
    settings: TrainingSettings, studies: Dataset, card: Card = T4, gpus: int = 1, validation: int = 0
) -> Plan:
    """The plan for fine-tuning on `studies`, the training split, on as many of `gpus` as can share the
    work; `validation`: studies that the findings probe sees, too. Raises StepError where the base model
    cannot be trained with these settings on this card."""
    base = fits_or_stop(settings)
    computes_or_stop(settings.precision, card)
    present, gpus = gpus, processes(settings, gpus)
    lengths = study_lengths(settings.base, settings.image_tokens, settings.views, studies)
    count, look, hours, sessions = steps(settings, len(studies)), None, None, None
    if card.peak_16:
        look = look_hours(settings, base, len(studies) + validation, card)
        hours = both(look, run_hours(settings, base, lengths, count, card, gpus))
        sessions = tuple(math.ceil(value / settings.hours) if settings.hours else 1 for value in hours)
    again = _recomputed(settings, base, lengths, card, gpus)
    return Plan(
        tokens=lengths.mean,
        image_tokens=lengths.image,
        trainable=trainable(settings, base.shape),
        memory=memory(settings, base, lengths.longest, gpus, again, lengths.longest_answer) / GIB,
        recomputed=again,
        layers=base.shape.layers,
        steps=count,
        look=look,
        hours=hours,
        sessions=sessions,
        card=card,
        gpus=gpus,
        advice=_advice(settings, base, lengths, card, gpus, present),
    )


def _recomputed(settings: TrainingSettings, base: Base, lengths: Lengths, card: Card, gpus: int) -> int:
    return layers_recomputed(settings, base, lengths.longest, card, gpus, lengths.longest_answer)


def _advice(
    settings: TrainingSettings, base: Base, lengths: Lengths, card: Card, gpus: int, present: int
) -> str:
    """What to change where it does not fit, GPUs stand idle, or bf16 would serve better; "" for nothing."""
    how = base, lengths.longest, card, gpus, lengths.longest_answer
    if not fits(settings, *how):
        smaller = smaller_batch(settings, *how)
        return to_save_memory(None if smaller is settings else smaller)
    if gpus < present:
        return f"set accumulation to a multiple of {present} to use all {present} GPUs"
    if card.bf16 and settings.precision == "fp16":
        return "bf16 takes as long on this card and needs no gradient scaler"
    return ""


def processes(settings: TrainingSettings, gpus: int) -> int:
    """How many of `gpus` can share the batches of an optimiser step evenly."""
    return max(number for number in range(1, gpus + 1) if settings.accumulation % number == 0)


def steps(settings: TrainingSettings, studies: int) -> int:
    """The optimiser steps that `settings` take on so many training studies."""
    if settings.max_steps > 0:
        return settings.max_steps
    batches = math.ceil(studies / settings.batch_size)
    return math.ceil(settings.epochs * math.ceil(batches / settings.accumulation))


def seconds_a_step(
    settings: TrainingSettings, base: Base, lengths: Lengths, rate: float, card: Card = T4, gpus: int = 1
) -> float:
    """Seconds of one optimiser step on cards that compute `rate` floating-point operations per second each.

    A token costs 4 operations per weight of the language model (2 forward, 2 backward to the inputs; the
    weights are frozen) and 12 x tokens x attention width a layer; in a layer that is recomputed, 2 more and 4
    x tokens x attention width more. The vision tower costs 2 a weight and patch, once, where what it sees is
    not kept. For each batch the 4-bit weights are written out in `precision` twice, at the card's bandwidth,
    and three times in a recomputed layer. Several GPUs share the batches, then exchange the adapter's
    gradients in a ring, over `LINK`; what a card waits for another is not counted.

    Where the rates come from: Unsloth's vision notebooks state 315 s for 30 steps of 8 samples with
    Qwen2-VL-7B on a T4, and 958 s with Llama-3.2-11B, but no tokens. With 150 tokens a sample (a short line
    of LaTeX as a picture and as text) the first is 6e12 a second after the weights' unpacking; with four
    padded tiles of 1,601 positions for its vision tower the second is 14e12. A quarter of the card's peak,
    65e12, is 16e12. So 10e12 is likely between 6e12 and 16e12. In 32 bits the peak is 8.1e12, and no run is
    published. Other cards are taken to reach the same shares of their peaks.
    """
    shape = base.shape
    again = _recomputed(settings, base, lengths, card, gpus) / shape.layers
    layers, head, attention = _operations(shape, lengths.mean)
    backward = settings.batch_size * ((1 + again) * layers + head + (2 + again) * attention) / rate
    backward += (1 + again) * unpacking(shape.weights, settings.precision, card)
    exchange = 4 * trainable(settings, shape) * 2 * (gpus - 1) / gpus / LINK
    forward = _forward_seconds(settings, base, lengths, rate, card)
    return settings.accumulation / gpus * (forward + backward) + exchange


def _forward_seconds(
    settings: TrainingSettings, base: Base, lengths: Lengths, rate: float, card: Card
) -> float:
    """Seconds of one batch's pass forward, as `seconds_a_step` counts them."""
    study = sum(_operations(base.shape, lengths.mean))
    if not reads_whole(settings.base, settings.image_tokens):  # else what the tower saw is read
        pictures = crops(settings, base) if settings.image_tokens == "tiles" else 1
        study += settings.views * pictures * vision_operations(base.shape)
    unpacked = unpacking(base.shape.weights, settings.precision, card)
    return settings.batch_size * study / rate + unpacked


def _operations(shape: Shape, tokens: float) -> tuple[float, float, float]:
    """Operations forward for a study of so many tokens: linear maps of the layers, head, attention."""
    attention = 4 * tokens * shape.heads * shape.head_dim * shape.layers
    return tokens * 2 * shape.weights, tokens * 2 * shape.vocabulary * shape.hidden, tokens * attention


def look_hours(settings: TrainingSettings, base: Base, studies: int, card: Card) -> Hours:
    """Hours on one card of known speed to load the base model and see `studies` for the findings probe: fast,
    likely, slow. The probe itself takes seconds."""
    seen = looking_hours(base.shape, settings.precision, settings.views, studies, card)
    return both(loading_hours(base), seen)


def run_hours(
    settings: TrainingSettings, base: Base, lengths: Lengths, count: int, card: Card = T4, gpus: int = 1
) -> Hours:
    """Hours of a run of `count` steps on `gpus` cards of known speed, without the base model's download:
    fast, likely, slow. An evaluation costs a pass forward on its studies; a sample report reads the 4-bit
    weights once per token, on one card while the others wait."""
    batches = settings.evaluate_on / settings.batch_size / gpus
    sampled = lengths.answer * unpacking(base.shape.weights, settings.precision, card)

    def hours(rate: float) -> float:
        step = seconds_a_step(settings, base, lengths, rate, card, gpus)
        evaluation = batches * _forward_seconds(settings, base, lengths, rate, card)
        evaluation += sampled if settings.samples else 0
        return (count * step + math.ceil(count / settings.evaluate_every) * evaluation) / 3600

    slow, likely, fast = map(hours, rates(card, settings.precision))
    return fast, likely, slow


def iu_xray(budget: str, card: Card = T4, gpus: int = 1) -> tuple[TrainingSettings, int, float, Hours]:
    """IU X-Ray with the preset `t4` at `budget`: settings with a batch that fits, layers recomputed, GiB, and
    hours with the look.

    A view at `tiles` is the mean of what the processor gives at IU X-Ray's sizes, 2,536 to 2,928. A
    prompt and its answer are taken as 140 tokens, and the longest as 290: the training studies have
    73 words and marks on average, and 148 at most.
    """
    precision = "bf16" if card.bf16 else "fp16"
    settings = TrainingSettings(image_tokens=budget, precision=precision)
    base, image = find(settings.base), IU_XRAY_VIEWS[budget]
    settings = smaller_batch(settings, base, image + 290, card, gpus)
    lengths = Lengths(image + 140, image, image + 290, 80)
    hours = run_hours(settings, base, lengths, steps(settings, 2069), card, gpus)
    hours = both(look_hours(settings, base, 2069 + 296, card), hours)
    again = layers_recomputed(settings, base, lengths.longest, card, gpus)
    return settings, again, memory(settings, base, lengths.longest, gpus, again) / GIB, hours


def table(card: Card = T4, gpus: int = 1) -> str:
    """The table of docs/training.md: what `iu_xray` gives at each budget."""
    lines = [
        "| `image_tokens` | tokens a study | batch x accumulation | layers recomputed | memory | hours "
        "| sessions of 3.5 h |",
        "|---|---|---|---|---|---|---|",
    ]
    for budget, image in IU_XRAY_VIEWS.items():
        settings, again, size, hours = iu_xray(budget, card, gpus)
        sessions = [math.ceil(each / settings.hours) for each in hours]
        lines.append(
            f"| `{budget}` | {image + 140:,} | {settings.batch_size} x "
            f"{settings.accumulation} | {again} of {find(settings.base).shape.layers} | {size:.1f} GiB | "
            f"{between(hours)} | {sessions[1]} ({sessions[0]} to {sessions[2]}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    cards = asked_cards(__doc__)
    print(f"On {cards_in_words(*cards)}, computed:\n\n{table(*cards)}")
