"""TRL's trainer as a run has it: similar lengths in a batch, logits only where an answer is learnt, and
gradient checkpointing for as many layers as memory needs. A layer that is recomputed keeps its input
alone: memory for time. The vision tower is frozen: no gradient goes through it, so it keeps nothing."""

import gc
from contextlib import contextmanager
from copy import copy

import torch
from datasets import Dataset
from PIL import Image
from torch.nn.functional import cross_entropy
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import ModelOutput
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from utils.models.features import Kept
from utils.run.workspace import StepError

from .lengths import LengthGroupedSampler

IGNORED = -100  # label of a token that is not learnt
VIEW = Image.new("L", (8, 8))  # in place of one whose patches are kept


class AnswerTrainer(SFTTrainer):
    """TRL's trainer with `LengthGroupedSampler`, in the same order on any number of processes.

    The head computes logits only at the positions of a batch after which some study has a token of its
    answer. TRL's own statistics of each batch (entropy, accuracy) need all logits and are left out.

    recomputed: how many of the language model's layers recompute their activations, the first ones
    advice: what to change where a batch does not fit although all do
    Where memory does not hold a batch, half of the other layers are recomputed too, and it is repeated.
    Raises StepError where all are already; with several processes at once, as the others would wait.
    """

    def __init__(self, *args, recomputed: int, advice: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.recomputed, self.advice = recomputed, advice
        self.compute_loss_func = answer_loss  # TRL's own argument for it is going away
        self.model.disable_input_require_grads()  # here, too: see `recompute`

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        accumulation = self.args.gradient_accumulation_steps * self.accelerator.num_processes
        lengths = rows["length"][:]
        return LengthGroupedSampler(lengths, self.args.train_batch_size, accumulation, self.args.seed)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of `answer_loss`, with no more logits than it needs."""
        following = inputs["labels"][:, 1:]
        learnt = (following != IGNORED).any(0).nonzero().flatten()
        inputs.pop("_prediction_loss_only", None)
        inputs |= {"labels": following[:, learnt], "logits_to_keep": learnt, "use_cache": False}
        return super(SFTTrainer, self).compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def recompute(self) -> None:
        """Once checkpointing is on for all layers, switch it off for all but the first `recomputed`."""
        # TRL lets gradients into every embedding, that of the vision tower too, which would be recomputed and
        # passed backwards for nothing. Only reentrant checkpointing needs that.
        self.model.disable_input_require_grads()
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
            advice = ". Set recompute to all, then run this cell again."
            if self.recomputed == count:
                advice = ", although all layers are recomputed. Choose another name for the run and "
                advice += f"{self.advice}."
            raise StepError(f"A batch did not fit into memory{advice}") from None


@contextmanager
def _apart(model: torch.nn.Module):
    """A batch whose gradients are added to those before it once they are whole; nothing is copied. Out of
    memory, gradients and random states are those before the batch."""
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


class KeptViews(DataCollatorForVisionLanguageModeling):
    """TRL's collator for studies whose `images` are numbers of kept views: those stand for the pixels.

    Token by token a study reads as with its pictures: each whole view takes as many tokens.
    """

    def __init__(self, processor: ProcessorMixin, kept: Kept):
        reader = copy(processor)
        reader.image_processor = Blank(processor.image_processor)
        super().__init__(reader, completion_only_loss=True)
        self.kept = kept

    def torch_call(self, examples: list[dict]) -> dict:
        """The batch of `examples`, with patches in place of pixels."""
        numbers = [number for study in examples for number in study["images"]]
        studies = [{**study, "images": [VIEW] * len(study["images"])} for study in examples]
        return super().torch_call(studies) | {"pixel_values": self.kept[numbers]}


class Blank:
    """An image processor that gives for any view what it made of a blank one, without work."""

    def __init__(self, processor: BaseImageProcessor):
        self._processor = processor
        self._blank = processor([[VIEW]], return_tensors="pt")

    def __getattr__(self, name):
        return getattr(self._processor, name)

    def __call__(self, images: list[list], **_) -> BatchFeature:
        count = sum(map(len, images))
        return BatchFeature({name: part.expand(count, *part.shape[1:]) for name, part in self._blank.items()})


class Arguments(SFTConfig):
    """TRL's, for one GPU a process: with more it would give each batch the studies of as many."""

    n_gpu = 1


def answer_loss(outputs: ModelOutput, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
    """Mean cross-entropy over the tokens that are learnt, in 32 bits; of several batches, over theirs all.

    labels: (studies, positions), for each logit the token that follows
    """
    logits = outputs.logits.float().flatten(0, 1)
    losses = cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return losses / (labels.ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
