"""From reports to judgements: what is judged, what is not, and what a file of them must hold."""

import gzip
import json

import pandas as pd
import pytest
from datasets import Dataset

from utils import evaluation, judge, scores
from utils.settings import JudgeSettings
from utils.workspace import StepError

SPLIT = Dataset.from_list(
    [
        {"id": "a", "lung": "Clear.", "heart": "Normal.", "mediastinal": "", "bone": ""},
        {"id": "b", "lung": "Left pleural effusion.", "heart": "", "mediastinal": "", "bone": "No fracture."},
    ]
)
LINES = [
    {"system": "m", "split": "test", "id": "a", "report": {"lung": "Clear.", "bone": "Scoliosis."}},
    {
        "system": "m",
        "split": "test",
        "id": "b",
        "report": {"lung": "Right pleural effusion.", "bone": "No fracture."},
    },
]


@pytest.fixture
def judgements():
    return evaluation.judged(evaluation.prediction_rows(SPLIT, LINES))


def test_only_regions_that_the_reference_mentions_are_judged(judgements):
    assert len(judgements) == 8
    scored = judgements[judgements["score"].notna()]
    assert list(zip(scored["id"], scored["region"], strict=True)) == [
        ("a", "lung"),
        ("a", "heart"),
        ("b", "lung"),
        ("b", "bone"),
    ]
    assert judgements.set_index(["id", "region"]).loc[("a", "heart"), "prediction"] == ""
    table = scores.summary(judgements)
    assert table["n"].sum() == 4 and table["no_verdict"].sum() == 0


def test_judgements_survive_parquet_and_give_the_table(tmp_path, judgements):
    path = evaluation.save(judgements, tmp_path / "judgements.parquet")
    loaded = pd.read_parquet(path)
    assert set(loaded["judge"]) == {judge.OFFLINE_LABEL}
    table = scores.region_table(loaded)
    assert table.loc["test", "heart"] == 0  # left empty
    assert table.loc["test", "bone"] == 1
    assert table.loc["test", "lung"] < 1  # wrong side
    assert [p.name for p in tmp_path.iterdir()] == ["judgements.parquet"]


def test_a_constant_report_is_given_to_every_study():
    rows = evaluation.constant_rows(SPLIT, "test", {"lung": "Clear lungs.", "bone": "Intact."})
    assert set(rows["system"]) == {evaluation.CONSTANT}
    assert rows.groupby("region")["prediction"].unique().map(list).to_dict() == {
        "bone": ["Intact."],
        "heart": [""],
        "lung": ["Clear lungs."],
        "mediastinal": [""],
    }
    assert scores.diversity(evaluation.judged(rows))["reports"].tolist() == [1]


def test_judgements_can_be_looked_up_by_study(judgements):
    found = evaluation.by_study(judgements)
    assert set(found["b"]) == {"lung", "bone"}
    assert found["b"]["bone"].score == 1


@pytest.mark.parametrize(
    "settings",
    [
        JudgeSettings(engine="offline"),
        JudgeSettings(engine="green"),
        JudgeSettings(engine="server", base_url="http://127.0.0.1:1/v1"),
    ],
)
def test_every_judge_takes_its_settings(settings):
    with pytest.raises(judge.JudgeError, match="empty reference"):  # found before any model is loaded
        judge.judge_pairs([("", "x")], **evaluation.judge_options(settings))


def test_the_recorded_judgements_give_the_published_table(shared):
    rows = evaluation.read_recorded(shared / "recorded" / "green_test.jsonl.gz", "recorded")
    table = scores.region_table(rows)
    assert table.loc["test"].round(3).tolist() == [0.704, 0.887, 0.657, 0.315]
    assert list(table.attrs["n"]["test"].values()) == [590, 582, 461, 312]


@pytest.mark.parametrize(
    "content", [b"not gzip", gzip.compress(b"{}\n"), gzip.compress(json.dumps([1]).encode())]
)
def test_a_file_of_another_kind_is_named(tmp_path, content):
    path = tmp_path / "recorded.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(StepError, match="not a file of recorded judgements"):
        evaluation.read_recorded(path, "x")
