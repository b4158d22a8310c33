"""What a training step holds in a GPU's memory, and what fits."""

from utils.machine import Card
from utils.models.bases import Base, Shape
from utils.settings import TrainingSettings, with_values

from .speeds import NF4_BYTES, WIDTHS, other_weights

HEADROOM = 1.0  # GiB for the CUDA context and the gaps that the allocator leaves
MOMENTS = {"paged_adamw_8bit": 2, "adamw_torch": 8}  # bytes a trained weight
LOGIT_BYTES = 13
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


def memory(settings: TrainingSettings, base: Base, tokens: int, gpus: int = 1) -> float:
    """Peak bytes that tensors hold on each GPU in a step whose studies have `tokens` tokens each.

    The sum of

    - the language model's linear maps at 0.516 bytes a weight (NF4, double quantisation); embedding,
      head, projector and vision tower in `precision`;
    - the adapter: 4 bytes a weight, 4 its gradient, 2 (8-bit AdamW) or 8 its moments; with several GPUs
      4 more, in which they exchange the gradients;
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
    weights = linears * NF4_BYTES + other_weights(shape) * width
    adapter = trainable(settings, shape) * (8 + MOMENTS[settings.optimizer] + (4 if gpus > 1 else 0))
    count = settings.batch_size * tokens
    kept = shape.layers * count * shape.hidden * width
    views = settings.batch_size * settings.views * crops(settings, base) * shape.patches * PATCH_BYTES
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


def has_room(card: Card, memory: float) -> bool:
    """Whether `memory` GiB of tensors fit on a card."""
    return memory + HEADROOM <= card.memory


def fits(settings: TrainingSettings, base: Base, longest: int, card: Card, gpus: int) -> bool:
    """Whether a step whose studies have `longest` tokens each fits on each card."""
    return has_room(card, memory(settings, base, longest, gpus) / GIB)


def smaller_batch(
    settings: TrainingSettings, base: Base, longest: int, card: Card, gpus: int
) -> TrainingSettings:
    """`settings` with the largest batch that fits, optimiser steps as large as before; else themselves."""
    whole = settings.batch_size * settings.accumulation
    for batch in range(settings.batch_size, 0, -1):
        if whole % (batch * gpus) == 0 and whole // batch <= 256:
            smaller = with_values(settings, {"batch_size": batch, "accumulation": whole // batch})
            if fits(smaller, base, longest, card, gpus):
                return smaller
    return settings


def crops(settings: TrainingSettings, base: Base) -> int:
    """Pictures that the processor makes of a view, at most."""
    return CROPS[settings.image_tokens] if base.family == "llava_next" else 1
