"""What a training step holds in a GPU's memory, and what fits."""

from collections.abc import Iterator

from utils.models.bases import Base, Shape
from utils.run.machine import Card
from utils.settings import ALL, AS_NEEDED, TrainingSettings, with_values

from .speeds import NF4_BYTES, WIDTHS, other_weights

HEADROOM = 1.0  # GiB for the CUDA context and the gaps that the allocator leaves
MARGIN = 1.1  # what tensors may take, times what is planned; see `memory`
MOMENTS = {"paged_adamw_8bit": 2, "adamw_torch": 8}  # bytes per trained weight
LOGIT_BYTES = 13
ANSWER = 200  # tokens of an answer, at most: the longest report of IU X-Ray has 148 words and marks
PATCH_BYTES = 2 * 3 * 14 * 14 * 4  # pixels of a patch, in two batches
# Pictures that LLaVA-NeXT's processor makes of a view, at most.
CROPS = {"tiles": 5, "base": 2, "frontal": 2, "pooled": 2}
GIB = 2**30


def trainable(settings: TrainingSettings, shape: Shape) -> int:
    """Weights of the adapter: rank x (inputs + outputs), summed over the linear maps that it reaches."""
    sides = shape.layers * sum(map(sum, shape.linears))
    if settings.projector:
        sides += sum(map(sum, shape.projector))
    return settings.lora_rank * sides


def memory(
    settings: TrainingSettings,
    base: Base,
    tokens: int,
    gpus: int = 1,
    recomputed: int | None = None,
    answer: int = ANSWER,
) -> float:
    """Peak bytes that tensors hold on each GPU in a step whose studies have `tokens` tokens each.

    recomputed: layers under gradient checkpointing, the first ones; None: all
    answer: of a study's tokens those of its answer, which alone have logits

    The sum of

    - the language model's linear maps at 0.516 bytes per weight (NF4, double quantisation); embedding,
      head, projector and vision tower in `precision`;
    - the adapter: 4 bytes per weight, 4 its gradient, 2 (8-bit AdamW) or 8 its moments; with several GPUs
      4 more, in which they exchange the gradients;
    - the views' pixels in 32 bits, of this batch and the next;
    - the larger of: what all layers keep with the logits or a kept layer's gradients, and what recomputed
      layers keep with one of them computed again, as the kept ones come first in the backward pass.

    A recomputed layer keeps a hidden state per token. A kept one keeps what its backward pass reads, a token:
    the input of every adapter after dropout and the dropout's mask; of each of two norms the input in 32
    bits; query, key, value and output of attention, keys and values a head of the query, and the tokens' mask
    in 32 bits; three states of the gated map. The backward pass of a layer takes as many gradients of these
    three. A logit takes 13 bytes: in 32 bits, with its copy, softmax and gradient.

    Counted tensor by tensor on small models this is within 10 % (`benchmarks/t4_step.py`). The CUDA context
    and the allocator's gaps come on top, some 0.5 GiB.
    """
    shape, width = base.shape, WIDTHS[settings.precision]
    weights = shape.weights * NF4_BYTES + other_weights(shape) * width
    adapter = trainable(settings, shape) * (8 + MOMENTS[settings.optimizer] + (4 if gpus > 1 else 0))
    count, again = settings.batch_size * tokens, shape.layers if recomputed is None else recomputed
    states, layer = again * count * shape.hidden * width, count * _kept_a_token(settings, shape, tokens)
    widest = max(i * o for i, o in shape.linears)  # a weight matrix out of its 4 bits
    gradients = (count * 3 * shape.intermediate + widest) * width
    kept = states + (shape.layers - again) * layer
    views = settings.batch_size * settings.views * crops(settings, base) * shape.patches * PATCH_BYTES
    worst = [kept + settings.batch_size * min(answer, tokens) * shape.vocabulary * LOGIT_BYTES]
    if again < shape.layers:
        worst.append(kept + gradients)
    if again:
        worst.append(states + layer + gradients)
    return weights + adapter + views + max(worst)


def _kept_a_token(settings: TrainingSettings, shape: Shape, tokens: int) -> float:
    """Bytes that a layer which is not recomputed keeps a token of a batch; see `memory`."""
    width, query = WIDTHS[settings.precision], shape.heads * shape.head_dim
    if settings.lora_dropout:
        adapters = sum(i for i, _ in shape.linears) * (width + 1)
    else:  # maps of one input keep it once, and the output of attention is kept already
        adapters = (2 * shape.hidden + shape.intermediate) * width
    attention = 4 * query * width + tokens * 4
    return adapters + 2 * shape.hidden * 4 + attention + 3 * shape.intermediate * width


def layers_recomputed(
    settings: TrainingSettings, base: Base, longest: int, card: Card, gpus: int = 1, answer: int = ANSWER
) -> int:
    """How many of the language model's layers recompute their activations, the first ones: as needed, as
    few as leave room on each card for a step whose studies have `longest` tokens each, and answers of
    `answer`, with a `MARGIN`; all where no number does."""
    if settings.recompute != AS_NEEDED:
        return _most_recomputed(settings, base)
    for number in range(base.shape.layers):
        if has_room(card, MARGIN * memory(settings, base, longest, gpus, number, answer) / GIB):
            return number
    return base.shape.layers


def _most_recomputed(settings: TrainingSettings, base: Base) -> int:
    layers = base.shape.layers
    return layers if settings.recompute in (AS_NEEDED, ALL) else min(int(settings.recompute), layers)


def has_room(card: Card, memory: float) -> bool:
    """Whether `memory` GiB of tensors fit on a card."""
    return memory + HEADROOM <= card.memory


def fits(
    settings: TrainingSettings, base: Base, longest: int, card: Card, gpus: int, answer: int = ANSWER
) -> bool:
    """Whether a step whose studies have `longest` tokens each, and answers of `answer`, fits on each card."""
    again = _most_recomputed(settings, base)
    return has_room(card, memory(settings, base, longest, gpus, again, answer) / GIB)


def smaller_batch(
    settings: TrainingSettings, base: Base, longest: int, card: Card, gpus: int, answer: int = ANSWER
) -> TrainingSettings:
    """`settings` with the largest batch that fits, optimiser steps as large as before; else themselves."""
    possible = batches(settings, gpus)
    return next((each for each in possible if fits(each, base, longest, card, gpus, answer)), settings)


def batches(settings: TrainingSettings, gpus: int) -> Iterator[TrainingSettings]:
    """`settings` with ever smaller batches, the present one first, and optimiser steps as large as before."""
    whole = settings.batch_size * settings.accumulation
    for batch in range(settings.batch_size, 0, -1):
        if whole % (batch * gpus) == 0 and whole // batch <= 256:
            yield with_values(settings, {"batch_size": batch, "accumulation": whole // batch})


def to_save_memory(smaller: TrainingSettings | None) -> str:
    """What to change where a batch does not fit: to the batch of `smaller`, if there is one that does."""
    if smaller is None:
        return "reduce image tokens or views"
    return f"set batch_size to {smaller.batch_size} and accumulation to {smaller.accumulation}"


def crops(settings: TrainingSettings, base: Base) -> int:
    """Pictures that the processor makes of a view, at most."""
    return CROPS[settings.image_tokens] if base.family == "llava_next" else 1
