"""TRL's trainer as a run has it: similar lengths in a batch, logits only where an answer is learnt."""

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

from .lengths import LengthGroupedSampler
from .recomputing import RecomputingTrainer

IGNORED = -100  # label of a token that is not learnt
VIEW = Image.new("L", (8, 8))  # in place of one whose patches are kept


class AnswerTrainer(RecomputingTrainer):
    """The recomputing trainer with `LengthGroupedSampler`, in the same order on any number of processes.

    The head computes logits only at the positions of a batch after which some study has a token of its
    answer. TRL's own statistics of each batch (entropy, accuracy) need all logits and are left out.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.compute_loss_func = answer_loss  # TRL's own argument for it is going away

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        accumulation = self.args.gradient_accumulation_steps * self.accelerator.num_processes
        lengths = rows["length"][:]
        return LengthGroupedSampler(lengths, self.args.train_batch_size, accumulation, self.args.seed)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        following = inputs["labels"][:, 1:]
        learnt = (following != IGNORED).any(0).nonzero().flatten()
        inputs.pop("_prediction_loss_only", None)
        inputs |= {"labels": following[:, learnt], "logits_to_keep": learnt, "use_cache": False}
        return super(SFTTrainer, self).compute_loss(model, inputs, return_outputs, num_items_in_batch)


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
        return BatchFeature(
            {name: value.expand(count, *value.shape[1:]) for name, value in self._blank.items()}
        )


class Arguments(SFTConfig):
    """TRL's, for one GPU a process: with more it would give each batch the studies of as many."""

    n_gpu = 1


def answer_loss(outputs: ModelOutput, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
    """Mean cross-entropy over the tokens that are learnt, in 32 bits; of several batches, over theirs all.

    labels: (studies, positions), for each logit the token that follows
    """
    losses = cross_entropy(
        outputs.logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return losses / (labels.ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
