"""Real NF4 training by the real SFTTrainer: what it learns, keeps, resumes and refuses."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from utils import training
from utils.settings import preset
from utils.workspace import StepError

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tiny_base):
    few = {
        "base": str(tiny_base),
        "max_steps": 6,
        "batch_size": 2,
        "evaluate_every": 3,
        "evaluate_on": 2,
        "save_every": 2,
    }
    return preset("demo").training.model_copy(update=few)


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def whole_run(tiny_base, phantom_dataset, tmp_path_factory):
    few = {
        "base": str(tiny_base),
        "max_steps": 6,
        "batch_size": 2,
        "evaluate_every": 3,
        "evaluate_on": 2,
        "save_every": 2,
    }
    folder = tmp_path_factory.mktemp("whole_run")
    logs = []
    log = training.train(preset("demo").training.model_copy(update=few), phantom_dataset, folder, logs.append)
    return folder, log, logs


def test_training_leaves_an_adapter_a_log_and_sealed_checkpoints(whole_run):
    folder, log, logs = whole_run
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]
    assert log["eval_loss"].notna().sum() == 2 == len(logs)
    assert pd.read_csv(folder / "log.csv")["step"].tolist() == log["step"].tolist()
    kept = sorted(path.name for path in (folder / "checkpoints").glob("checkpoint-*"))
    assert kept == ["checkpoint-4", "checkpoint-6"]
    assert all(training.is_sealed(folder / "checkpoints" / name) for name in kept)
    assert json.loads((folder / "adapter" / training.READING).read_text())["image_tokens"] == "base"
    assert any(weights.abs().sum() > 0 for name, weights in adapter(folder).items() if "lora_B" in name)


def test_only_the_adapter_trains_and_in_full_precision(settings, phantom_dataset, tmp_path):
    trainer = training.make_trainer(settings, phantom_dataset, tmp_path)
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name and "language_model" in name for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}


def test_the_loss_is_on_the_answer_only(settings, phantom_dataset, tmp_path):
    trainer = training.make_trainer(settings, phantom_dataset, tmp_path)
    batch = next(iter(trainer.get_eval_dataloader()))
    said = [trainer.processing_class.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    answers = {row["completion"][0]["content"] for row in phantom_dataset["val"]}
    assert {text.strip().removesuffix("</s>") for text in said} <= answers


class Killed(Exception):
    pass


def test_a_run_that_died_goes_on_to_the_same_adapter(settings, phantom_dataset, tmp_path, whole_run):
    def die(log):
        raise Killed  # at the first evaluation, step 3: after checkpoint 2

    with pytest.raises(Killed):
        training.train(settings, phantom_dataset, tmp_path, die)
    log = training.train(settings, phantom_dataset, tmp_path)
    folder, whole_log, _ = whole_run
    assert log["loss"].tolist() == whole_log["loss"].tolist()
    for name, weights in adapter(folder).items():
        assert torch.equal(weights, adapter(tmp_path)[name]), name


def test_a_finished_run_is_not_trained_further(settings, phantom_dataset, whole_run, monkeypatch):
    folder, log, _ = whole_run
    before = adapter(folder)
    monkeypatch.setattr(training, "make_trainer", lambda *_: pytest.fail("it trained again"))
    assert training.train(settings, phantom_dataset, folder)["step"].tolist() == log["step"].tolist()
    assert all(torch.equal(weights, before[name]) for name, weights in adapter(folder).items())


def test_a_damaged_checkpoint_is_named_and_passed_over(settings, phantom_dataset, tmp_path, capsys):
    training.train(settings, phantom_dataset, tmp_path)
    newest = tmp_path / "checkpoints" / "checkpoint-6"
    with (newest / "optimizer.pt").open("r+b") as file:
        file.truncate(100)
    training.train(settings, phantom_dataset, tmp_path)
    said = capsys.readouterr().out
    assert "checkpoint-6 is incomplete or damaged" in said
    assert "Going on from checkpoint-4" in said
    assert training.is_sealed(newest)


def test_a_checkpoint_without_its_seal_does_not_count(tmp_path):
    half = tmp_path / "checkpoints" / "checkpoint-20"
    half.mkdir(parents=True)
    (half / "adapter_model.safetensors").write_bytes(b"half")
    assert training.newest_checkpoint(tmp_path) == (None, [half])


def test_other_settings_stop_with_the_difference_and_change_nothing(settings, tmp_path):
    training.same_settings_or_stop(settings, tmp_path)
    before = (tmp_path / "settings.json").read_text()
    with pytest.raises(StepError, match="lora_rank: 16 → 4"):
        training.same_settings_or_stop(settings.model_copy(update={"lora_rank": 4}), tmp_path)
    assert (tmp_path / "settings.json").read_text() == before


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    for step in (10, 20, 30, 40):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
    history = [{"step": s, "eval_loss": loss} for s, loss in ((10, 0.9), (20, 0.5), (30, 0.6), (40, 0.7))]
    training.prune(tmp_path, 2, history)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "checkpoint-20",
        "checkpoint-30",
        "checkpoint-40",
    ]


@pytest.mark.parametrize(("epochs", "studies", "expected"), [(2, 2069, 260), (1, 16, 1), (0.5, 2069, 65)])
def test_the_number_of_steps(epochs, studies, expected):
    assert training.steps(preset("t4").training.model_copy(update={"epochs": epochs}), studies) == expected
