"""Fine-tuning: TRL's SFTTrainer over the 4-bit model, on one GPU or several, stopped and resumed at will.

A run's folder holds `settings.json`, `checkpoints/checkpoint-<step>/`, `log.csv`, `choice.csv` and, at the
end, `adapter/`. `accelerate launch --multi_gpu -m utils.training RUN` trains the run in folder RUN on several
processes.
"""

import gc
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, DatasetDict
from transformers import ProgressCallback, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from utils.findings.plans import Words
from utils.findings.probe import Probe
from utils.models import loading
from utils.models.bases import fits_or_stop
from utils.models.decoding.decoder import free_memory
from utils.models.features import NUMBERS, PATCHES, Kept
from utils.run import processes
from utils.run.disk import read_json, replacing, write_json, write_text
from utils.run.machine import Card, card, memory
from utils.run.progress import counter
from utils.run.workspace import StepError, Workspace
from utils.settings import TrainingSettings

from .callbacks import Progress, RunCallback, log_table, read_progress
from .checkpoints import Store, choose, same_settings_or_stop, step_of
from .lengths import study_tokens
from .plan import processes as divisor
from .plan import steps
from .probing import POINTS, QUALITY, kept_patches, planned, run_probe, words
from .sft import AnswerTrainer, Arguments, KeptViews
from .sizes import GIB, batches, layers_recomputed, to_save_memory

# What does not change the weights that are learnt, and may be changed in the middle of a run.
FREE = {"save_every", "keep", "hours", "samples", "choose", "recompute"}


class Outcome(NamedTuple):
    """A run's log so far (see `log_table`), whether its last step is done, and the memory used (GiB)."""

    log: pd.DataFrame
    finished: bool
    memory: dict[str, float]


def shared_accumulation(settings: TrainingSettings, processes: int) -> int:
    """Batches per optimiser step of each process. Raises StepError where they cannot be shared evenly."""
    if settings.accumulation % processes:
        raise StepError(
            f"accumulation is {settings.accumulation}: set it to a multiple of {processes} (the processes)."
        )
    return settings.accumulation // processes


def make_trainer(
    settings: TrainingSettings,
    dataset: DatasetDict,
    store: Store,
    probe: Probe,
    on_progress: Callable | None = None,
    kept: Kept | None = None,
) -> AnswerTrainer:
    """A trainer for split train of `dataset` whose checkpoints go to `store`.

    probe: its findings stand in the headings of the reports
    on_progress: called with a `Progress` at every logged step
    kept: what the tower sees in the studies, read in its place

    Without a split val there is no evaluation loss. The batch of an optimiser step is the same on several
    processes as on one. Raises StepError where the accumulation cannot be divided among them.
    """
    set_seed(settings.seed)
    dataset = kept.numbered(dataset) if kept else dataset
    validation = sample(dataset["val"], settings) if "val" in dataset else None
    processor = loading.load_processor(settings.base, settings.image_tokens)
    in_words = words(probe, dataset["train"])
    watch = RunCallback(settings, store, validation, probe, on_progress)
    rows = _columns(dataset["train"], settings, processor, in_words)
    trainer = AnswerTrainer(
        model=loading.load_model(settings.base, settings.image_tokens, settings.precision),
        processing_class=processor,
        data_collator=KeptViews(processor, kept) if kept else None,
        train_dataset=rows,
        eval_dataset=_columns(validation, settings, processor, in_words) if validation else None,
        peft_config=loading.lora_config(settings),
        args=_arguments(settings, store.local, evaluates=bool(validation)),
        callbacks=[watch],
        **_recomputing(settings, max(rows["length"]), max(rows["answer"])),
    )
    watch.trainer = trainer
    if on_progress and processes.started() > 1:  # the notebook that hears of it has a bar of its own
        trainer.remove_callback(ProgressCallback)
    # TRL casts the adapter of a 4-bit model to bfloat16: a T4 has none, fp16's gradient scaler
    # refuses it, and it rounds small steps away. Under bf16, too, the adapter is kept in 32 bits.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


def _arguments(settings: TrainingSettings, folder: Path, evaluates: bool) -> Arguments:
    """TRL's arguments for `settings`; checkpoints go to `folder`."""
    on_gpu = torch.cuda.is_available()
    return Arguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=shared_accumulation(settings, PartialState().num_processes),
        gradient_checkpointing=True,  # for all layers, until the trainer leaves out those that fit
        gradient_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,  # below 1: a share of all steps
        optim=settings.optimizer,
        fp16=settings.precision == "fp16",
        bf16=settings.precision == "bf16",  # has fp32's range: trains without a gradient scaler
        max_length=None,  # a cut prompt would lose image tokens
        completion_only_loss=True,
        logging_steps=max(1, settings.evaluate_every // 8),
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        eval_strategy="steps" if evaluates else "no",
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
    )


def _recomputing(settings: TrainingSettings, longest: int, answer: int) -> dict:
    """How many layers recompute on this machine, and what to change where not even all of them help."""
    gpus = PartialState().num_processes
    room = card() or Card("processor", free_memory() / GIB / gpus, bf16=True)
    count = layers_recomputed(settings, fits_or_stop(settings), longest, room, gpus, answer)
    _, *smaller = batches(settings, gpus)
    return {"recomputed": count, "advice": to_save_memory(smaller[0] if smaller else None)}


def train(
    settings: TrainingSettings,
    dataset: DatasetDict,
    folder: Path,
    on_progress: Callable[[Progress], None] | None = None,
    scratch: Path | None = None,
) -> Outcome:
    """Fine-tune, from the newest whole checkpoint of the run in `folder`.

    Leaves `folder/adapter`: the chosen checkpoint's weights, and how it reads a study; not so where the time
    limit ended training before its last step, which is said. Checkpoints are written in `scratch`, by default
    beside those that are kept. Raises StepError where `folder` has other settings, or training cannot go on.
    """
    fits_or_stop(settings)
    store = Store(folder / "checkpoints", scratch or folder / "scratch", settings.keep)
    with PartialState().main_process_first():
        same_settings_or_stop(settings.model_dump(), folder / "settings.json", FREE)
        checkpoint = store.resume_from()
        probe = run_probe(settings, dataset, folder, scratch=store.local)
    checkpoint = broadcast_object_list([checkpoint])[0]  # the first process decides
    last = steps(settings, len(dataset["train"]))
    if checkpoint is None or step_of(checkpoint) < last:
        if checkpoint:
            say(f"Continuing from {checkpoint.name} of {last:,} steps.")
        with PartialState().main_process_first():
            kept = kept_patches(settings, dataset, store.local)
        trainer = make_trainer(settings, dataset, store, probe, on_progress, kept)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        del trainer
        gc.collect()
        torch.cuda.empty_cache()
        PartialState().wait_for_everyone()  # the trainer's last act is to save, in the first process
        checkpoint, _ = store.newest()
    history, finished = read_json(checkpoint / TRAINER_STATE_NAME)["log_history"], step_of(checkpoint) >= last
    log = log_table(history)
    PartialState().wait_for_everyone()  # before checkpoints move
    if PartialState().is_main_process:
        store.catch_up(history)
        write_text(folder / "log.csv", log.to_csv(index=False))
        if finished:
            shutil.rmtree(store.local / PATCHES, ignore_errors=True)
            validation = sample(dataset["val"], settings) if "val" in dataset else None
            chosen, table = choose(settings.choose, store.whole(), history, validation)
            write_text(folder / "choice.csv", table.to_csv(index=False))
            with replacing(folder / "adapter") as adapter:
                for name in (*loading.ADAPTER_FILES, loading.READING, loading.PROBE):
                    shutil.copy(chosen / name, adapter)
    if not finished:
        say(
            f"The time limit of {settings.hours:g} hours stopped training at {checkpoint.name} of {last:,} "
            "steps. Run all cells again, now or in another session, to continue from there."
        )
    if behind := store.behind():
        say(
            f"Only in {store.local}: {', '.join(path.name for path in behind)}. Free some space for "
            f"{store.kept}, then run this cell again in this session."
        )
    return Outcome(log, finished, memory())


def train_on_all(
    workspace: Workspace,
    settings: TrainingSettings,
    dataset: DatasetDict,
    on_progress: Callable[[Progress], None],
) -> Outcome:
    """`train` the run of `workspace` on as many GPUs of this machine as divide the accumulation; with more
    than one in processes of its own, of which `on_progress` hears all the same."""
    folder = workspace.folder("training")
    count = divisor(settings, processes.how_many())
    if count == 1:
        return train(settings, dataset, folder, on_progress, workspace.scratch)
    fits_or_stop(settings)
    same_settings_or_stop(settings.model_dump(), folder / "settings.json", FREE)
    progress, changed, show = None, None, counter(f"training on {count} processes")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "progress.json"
        with processes.Processes(count, "utils.training", folder, "--progress", path) as team:
            for _ in team.rounds():
                if path.exists() and (now := path.stat().st_mtime_ns) != changed:
                    changed, progress = now, read_progress(path)
                    show(progress.step, progress.steps)
                    on_progress(progress)
    newest, _ = Store(folder / "checkpoints", workspace.scratch, settings.keep).newest()
    finished = step_of(newest) >= steps(settings, len(dataset["train"]))
    return Outcome(pd.read_csv(folder / "log.csv"), finished, progress.memory if progress else memory())


def finish(workspace: Workspace, settings: TrainingSettings, outcome: Outcome, *outputs: Path) -> None:
    """Write the manifest of a finished run in `workspace`; `outputs` come on top of what training left."""
    folder, built = workspace.folder("training"), workspace.require("dataset")
    if side := built["settings"].get(loading.SIDE):  # to what its radiographs were scaled
        adapter = folder / "adapter"
        write_json(adapter / loading.READING, {**loading.how_to_read(adapter), loading.SIDE: side})
    of_probe = [path for name in (loading.PROBE, QUALITY, POINTS) if (path := folder / name).exists()]
    workspace.finish(
        "training",
        settings=settings.model_dump(),
        inputs=[workspace.folder("dataset") / "data"],
        outputs=[folder / "adapter", folder / "log.csv", folder / "choice.csv", *of_probe, *outputs],
        data_label=built["data_label"],
        memory_gib=outcome.memory,
    )


def noted_settings(folder: Path) -> dict:
    """The settings of the run in `folder`, none where it has not begun."""
    path = folder / "settings.json"
    return read_json(path) if path.exists() else {}


def sample(split: Dataset, settings: TrainingSettings) -> Dataset:
    """The validation studies on which a run is evaluated: the same ones every time."""
    chosen = split.shuffle(seed=settings.seed)
    return chosen.select(range(min(settings.evaluate_on, len(split))))


def _columns(split: Dataset, settings: TrainingSettings, processor, words: Words) -> Dataset:
    """What the trainer reads of `split`: prompt, completion, the first views, tokens in all and of the
    answer."""
    split = planned(split, words)
    lengths, _, answers = zip(*study_tokens(processor, split, settings.views), strict=True)
    rows = split.select_columns(["images", "prompt", "completion"])
    rows = rows.add_column("length", list(lengths)).add_column("answer", list(answers))
    if NUMBERS in split.column_names:
        return rows.remove_columns("images").add_column("images", split[NUMBERS][:])
    if max(split["views"]) <= settings.views:
        return rows

    def first_views(batch: dict) -> dict:
        first = [views[: settings.views] for views in batch.get("images", ())]
        return {**batch, "images": first} if "images" in batch else batch

    return rows.with_transform(first_views)


def say(text: str) -> None:
    """Print `text` once, however many processes train."""
    if PartialState().is_main_process:
        print(text)
