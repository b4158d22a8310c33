"""What drafts save in writing reports, and that they change none.

    python benchmarks/report_drafts.py runs/demo [--at-once N]

Writes the reports on a run's validation and test studies with its own adapter
twice: without drafts, and with drafts after the reports of its training
studies. Greedy, the headings and their plans set, as in notebook 04.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.data import hf_dataset  # noqa: E402
from utils.decoding.drafts import Drafts, Width  # noqa: E402
from utils.models import writer as writing  # noqa: E402
from utils.settings import GenerationSettings  # noqa: E402


def write(
    writer: writing.Writer, studies, plans: list, at_once: int, most_proposed: int
) -> tuple[dict, int, float]:
    """The reports of `studies` by number, the forward passes and the seconds that they took."""
    made = []

    class Counted(writing.Decoder):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options, most_proposed=most_proposed)
            made.append(self)

    decoder, writing.Decoder = writing.Decoder, Counted
    began = time.perf_counter()
    try:
        reports = dict(writer.stream(studies, GenerationSettings().max_new_tokens, at_once, plans))
    finally:
        writing.Decoder = decoder
    return reports, sum(one.passes + one.prefills for one in made), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a run with a dataset and an adapter")
    parser.add_argument(
        "--at-once", type=int, default=GenerationSettings().batch_size, help="0: as many as fit"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    dataset = hf_dataset.load(chosen.run / "dataset")
    writer = writing.Writer(chosen.run / "training" / "default" / "adapter")
    for name in ("val", "test"):
        split = dataset[name].sort("views")
        studies, plans = split["images"], writer.plans(writer.features(split, name))
        one, passes, seconds = write(writer, studies, plans, chosen.at_once, 0)
        writer.drafts = Drafts()
        writer.learn(study[0]["content"] for study in dataset["train"]["completion"])
        two, fewer, faster = write(writer, studies, plans, chosen.at_once, Width.CHOICES[-1])
        equal = sum(one[number] == two[number] for number in one)
        print(
            f"{name}: {equal} of {len(one)} reports equal, {len(set(one.values()))} different ones; "
            f"passes {passes:,} and {fewer:,}, {passes / fewer:.1f} times fewer; "
            f"seconds {seconds:.1f} and {faster:.1f}, {seconds / faster:.1f} times less"
        )


if __name__ == "__main__":
    main()
