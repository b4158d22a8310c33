"""A training step at the default image tokens, against the model's own tiles, and against TRL as it comes.

    python benchmarks/training_step.py [--steps 3]

All three train the same small random LLaVA-NeXT (the real one's picture sizes
and proportions) on the same phantoms, two studies of two views a step, on one
CPU thread. TRL as it comes is `SFTTrainer` with its defaults: no adapter, no
4-bit weights, the processor's own tiles; `max_length` alone is set to None, as
TRL asks for images. The first step is not counted.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import t4_step  # noqa: E402
from utils.data import hf_dataset  # noqa: E402
from utils.settings import preset, with_values  # noqa: E402
from utils.training.checkpoints import Store  # noqa: E402
from utils.training.trainer import make_trainer  # noqa: E402

STUDIES = 2  # a step


class Clock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **_):
        self.ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=3, help="steps that are counted, of each")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    default = preset("t4").training.image_tokens
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        t4_step.make(folder)
        ways = {
            f"ours, {default} (the default)": ours(folder, default, steps + 1),
            "ours, tiles": ours(folder, "tiles", steps + 1),
            "TRL as it comes": as_it_comes(folder, steps + 1),
        }
        seconds = {}
        for name, trainer in ways.items():
            clock = Clock()
            trainer.add_callback(clock)
            trainer.train()
            seconds[name] = (clock.ends[-1] - clock.ends[0]) / steps
    first = next(iter(seconds.values()))
    for name, value in seconds.items():
        print(f"{name:26} {value:7.2f} s a step over {steps} steps, {value / first:5.1f} times the default's")


def ours(folder: Path, budget: str, steps: int) -> SFTTrainer:
    """Our trainer at `budget`."""
    changes = {
        "base": str(folder / "base"),
        "image_tokens": budget,
        "batch_size": STUDIES,
        "max_steps": steps,
    }
    settings = with_values(preset("demo").training, changes)
    dataset, store = rows(folder), Store(folder / "kept", folder / budget, 1)
    return make_trainer(settings, dataset, store, t4_step.unread(dataset))


def as_it_comes(folder: Path, steps: int) -> SFTTrainer:
    """TRL's trainer with its defaults."""
    return SFTTrainer(
        model=str(folder / "base"),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=STUDIES,
            max_steps=steps,
            max_length=None,
            use_cpu=True,
            report_to="none",
        ),
        train_dataset=rows(folder)["train"].select_columns(["images", "prompt", "completion"]),
    )


def rows(folder: Path) -> dict:
    """The phantoms of the benchmark."""
    return hf_dataset.load(folder / "dataset")


if __name__ == "__main__":
    main()
