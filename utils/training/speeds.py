"""How fast a card computes and loads, and what one look at the radiographs costs. Nothing was measured on
a GPU."""

from utils.models.bases import Base, Shape
from utils.run.machine import Card

Hours = tuple[float, float, float]  # fast, likely, slow
SUSTAINED = 25 / 32  # share of a card's bandwidth that is reached: of a T4's 320e9 bytes per second, 250e9
# Slow, likely, fast shares of a card's peak; see `plan.seconds_a_step`. A T4's are 65e12 and 8.1e12.
SHARES_16, SHARES_32 = (6 / 65, 10 / 65, 16 / 65), (2 / 8.1, 4 / 8.1, 6 / 8.1)
# Of a weight: 4 bits, an 8-bit scale a 64, a 32-bit scale a 256 of those.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
WIDTHS = {"fp16": 2, "bf16": 2, "fp32": 4}
READING = (1e9, 0.25e9, 0.08e9)  # bytes of a model per second: fast, likely, slow; see `loading_hours`


def rates(card: Card, precision: str) -> tuple[float, float, float]:
    """Floating-point operations per second in training on `card`, of known peak: slow, likely, fast."""
    peak, shares = (card.peak_32, SHARES_32) if precision == "fp32" else (card.peak_16, SHARES_16)
    return tuple(peak * share for share in shares)


def unpacking(weights: int, precision: str, card: Card) -> float:
    """Seconds to unpack 4-bit `weights` into `precision` and read them: once per pass, whatever the batch."""
    return weights * (NF4_BYTES + 2 * WIDTHS[precision]) / (SUSTAINED * card.bandwidth)


def vision_weights(shape: Shape) -> int:
    """Weights of the vision tower's layers: four square maps and a two-layer map each."""
    wide = 4 * shape.vision_hidden**2 + 2 * shape.vision_hidden * shape.vision_intermediate
    return shape.vision_layers * wide


def vision_operations(shape: Shape) -> int:
    """Operations of the vision tower for one picture: 2 a weight and patch, and attention."""
    attention = 4 * shape.patches * shape.vision_hidden * shape.vision_layers
    return shape.patches * (2 * vision_weights(shape) + attention)


def other_weights(shape: Shape) -> int:
    """Weights that stay out of 4 bits: embedding, head, projector and vision tower."""
    embedded = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return embedded + sum(i * o for i, o in shape.projector) + vision_weights(shape)


def looking_hours(shape: Shape, precision: str, views: int, studies: int, card: Card) -> Hours:
    """Hours in which one `card` of known speed sees `views` of each of `studies`: fast, likely, slow.
    Preparing the pictures is not counted."""
    operations = vision_operations(shape) * views * studies
    slow, likely, fast = (operations / rate / 3600 for rate in rates(card, precision))
    return fast, likely, slow


def loading_hours(base: Base) -> Hours:
    """Hours to load the base model from the session's disk: fast, likely, slow.

    Its files are taken to hold the language model's linear maps in 4 bits if they are a copy in 4 bits, and
    two bytes for every other weight. Slow is a first load in Colab: half of the 13.5 GB of Vicuna 7B in 83 s
    (FastChat, issue 1771). Fast is about what a file takes that memory still holds; likely lies between.
    """
    width = 2 if base.weights == base.processor else NF4_BYTES
    size = base.shape.weights * width + 2 * other_weights(base.shape)
    return tuple(size / rate / 3600 for rate in READING)


def both(first: Hours, second: Hours) -> Hours:
    """The hours of two things, one after the other."""
    return tuple(a + b for a, b in zip(first, second, strict=True))


def between(hours: Hours) -> str:
    """Hours as the tables in docs have them: the likely ones, and their range."""
    fast, likely, slow = hours
    if slow < 0.05:
        return "under 0.1"
    return f"{likely:.1f} ({fast:.1f} to {slow:.1f})"
