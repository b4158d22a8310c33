"""The training desk: what it costs, what does not fit, and how it goes."""

import pandas as pd
import pytest
from page_text import text

from utils.pages import training_desk
from utils.run.machine import T4 as T4_CARD
from utils.run.machine import Card
from utils.settings import preset, with_values
from utils.training.callbacks import Progress, Sample
from utils.training.plan import Plan

T4 = preset("t4").training
LOG = pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "eval_loss": [None, 1.5], "learning_rate": [0, 1e-4]})


def plan(**changes):
    made = {"tokens": 428.4, "image_tokens": 288, "trainable": 41_943_040, "memory": 6.4, "recomputed": 22}
    made |= {"layers": 32, "steps": 260, "look": (0.05, 0.1, 0.2), "hours": (1.6, 2.5, 4.1)}
    return Plan(**{"sessions": (1, 1, 2), **made, **changes})


def test_the_plan_tells_cost_and_uncertainty():
    page = training_desk.plan_table(plan(), T4)
    for told in ("428", "288", "41.9", "6.4", "260", "2 h 30 min", "1 h 36 min", "4 h 06 min", "at most 2"):
        assert told in page
    assert "not measured on a T4" in page and "does not fit" not in page
    shown = text(page)
    assert "layers recomputed 22 of 32" in shown
    assert "the findings probe likely 6 min , between 3 min and 12 min" in shown
    assert "time on a T4, with these settings, that look included likely 2 h 30 min" in shown


@pytest.mark.parametrize("memory", [14.0, 20.0])
def test_what_does_not_fit_is_said_with_what_to_change(memory):
    assert "does not fit" in training_desk.plan_table(plan(memory=memory), T4)


def test_the_plan_names_its_cards_and_what_is_not_known():
    page = training_desk.plan_table(plan(gpus=2, card=T4_CARD), T4)
    assert "time on 2 x T4" in page and "peak on each" in page and "not measured on 2 x T4" in page
    other = Card("NVIDIA <b>", 23.6, True)
    unknown = plan(card=other, look=None, hours=None, sessions=None, advice="take bf16")
    page = training_desk.plan_table(unknown, T4)
    assert "an NVIDIA &lt;b&gt;" in page and "not known for this card" in page and "take bf16" in page
    assert "sessions of" not in page and "look at the radiographs" not in page


def test_the_plan_follows_the_knobs_and_says_why_there_is_none(tiny_base, phantom_dataset):
    draw = training_desk.plan_beside(phantom_dataset)
    settings = with_values(preset("demo").training, {"base": str(tiny_base)})
    assert draw(settings) != draw(with_values(settings, {"views": 1}))
    assert "no plan" in draw(with_values(settings, {"base": "medgemma-4b-it", "image_tokens": "pooled"}))


def test_how_training_goes():
    sample = Sample("CXR<1>", "lung: Clear.\nheart: Normal.", "lung: <b>Clear")
    memory = {"host_peak": 3.2, "gpu_total": 14.6, "gpu_peak": 6.5}
    progress = Progress(LOG, 20, 260, 30.0, [sample], memory)
    page = training_desk.progress_page(progress, "phantom radiographs").data
    for told in ("step <b>20</b> of 260", "30.0 s a step", "2 h 00 min", "6.5 of 14.6 GiB", "CXR&lt;1&gt;"):
        assert told in page
    assert "lung: &lt;b&gt;Clear" in page and "Not for clinical use" in page and 'alt="Loss' in page
    early = training_desk.progress_page(Progress(LOG, 3, 260, None, [], {"host_peak": 3.2}), "phantoms").data
    assert "known after 20 steps" in early and "no GPU" in early
