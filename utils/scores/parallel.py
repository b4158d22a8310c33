"""Step 4 on several processes: what each of them does, and how a notebook sets them to work.

    accelerate launch --multi_gpu -m utils.scores write <workspace>/evaluation/<run>
    accelerate launch --multi_gpu -m utils.scores judge <workspace>/evaluation/<run>

They share the studies and the questions out. Each appends what it has to a file of its own, so a run that
was killed goes on, on any number of processes. Settings are the notebook's, if it has run, else the preset's.
"""

import gc
import itertools
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from datasets import DatasetDict

from utils.data.hf_dataset import load
from utils.judge import Cache, Engine, Pair, judge_of, judge_pairs
from utils.models import writer as writing
from utils.models.features import FOLDER, block_features, blocks
from utils.models.systems import BASE, MODEL, SHUFFLED, SYSTEMS
from utils.run import processes
from utils.run.disk import read_json, write_json
from utils.run.progress import counter, progress
from utils.run.workspace import StepError, Workspace
from utils.settings import GenerationSettings, JudgeSettings, Preset, preset, with_values

from . import baselines, plan
from .judging import all_systems, references

REPORTS, ANSWERS, NOTED = "generations.jsonl", "answers.jsonl", "settings.json"


def write_on_all(workspace: Workspace, settings: GenerationSettings, systems: Sequence = SYSTEMS) -> None:
    """Write the reports of `systems` and image features on all GPUs of this machine, if it has several."""
    folder, count = workspace.folder("evaluation"), processes.how_many()
    _note(folder, generation=settings)
    if count > 1:
        with processes.Processes(count, "utils.scores", "write", folder, "--systems", *systems) as team:
            list(team.rounds())


def base_so_far(
    workspace: Workspace, dataset: DatasetDict, settings: GenerationSettings
) -> tuple[dict[str, pd.DataFrame], int]:
    """The base model's rows to judge, `{}` if none are written; and how many regions are still to come."""
    ids, known = writing.ids_to_write(dataset["test"], settings, BASE), references(dataset["test"])
    kept = writing.read_generations(workspace.folder("evaluation") / REPORTS)
    done = writing.as_planned(kept, BASE, "test", {study: {} for study in ids})
    left = sum(len(known[study]) for study in ids if study not in done)
    return all_systems(dataset, {BASE: {"test": [*done.values()]}}, {}), left


def let_go(engine: Engine) -> None:
    """Free the memory that a judge has taken, which a model needs; the next question takes it again."""
    if hasattr(engine, "close"):
        engine.close()
    gc.collect()
    torch.cuda.empty_cache()


def judge_on_all(workspace: Workspace, settings: JudgeSettings) -> Engine:
    """The judge that the settings name; the 7B judge on all GPUs of this machine."""
    folder = workspace.folder("evaluation")
    _note(folder, judge=settings)
    if settings.engine != "green" or processes.how_many() == 1:
        return judge_of(settings)
    return SharedJudge(settings, folder / ANSWERS)


class SharedJudge:
    """A judge in several processes, which keep answers in `cache`. The first question starts them."""

    keeps = True  # so nobody else keeps them

    def __init__(self, settings: JudgeSettings, cache: Path):
        self.settings, self.cache, alone = settings, cache, judge_of(settings)
        self.label, self.fingerprint = alone.label, alone.fingerprint
        self._team = None

    def ask(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, str]]:
        """Answers as they are kept; whoever takes no more ends the processes. StepError where one fails."""
        store, waiting = Cache(self.cache), dict(enumerate(pairs))
        if self._team is None:
            self._jobs, self._asked = tempfile.TemporaryDirectory(), itertools.count()
            self._team = processes.Processes(processes.how_many(), "utils.scores", "answer", self._jobs.name)
        job = {"settings": self.settings.model_dump(), "cache": str(self.cache.resolve())}
        write_json(Path(self._jobs.name, f"{next(self._asked)}.json"), job | {"pairs": list(pairs)})
        try:
            for _ in self._team.rounds():
                store.more()
                for index, pair in [*waiting.items()]:
                    if (completion := store.get(self, pair)) is not None:
                        del waiting[index]
                        yield index, completion
                if not waiting:
                    break
        finally:
            if waiting:
                self.close()

    def close(self) -> None:
        """End the processes."""
        if self._team is not None:
            self._team.end()
            self._team = None


def write(workspace: Workspace, systems: Sequence[str] = SYSTEMS) -> None:
    """Write this process's share of a run's reports by `systems`, and of its studies' image features."""
    folder, dataset, writer, settings = _opened(workspace)
    writer.learn(study[0]["content"] for study in dataset["train"]["completion"])
    for studies in dataset.values():
        for block in _show(processes.shard(blocks(studies)), "image features"):
            block_features(writer.tower, block, writer.kept)
    for system, name in _reports(dataset, systems):
        how = (settings.generation, system, _show)
        writing.write_reports(writer, dataset[name], name, folder / REPORTS, *how)


def judge(workspace: Workspace) -> None:
    """Judge this process's share of all systems' reports. Raises StepError if one is missing."""
    folder, dataset, writer, settings = _opened(workspace)
    kept, choice = writing.read_generations(folder / REPORTS, writer.adapter), settings.judge.systems
    reports: dict[str, dict[str, list[dict]]] = {}
    for system, name in _reports(dataset, [*plan.chosen(dict.fromkeys(SYSTEMS), choice)]):
        ids = writing.ids_to_write(dataset[name], settings.generation, system)
        plans = writing.plans_to_write(writer, dataset[name], name, system, _show)
        written = writing.as_planned(kept, system, name, plans)
        if not written.keys() >= set(ids):
            raise StepError(f"Not all reports are written in {folder}: run utils.scores write first.")
        reports.setdefault(system, {})[name] = [written[study] for study in ids]
    others = baselines.make(writer, dataset, _show)[0] if choice == "all" else {}
    systems = plan.chosen(all_systems(dataset, reports, others), choice)
    if processes.rank():
        look = {"say": lambda _: None, "bar": lambda _: lambda *_: None}
    else:
        look = {"bar": lambda label: counter(_of(label))}
    plan.in_turn(judge_of(settings.judge), settings.judge, folder / ANSWERS, **look)(systems)


def answer(jobs: Path) -> None:
    """Answer this process's share of the questions that a notebook leaves in `jobs`, until it ends."""
    engine = None
    for number in itertools.count():
        while not (path := jobs / f"{number}.json").exists():
            time.sleep(0.2)
        job = read_json(path)
        engine = engine or judge_of(JudgeSettings.model_validate(job["settings"]))
        judge_pairs(job["pairs"], engine, cache=Path(job["cache"]))


def _opened(workspace: Workspace) -> tuple[Path, DatasetDict, writing.Writer, Preset]:
    """The folder of step 4, the dataset, the writer, and the preset with what the folder notes over it."""
    workspace.require("training")
    dataset, folder = load(workspace.folder("dataset")), workspace.folder("evaluation")
    settings = with_values(preset(workspace.size), _noted(folder))
    return folder, dataset, writer_of(workspace, settings.generation), settings


def writer_of(workspace: Workspace, settings: GenerationSettings) -> writing.Writer:
    """The writer of a run's reports; it finds the image features that training kept."""
    training = workspace.folder("training")
    return writing.Writer(training / "adapter", settings.recall_weight, training / FOLDER)


def _note(folder: Path, **parts: GenerationSettings | JudgeSettings) -> None:
    """Note settings for the processes of a run, those of a notebook or of a terminal."""
    write_json(folder / NOTED, _noted(folder) | {name: part.model_dump() for name, part in parts.items()})


def _reports(dataset: DatasetDict, systems: Sequence[str]) -> list[tuple[str, str]]:
    """System and split of all reports of step 4 by `systems`."""
    splits = {MODEL: ("val", "test"), BASE: ("test",), SHUFFLED: ("test",)}
    return [(system, name) for system in systems for name in splits[system] if name in dataset]


def _show(items: Iterable, label: str, total: int | None = None) -> Iterable:
    """A progress bar for the first process's share; the others' are as long."""
    return items if processes.rank() else progress(items, _of(label), total)


def _of(label: str) -> str:
    return f"{label}, first of {processes.started()}" if processes.started() > 1 else label


def _noted(folder: Path) -> dict:
    path = folder / NOTED  # a damaged one is an error: other settings would be taken unnoticed
    return read_json(path) if path.exists() else {}
