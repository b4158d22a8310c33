"""Gradient checkpointing for as many layers as memory needs, and for more where a batch does not fit.

A layer that is recomputed keeps its input alone, and computes the rest again in the backward pass: memory
for time. The vision tower is frozen: no gradient goes through it, so it keeps and recomputes nothing.
"""

import gc
from contextlib import contextmanager

import torch
from transformers import TrainerCallback
from trl import SFTTrainer

from utils.run.workspace import StepError


class RecomputingTrainer(SFTTrainer):
    """TRL's trainer that recomputes the language model's first `recomputed` layers.

    Where the GPU's memory does not hold a batch, half of the other layers are recomputed too, and the batch
    is taken again from its start. Raises StepError with `advice` where all layers are recomputed already;
    with several processes at once, as the others would wait for the one that takes its batch again.
    """

    def __init__(self, *args, recomputed: int, advice: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.recomputed, self.advice = recomputed, advice
        # TRL lets gradients into every embedding, that of the vision tower too, which would be recomputed and
        # passed backwards for nothing. Only reentrant checkpointing needs that.
        self.model.disable_input_require_grads()
        self.add_callback(_Switch(self))

    def recompute(self) -> None:
        """Switch checkpointing on for the first `recomputed` layers, and off for the rest."""
        for number, layer in enumerate(self.model.get_decoder().layers):
            layer.gradient_checkpointing = number < self.recomputed

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """The library's step, taken again with more layers recomputed until memory holds it."""
        count = len(self.model.get_decoder().layers)
        while self.recomputed < count and self.accelerator.num_processes == 1:
            try:
                with _apart(self.model):
                    return super().training_step(model, inputs, num_items_in_batch)
            except torch.OutOfMemoryError:
                pass  # with the error goes what its frames hold
            gc.collect()
            torch.cuda.empty_cache()
            self.recomputed = count - (count - self.recomputed) // 2
            self.recompute()
            print(
                f"A batch of step {self.state.global_step + 1} did not fit into memory. It is repeated, and "
                f"{self.recomputed} of {count} layers are recomputed from here on."
            )
        try:
            return super().training_step(model, inputs, num_items_in_batch)
        except torch.OutOfMemoryError:
            if self.recomputed < count:
                advice = ". Set recompute to all, then run this cell again."
            else:
                advice = ", although all layers are recomputed. Choose another name for the run "
                advice += f"and {self.advice}."
            raise StepError(f"A batch did not fit into memory{advice}") from None


class _Switch(TrainerCallback):
    """Switches once the trainer has switched checkpointing on for all layers, which it does in `train`."""

    def __init__(self, trainer: RecomputingTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **_):
        self.trainer.model.disable_input_require_grads()
        self.trainer.recompute()


@contextmanager
def _apart(model: torch.nn.Module):
    """A batch whose gradients are added to those before it once they are whole; nothing is copied.

    Out of memory, gradients and random states are those before the batch.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    before, host = [weight.grad for weight in weights], torch.get_rng_state()
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    for weight in weights:
        weight.grad = None
    try:
        yield
    except torch.OutOfMemoryError:
        for weight, gradient in zip(weights, before, strict=True):
            weight.grad = gradient
        torch.set_rng_state(host)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu)
        raise
    for weight, gradient in zip(weights, before, strict=True):
        if gradient is not None:
            weight.grad = gradient if weight.grad is None else gradient.add_(weight.grad)
