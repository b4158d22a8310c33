"""A training step as it is, against one that does everything in each step, and against TRL as it comes.

    python benchmarks/training_step.py [--steps 2] [--rounds 5] [--profile [--real-width]]

All train the same small random LLaVA-NeXT (the real one's picture sizes and proportions) on the same
phantoms, two studies of two views a step, on one CPU thread, in turns: a round is a run of each. The ways
between take one thing back each: the tower looks in each step, all logits are made, all layers recompute
their activations (none does by default where memory allows, as here). TRL as it comes is
`SFTTrainer` with its defaults: no adapter, no 4-bit weights, the processor's own tiles; `max_length` alone
is set to None, as TRL asks for images. The first step of a run is not counted. `--profile` prints instead
where the time of a step goes, before and now; with `--real-width` in one layer of the 7B's width.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import t4_step  # noqa: E402
from utils.data import hf_dataset  # noqa: E402
from utils.settings import ALL, AS_NEEDED, preset, with_values  # noqa: E402
from utils.training import sft, trainer  # noqa: E402
from utils.training.checkpoints import Store  # noqa: E402
from utils.training.probing import kept_patches  # noqa: E402

STUDIES = 2  # a step


class AllLogits(sft.AnswerTrainer):
    """Our trainer with TRL's own loss: logits of every position, and statistics of them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.compute_loss_func = None

    compute_loss = SFTTrainer.compute_loss


class Clock(TrainerCallback):
    """Notes when each step of the last run ended."""

    def on_train_begin(self, args, state, control, **_):
        self.ends = []

    def on_step_end(self, args, state, control, **_):
        self.ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=2, help="steps of a run that are counted")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each way")
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes")
    parser.add_argument("--real-width", action="store_true", help="profile one layer of the 7B's width")
    options = parser.parse_args()
    torch.set_num_threads(1)
    default = preset("t4").training.image_tokens
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        t4_step.make(folder, t4_step.one_layer() if options.real_width else t4_step.small())
        ways = {
            "now": ours(folder, default, options.steps),
            "the tower in each step": ours(folder, default, options.steps, kept=False),
            "all logits": ours(folder, default, options.steps, loss=AllLogits),
            "all layers recomputed": ours(folder, default, options.steps, recompute=ALL),
            "all three, as before": ours(
                folder, default, options.steps, kept=False, loss=AllLogits, recompute=ALL
            ),
        }
        if options.profile:
            for name in ("all three, as before", "now"):
                print(f"{name}:\n{operations(ways[name])}")
            return
        ways |= {
            "tiles": ours(folder, "tiles", options.steps),
            "TRL as it comes": as_it_comes(folder, options.steps),
        }
        seconds, losses = measured(ways, options.rounds, options.steps)
    for name, values in seconds.items():
        ratios = [value / now for value, now in zip(values, seconds["now"], strict=True)]
        print(
            f"{name:24} {statistics.median(values):6.2f} s a step, {statistics.median(ratios):.2f} times now "
            f"({min(ratios):.2f} to {max(ratios):.2f}, n={len(ratios)}), last loss {losses[name]:.5f}"
        )


def measured(ways: dict[str, SFTTrainer], rounds: int, steps: int) -> tuple[dict, dict]:
    """By way, the seconds of a step in each round, and the loss of the first run's last step."""
    seconds, losses = {name: [] for name in ways}, {}
    clocks = {name: Clock() for name in ways}
    for name, way in ways.items():
        way.add_callback(clocks[name])
    for _ in range(rounds):
        for name, way in ways.items():
            way.train()
            ends = clocks[name].ends
            seconds[name].append((ends[-1] - ends[0]) / steps)
            losses.setdefault(name, [log["loss"] for log in way.state.log_history if "loss" in log][-1])
    return seconds, losses


def operations(way: SFTTrainer) -> str:
    """The operations that take most of the time of a run."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        way.train()
    how = {"sort_by": "self_cpu_time_total", "row_limit": 12, "max_name_column_width": 40}
    return profiled.key_averages().table(**how)


def ours(
    folder: Path,
    budget: str,
    steps: int,
    kept: bool = True,
    loss: type[SFTTrainer] = sft.AnswerTrainer,
    recompute: str = AS_NEEDED,
) -> SFTTrainer:
    """Our trainer at `budget`, for a step that is not counted and `steps` that are."""
    changes = {
        "base": str(folder / "base"),
        "image_tokens": budget,
        "batch_size": STUDIES,
        "max_steps": steps + 1,
        "evaluate_every": 8,
        "recompute": recompute,
    }
    settings = with_values(preset("demo").training, changes)
    dataset, store = rows(folder), Store(folder / "kept", folder / budget, 1)
    patches = kept_patches(settings, dataset, folder) if kept else None
    with patch.object(trainer, "AnswerTrainer", loss):
        return trainer.make_trainer(settings, dataset, store, t4_step.unread(dataset), kept=patches)


def as_it_comes(folder: Path, steps: int) -> SFTTrainer:
    """TRL's trainer with its defaults."""
    return SFTTrainer(
        model=str(folder / "base"),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=STUDIES,
            max_steps=steps + 1,
            logging_steps=1,
            max_length=None,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=rows(folder)["train"].select_columns(["images", "prompt", "completion"]),
    )


def rows(folder: Path) -> dict:
    """The phantoms of the benchmark."""
    return hf_dataset.load(folder / "dataset")


if __name__ == "__main__":
    main()
