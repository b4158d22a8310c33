"""The split against gold: agreement by region, the confusion, few-shot examples."""

import json

import pandas as pd
import pytest

from utils import split
from utils.pages import charts
from utils.regions import ALL

TEXTS = [
    "Heart size is normal. The lungs are clear. Mild scoliosis of the spine.",
    "Tortuous aorta. No rib fracture. Stable clips.",
]
GOLD = [
    {"heart": "Heart size is normal.", "lung": "Lungs are clear.", "bone": "Mild scoliosis of the spine."},
    {"mediastinal": "Tortuous aorta.", "bone": "No rib fracture.", "others": "Stable clips."},
]
OURS = [
    {"heart": "Heart size is normal.", "lung": "Lungs are clear. Mild scoliosis of the spine.", "bone": ""},
    {"mediastinal": "Tortuous aorta.", "heart": "Tortuous aorta.", "bone": "No rib fracture."},
]


@pytest.fixture
def frame():
    return split.agreement(TEXTS, OURS, GOLD)


def test_agreement_by_region_counts_what_either_has_there(frame):
    table = split.by_region(frame)
    assert list(table.index) == [*ALL, "all"]
    assert table["n"].to_dict() == {"lung": 2, "heart": 2, "mediastinal": 1, "bone": 2, "others": 0, "all": 5}
    assert table["agree"].round(2).tolist()[:4] == [0.5, 0.5, 1.0, 0.5]
    assert table.loc["all", "agree"] == pytest.approx(3 / 5) and pd.isna(table.loc["others", "agree"])
    assert (table["low"].dropna() <= table["agree"].dropna()).all()
    assert table.loc["all", "low"] == pytest.approx(0.5) and table.loc["all", "high"] == pytest.approx(2 / 3)


def test_confusion_has_gold_down_and_several_regions_as_one(frame):
    table = split.confusion(frame)
    assert list(table.index) == list(table.columns) == [*ALL, "several"]
    assert table.loc["bone", "lung"] == 1 and table.loc["mediastinal", "several"] == 1
    assert table.to_numpy().sum() == 5


def test_the_confusion_is_drawn_side_by_side(frame):
    table = split.confusion(frame)
    figure = charts.confusion({"a model": table, "offline": table}, data_label="phantoms")
    shown = [text.get_text() for ax in figure.axes for text in [ax.title, *ax.texts, *ax.get_xticklabels()]]
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert len(figure.axes) == 2 and "3 of 5 on the diagonal" in titles[0]
    assert {"1", "several"} <= set(shown)


def test_examples_are_left_out_of_the_agreement():
    prompt = split.with_examples("Split this.", [(TEXTS[0], GOLD[0])])
    assert prompt.startswith("Split this.\n\nExample\nFindings:\nHeart size")
    assert json.loads(prompt[prompt.rindex("{") :]) == dict.fromkeys(ALL, "") | GOLD[0]
    frame = split.agreement(TEXTS, OURS, GOLD, prompt)
    assert set(frame["study"]) == {1}
    assert split.agreement(TEXTS[:1], OURS[:1], GOLD[:1], prompt).empty


def test_nothing_to_compare_has_no_share():
    empty = split.by_region(split.agreement([], [], []))
    assert (empty["n"] == 0).all() and empty["agree"].isna().all()
    assert split.confusion(split.agreement([], [], [])).to_numpy().sum() == 0


def test_gold_pairs_join_on_the_id_and_spread_over_the_studies(tmp_path):
    path = tmp_path / "annotation.json"
    studies = [{"id": f"study{i}", "report": f"Text {i}."} for i in range(10)]
    path.write_text(json.dumps({"train": studies[:8], "test": studies[8:]}))
    findings = {f"study{i}": {"lung": f"Gold {i}."} for i in range(2, 20)}
    pairs = split.gold_pairs(findings, path, 4)
    assert pairs == [(f"Text {i}.", {"lung": f"Gold {i}."}) for i in (2, 4, 6, 8)]
    assert len(split.gold_pairs(findings, path, 100)) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file"),
        ("nonsense", "not R2Gen's annotation"),
        ('{"train": [{"id": "a"}]}', "not R2Gen's annotation"),
        ('{"train": [{"id": "b", "report": "Clear."}]}', "none of these 1 studies"),
    ],
)
def test_originals_that_do_not_fit_are_one_sentence(tmp_path, content, message):
    path = tmp_path / "annotation.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(split.SplitError, match=message):
        split.gold_pairs({"a": {}}, path, 5)
