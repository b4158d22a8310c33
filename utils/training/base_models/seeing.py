"""What teaches the small base models: an optimiser, the arguments of the trainer, and a first lesson."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import LlavaNextForConditionalGeneration, get_cosine_schedule_with_warmup
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from utils.data.phantoms import Phantom
from utils.data.wording import VALUES
from utils.run.progress import progress

RATE = 4e-3  # Muon's peak learning rate
SEEN_AT_ONCE = 32  # phantoms in a step


def lesson(room: Path | str, epochs: int, studies: int, seed: int) -> dict:
    """The trainer's arguments on CPU cores: `studies` in a step, weights saved in `room` after each epoch."""
    return {
        "output_dir": str(room),
        "num_train_epochs": epochs,
        "per_device_train_batch_size": studies,
        "lr_scheduler_type": "cosine",
        "bf16": True,  # autocast: a third faster on two cores
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "logging_steps": 50,
        "seed": seed,
        "report_to": "none",
    }


def normal(pixels: torch.Tensor) -> torch.Tensor:
    """Grey pixels, 0 to 1, as the processor gives them."""
    mean, spread = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (pixels - mean) / spread


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for matrices, which it teaches in a fraction of AdamW's steps, and AdamW for all other weights."""

    def __init__(self, weights: Iterable[tuple[str, torch.nn.Parameter]], lr: float):
        matrices, rest = [], []
        for name, weight in weights:
            if weight.requires_grad:
                (matrices if weight.ndim == 2 and "embed" not in name else rest).append(weight)
        self.parts = [
            torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=lr / 2, weight_decay=0.05),
        ]
        super().__init__([*matrices, *rest], {})
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure=None) -> None:
        """A step of both."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict:
        """The state of both, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def teach_to_see(
    model: LlavaNextForConditionalGeneration, drawn: list[Phantom], epochs: int, seed: int
) -> None:
    """Train the vision tower alone to name each attribute of the frontal view from its patches.

    The strongest patches decide, as most findings fill a few only. Captions come after: alone they teach a
    tower from nothing far more slowly, as most of their loss is about wording.
    """
    torch.manual_seed(seed)
    tower, layer = model.model.vision_tower, model.config.vision_feature_layer
    heads = torch.nn.ModuleList(
        torch.nn.Linear(tower.config.hidden_size, len(values)) for values in VALUES.values()
    )
    pixels = torch.from_numpy(np.stack([np.asarray(phantom.views[0]) for phantom in drawn]))
    attributes = [asdict(phantom.attributes).items() for phantom in drawn]
    wanted = torch.tensor([[VALUES[name].index(value) for name, value in each] for each in attributes])
    steps = epochs * (len(drawn) // SEEN_AT_ONCE)
    weights = [*tower.named_parameters(), *heads.named_parameters()]
    optimizer = MuonAndAdamW(weights, RATE)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    order = torch.cat([torch.randperm(len(drawn))[: steps // epochs * SEEN_AT_ONCE] for _ in range(epochs)])
    for chosen in progress(order.split(SEEN_AT_ONCE), "teaching to see", total=steps):
        views = normal(pixels[chosen, None].expand(-1, 3, -1, -1) / 255)
        with torch.autocast("cpu", torch.bfloat16):
            patches = tower(views, output_hidden_states=True).hidden_states[layer][:, 1:]
        seen = patches.float()
        losses = (cross_entropy(head(seen).logsumexp(1), wanted[chosen, k]) for k, head in enumerate(heads))
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_([weight for _, weight in weights], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
