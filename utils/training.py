"""Fine-tuning: TRL's SFTTrainer over the 4-bit model, with checkpoints that can be trusted.

A run's folder holds `settings.json`, `checkpoints/checkpoint-<step>/`,
`log.csv` and, at the end, `adapter/`. A checkpoint counts only once its
`complete.json` is written: it holds the size and hash of every file, so that
one cut off in the middle of writing is recognised and passed over.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset, DatasetDict
from transformers import TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from .model import load_model, load_processor, lora_config
from .settings import TrainingSettings
from .workspace import StepError, file_hash, replacing, write_json, write_text

SEAL = "complete.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
READING = "reading.json"  # beside the adapter: how it was taught to read a study
READING_SETTINGS = ("base", "image_tokens", "precision")


def make_trainer(
    settings: TrainingSettings, dataset: DatasetDict, folder: Path, on_log: Callable | None = None
) -> SFTTrainer:
    """An SFTTrainer for `dataset` that keeps its checkpoints under `folder`.

    It trains on split train; without a split val there is no evaluation loss.

    `on_log(log)` is called with the log so far, a DataFrame with columns
    step, loss, eval_loss, learning_rate, after every evaluation.
    """
    set_seed(settings.seed)
    validation = _sample(dataset["val"], settings.evaluate_on, settings.seed) if "val" in dataset else None
    on_gpu = torch.cuda.is_available()
    trainer = SFTTrainer(
        model=load_model(settings.base, settings.image_tokens, settings.precision),
        processing_class=load_processor(settings.base, settings.image_tokens),
        train_dataset=_columns(dataset["train"]),
        eval_dataset=_columns(validation) if validation else None,
        peft_config=lora_config(settings),
        args=SFTConfig(
            output_dir=str(folder / "checkpoints"),
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.accumulation,
            gradient_checkpointing=True,  # activations are computed again instead of kept: memory for time
            gradient_checkpointing_kwargs={"use_reentrant": False},
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=settings.warmup,  # below 1: a share of all steps
            optim=settings.optimizer,
            fp16=settings.precision == "fp16",
            bf16=False,  # a T4 has none
            max_length=None,  # a cut prompt would lose image tokens
            completion_only_loss=True,
            logging_steps=max(1, settings.evaluate_every // 8),
            eval_strategy="steps" if validation else "no",
            eval_steps=settings.evaluate_every,
            save_strategy="steps",
            save_steps=settings.save_every,
            seed=settings.seed,
            data_seed=settings.seed,
            use_cpu=not on_gpu,
            dataloader_pin_memory=on_gpu,
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=False,
        ),
        callbacks=[Keeper(folder, settings.keep, on_log)],
    )
    # TRL casts the adapter of a 4-bit model to bfloat16: a T4 has none, fp16's gradient scaler
    # refuses it, and it rounds small steps away.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


def train(
    settings: TrainingSettings, dataset: DatasetDict, folder: Path, on_log: Callable | None = None
) -> pd.DataFrame:
    """Fine-tune, from the newest good checkpoint in `folder` if there is one; returns the log.

    Leaves `folder/adapter` (weights, processor settings, and how a study is
    read). Raises StepError where `folder` holds a run with other settings.
    """
    same_settings_or_stop(settings, folder)
    checkpoint, damaged = newest_checkpoint(folder)
    for path in damaged:
        print(f"{path.name} is incomplete or damaged: passed over and deleted.")
        shutil.rmtree(path)
    if checkpoint:
        print(f"Going on from {checkpoint.name}.")
    if checkpoint is None or _step(checkpoint) < steps(settings, len(dataset["train"])):
        trainer = make_trainer(settings, dataset, folder, on_log)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        checkpoint, _ = newest_checkpoint(folder)  # the trainer's last act is to save
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    log = log_table(state["log_history"])
    write_text(folder / "log.csv", log.to_csv(index=False))
    with replacing(folder / "adapter") as adapter:
        for name in ADAPTER_FILES:
            shutil.copy(checkpoint / name, adapter)
        write_json(adapter / READING, {name: getattr(settings, name) for name in READING_SETTINGS})
    return log


def steps(settings: TrainingSettings, studies: int) -> int:
    """The optimiser steps that `settings` take on so many training studies."""
    if settings.max_steps > 0:
        return settings.max_steps
    return math.ceil(
        settings.epochs * math.ceil(math.ceil(studies / settings.batch_size) / settings.accumulation)
    )


def noted_settings(folder: Path) -> dict:
    """The settings of the run in `folder`, none where it has not begun."""
    path = folder / "settings.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def same_settings_or_stop(settings: TrainingSettings, folder: Path) -> None:
    """Note the settings of the run in `folder`, or raise StepError with the difference to those noted."""
    theirs, ours = noted_settings(folder), settings.model_dump()
    if not theirs:
        write_json(folder / "settings.json", ours)
        return
    changed = [
        f"{name}: {theirs.get(name)} → {ours.get(name)}"
        for name in {**theirs, **ours}
        if theirs.get(name) != ours.get(name)
    ]
    if changed:
        raise StepError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}). "
            "Set them back to go on with it, or choose another name for this run."
        )


class Keeper(TrainerCallback):
    """Seals each checkpoint, deletes old ones, and hands on the log."""

    def __init__(self, folder: Path, keep: int, on_log: Callable | None = None):
        self.folder, self.keep, self.tell = folder, keep, on_log

    def on_save(self, args, state, control, **_):
        seal(self.folder / "checkpoints" / f"checkpoint-{state.global_step}")
        prune(self.folder, self.keep, state.log_history)

    def on_evaluate(self, args, state, control, **_):
        if self.tell:
            self.tell(log_table(state.log_history))


def seal(checkpoint: Path) -> None:
    """Write the seal of a checkpoint: a hash of each of its files."""
    files = {
        path.name: file_hash(path)
        for path in sorted(checkpoint.iterdir())
        if path.is_file() and path.name != SEAL
    }
    write_json(checkpoint / SEAL, files)


def is_sealed(checkpoint: Path) -> bool:
    """Whether `checkpoint` is whole: its seal is there and every file is as it was sealed."""
    try:
        files = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        return bool(files) and all(file_hash(checkpoint / name) == digest for name, digest in files.items())
    except (OSError, ValueError):
        return False


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest whole checkpoint in `folder`, and the damaged ones newer than it."""
    damaged = []
    for path in reversed(_checkpoints(folder)):
        if is_sealed(path):
            return path, damaged
        damaged.append(path)
    return None, damaged


def prune(folder: Path, keep: int, log_history: list[dict]) -> None:
    """Delete all checkpoints but the newest `keep` and the one with the lowest evaluation loss."""
    best = best_step(log_history, {_step(path) for path in _checkpoints(folder)})
    for path in _checkpoints(folder)[:-keep]:
        if _step(path) != best:
            shutil.rmtree(path)


def best_step(log_history: list[dict], steps: set[int]) -> int | None:
    """Of the checkpoints at `steps`, the one with the lowest evaluation loss."""
    losses = {
        entry["step"]: entry["eval_loss"]
        for entry in log_history
        if "eval_loss" in entry and entry["step"] in steps
    }
    return min(losses, key=losses.get) if losses else None


def log_table(log_history: list[dict]) -> pd.DataFrame:
    """The trainer's log with a row a step: step, loss, eval_loss, learning_rate (NaN where not logged)."""
    columns = ["step", "loss", "eval_loss", "learning_rate"]
    rows = pd.DataFrame(
        [entry for entry in log_history if "loss" in entry or "eval_loss" in entry], columns=columns
    )
    return rows.groupby("step", as_index=False).first()


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("checkpoint-*"), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _columns(split: Dataset) -> Dataset:
    return split.select_columns(["images", "prompt", "completion"])


def _sample(split: Dataset, n: int, seed: int) -> Dataset:
    return split.shuffle(seed=seed).select(range(min(n, len(split))))
