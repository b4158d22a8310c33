"""How much of a batch is padding: studies in any order, in transformers' own grouping, and in ours.

    python benchmarks/padding.py runs/small [--base llava-v1.6-mistral-7b] [--budgets pooled frontal base]

Counts the tokens of the training studies of a run's dataset as the base model's processor makes them, in
batches of the preset `t4`. Nothing is trained; of the base model only the processor is read.
"""

import argparse
import random
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler as OfTransformers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.data import hf_dataset  # noqa: E402
from utils.models.loading import load_processor  # noqa: E402
from utils.run.workspace import open_workspace  # noqa: E402
from utils.settings import BASES, BUDGETS, preset  # noqa: E402
from utils.training.lengths import LengthGroupedSampler, study_tokens  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="the folder of a run with a dataset")
    parser.add_argument("--base", default=BASES[0])
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=["pooled", "frontal", "base"])
    chosen = parser.parse_args()
    settings, workspace = preset("t4").training, open_workspace(chosen.run.resolve())
    train = hf_dataset.load(workspace.folder("dataset"))["train"]
    for budget in chosen.budgets:
        processor = load_processor(chosen.base, budget)
        lengths = [total for total, *_ in study_tokens(processor, train, settings.views)]
        size, seed = settings.batch_size, settings.seed
        orders = {
            "in any order": random.Random(seed).sample(range(len(lengths)), len(lengths)),
            "grouped by transformers": OfTransformers(
                size * settings.accumulation, lengths=lengths, generator=torch.Generator().manual_seed(seed)
            ),
            "grouped by us": LengthGroupedSampler(lengths, size, settings.accumulation, seed),
        }
        shares = [f"{name} {padding(lengths, order, size):.1%}" for name, order in orders.items()]
        print(
            f"{budget}, {len(lengths):,} studies, {sum(lengths) // len(lengths)} tokens: {', '.join(shares)}"
        )


def padding(lengths: list[int], order: Iterable[int], size: int) -> float:
    """The share of padding in the batches of `size` studies that `order` makes."""
    order = list(order)
    batches = [
        [lengths[study] for study in order[start : start + size]] for start in range(0, len(order), size)
    ]
    padded = sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / padded


if __name__ == "__main__":
    main()
