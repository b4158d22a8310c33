"""Pulling the plug, and more processes than one: the same curve and the same adapter all the same."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import probes
import psutil
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from utils.data import hf_dataset
from utils.run.disk import write_json
from utils.run.processes import _LAUNCH as LAUNCH
from utils.run.processes import COUNT
from utils.run.workspace import Workspace
from utils.settings import TrainingSettings, preset, with_values
from utils.training import trainer as training

pytestmark = pytest.mark.slow

STEPS, KILLS = 32, 10
HANGS = 900  # seconds after which two processes wait for each other for good
FEW = {
    "batch_size": 1,
    "views": 1,
    "evaluate_every": 8,
    "evaluate_on": 2,
    "samples": 0,
    "save_every": 2,
    "choose": "last",
}
# Each run is a process of its own, forked from one that has loaded the packages: that takes the longest.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["utils.training", "utils.data.hf_dataset"])


def run(settings: dict, dataset: str, folder: str, step) -> None:
    """Train to the end, telling each step."""
    torch.set_num_threads(1)
    rows = hf_dataset.load(Path(dataset))

    def tell(progress):
        step.value = progress.step

    training.train(TrainingSettings.model_validate(settings), rows, Path(folder), tell)


@pytest.fixture(scope="module")
def saved(phantom_folder):
    return phantom_folder


def start(settings, dataset, folder):
    step = processes.Value("i", -1)
    process = processes.Process(target=run, args=(settings.model_dump(), str(dataset), str(folder), step))
    process.start()
    return process, step


def is_writing(folder):
    """A checkpoint is there and not sealed yet."""
    return any(not (path / "complete.json").exists() for path in (folder / "scratch").glob("checkpoint-*"))


def is_copying(folder):
    return any((folder / "checkpoints").glob(".checkpoint-*.part"))


def is_past(step, steps, delay):
    """So many steps after the first that this process makes, and a moment later."""
    first = []

    def reached(_):
        if step.value >= 0 and not first:
            first.append(step.value)
        if not first or step.value < first[0] + steps:
            return False
        time.sleep(delay)
        return True

    return reached


def result(folder):
    log = pd.read_csv(folder / "log.csv")
    return log, load_file(folder / "adapter" / "adapter_model.safetensors")


def test_killed_at_ten_places_a_run_ends_as_one_that_was_not(tiny_base, saved, tmp_path):
    settings = with_values(preset("demo").training, {**FEW, "base": str(tiny_base), "max_steps": STEPS})
    whole, _ = start(settings, saved, tmp_path / "whole")
    folder, chance = tmp_path / "killed", random.Random(4)
    for attempt in range(KILLS):
        process, step = start(settings, saved, folder)
        place = {0: is_writing, 1: is_copying}.get(attempt)
        place = place or is_past(step, chance.randint(0, 2), chance.uniform(0, 0.2))
        while not place(folder):
            assert process.is_alive(), f"attempt {attempt} ended by itself, at step {step.value}"
            time.sleep(0.0005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    process, _ = start(settings, saved, folder)
    for ended in (process, whole):
        ended.join()
        assert ended.exitcode == 0
    (log, weights), (whole_log, whole_weights) = result(folder), result(tmp_path / "whole")
    pd.testing.assert_frame_equal(log, whole_log, check_exact=True)
    assert log["step"].iloc[-1] == STEPS
    assert all(torch.equal(weights[name], values) for name, values in whole_weights.items())


def test_two_processes_learn_what_one_does_and_tell_how_far_they_are(
    tiny_base, saved, tmp_path, monkeypatch, capsys
):
    changes = {**FEW, "base": str(tiny_base), "max_steps": 6, "accumulation": 2, "lora_dropout": 0}
    settings = with_values(preset("demo").training, {**changes, "samples": 1})
    logs, told = {}, {1: [], 2: []}
    for count in (1, 2):
        workspace = Workspace(tmp_path / f"on_{count}", "shared")
        dataset = Path(shutil.copytree(saved, workspace.folder("dataset")))
        workspace.finish("dataset", settings={}, outputs=[dataset / "data"], data_label="phantoms")
        monkeypatch.setenv(COUNT, str(count))
        outcome = training.train_on_all(workspace, settings, hf_dataset.load(dataset), told[count].append)
        folder = workspace.folder("training")
        logs[count], _ = result(folder)
        pd.testing.assert_frame_equal(outcome.log, logs[count])
        assert outcome.finished and outcome.memory["host_peak"] > 0
        random_states = folder.glob("checkpoints/checkpoint-6/rng_state*")  # one a process
        assert len(list(random_states)) == count
    assert workspace.require("training")["data_label"] == "phantoms"
    assert "'loss'" not in capsys.readouterr().out.split("training on 2 processes")[1]
    one, two = (logs[count][["step", "loss", "learning_rate"]].dropna() for count in (1, 2))
    assert len(one) == 6
    pd.testing.assert_frame_equal(one, two, rtol=1e-3)
    last = told[2][-1]
    assert (last.step, last.steps) == (told[1][-1].step, told[1][-1].steps) == (6, 6)
    assert last.samples[0].id == told[1][-1].samples[0].id and last.samples[0].report


@pytest.mark.parametrize("speed", [0, 2])
def test_of_two_processes_whose_clocks_differ_the_first_ends_training(tiny_base, saved, tmp_path, speed):
    changes = {**FEW, "base": str(tiny_base), "max_steps": 8, "accumulation": 2, "hours": 2.5}
    settings = with_values(preset("demo").training, changes)
    workspace = Workspace(tmp_path / "run")
    dataset = Path(shutil.copytree(saved, workspace.folder("dataset")))
    workspace.finish("dataset", settings={}, outputs=[dataset / "data"], data_label="phantoms")
    write_json(workspace.folder("training") / "settings.json", settings.model_dump())
    launch = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH.split(), "--num_processes", "2"]
    script, run = Path(__file__).with_name("two_clocks.py"), workspace.folder("training")
    team = subprocess.Popen(
        [*launch, script, run],
        cwd=ROOT,
        env={**os.environ, "XRAY_SPEED": str(speed), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = team.communicate(timeout=HANGS)
    except subprocess.TimeoutExpired:
        for process in (*psutil.Process(team.pid).children(recursive=True), team):
            process.kill()
        pytest.fail("the processes wait for each other")
    assert team.returncode == 0, said
    assert "The time limit of 2.5 hours stopped training at checkpoint-3 of 8 steps." in said
    assert len(list(run.glob("checkpoints/checkpoint-3/rng_state*"))) == 2


def test_an_accumulation_that_cannot_be_shared_out_is_refused(
    tiny_base, phantom_dataset, tmp_path, monkeypatch
):
    from utils.run.workspace import StepError
    from utils.training.checkpoints import Store

    class Three:
        num_processes, is_main_process, local_process_index = 3, True, 0

    monkeypatch.setattr(training, "PartialState", Three)
    settings = with_values(preset("demo").training, {**FEW, "base": str(tiny_base), "accumulation": 4})
    with pytest.raises(StepError, match="accumulation is 4: set it to a multiple of 3"):
        training.make_trainer(settings, phantom_dataset, Store(tmp_path, tmp_path, 1), probes.NONE)
