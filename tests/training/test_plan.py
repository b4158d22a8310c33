"""The plan: tokens, trained weights, memory and hours, against counts and by reason."""

import sys

import pytest
import torch
import trl
from conftest import ROOT

from utils.models import bases
from utils.models.loading import load_processor
from utils.settings import preset, with_values
from utils.training import plan
from utils.training.trainer import make_trainer
from utils.workspace import StepError

sys.path.insert(0, str(ROOT))
from benchmarks import t4_step

T4 = preset("t4").training
BASE = bases.REGISTRY[T4.base]
# Tokens of a study of two views at the real sizes: image tokens by the processor (tests/test_model.py),
# and about as much text as a prompt of four regions and a report have.
TEXT = 140
STUDY = {"pooled": 2 * 144 + TEXT, "base": 2 * 576 + TEXT, "tiles": 2 * 2732 + TEXT}


def hours(budget, **changes):
    settings = with_values(T4, {"image_tokens": budget, **changes})
    lengths = plan.Lengths(STUDY[budget], STUDY[budget] - TEXT, STUDY[budget] + 60, 75)
    count = plan.steps(settings, 2069)
    return [plan.run_seconds(settings, BASE, lengths, count, rate) / 3600 for rate in plan.RATES["fp16"]]


def test_two_epochs_at_the_default_fit_into_one_free_session():
    slow, likely, fast = hours(T4.image_tokens)
    assert fast < likely < 3.5 < slow  # likely, not certain: the range is shown
    assert STUDY[T4.image_tokens] <= 5100 / 4


def test_more_tokens_cost_more_hours_and_more_memory():
    likely = [hours(budget)[1] for budget in ("pooled", "base", "tiles")]
    assert likely == sorted(likely) and likely[2] > 10 * likely[0]
    one = with_values(T4, {"batch_size": 1, "accumulation": 16})
    sizes = [
        plan.memory(with_values(one, {"image_tokens": budget}), BASE, STUDY[budget]) / plan.GIB
        for budget in ("pooled", "base", "tiles")
    ]
    assert sizes == sorted(sizes) and sizes[-1] < plan.T4_MEMORY


def test_the_default_leaves_room_on_a_t4():
    assert plan.memory(T4, BASE, STUDY[T4.image_tokens] + 150) / plan.GIB < 11


@pytest.mark.parametrize(("epochs", "studies", "expected"), [(2, 2069, 260), (1, 16, 1), (0.5, 2069, 65)])
def test_the_number_of_steps(epochs, studies, expected):
    assert plan.steps(with_values(T4, {"epochs": epochs}), studies) == expected


@pytest.mark.parametrize("projector", [False, True])
def test_the_trained_weights_are_those_that_peft_makes(tiny_base, phantom_dataset, tmp_path, projector):
    from utils.training.checkpoints import Store

    settings = with_values(preset("demo").training, {"base": str(tiny_base), "projector": projector})
    trainer = make_trainer(settings, phantom_dataset, Store(tmp_path, tmp_path, 1))
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert plan.trainable(settings, bases.find(str(tiny_base)).shape) == trained


def test_the_plan_of_a_dataset_counts_its_tokens(tiny_base, phantom_dataset):
    settings = with_values(preset("demo").training, {"base": str(tiny_base)})
    made = plan.make_plan(settings, phantom_dataset["train"])
    counts = plan.study_tokens(load_processor(str(tiny_base), "base"), phantom_dataset["train"], 2)
    assert made.tokens == sum(total for total, *_ in counts) / len(counts)
    assert made.image_tokens == sum(phantom_dataset["train"]["views"]) * 64 / len(counts)
    assert plan.make_plan(with_values(settings, {"views": 1}), phantom_dataset["train"]).tokens < made.tokens
    assert made.sessions == (1, 1, 1)
    assert plan.make_plan(with_values(settings, {"hours": 1e-7}), phantom_dataset["train"]).sessions[1] > 1


def test_a_base_that_cannot_be_read_so_has_no_plan(phantom_dataset):
    with pytest.raises(StepError, match="does not support image_tokens"):
        plan.make_plan(with_values(T4, {"base": "medgemma-4b-it"}), phantom_dataset["train"])


@pytest.mark.slow
@pytest.mark.skipif(not trl.__version__.startswith("0."), reason="the plan is for the TRL that runs on Colab")
def test_the_memory_of_a_real_step_is_what_the_plan_says(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(t4_step, "STUDIES", 8)
    t4_step.make(tmp_path)
    for budget in ("pooled", "base"):
        row = t4_step.measure(tmp_path, budget, steps=2)
        assert row["planned"] == pytest.approx(row["peak"], rel=0.1), t4_step.sentence(row)
