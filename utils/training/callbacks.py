"""What is watched while a model trains: checkpoints, the rate, the clock, the loss, and sample reports."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from accelerate.utils import broadcast
from datasets import Dataset
from transformers import TrainerCallback

from utils.findings.probe import Probe
from utils.models.features import Tower
from utils.models.loading import PROBE, READING, READING_SETTINGS
from utils.models.writer import as_text, stream
from utils.run.disk import read_json, write_json
from utils.run.machine import memory
from utils.run.workspace import StepError
from utils.settings import RECALL_WEIGHT, TrainingSettings

from .checkpoints import Store

MEASURED_FROM, MEASURED_OVER = 2, 20  # steps: the first are slower than the rest
MOST_SKIPPED = 20  # steps in a row: the scaler starts high and halves, which takes it about ten
SAMPLE_TOKENS = 200  # of a sample report


@dataclass(frozen=True)
class Sample:
    """A validation study, what it is known to show, and what the model writes of it now."""

    id: str
    reference: str
    report: str


@dataclass
class Progress:
    """How far training is. `rate` is in seconds per step and None until it is measured; memory is in GiB."""

    log: pd.DataFrame
    step: int
    steps: int
    rate: float | None = None
    samples: list[Sample] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the last step at the measured rate."""
        return None if self.rate is None else self.rate * (self.steps - self.step)


class RunCallback(TrainerCallback):
    """Keeps checkpoints, ends training at the time limit or where nothing is learnt, and tells of it."""

    def __init__(
        self,
        settings: TrainingSettings,
        store: Store,
        validation: Dataset | None,
        probe: Probe,
        on_progress: Callable[[Progress], None] | None = None,
    ):
        self.settings, self.store, self.probe, self.tell = settings, store, probe, on_progress
        count = min(settings.samples, len(validation or ()))
        self.studies = validation.select(range(count)) if count else None
        self.trainer = None  # known only once it is made
        self.samples: list[Sample] = []
        self.skipped = 0

    def on_train_begin(self, args, state, control, **_):
        """Start the clock, once the trainer has switched checkpointing on for all layers."""
        self.trainer.recompute()
        self.started, self.first = time.monotonic(), state.global_step
        self.measured = None  # time and step from which the rate is taken

    def on_step_end(self, args, state, control, **_):
        """Stop where time is up. Raises StepError where the gradient scaler skips step after step."""
        now, done = time.monotonic(), state.global_step - self.first
        if done == MEASURED_FROM:
            self.measured = now
        if state.global_step >= state.max_steps:
            control.should_evaluate = args.eval_strategy != "no"
        if self.settings.hours:
            # The first process decides: one that stops alone waits for the others, and they for it.
            over, device = now - self.started > 3600 * self.settings.hours, self.trainer.accelerator.device
            if broadcast(torch.tensor(int(over), device=device)):
                control.should_save = control.should_training_stop = True
        self.skipped = self.skipped + 1 if self.trainer.accelerator.optimizer_step_was_skipped else 0
        if self.skipped >= MOST_SKIPPED:
            raise StepError(
                f"The gradient scaler has skipped the last {self.skipped} steps up to {state.global_step}, "
                f"so the model learns nothing. {self._advice()}"
            )

    def on_log(self, args, state, control, logs, **_):
        """Tell of the loss. Raises StepError where it is no number."""
        for name in ("loss", "eval_loss"):
            if not math.isfinite(logs.get(name, 0)):
                loss = f"{name.replace('_', ' ')} is {logs[name]}"
                raise StepError(f"The {loss} at step {state.global_step}. {self._advice()}")
        self._tell(state)

    def on_evaluate(self, args, state, control, **_):
        """Write the sample reports, and tell of them."""
        if self.studies and state.is_world_process_zero:
            self.samples = self._write_samples()
        self._tell(state)

    def on_save(self, args, state, control, **_):
        """Add the probe and how a study is read to a checkpoint, and keep it."""
        self.trainer.accelerator.wait_for_everyone()  # each process adds its own random state
        if state.is_world_process_zero:
            reading = {name: getattr(self.settings, name) for name in READING_SETTINGS}
            folder = self.store.local / f"checkpoint-{state.global_step}"
            write_json(folder / READING, {**reading, "findings": self.probe.names})
            self.probe.save(folder / PROBE)
            self.store.add(state.global_step, state.log_history)

    def rate(self, step: int) -> float | None:
        """Seconds per step in this session, once it has made enough of them."""
        if self.measured is None or (done := step - self.first) < MEASURED_OVER:
            return None
        return (time.monotonic() - self.measured) / (done - MEASURED_FROM)

    def _tell(self, state) -> None:
        if self.tell and state.is_world_process_zero:
            log, step = log_table(state.log_history), state.global_step
            self.tell(Progress(log, step, state.max_steps, self.rate(step), self.samples, memory()))

    def _write_samples(self) -> list[Sample]:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        processor, was_training = self.trainer.processing_class, model.training
        model.eval()
        views = [study[: self.settings.views] for study in self.studies["images"]]
        read = (getattr(self.settings, name) for name in ("base", "precision", "views"))
        tower = Tower(*read, processor, load=lambda: model)
        plans = self.probe.plans(tower.see(views), RECALL_WEIGHT)
        tokens = dict(stream(model, processor, views, SAMPLE_TOKENS, plans=plans))
        model.train(was_training)
        references = [messages[0]["content"] for messages in self.studies["completion"]]
        texts = [as_text(processor, tokens[number]).strip() for number in range(len(views))]
        return list(map(Sample, self.studies["id"], references, texts))

    def _advice(self) -> str:
        instead = " or set precision to fp32 (slower)" if self.settings.precision == "fp16" else ""
        advice = "Training was stopped. Its checkpoints are kept. Choose another name for the run and "
        return f"{advice}lower learning_rate{instead} (now {self.settings.learning_rate:g})."


def write_progress(progress: Progress, path: Path) -> None:
    """Tell of `progress` to another process, in the file `path`."""
    samples = [asdict(each) for each in progress.samples]
    write_json(path, {**vars(progress), "log": progress.log.to_dict("list"), "samples": samples})


def read_progress(path: Path) -> Progress:
    """What `write_progress` told last."""
    values = read_json(path)
    values["samples"] = [Sample(**each) for each in values["samples"]]
    return Progress(**{**values, "log": pd.DataFrame(values["log"])})


def log_table(log_history: list[dict]) -> pd.DataFrame:
    """The trainer's log with one row per step: step, loss, eval_loss, learning_rate (NaN: not logged)."""
    entries = [entry for entry in log_history if "loss" in entry or "eval_loss" in entry]
    rows = pd.DataFrame(entries, columns=["step", "loss", "eval_loss", "learning_rate"])
    return rows.groupby("step", as_index=False).first()
