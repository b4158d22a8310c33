"""TRL's trainer as a run has it: similar lengths in a batch, logits only where an answer is learnt."""

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers.utils import ModelOutput
from trl import SFTConfig, SFTTrainer

from .lengths import LengthGroupedSampler
from .recomputing import RecomputingTrainer

IGNORED = -100  # label of a token that is not learnt


class AnswerTrainer(RecomputingTrainer):
    """The recomputing trainer with `LengthGroupedSampler`, in the same order on any number of processes.

    The head computes logits only at the positions of a batch after which some study has a token of its
    answer. TRL's own statistics of each batch (entropy, accuracy) need all logits and are left out.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, compute_loss_func=answer_loss)

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
