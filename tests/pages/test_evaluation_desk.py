"""The plans beside the forms of notebook 04."""

from types import SimpleNamespace

import pandas as pd
import pytest
from page_text import text

from utils.models.loading import READING
from utils.models.systems import BASE, MODEL, SHUFFLED
from utils.pages import evaluation_desk
from utils.run.disk import write_json, write_text
from utils.run.machine import CARDS, Card
from utils.scores.baselines import BASELINES
from utils.settings import GenerationSettings, JudgeSettings
from utils.training.probing import POINTS


@pytest.fixture
def systems():
    columns = ("system", "split", "id", "region", "reference", "prediction")
    of = {MODEL: "<b>Clear.</b>", SHUFFLED: "Effusion."}
    rows = {name: [(name, "test", "s", "lung", "Clear.", said)] for name, said in of.items()}
    return {name: pd.DataFrame(row, columns=columns) for name, row in rows.items()}


def test_judging_is_planned_by_system_and_follows_the_form(systems, tmp_path):
    draw = evaluation_desk.judging_beside(systems, tmp_path / "answers.jsonl")
    shown = text(draw(JudgeSettings(engine="green")))
    assert f"{MODEL} 1" in shown and f"{SHUFFLED} 1" in shown and "all 2" in shown
    assert "likely on a T4" in shown and "not measured on a T4" in shown
    assert SHUFFLED not in text(draw(JudgeSettings(engine="green", systems="model")))
    assert "T4" not in text(draw(JudgeSettings(engine="offline")))


def test_the_base_models_questions_are_counted_before_its_reports_are_there(systems, tmp_path):
    draw = evaluation_desk.judging_beside(systems, tmp_path / "answers.jsonl", 7)
    shown = text(draw(JudgeSettings(engine="green")))
    assert f"{BASE} 7" in shown and "all 9" in shown
    assert BASE not in text(draw(JudgeSettings(engine="green", systems="model and shuffled")))
    systems[BASE] = systems[SHUFFLED].assign(system=BASE, prediction="Some reports are there.")
    shown = text(evaluation_desk.judging_beside(systems, tmp_path / "answers.jsonl", 6)(JudgeSettings()))
    assert f"{BASE} 7" in shown and "all 9" in shown


def test_the_plan_is_for_the_cards_of_the_machine(systems, tmp_path, monkeypatch):
    draw = evaluation_desk.judging_beside(systems, tmp_path / "answers.jsonl")
    monkeypatch.setattr(evaluation_desk, "planned_on", lambda: (CARDS[1], 2))
    assert "likely on 2 x L4" in text(draw(JudgeSettings(engine="green")))
    monkeypatch.setattr(evaluation_desk, "planned_on", lambda: (Card("RTX 4090", 23.6, True), 1))
    shown = text(draw(JudgeSettings(engine="green")))
    assert f"{MODEL} 1" in shown and "The time is not known for a RTX 4090." in shown


def test_a_judge_that_lacks_its_address_has_no_plan_and_says_why(systems, tmp_path):
    draw = evaluation_desk.judging_beside(systems, tmp_path / "answers.jsonl")
    shown = draw(JudgeSettings(engine="server"))
    assert "no plan" in shown and "base_url" in shown


def test_writing_is_planned_from_the_studies_and_the_adapter(phantom_dataset, tmp_path):
    write_json(tmp_path / READING, {"base": "demo", "image_tokens": "base", "precision": "fp32", "views": 2})
    draw = evaluation_desk.writing_beside(phantom_dataset, tmp_path)
    shown = text(draw(GenerationSettings()))
    assert "validation 4" in shown and "test 5" in shown and "all 19" in shown
    assert f"{SHUFFLED} 5" in shown and f"{BASE} 5" in shown
    assert "look at the test radiographs once under a minute" in shown  # no report, so it has no number
    assert "all 4" in text(draw(GenerationSettings(studies=2, shuffled=0)))
    few = text(draw(GenerationSettings(studies=2)))  # as many as are written, which the controls share
    assert f"{SHUFFLED} 2" in few and f"{BASE} 2" in few and "all 8" in few


def test_the_form_says_what_the_nearest_known_recall_weight_names(phantom_dataset, tmp_path):
    adapter = tmp_path / "adapter"
    write_json(adapter / READING, {"base": "demo", "image_tokens": "base", "precision": "fp32", "views": 2})
    without = evaluation_desk.writing_beside(phantom_dataset, adapter)(GenerationSettings())
    assert "recall_weight" not in without and "of ten" not in without
    points = [(0.3, 10, 5, 3), (0.5, 10, 8, 4), (2.0, 10, 0, 0)]
    table = pd.DataFrame(points, columns=["recall_weight", "present", "named", "right"])
    table["precision"], table["recall"] = table["right"] / table["named"], table["right"] / table["present"]
    write_text(tmp_path / POINTS, table.to_csv(index=False))
    draw = evaluation_desk.writing_beside(phantom_dataset, adapter)
    shown = text(draw(GenerationSettings(recall_weight=0.35)))
    assert "recall_weight 0.3: of ten findings named about 6 are there" in shown
    assert "of ten that are there about 3 are named (validation, 10 findings there)" in shown
    shown = text(draw(GenerationSettings(recall_weight=0.45)))
    assert "recall_weight 0.5: of ten findings named about 5 are there" in shown and "about 4 are" in shown
    assert "about none are there" in text(draw(GenerationSettings(recall_weight=1.9)))
    write_text(tmp_path / POINTS, table[:0].to_csv(index=False))  # a run without validation studies
    assert evaluation_desk.writing_beside(phantom_dataset, adapter)(GenerationSettings()) == without


def test_who_writes_is_said_of_every_system_with_its_number_of_reports(systems):
    everyone = systems | {name: systems[MODEL].assign(system=name) for name in BASELINES}
    everyone[SHUFFLED] = pd.concat([systems[SHUFFLED], systems[SHUFFLED].assign(id="t")])
    shown = text(evaluation_desk.who_writes(SimpleNamespace(systems=everyone)))
    assert shown.count("one report for everyone") == 2 and "without a language model 1" in shown
    assert "does it use them? 2" in shown
