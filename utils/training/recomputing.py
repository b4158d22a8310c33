"""Gradient checkpointing for as many layers as memory needs, and for more where a batch does not fit.

A layer that is recomputed keeps its input alone, and computes the rest again in the backward pass: memory
for time. The vision tower is frozen: no gradient goes through it, so it keeps and recomputes nothing.
"""

import gc

import torch
from transformers import PreTrainedModel, TrainerCallback
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
        for number, layer in enumerate(self._layers()):
            layer.gradient_checkpointing = number < self.recomputed

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        count = len(self._layers())
        while self.recomputed < count and self.accelerator.num_processes == 1:
            before = _Before(self.model)
            try:
                return super().training_step(model, inputs, num_items_in_batch)
            except torch.OutOfMemoryError:
                pass  # with the error goes what its frames hold
            before.restore()
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
            raise StepError(self._in_words(count)) from None

    def _in_words(self, count: int) -> str:
        if self.recomputed < count:
            return "A batch did not fit into memory. Set recompute to all, then run this cell again."
        return (
            "A batch did not fit into memory, although all layers are recomputed. Choose another name for "
            f"the run and {self.advice}."
        )

    def _layers(self) -> list[torch.nn.Module]:
        return list(self.model.get_decoder().layers)


class _Switch(TrainerCallback):
    """Switches once the trainer has switched checkpointing on for all layers, which it does in `train`."""

    def __init__(self, trainer: RecomputingTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **_):
        self.trainer.model.disable_input_require_grads()
        self.trainer.recompute()


class _Before:
    """The gradients, copied to the host's memory, and the random states before a batch."""

    def __init__(self, model: PreTrainedModel):
        self.gradients = [
            (weights, None if weights.grad is None else weights.grad.to("cpu", copy=True))
            for weights in model.parameters()
            if weights.requires_grad
        ]
        self.host = torch.get_rng_state()
        self.gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    def restore(self) -> None:
        """Go back to them."""
        for weights, gradient in self.gradients:
            if gradient is None:
                weights.grad = None
            else:
                weights.grad.copy_(gradient)
        torch.set_rng_state(self.host)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu)
