"""The small base model for real radiographs: LLaVA-NeXT's own classes, taught on a dataset's training split.

`make collection` and notebook 03 at the preset `small` make it. First the vision tower, convolutions from
nothing, learns to name the findings that the reports name; then all but the tower learns the reports' words.
Validation and test studies are not looked at. A step that was killed goes on from its last epoch.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars, enable_progress_bars
from PIL import Image
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn.functional import affine_grid, binary_cross_entropy_with_logits, grid_sample
from transformers import (
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    ResNetConfig,
    ResNetModel,
    Trainer,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME

from utils.data.hf_dataset import instruction
from utils.findings.groups import frequent
from utils.findings.plans import words_of
from utils.findings.probe import labels
from utils.findings.reader import UNNAMED, names_present
from utils.models.loading import load_processor, stay_as_taught
from utils.run.disk import replacing, replacing_file, write_json
from utils.run.workspace import versions

from .checkpoints import step_of
from .probing import findings, planned
from .small_bases import language_trainer, lesson, new_processor, normal, untrained

SIDE, PATCH, VOCABULARY = 128, 32, 2048  # the training reports have 1,356 different words
WIDTHS = (24, 48, 96, 128)  # channels of the tower, each with half the pixels a side of those before
VIEWS = 2
EPOCHS_OF_SEEING, EPOCHS_OF_WORDS = 24, 3
SEEN_AT_ONCE, READ_AT_ONCE = 32, 8  # studies in a step
SEEING_RATE = 3e-3
LEAST = 25  # training studies that name a finding which is not counted, or it is not taught
LESS = 0.5  # what such a finding weighs in the loss
TURN, ZOOM, MOVE, LIGHT, SHADE = 0.15, 0.12, 0.1, 0.2, 0.05  # at most: radians, shares of side and of grey
SEED = 17
FOLDER, TOWER, FIGURES = "base", "tower.safetensors", "figures.json"  # FOLDER is in a workspace


def taught(folder: Path, train: Dataset) -> Path:
    """The base model in `folder`, taught on the split `train`; where it is there already, as it is. What
    is not finished lies in a folder beside it, and is gone on with."""
    room = folder.with_name(f".{folder.name}.teaching")
    if (folder / FIGURES).exists():
        shutil.rmtree(room, ignore_errors=True)
        return folder
    studies, train = findings(train), _smaller(train)
    reports = planned(train, words_of(studies, frequent(studies)))
    processor = _processor(reports["completion"], room / "processor")
    model = new_model(processor, SEED)
    tower = room / TOWER
    if not tower.exists():
        loss = teach_to_see(model.model.vision_tower, train, studies, room / "seeing")
        with replacing_file(tower) as temporary:
            save_model(model.model.vision_tower, temporary, {"loss": f"{loss:.4f}"})
    load_model(model.model.vision_tower, tower)
    stay_as_taught(model)
    loss = teach_words(model, load_processor(str(room / "processor")), reports, room / "words")
    with replacing(folder) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        figures = {"studies": len(train), "seed": SEED, "parameters": model.num_parameters()}
        write_json(temporary / FIGURES, {**figures, "loss of words": round(loss, 4), "versions": versions()})
    shutil.rmtree(room)
    return folder


def _smaller(train: Dataset) -> Dataset:
    """`train` with its views as small as the model sees them, in memory: each is read in every epoch."""

    def small(view: Image.Image) -> Image.Image:
        return view.convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)

    def shrink(batch: dict) -> dict:
        return {"images": [list(map(small, study[:VIEWS])) for study in batch["images"]]}

    enable_progress_bars()
    try:
        return train.map(shrink, batched=True, batch_size=64, keep_in_memory=True, desc="reading radiographs")
    finally:
        disable_progress_bars()


def _processor(reports: Iterable[list[dict]], kept: Path) -> LlavaNextProcessor:
    """A processor whose vocabulary is that of training reports and of the question; kept in a folder."""
    if kept.exists():
        return LlavaNextProcessor.from_pretrained(kept)
    texts = [messages[0]["content"] for messages in reports] + [instruction()] * 50
    processor = new_processor(texts, SIDE, PATCH, VOCABULARY)
    with replacing(kept) as temporary:
        processor.save_pretrained(temporary)
        new_model(processor).config.save_pretrained(temporary)
    return processor


def new_model(processor: LlavaNextProcessor, seed: int = 0) -> LlavaNextForConditionalGeneration:
    """An untrained model for `processor`: a tower of convolutions, a language model of the demo's size."""
    vision = ResNetConfig(
        embedding_size=WIDTHS[0],
        hidden_sizes=list(WIDTHS),
        depths=[1] * len(WIDTHS),
        layer_type="basic",
        # What LLaVA-NeXT and the plan ask of a tower:
        hidden_size=WIDTHS[-1],
        image_size=SIDE,
        patch_size=PATCH,
        num_hidden_layers=len(WIDTHS),
        intermediate_size=WIDTHS[-1],
    )
    return untrained(processor, vision, -1, seed)


class Seeing(nn.Module):
    """A vision tower with a head that names findings from the mean and the maximum of two views' patches."""

    def __init__(self, tower: ResNetModel, findings: int, counted: int):
        super().__init__()
        self.tower = tower
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(WIDTHS[-1] * 2 * VIEWS, findings))
        weight = torch.full((findings,), LESS)
        weight[:counted] = 1
        self.register_buffer("weight", weight)

    def forward(self, views: torch.Tensor, wanted: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss of (studies, views, side, side) grey pixels; `wanted` is NaN where nothing is known."""
        pixels = normal(_varied(views.flatten(0, 1)[:, None] / 255))
        maps = self.tower(pixels.contiguous(memory_format=torch.channels_last)).last_hidden_state
        seen = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1).reshape(len(views), -1)
        scores, weight = self.head(seen).float(), ~wanted.isnan() * self.weight
        losses = binary_cross_entropy_with_logits(scores, wanted.nan_to_num(), weight=weight, reduction="sum")
        return {"loss": losses / weight.sum().clamp(min=1)}


class SeeingTrainer(Trainer):
    """Saves weights in the order that safetensors asks for; in memory channels come last, which is faster."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        weights = state_dict or self.model.state_dict()
        super()._save(output_dir, {name: weight.contiguous() for name, weight in weights.items()})


def _varied(views: torch.Tensor) -> torch.Tensor:
    """Each view turned, zoomed, moved and lit a little by chance."""

    def chance(*shape: int) -> torch.Tensor:
        return torch.rand(len(views), *shape) * 2 - 1

    angle, zoom = TURN * chance(), 1 + ZOOM * chance()
    turned = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).reshape(-1, 2, 2)
    affine = torch.cat([turned * zoom[:, None, None], MOVE * chance(2, 1)], 2)
    grid = affine_grid(affine, list(views.shape), align_corners=False)
    moved = grid_sample(views, grid, align_corners=False, padding_mode="border")
    return moved * (1 + LIGHT * chance(1, 1, 1)) + SHADE * chance(1, 1, 1)


def teach_to_see(tower: ResNetModel, train: Dataset, studies: Sequence[dict[str, str]], room: Path) -> float:
    """Train `tower` to name the findings of the training reports; the mean loss. Goes on in `room`.

    studies: their findings by region
    """
    wanted, counted = taught_findings(studies)
    examples = [{"views": views, "wanted": row} for views, row in zip(_pixels(train), wanted, strict=True)]
    torch.manual_seed(SEED)
    trainer = SeeingTrainer(
        model=Seeing(tower, wanted.shape[1], counted).to(memory_format=torch.channels_last),
        train_dataset=examples,
        args=TrainingArguments(
            **lesson(room, EPOCHS_OF_SEEING, SEEN_AT_ONCE, SEED),
            learning_rate=SEEING_RATE,
            weight_decay=0.05,
            warmup_steps=0.2,
            label_names=["wanted"],
        ),
    )
    loss = trainer.train(resume_from_checkpoint=_last(room)).training_loss  # of what was trained now
    tower.to(memory_format=torch.contiguous_format)
    return loss


def taught_findings(studies: Sequence[dict[str, str]]) -> tuple[torch.Tensor, int]:
    """What the tower learns to name: (studies, findings), NaN where a report is silent, first those that
    are counted, then all others that at least `LEAST` reports name; and how many are counted."""
    counted = labels(studies, frequent(studies))
    named = [{region: names_present(text) for region, text in study.items()} for study in studies]
    counts = Counter((region, name) for study in named for region in study for name in sorted(study[region]))
    others = [key for key, count in counts.items() if count >= LEAST and key[1] != UNNAMED]
    rows = [
        [name in study[region] if region in study else np.nan for region, name in others] for study in named
    ]
    others = np.array(rows, dtype=np.float32).reshape(len(studies), len(others))
    return torch.from_numpy(np.concatenate([counted.astype(np.float32), others], 1)), counted.shape[1]


def _pixels(train: Dataset) -> torch.Tensor:
    """(studies, views, side, side) in 8 bits; a study with one view has it twice."""
    pixels = torch.empty(len(train), VIEWS, SIDE, SIDE, dtype=torch.uint8)
    for number, study in enumerate(train.select_columns(["images"])):
        views = (study["images"] * VIEWS)[:VIEWS]
        pixels[number] = torch.from_numpy(np.stack([np.asarray(view) for view in views]))
    return pixels


def teach_words(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, reports: Dataset, room: Path
) -> float:
    """Train all of `model` but its tower on the training reports; the mean loss. Goes on in `room`.

    reports: training studies, their completions with plans in the headings
    """
    if last := _last(room):  # the trainer does not know these files' names for weights, which are of old
        model.load_state_dict(LlavaNextForConditionalGeneration.from_pretrained(last).state_dict())
    examples = reports.select_columns(["images", "prompt", "completion"])
    arguments = lesson(room, EPOCHS_OF_WORDS, READ_AT_ONCE, SEED)
    trainer = language_trainer(model, processor, examples, **arguments)
    return trainer.train(resume_from_checkpoint=last).training_loss


def _last(room: Path) -> str | None:
    """The newest checkpoint that is whole: the trainer writes its state last."""
    whole = [path for path in room.glob("checkpoint-*") if (path / TRAINER_STATE_NAME).exists()]
    return str(max(whole, key=step_of)) if whole else None
