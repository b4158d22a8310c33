"""Real NF4 training by the real SFTTrainer: what it learns, keeps, resumes, tells and refuses."""

import json

import numpy as np
import pandas as pd
import probes
import pytest
import torch
from killed import train_until
from safetensors.torch import load_file

from utils.findings.groups import GROUPS
from utils.findings.plans import Words
from utils.findings.probe import Probe
from utils.models.loading import PROBE, READING
from utils.run.workspace import StepError
from utils.settings import preset, with_values
from utils.training import __main__ as command
from utils.training import callbacks
from utils.training import trainer as training
from utils.training.checkpoints import Store, is_sealed
from utils.training.probing import planned

pytestmark = pytest.mark.slow

FEW = {
    "max_steps": 4,
    "batch_size": 2,
    "evaluate_every": 2,
    "evaluate_on": 3,
    "save_every": 1,
    "samples": 1,
    "choose": "last",
}


@pytest.fixture(scope="module", autouse=True)
def short_samples():
    """An untrained model never ends a report by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "SAMPLE_TOKENS", 24)
        yield


@pytest.fixture(scope="module")
def settings(tiny_base):
    return with_values(preset("demo").training, {**FEW, "base": str(tiny_base)})


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def kept(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture
def trainer(settings, phantom_dataset, tmp_path):
    def make(probe=probes.NONE, **changes):
        store = Store(tmp_path / "checkpoints", tmp_path / "scratch", 2)
        return training.make_trainer(with_values(settings, changes), phantom_dataset, store, probe)

    return make


@pytest.fixture(scope="module")
def whole_run(settings, phantom_dataset, tmp_path_factory):
    """A run of four steps without a fault: its folder, its log, and what it told."""
    folder = tmp_path_factory.mktemp("whole_run")
    told = []
    log = training.train(settings, phantom_dataset, folder, told.append).log
    return folder, log, told


def test_training_leaves_an_adapter_a_log_and_sealed_checkpoints(whole_run):
    folder, log, _ = whole_run
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]
    assert log["step"][log["eval_loss"].notna()].tolist() == [2, 4]
    assert pd.read_csv(folder / "log.csv")["step"].tolist() == log["step"].tolist()
    assert kept(folder) == ["checkpoint-3", "checkpoint-4"]
    assert all(is_sealed(folder / "checkpoints" / name) for name in kept(folder))
    reading = json.loads((folder / "adapter" / READING).read_text())
    assert (reading["image_tokens"], reading["views"]) == ("base", 2)
    assert reading["findings"] == []  # of twelve studies nothing can be learnt
    assert (folder / "adapter" / PROBE).read_bytes() == (folder / PROBE).read_bytes()
    assert any(weights.abs().sum() > 0 for name, weights in adapter(folder).items() if "lora_B" in name)


def test_it_tells_the_loss_the_memory_and_what_the_model_writes_of_a_validation_study(
    whole_run, phantom_dataset
):
    _, _, told = whole_run
    assert [progress.step for progress in told] == sorted(progress.step for progress in told)
    last = told[-1]
    assert (last.step, last.steps) == (4, 4)
    assert last.memory["host_peak"] > 0
    (sample,) = last.samples
    assert sample.id in phantom_dataset["val"]["id"]
    assert sample.reference.split(":")[0] in ("lung", "heart", "mediastinal", "bone")
    assert sample.report.startswith("lung:")


def test_only_the_adapter_trains_and_in_full_precision(trainer):
    trained = {name: p for name, p in trainer().model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name and "language_model" in name for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}


def test_a_second_gpu_does_not_double_a_process_batches(trainer):
    arguments = trainer(batch_size=2).args
    arguments._n_gpu = 2  # what transformers counts in one process beside two GPUs
    assert arguments.train_batch_size == arguments.eval_batch_size == 2


def test_the_adapter_reaches_the_projector_where_that_is_asked_for(trainer):
    names = [name for name, p in trainer(projector=True).model.named_parameters() if p.requires_grad]
    assert sum("multi_modal_projector" in name for name in names) == 4  # A and B of two maps


def test_the_loss_is_on_the_answer_only(trainer, phantom_dataset):
    made = trainer()
    batch = next(iter(made.get_eval_dataloader()))
    said = [made.processing_class.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    answers = {row["completion"][0]["content"] for row in phantom_dataset["val"]}
    assert {text.strip().removesuffix("</s>") for text in said} <= answers


def test_headings_name_what_the_reports_name_of_the_probes_findings(trainer, phantom_dataset):
    none = np.zeros((len(GROUPS), 1))
    made = trainer(Probe(tuple(group.name for group in GROUPS), none, none[:, 0], none.T))
    said = {
        made.processing_class.tokenizer.decode(row[row != -100]).strip().removesuffix("</s>")
        for batch in made.get_eval_dataloader()
        for row in batch["labels"]
    }
    answers = planned(phantom_dataset["val"], Words(GROUPS, {}))["completion"]
    assert said <= {messages[0]["content"] for messages in answers}
    assert any("):" in text for text in said)


def test_fewer_views_are_read_where_that_is_asked_for(trainer):
    batch = next(iter(trainer(views=1).get_train_dataloader()))
    assert len(batch["pixel_values"]) == len(batch["input_ids"])


def test_studies_of_similar_length_train_together(trainer):
    sizes = {}
    for views in (1, 2):
        made = trainer(views=views)
        lengths = made.train_dataset["length"][:]
        assert len(lengths) == len(made.train_dataset)
        sizes[views] = max(lengths)
        together = [lengths[i] for i in made._get_train_sampler()]
        apart = [b - a for a, b in zip(together[::2], together[1::2], strict=True)]  # pairs of a batch
        assert sum(map(abs, apart)) < sum(
            abs(b - a) for a, b in zip(lengths[::2], lengths[1::2], strict=True)
        )
        batch = next(iter(made.get_train_dataloader()))
        assert batch["attention_mask"].sum(1).max() in lengths  # counted as the collator makes them
    assert sizes[1] < sizes[2]


def test_a_run_that_died_goes_on_to_the_same_adapter(settings, phantom_dataset, tmp_path, whole_run):
    train_until(2, settings, phantom_dataset, tmp_path)
    log = training.train(settings, phantom_dataset, tmp_path).log
    folder, whole_log, _ = whole_run
    assert log["loss"].tolist() == whole_log["loss"].tolist()
    for name, weights in adapter(folder).items():
        assert torch.equal(weights, adapter(tmp_path)[name]), name


def test_the_time_limit_ends_training_at_a_checkpoint_and_says_how_to_go_on(
    settings, phantom_dataset, tmp_path, whole_run, capsys
):
    short = with_values(settings, {"hours": 1e-6})
    assert not training.train(short, phantom_dataset, tmp_path).finished
    assert "stopped training at checkpoint-1 of 4 steps. Run all cells again" in capsys.readouterr().out
    assert not (tmp_path / "adapter").exists()
    assert training.train(settings, phantom_dataset, tmp_path).finished
    for name, weights in adapter(whole_run[0]).items():
        assert torch.equal(weights, adapter(tmp_path)[name]), name


def test_a_finished_run_is_not_trained_further(settings, phantom_dataset, whole_run, monkeypatch):
    folder, log, _ = whole_run
    before = adapter(folder)
    monkeypatch.setattr(training, "make_trainer", lambda *_: pytest.fail("it trained again"))
    assert training.train(settings, phantom_dataset, folder).log["step"].tolist() == log["step"].tolist()
    assert all(torch.equal(weights, before[name]) for name, weights in adapter(folder).items())


@pytest.mark.parametrize("by", ["loss", "findings"])
def test_the_checkpoint_can_be_chosen_on_validation_studies(
    settings, phantom_dataset, whole_run, by, monkeypatch
):
    folder, _, _ = whole_run
    monkeypatch.setattr(training, "make_trainer", lambda *_: pytest.fail("it trained again"))
    training.train(with_values(settings, {"choose": by}), phantom_dataset, folder)
    table = pd.read_csv(folder / "choice.csv")
    assert table["step"].tolist() == [2, 3, 4] and table["kept"].tolist() == [False, True, True]
    (chosen,) = table["step"][table["chosen"]]
    if by == "loss":
        assert table["eval_loss"].notna().tolist() == [True, False, True]
        assert chosen == 4
    else:
        assert table["micro_f1"].notna().tolist() == [False, True, True]
        assert table["micro_f1"][table["chosen"]].item() == table["micro_f1"].max()
    weights = load_file(folder / "checkpoints" / f"checkpoint-{chosen}" / "adapter_model.safetensors")
    assert all(torch.equal(weights[name], values) for name, values in adapter(folder).items())


def test_a_loss_that_is_no_number_stops_training_with_advice(
    settings, phantom_dataset, tmp_path, monkeypatch
):
    def explode(self, model, inputs, *_, **__):
        return torch.tensor(float("nan"), requires_grad=True)

    monkeypatch.setattr(training.AnswerTrainer, "compute_loss", explode)
    with pytest.raises(StepError, match=r"loss is nan at step 1.*lower learning_rate"):
        training.train(with_values(settings, {"evaluate_every": 8}), phantom_dataset, tmp_path)


def test_a_scaler_that_keeps_skipping_ends_training_with_advice(trainer, monkeypatch):
    monkeypatch.setattr(callbacks, "MOST_SKIPPED", 2)
    made = trainer(precision="fp32", max_steps=4)
    # No GPU, no scaler: what accelerate reports of one is set by hand.
    monkeypatch.setattr(type(made.accelerator), "optimizer_step_was_skipped", property(lambda _: True))
    with pytest.raises(StepError, match="skipped the last 2 steps up to 2"):
        made.train()


def test_other_settings_stop_a_run_but_a_longer_time_limit_does_not(settings, phantom_dataset, whole_run):
    folder, _, _ = whole_run
    with pytest.raises(StepError, match="lora_rank: 16 → 4"):
        training.train(with_values(settings, {"lora_rank": 4}), phantom_dataset, folder)
    assert training.train(with_values(settings, {"hours": 1}), phantom_dataset, folder).finished


def test_a_rate_is_measured_over_twenty_steps_and_not_before(settings, tmp_path):
    watching = callbacks.RunCallback(settings, Store(tmp_path, tmp_path, 2), None, probes.NONE)
    watching.first, watching.measured = 0, 0.0
    assert watching.rate(19) is None
    assert watching.rate(20) > 0


@pytest.mark.parametrize(
    ("folder", "said"),
    [("elsewhere", "is not a run's folder"), ("training/mine", "Step 'dataset' is missing")],
)
def test_the_command_says_what_it_needs(tmp_path, monkeypatch, folder, said):
    monkeypatch.setattr("sys.argv", ["utils.training", str(tmp_path / folder)])
    with pytest.raises(SystemExit, match=said):
        command.main()
