"""Browsers, splits and reports, without a browser."""

import re

import pytest
from IPython.display import HTML
from page_text import HOSTILE, text
from PIL import Image

from utils import judge
from utils.pages import viewers
from utils.regions import ALL


def judgement(score=0.5, completion="the answer", **changes):
    told = {"significant": (0, 1, 0, 0, 0, 0), "insignificant": (0,) * 6, "matched": 1, "explanation": ""}
    return judge.Judgement(score=score, completion=completion, judge="", **(told | changes))


# Browsing


def test_a_browser_shows_the_first_item_at_once_and_draws_no_other(shown):
    drawn = []
    viewer = viewers.Browser(["CXR1", "CXR2"], lambda i: drawn.append(i) or HTML(f"<p>drawing {i}</p>"))
    viewer._ipython_display_()
    assert drawn == [0]
    assert "drawing 0" in text(viewer.shown.value) and "drawing 0" in text(shown[-1][1])
    assert "study CXR1" in text(shown[-1][1])


def test_a_browser_steps_and_stops_at_its_ends():
    viewer = viewers.Browser(["a", "b", "c"], lambda i: f"<p>drawing {i}</p>")
    assert viewer.previous.disabled and not viewer.next.disabled
    viewer.previous.click()
    assert "drawing 0" in viewer.shown.value
    viewer.next.click()
    assert "drawing 1" in viewer.shown.value and not viewer.previous.disabled
    viewer.choice.value = 2
    viewer.next.click()
    assert "drawing 2" in viewer.shown.value and viewer.next.disabled
    assert "study c" in text(viewer.shown.value)


def test_items_of_the_same_name_are_told_apart():
    viewer = viewers.Browser(["twin", "twin"], lambda i: f"<p>drawing {i}</p>")
    viewer.choice.value = 1
    assert "drawing 1" in viewer.shown.value


def test_the_names_of_items_are_escaped():
    page = viewers.Browser([HOSTILE], lambda i: "<p>drawing</p>").shown.value
    assert "<script" not in page and HOSTILE in text(page)


def test_nothing_to_browse_is_said():
    with pytest.raises(ValueError, match="no study to show"):
        viewers.Browser([], str)


# A split


def marks(html: HTML) -> list[tuple[str, str, str]]:
    """The marked words as (class, words, label)."""
    return re.findall(r'<mark class="(\w+)">(.*?)<small>(\w+)</small></mark>', html.data)


def test_words_are_marked_and_labelled_with_the_region_that_took_them():
    original = "The lungs are clear. Heart size is normal. No rib fracture, today."
    findings = {"lung": "Lungs are clear.", "heart": "Heart size is normal.", "bone": "No rib fracture."}
    view = viewers.split_view(original, findings)
    lung, heart = ("lung", "lungs are clear", "lung"), ("heart", "Heart size is normal", "heart")
    assert marks(view) == [lung, heart, ("bone", "No rib fracture", "bone")]
    unmarked = re.sub(r"<small>\w+</small></mark>|<mark[^>]*>", "", re.search(r"<p>(.*?)</p>", view.data)[1])
    assert unmarked == original


def test_a_word_goes_with_its_neighbours_and_a_lone_common_word_to_nobody():
    findings = {"heart": "Cardiac contours are normal.", "mediastinal": "Mediastinal contours are normal."}
    view = viewers.split_view("Mediastinal contours are normal. Size is normal.", findings)
    assert marks(view) == [("mediastinal", "Mediastinal contours are normal", "mediastinal")]


def test_a_split_names_all_regions_and_escapes_all_texts():
    audit = [{HOSTILE: HOSTILE, "ok": True}, {"ok": False}]
    view = viewers.split_view(HOSTILE, {"lung": HOSTILE, "heart": ""}, audit)
    assert "<script" not in view.data
    page = text(view)
    assert page.count(HOSTILE) == 3 and "heart not mentioned" in page
    assert all(name in page for name in ALL) and "True" in page and "False" in page


def test_a_split_without_audit_or_findings_is_shown():
    page = text(viewers.split_view("Nothing was found.", {}))
    assert "Nothing was found." in page and "audit" not in page


# A report


def report(images=(), reference=None, prediction=None, judgements=None, **labels):
    labels = {"judge_label": judge.OFFLINE_LABEL, "note": "phantom"} | labels
    return viewers.report_view(list(images), reference or {}, prediction or {}, judgements or {}, **labels)


def test_views_are_small_pictures_with_their_names():
    images = [Image.new("L", (700, 500)), Image.new("RGB", (100, 120)), Image.new("RGBA", (9, 9))]
    view = report(images)
    alts = re.findall(r'alt="([^"]*)" src="data:image/png', view.data)
    assert alts == ["view 1 of 3", "view 2 of 3", "view 3 of 3"]
    assert images[0].size == (700, 500)


def test_a_large_view_is_scaled_down():
    largest = viewers.view(Image.effect_noise((1200, 800), 64), "view")
    as_it_is = viewers.view(Image.effect_noise((320, 213), 64), "view")
    assert len(largest) < 1.5 * len(as_it_is)


def test_reference_prediction_and_score_stand_in_a_row():
    view = report(
        reference={"lung": "Clear lungs.", "heart": "Big heart.", "bone": "Old fracture."},
        prediction={"lung": "Lungs are clear.", "mediastinal": "Normal."},
        judgements={"lung": judgement(0.667), "heart": judgement(None)},
    )
    page = text(view)
    assert "lung Clear lungs. Lungs are clear. 0.67" in page
    assert "heart Big heart. nothing written no verdict" in page
    assert "mediastinal not mentioned Normal. not scored" in page
    assert "bone Old fracture. nothing written not judged" in page


def test_a_region_that_the_reference_leaves_out_is_never_scored():
    view = report(
        reference={"lung": "Clear."}, prediction={"heart": "Big."}, judgements={"heart": judgement(1)}
    )
    assert "1.00" not in view.data


def test_what_the_judge_found_is_listed_with_its_kind():
    texts = {"sentences": {"b": ("small effusion",)}, "insignificant_sentences": {"d": ("mild or moderate",)}}
    found = judgement(matched_findings=("clear lungs",), completion="[Explanation]: whole answer", **texts)
    page = text(report(reference={"lung": "x"}, prediction={"lung": "y"}, judgements={"lung": found}))
    assert "✓ clear lungs" in page and "✗ missing finding: small effusion" in page
    assert "✗ minor, lowers no score: wrong severity: mild or moderate" in page
    assert "[Explanation]: whole answer" in page


def test_a_judgement_without_lists_says_so():
    page = text(report(reference={"lung": "x"}, prediction={"lung": "y"}, judgements={"lung": judgement()}))
    assert "no matches and no errors listed" in page


def test_labels_are_always_visible():
    page = text(report(note="phantom, not a patient"))
    assert "phantom, not a patient" in page and judge.OFFLINE_LABEL in page
    assert "Not for clinical use" in page


def test_an_empty_report_that_was_judged_is_shown_as_empty():
    page = text(report(reference={"lung": "Clear."}, judgements={"lung": judgement(0.0)}))
    assert "lung Clear. nothing written 0.00" in page


def test_every_text_of_a_report_is_escaped():
    hostile = {"matched_findings": (HOSTILE,), "sentences": {"a": (HOSTILE,)}}
    found = judgement(completion=HOSTILE, insignificant_sentences={"f": (HOSTILE,)}, **hostile)
    texts = {"lung": HOSTILE}
    view = report((), texts, texts, {"lung": found}, judge_label=HOSTILE, note=HOSTILE)
    unmarked = re.sub(r"<small>[✓✗] \w+</small></mark>|<mark[^>]*>", "", view.data)
    assert "<script" not in view.data and text(HTML(unmarked)).count(HOSTILE) == 8


def test_matched_and_wrong_findings_are_marked_in_the_texts_with_words_and_not_colour_alone():
    sentences = {"a": ("left pleural effusion",), "b": ("lung nodule",)}
    found = judgement(matched_findings=("no pneumothorax",), sentences=sentences)
    view = report(
        reference={"lung": "No pneumothorax. Small lung nodule."},
        prediction={"lung": "Left pleural effusion. No pneumothorax."},
        judgements={"lung": found},
    )
    marked = re.findall(r'<mark class="(\w+)">(.*?)<small>(.*?)</small></mark>', view.data)
    assert marked == [
        ("matched", "No pneumothorax", "✓ matched"),
        ("wrong", "lung nodule", "✗ missing"),
        ("wrong", "Left pleural effusion", "✗ wrong"),
        ("matched", "No pneumothorax", "✓ matched"),
    ]


def test_a_mark_ends_with_its_finding_and_its_sentence():
    found = judgement(matched_findings=("left pneumothorax", "no consolidation"))
    text = {"lung": "A left pneumothorax. No focal consolidation."}
    view = report(reference=text, prediction=text, judgements={"lung": found})
    marked = re.findall(r'<mark class="matched">(.*?)<small>', view.data)
    assert marked == ["left pneumothorax", "consolidation"] * 2


def test_a_finding_in_other_words_marks_its_sentence():
    found = judgement(sentences={"b": ("mild cardiomegaly",)})
    view = report(
        reference={"heart": "Heart is mildly enlarged. Pacemaker."},
        prediction={"heart": "Heart is normal in size."},
        judgements={"heart": found},
    )
    marked = re.findall(r'<mark class="(\w+)">(.*?)<small>(.*?)</small></mark>', view.data)
    assert marked == [("wrong", "Heart is mildly enlarged.", "✗ missing")]
