"""What headings say of a text: its findings, or that the region is normal without reserve."""

import pytest

from utils.findings.groups import GROUPS, named
from utils.findings.plans import NORMAL, Words, complete, is_whole, left_out, words_of

BIG = "The heart is enlarged."
HEART = next(group for group in GROUPS if group.name == "cardiomegaly")
CLEAR = "The lungs are clear. No pleural effusion or pneumothorax."


def test_a_plan_has_what_the_text_says_and_no_finding_that_is_not_read():
    study = {"heart": BIG, "lung": "Left effusion and opacity. No nodule.", "bone": "No fracture."}
    assert Words(GROUPS, {}).plan(study) == {
        "heart": ("cardiomegaly",),
        "lung": ("effusion", "opacity"),
        "bone": (),
    }
    assert Words((HEART,), {}).plan(study) == {"heart": ("cardiomegaly",), "lung": (), "bone": ()}


@pytest.mark.parametrize(
    ("text", "region", "whole"),
    [
        ("The heart is normal.", "heart", True),
        ("Heart size is normal.", "heart", False),  # leaves its contour open
        ("No acute bony abnormality.", "bone", False),  # leaves open what is old
        ("Osseous structures are within normal limits.", "bone", True),
        ("The mediastinum is unremarkable.", "mediastinal", True),
        ("The mediastinum is stable.", "mediastinal", False),
        ("The pulmonary vascularity is normal.", "mediastinal", False),  # of something else
        ("The lungs are otherwise clear.", "lung", False),
        ("The heart is enlarged.", "heart", False),
        ("No pleural effusion.", "lung", False),  # of no organ
        ("", "lung", False),
    ],
)
def test_a_whole_normal_statement_has_no_reserve(text, region, whole):
    assert is_whole(text, region, frozenset()) == whole


def test_a_normal_lung_denies_what_most_normal_reports_deny():
    studies = [{"lung": CLEAR, "heart": "The heart is normal."}] * 6 + [{"lung": "The lungs are clear."}] * 4
    words = words_of(studies, GROUPS)
    assert words.denied == {"lung": frozenset({"effusion", "pneumothorax"}), "heart": frozenset()}
    assert words.plan({"lung": CLEAR}) == {"lung": (NORMAL,)}
    assert words.plan({"lung": "The lungs are clear."}) == {"lung": ()}
    assert words.plan({"lung": f"{CLEAR} There is a nodule."}) == {"lung": ("nodule",)}


def test_a_region_that_no_report_calls_normal_without_reserve_is_never_planned_so():
    words = words_of([{"bone": "No acute bony abnormality."}] * 20, GROUPS)
    assert words.denied == {} and words.plan({"bone": "The bones are normal."}) == {"bone": ()}


def test_what_a_report_leaves_out_of_its_plan_is_put_first():
    plan = {"lung": ("effusion", "opacity"), "heart": ("normal",), "bone": ("scoliosis",)}
    report = {"lung": "There is an opacity. No effusion.", "heart": "Normal."}
    assert left_out(report, plan) == {"lung": "There is a pleural effusion.", "bone": "There is scoliosis."}
    completed = complete(report, plan)
    assert completed["lung"] == "There is a pleural effusion. There is an opacity. No effusion."
    assert completed["heart"] == "Normal." and completed["bone"] == "There is scoliosis."
    assert complete(completed, plan) == completed
    assert all(named(completed[region], region) >= set(plan[region]) for region in ("lung", "bone"))


def test_every_findings_sentence_names_it():
    for group in GROUPS:
        assert group.name in named(group.sentence, group.region)
