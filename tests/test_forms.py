"""Forms and viewers, without a browser."""

import re
import types
from html import unescape
from typing import Literal

import ipywidgets
import pytest
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image
from pydantic import Field

from utils import forms, judge, workspace
from utils.regions import ALL
from utils.settings import GenerationSettings, Knobs, PromptSettings, TrainingSettings, preset

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too'"
WIDGET = "application/vnd.jupyter.widget-view+json"


class Everything(Knobs):
    """One knob of each kind."""

    switch: bool = Field(True, description="yes or no")
    choice: Literal["one", "two"] = Field("one", description=HOSTILE)
    count: int = Field(3, ge=1, le=20, description="few")
    many: int = Field(100, ge=1, description="many")
    share: float = Field(0.5, ge=0, le=1, description="a share")
    rate: float = Field(2e-5, gt=0, le=0.1, description="a rate")
    name: str = Field("short", description="a name")
    prompt: str = Field("long\ntext", description="a prompt")


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, and what displays are brought up to date with, as (kind, content)."""
    found = []

    def display(content, **_):
        found.append(("display", content))
        return types.SimpleNamespace(update=lambda content: found.append(("update", content)))

    monkeypatch.setattr(forms, "display", display)
    return found


def text(html: HTML | str) -> str:
    """The words of a page, without marks and styles."""
    markup = html.data if isinstance(html, HTML) else html
    words = re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", markup, flags=re.DOTALL))
    return " ".join(unescape(words).split())


def judgement(score=0.5, completion="the answer", **changes):
    told = {"significant": (0, 1, 0, 0, 0, 0), "insignificant": (0,) * 6, "matched": 1, "explanation": ""}
    return judge.Judgement(score=score, completion=completion, judge="", **(told | changes))


# Forms


def test_a_form_is_valid_before_anyone_touches_it():
    form = forms.Form(Everything())
    assert form.settings == Everything() and type(form.settings) is Everything


def test_each_kind_of_knob_has_its_field():
    fields = forms.Form(Everything()).fields
    kinds = {name: type(field).__name__ for name, field in fields.items()}
    assert kinds == {
        "switch": "Checkbox",
        "choice": "Dropdown",
        "count": "IntSlider",
        "many": "IntText",
        "share": "FloatSlider",
        "rate": "Text",
        "name": "Text",
        "prompt": "Textarea",
    }
    assert (fields["count"].min, fields["count"].max) == (1, 20)
    assert fields["choice"].options == ("one", "two")
    assert fields["rate"].value == "2e-05"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("switch", False, False),
        ("choice", "two", "two"),
        ("count", 20, 20),
        ("many", 7, 7),
        ("share", 0.25, 0.25),
        ("rate", "1e-4", 1e-4),
        ("name", HOSTILE, HOSTILE),
        ("prompt", "", ""),
    ],
)
def test_a_field_changes_its_setting_and_nothing_else(name, value, expected):
    form = forms.Form(Everything())
    form.fields[name].value = value
    assert form.settings == Everything().model_copy(update={name: expected})


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [("rate", "0.5", "0.05"), ("rate", "fast", "0.05"), ("rate", "nan", "0.05"), ("many", 0, 5)],
)
def test_a_bad_value_is_refused_beside_its_field(name, bad, good):
    form = forms.Form(Everything(many=4, rate=0.01))
    form.fields[name].value = bad
    assert form.settings == Everything(many=4, rate=0.01)
    note = text(form.notes[name].value)
    assert f"{bad} refused" in note and ("Still 4" in note or "Still 0.01" in note)
    assert not any("refused" in text(other.value) for key, other in form.notes.items() if key != name)
    form.fields[name].value = good
    assert getattr(form.settings, name) == float(good) and "refused" not in text(form.notes[name].value)


def test_a_refused_text_is_escaped():
    form = forms.Form(Everything())
    form.fields["rate"].value = HOSTILE
    assert "<script" not in form.notes["rate"].value and HOSTILE in text(form.notes["rate"].value)


def test_reset_goes_back_to_the_preset():
    form = forms.Form(Everything(rate=0.05, prompt="edited\n"), preset=Everything())
    assert form.settings.rate == 0.05
    form.fields["many"].value = -1
    form.fields["switch"].value = False
    form.reset_button.click()
    assert form.settings == Everything()
    assert form.fields["rate"].value == "2e-05" and form.fields["prompt"].value == "long\ntext"
    assert "refused" not in text(form.notes["many"].value)


def test_without_a_preset_reset_goes_back_to_the_start():
    form = forms.Form(Everything(many=9))
    form.fields["many"].value = 10
    form.reset()
    assert form.settings.many == 9


def test_a_form_leaves_the_settings_it_was_given_alone():
    given = preset("t4").training
    form = forms.Form(given)
    kept = form.settings
    form.fields["seed"].value = 5
    assert given.seed == 17 and kept.seed == 17 and form.settings.seed == 5


def test_a_number_is_shown_as_exactly_as_it_is():
    form = forms.Form(Everything(rate=0.012345678))
    form.reset()
    assert form.settings.rate == 0.012345678


@pytest.mark.parametrize("name", ["t4", "demo"])
@pytest.mark.parametrize("step", ["split", "dataset", "training", "generation", "judge"])
def test_every_step_has_a_form_with_range_and_help(name, step):
    settings = getattr(preset(name), step)
    form = forms.Form(settings)
    assert form.settings == settings
    for knob, info in type(settings).model_fields.items():
        assert form.fields[knob].description == knob.replace("_", " ")
        assert info.description in text(form.notes[knob].value)
    if step == "training":
        assert "(above 0 to 0.1)" in text(form.notes["learning_rate"].value)
        assert "(from 1 to 256)" in text(form.notes["lora_rank"].value)


def test_a_long_prompt_has_room():
    field = forms.Form(PromptSettings(text="word " * 200)).fields["text"]
    assert isinstance(field, ipywidgets.Textarea) and field.value == "word " * 200


def test_settings_that_hold_settings_have_no_form():
    with pytest.raises(TypeError, match="'split'"):
        forms.Form(preset("t4"))


def test_what_stands_beside_a_form_follows_it():
    form = forms.Form(GenerationSettings(), beside=lambda chosen: f"<p>{chosen.studies} studies</p>")
    assert "0 studies" in text(form.static())
    form.fields["studies"].value = 12
    assert "12 studies" in text(form.static())
    form.fields["studies"].value = -1
    assert "12 studies" in text(form.static())


# The static twin


def test_the_table_holds_every_value_and_meaning():
    page = text(forms.settings_table(TrainingSettings(learning_rate=3e-5, base="")))
    assert "learning rate 3e-05 peak learning rate (above 0 to 0.1)" in page
    assert "base (empty) the base model" in page


def test_a_form_shows_widget_and_values_and_keeps_both_up_to_date(shown):
    form = forms.Form(Everything())
    form._ipython_display_()
    (_, bundle), (_, twin) = shown
    assert bundle[WIDGET]["model_id"] == form.widget.model_id and bundle["text/plain"] == ""
    assert "rate 2e-05" in text(twin)
    form.fields["rate"].value = "0.03"
    assert shown[-1][0] == "update" and "rate 0.03" in text(shown[-1][1])


def test_before_it_is_shown_nothing_is_brought_up_to_date(shown):
    forms.Form(Everything()).fields["rate"].value = "0.03"
    assert not shown


# Browsing


def test_a_browser_shows_the_first_item_at_once_and_draws_no_other(shown):
    drawn = []
    viewer = forms.browser(["CXR1", "CXR2"], lambda i: drawn.append(i) or HTML(f"<p>drawing {i}</p>"))
    viewer._ipython_display_()
    assert drawn == [0]
    assert "drawing 0" in text(viewer.shown.value) and "drawing 0" in text(shown[-1][1])
    assert "study CXR1" in text(shown[-1][1])


def test_a_browser_steps_and_stops_at_its_ends():
    viewer = forms.browser(["a", "b", "c"], lambda i: f"<p>drawing {i}</p>", "report")
    assert viewer.previous.disabled and not viewer.next.disabled
    viewer.previous.click()
    assert "drawing 0" in viewer.shown.value
    viewer.next.click()
    assert "drawing 1" in viewer.shown.value and not viewer.previous.disabled
    viewer.choice.value = 2
    viewer.next.click()
    assert "drawing 2" in viewer.shown.value and viewer.next.disabled
    assert "report c" in text(viewer.shown.value)


def test_items_of_the_same_name_are_told_apart():
    viewer = forms.browser(["twin", "twin"], lambda i: f"<p>drawing {i}</p>")
    viewer.choice.value = 1
    assert "drawing 1" in viewer.shown.value


def test_a_figure_becomes_a_picture_with_its_name():
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    page = forms.browser([HOSTILE], lambda i: figure).shown.value
    assert 'src="data:image/png;base64,' in page and "<script" not in page
    assert HOSTILE in unescape(re.search(r'alt="([^"]*)"', page)[1])


def test_nothing_to_browse_is_said():
    with pytest.raises(ValueError, match="no study to show"):
        forms.browser([], str)


# A split


def marks(html: HTML) -> list[tuple[str, str, str]]:
    """The marked words as (class, words, label)."""
    return re.findall(r'<mark class="(\w+)">(.*?)<small>(\w+)</small></mark>', html.data)


def test_words_are_marked_and_labelled_with_the_region_that_took_them():
    original = "The lungs are clear. Heart size is normal. No rib fracture, today."
    findings = {"lung": "Lungs are clear.", "heart": "Heart size is normal.", "bone": "No rib fracture."}
    view = forms.split_view(original, findings)
    assert marks(view) == [
        ("lung", "lungs are clear", "lung"),
        ("heart", "Heart size is normal", "heart"),
        ("bone", "No rib fracture", "bone"),
    ]
    unmarked = re.sub(r"<small>\w+</small></mark>|<mark[^>]*>", "", re.search(r"<p>(.*?)</p>", view.data)[1])
    assert unmarked == original


def test_a_word_goes_with_its_neighbours_and_a_lone_common_word_to_nobody():
    findings = {"heart": "Cardiac contours are normal.", "mediastinal": "Mediastinal contours are normal."}
    view = forms.split_view("Mediastinal contours are normal. Size is normal.", findings)
    assert marks(view) == [("mediastinal", "Mediastinal contours are normal", "mediastinal")]


def test_a_split_names_all_regions_and_escapes_all_texts():
    audit = [{HOSTILE: HOSTILE, "ok": True}, {"ok": False}]
    view = forms.split_view(HOSTILE, {"lung": HOSTILE, "heart": ""}, audit)
    assert "<script" not in view.data
    page = text(view)
    assert page.count(HOSTILE) == 3 and "heart not mentioned" in page
    assert all(name in page for name in ALL) and "True" in page and "False" in page


def test_a_split_without_audit_or_findings_is_shown():
    page = text(forms.split_view("Nothing was found.", {}))
    assert "Nothing was found." in page and "audit" not in page


# A report


def report(images=(), reference=None, prediction=None, judgements=None, **labels):
    labels = {"judge_label": judge.OFFLINE_LABEL, "note": "phantom"} | labels
    return forms.report_view(list(images), reference or {}, prediction or {}, judgements or {}, **labels)


def test_views_are_small_pictures_with_their_names():
    images = [Image.new("L", (700, 500)), Image.new("RGB", (100, 120)), Image.new("RGBA", (9, 9))]
    view = report(images)
    assert re.findall(r'alt="([^"]*)" src="data:image/png', view.data) == [
        "view 1 of 3",
        "view 2 of 3",
        "view 3 of 3",
    ]
    assert images[0].size == (700, 500)


def test_a_large_view_is_scaled_down():
    largest = forms._view(Image.effect_noise((1200, 800), 64), "view")
    as_it_is = forms._view(Image.effect_noise((320, 213), 64), "view")
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
    found = judgement(
        matched_findings=("clear lungs",),
        sentences={"b": ("small effusion",)},
        insignificant_sentences={"d": ("mild or moderate",)},
        completion="[Explanation]: whole answer",
    )
    page = text(report(reference={"lung": "x"}, prediction={"lung": "y"}, judgements={"lung": found}))
    assert "✓ clear lungs" in page and "✗ missing finding: small effusion" in page
    assert "✗ minor: wrong severity: mild or moderate" in page and "[Explanation]: whole answer" in page


def test_a_judgement_without_lists_says_so():
    page = text(report(reference={"lung": "x"}, prediction={"lung": "y"}, judgements={"lung": judgement()}))
    assert "no match and no error listed" in page


def test_labels_are_always_visible():
    page = text(report(note="phantom, not a patient"))
    assert "phantom, not a patient" in page and judge.OFFLINE_LABEL in page
    assert "Not for clinical use" in page


def test_a_study_alone_has_no_prediction():
    page = text(forms.report_view([], {"lung": "Clear."}, {}, {}, "", note="phantom"))
    assert "lung Clear." in page and "prediction" not in page and "nothing written" not in page


def test_an_empty_report_that_was_judged_is_shown_as_empty():
    page = text(report(reference={"lung": "Clear."}, judgements={"lung": judgement(0.0)}))
    assert "lung Clear. nothing written 0.00" in page


def test_every_text_of_a_report_is_escaped():
    found = judgement(
        completion=HOSTILE,
        matched_findings=(HOSTILE,),
        sentences={"a": (HOSTILE,)},
        insignificant_sentences={"f": (HOSTILE,)},
    )
    texts = {"lung": HOSTILE}
    view = report((), texts, texts, {"lung": found}, judge_label=HOSTILE, note=HOSTILE)
    unmarked = re.sub(r"<small>[✓✗] \w+</small></mark>|<mark[^>]*>", "", view.data)
    assert "<script" not in view.data and text(HTML(unmarked)).count(HOSTILE) == 8


def test_matched_and_wrong_findings_are_marked_in_the_texts_with_words_and_not_colour_alone():
    found = judgement(
        matched_findings=("no pneumothorax",),
        sentences={"a": ("left pleural effusion",), "b": ("lung nodule",)},
    )
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


# The steps


def test_the_map_shows_where_one_is_and_what_is_done(tmp_path):
    run = workspace.Workspace(tmp_path / "a & b")
    run.finish("regions", settings={}, outputs=[])
    view = forms.steps_view(run, "dataset")
    page = text(view)
    assert "step 1 Findings to regions ✓ finished" in page and "UTC" in page
    assert "step 2 · you are here Studies to a dataset ○ not done" in page
    assert view.data.count("aria-current=step") == 1
    assert 'href="01_region_split.ipynb"' in view.data and "02_build" not in view.data
    assert "a &amp; b" in view.data


def test_in_colab_the_map_has_no_dead_links(tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "in_colab", lambda: True)
    assert "href" not in forms.steps_view(workspace.Workspace(tmp_path), "regions").data


def test_an_unknown_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no step called 'five': steps are regions"):
        forms.steps_view(workspace.Workspace(tmp_path), "five")


def test_pages_fetch_nothing_and_run_nothing(tmp_path):
    pages = (
        forms.settings_table(TrainingSettings()),
        forms.split_view("Clear.", {"lung": "Clear."}),
        report([Image.new("L", (9, 9))]),
        forms.steps_view(workspace.Workspace(tmp_path), "regions"),
    )
    for page in pages:
        assert not re.search(r"<script|@import|url\(|https?://|\son\w+=", page.data)
