"""From reports to judgements: what is judged, what is not, and what a file of them must hold."""

import gzip
import json

import pytest
from datasets import Dataset, DatasetDict

from utils import judge, scores
from utils.regions import mentioned
from utils.run.workspace import StepError
from utils.scores import baselines, judging, statistics
from utils.settings import JudgeSettings

SPLIT = Dataset.from_list(
    [
        {"id": "a", "lung": "Clear.", "heart": "Normal.", "mediastinal": "", "bone": ""},
        {"id": "b", "lung": "Left pleural effusion.", "heart": "", "mediastinal": "", "bone": "No fracture."},
    ]
)
LINE = {"system": "m", "split": "test"}
LINES = [LINE | {"id": "a", "report": {"lung": "Clear.", "bone": "Scoliosis."}}]
LINES.append(LINE | {"id": "b", "report": {"lung": "Right pleural effusion.", "bone": "No fracture."}})


@pytest.fixture
def judgements():
    return judging.judged(judging.prediction_rows(SPLIT, LINES))


def test_only_regions_that_the_reference_mentions_are_judged(judgements):
    assert len(judgements) == 8
    scored = judgements[judgements["score"].notna()]
    regions = list(zip(scored["id"], scored["region"], strict=True))
    assert regions == [("a", "lung"), ("a", "heart"), ("b", "lung"), ("b", "bone")]
    assert judgements.set_index(["id", "region"]).loc[("a", "heart"), "prediction"] == ""
    table = scores.summary(judgements)
    assert table["n"].sum() == 4 and table["no_verdict"].sum() == 0


def test_judgements_survive_parquet_and_give_the_table(tmp_path, judgements):
    judgements.to_parquet(path := tmp_path / "judgements.parquet", index=False)
    loaded = judging.read_judgements(path)
    assert set(loaded["judge"]) == {judge.OFFLINE_LABEL}
    means = scores.summary(loaded).set_index("region")["mean"]
    assert means["heart"] == 0  # left empty
    assert means["bone"] == 1
    assert means["lung"] < 1  # wrong side


def rows_of(reports, lines=LINES):
    """The rows of a baseline beside the model's."""
    others = {baselines.CONSTANT: {"test": reports}}
    systems = judging.all_systems(DatasetDict(test=SPLIT), {"m": {"test": lines}}, others)
    assert list(systems) == ["m", baselines.CONSTANT]
    return systems[baselines.CONSTANT]


def test_a_constant_report_is_given_to_every_study():
    rows = rows_of([{"lung": "Clear lungs.", "bone": "Intact."}] * 2)
    assert set(rows["system"]) == {baselines.CONSTANT} and set(rows["split"]) == {"test"}
    texts = rows.groupby("region")["prediction"].unique().map(list).to_dict()
    assert texts == {"bone": ["Intact."], "heart": [""], "lung": ["Clear lungs."], "mediastinal": [""]}
    assert statistics.diversity(judging.judged(rows))["reports"].tolist() == [1]


def test_judgements_can_be_looked_up_by_study(judgements):
    found = judging.by_study(judgements)
    assert set(found["b"]) == {"lung", "bone"}
    assert found["b"]["bone"].score == 1


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        (JudgeSettings(engine="offline"), judge.OFFLINE_LABEL),
        (JudgeSettings(engine="green", precision="int8"), "GREEN-radllama2-7b int8"),
        (JudgeSettings(engine="server", base_url="http://x/v1", batch_size=3), "GREEN-radllama2-7b server"),
    ],
)
def test_every_judge_takes_its_settings(settings, label):
    engine = judge.judge_of(settings)
    assert engine.label == label
    assert getattr(engine, "batch_size", None) == {"green": 0, "server": 3, "offline": None}[settings.engine]


def test_the_key_of_the_judges_server_is_its_own_secret(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-service")
    monkeypatch.setenv(judge.SERVER_KEY, "of-the-judge")
    engine = judge.judge_of(JudgeSettings(engine="server", base_url="http://127.0.0.1:1/v1"))
    assert engine._client.api_key == "of-the-judge"


def test_a_report_for_each_study_stays_with_its_study():
    reports = [{"lung": "One."}, {"lung": "Two."}]
    for lines, predictions in ((LINES, {"a": "One.", "b": "Two."}), (LINES[1:], {"b": "Two."})):
        rows = rows_of(reports, lines)  # on the studies that the model wrote
        assert rows[rows["region"] == "lung"].set_index("id")["prediction"].to_dict() == predictions
    with pytest.raises(ValueError):
        rows_of(reports[:1])


REFERENCES = {
    "CXR1_IM-0001": {"lung": "Clear."},
    "CXR2_IM-0002": {"lung": "Left pleural effusion.", "heart": "Normal heart size."},
    "CXR3_IM-0003": {"heart": "Normal."},
    "CXR9_IM-0009": {"heart": "Normal."},
}


def test_normal_studies_are_those_that_the_collection_indexed_so(tmp_path):
    path = tmp_path / judging.METADATA
    path.write_text("uid,MeSH\n1,Cardiomegaly/mild\n2,normal\n3,No Indexing\n")
    kinds, said = judging.normality(REFERENCES, path)
    assert kinds == {"CXR1_IM-0001": "abnormal", "CXR2_IM-0002": "normal"}
    assert "MeSH" in said and "2 studies have no terms" in said


def test_without_the_metadata_the_offline_judge_says_which_are_normal(tmp_path):
    kinds, said = judging.normality(REFERENCES, tmp_path / judging.METADATA)
    assert set(kinds) == set(REFERENCES) and "offline judge" in said
    assert [study for study, kind in kinds.items() if kind == "abnormal"] == ["CXR2_IM-0002"]


def test_terms_of_another_collection_decide_nothing(tmp_path):
    path = tmp_path / judging.METADATA
    path.write_text("uid,MeSH\n1,normal\n2,normal\n")
    own = {"1": {"lung": "Left pleural effusion."}, "2": {"lung": "Clear."}}
    kinds, said = judging.normality(own, path)
    assert kinds == {"1": "abnormal", "2": "normal"} and "offline judge" in said


def test_the_offline_judges_normal_is_near_the_collections(shared):
    quiz = json.loads((shared / "iu_xray" / "annotation_quiz_all.json").read_text())
    known = {study["id"]: mentioned(study["report"]) for study in quiz["test"]}
    indexed, _ = judging.normality(known, shared / "iu_xray" / judging.METADATA)
    read, _ = judging.normality(known)
    assert sum(read[study] == kind for study, kind in indexed.items()) / len(indexed) > 0.9


@pytest.mark.parametrize("content", ["a,b\n1,2\n", ""])
def test_metadata_of_another_kind_is_named(tmp_path, content):
    (path := tmp_path / judging.METADATA).write_text(content)
    with pytest.raises(StepError, match=r"is not the collection's indiana_reports\.csv"):
        judging.normality(REFERENCES, path)


def test_another_runs_judgements_are_read_and_other_files_named(tmp_path, judgements):
    judgements.to_parquet(path := tmp_path / "judgements.parquet", index=False)
    assert len(judging.read_judgements(path)) == len(judgements)
    judgements[["id", "score"]].to_parquet(path)
    for wrong in (path, tmp_path / "none.parquet", tmp_path):
        with pytest.raises(StepError, match=r"is not a run's judgements\.parquet"):
            judging.read_judgements(wrong)


def test_the_recorded_judgements_give_the_published_table(shared):
    rows = judging.read_recorded(shared / "recorded" / "green_test.jsonl.gz", "recorded")
    means = scores.summary(rows)
    assert means["mean"].round(3).tolist() == [0.704, 0.887, 0.657, 0.315]
    assert list(means["n"]) == [590, 582, 461, 312]
    assert statistics.diversity(rows).iloc[0]["reports"] == 16


@pytest.mark.parametrize("content", [b"not gzip", *(gzip.compress(c, mtime=0) for c in (b"{}\n", b"[1]"))])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    path = tmp_path / "recorded.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(StepError, match="not a file of recorded judgements"):
        judging.read_recorded(path, "x")
