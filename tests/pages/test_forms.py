"""Forms, without a browser."""

import re
from typing import Literal

import ipywidgets
import pytest
from page_text import HOSTILE, text
from pydantic import Field

from utils.pages import forms
from utils.run.workspace import StepError
from utils.settings import BASES, GenerationSettings, PromptSettings, StepSettings, TrainingSettings, preset

WIDGET = "application/vnd.jupyter.widget-view+json"


class Everything(StepSettings):
    """One knob of each kind."""

    switch: bool = Field(True, description="yes or no")
    choice: Literal["one", "two"] = Field("one", description=HOSTILE)
    count: int = Field(3, ge=1, le=20, description="few")
    many: int = Field(100, ge=1, description="many")
    share: float = Field(0.5, ge=0, le=1, description="a share")
    rate: float = Field(2e-5, gt=0, le=0.1, description="a rate")
    name: str = Field("short", description="a name")
    prompt: str = Field("long\ntext", description="a prompt")


def test_a_form_is_valid_before_anyone_touches_it():
    form = forms.Form(Everything())
    assert form.settings == Everything() and type(form.settings) is Everything


def test_each_kind_of_knob_has_its_field():
    fields = forms.Form(Everything()).fields
    kinds = {name: type(field).__name__ for name, field in fields.items()}
    assert list(kinds) == list(Everything.model_fields)
    expected = "Checkbox Dropdown IntSlider IntText FloatSlider Text Text Textarea"
    assert list(kinds.values()) == expected.split()
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
    form = forms.Form(Everything(), changed={"rate": 0.05, "prompt": "edited\n"})
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


@pytest.mark.parametrize("step", ["split", "dataset", "training", "generation", "judge"])
def test_a_form_shows_few_knobs_first_and_folds_each_other_one_once(step):
    settings = getattr(preset("t4"), step)
    form = forms.Form(settings)
    folded = [name for names in settings.folded.values() for name in names]
    assert len(folded) == len(set(folded)) and set(folded) < set(form.fields)
    assert len(form.fields) - len(folded) <= 5, "fold a knob, or it makes the form long"
    assert visible(form) == set(form.fields) - set(folded)
    if step == "training":
        assert visible(form) == {"base", "image_tokens", "epochs", "learning_rate", "lora_rank"}


def visible(form: forms.Form) -> set[str]:
    """The knobs whose fields can be seen and are not in a closed group."""
    found, boxes = set(), [form.widget]
    while boxes:
        box = boxes.pop()
        found |= {name for name, field in form.fields.items() if field is box}
        if not isinstance(box, ipywidgets.Accordion):
            boxes += getattr(box, "children", ())
        elif box.selected_index is not None:
            boxes.append(box.children[box.selected_index])
    return found


def test_a_folded_knob_that_is_not_the_presets_is_named_on_its_group(shown):
    form = forms.Form(TrainingSettings(), changed={"seed": 5})
    (groups,) = [box for box in form.widget.children if isinstance(box, ipywidgets.Accordion)]
    titles = [groups.get_title(place) for place in range(len(groups.children))]
    assert "schedule (changed: seed 5)" in titles and "adapter" in titles
    assert "schedule (changed: seed 5)" in text(form.static())
    form.reset_button.click()
    assert "changed" not in " ".join(groups.get_title(place) for place in range(len(groups.children)))
    groups.selected_index = 1
    assert "lora_alpha" in visible(form) and "seed" not in visible(form)


def test_a_text_with_examples_offers_them_and_takes_any_other():
    form = forms.Form(TrainingSettings())
    assert isinstance(form.fields["base"], ipywidgets.Combobox)
    assert {*BASES, "demo"} == set(form.fields["base"].options)
    form.fields["base"].value = "/a/folder"
    assert form.settings.base == "/a/folder"


def test_a_long_prompt_has_room():
    field = forms.Form(PromptSettings(text="word " * 200)).fields["text"]
    assert isinstance(field, ipywidgets.Textarea) and field.value == "word " * 200


# Which value holds: the notebook's first form, the form further down, the preset, or a run that has begun


@pytest.fixture
def folder(tmp_path):
    """What a form is of; a fresh kernel knows no form of it."""
    return tmp_path / "rank64"


def sources(form: forms.Form) -> dict[str, str]:
    """Where the values came from that are not the preset's, as the form says it."""
    rows = re.findall(r"<tr>(.*?)</tr>", form._sources.value.partition("<tbody>")[2])
    cells = ([text(cell) for cell in re.findall(r"<td>(.*?)</td>", row)] for row in rows)
    return {f"{name} {value}": source for name, value, source in cells}


def test_the_first_form_is_over_what_is_changed_below_and_that_over_the_preset(folder):
    form = forms.open_form(Everything(), {"count": 5}, folder)
    form.fields["rate"].value = "0.03"
    form.fields["many"].value = -1  # refused
    assert form.settings == Everything(count=5, rate=0.03)
    assert sources(form) == {"count 5": "form", "rate 0.03": "widget"}
    assert form.fields["count"].disabled and not form.fields["rate"].disabled
    assert "set in the form above" in text(form.notes["count"].value)
    assert "count 5 form rate 0.03 widget" in text(form.static())
    again = forms.open_form(Everything(), {"rate": "0.04"}, folder)  # all cells are run once more
    assert again.settings == Everything(rate=0.04) and sources(again) == {"rate 0.04": "form"}


def test_what_is_changed_below_holds_until_the_kernel_ends_and_reset_takes_it_back(folder, monkeypatch):
    forms.open_form(Everything(), {"name": "other"}, folder).fields["count"].value = 6
    again = forms.open_form(Everything(many=7), {"name": "other"}, folder)
    assert again.settings == Everything(many=7, count=6, name="other")
    assert sources(forms.open_form(Everything(), {}, folder.with_name("b"))) == {}
    again.reset_button.click()
    assert again.settings == Everything(many=7, name="other")  # the first form's value stays
    untouched = forms.open_form(Everything(), {}, folder)
    assert untouched.settings == Everything() and "Every value is the preset's." in text(untouched.static())
    untouched.fields["count"].value = 6
    monkeypatch.setattr(forms, "_CHANGED", {})  # as in a new kernel
    assert forms.open_form(Everything(), {}, folder).settings == Everything()
    assert not folder.exists()
    assert "lost when the kernel restarts" in text(untouched.widget.children[0].value)


def test_a_run_that_has_begun_is_fixed_and_says_so(folder):
    forms.open_form(Everything(), {}, folder, begun={}).fields["count"].value = 6
    begun = Everything(count=9, many=3).model_dump()
    form = forms.open_form(Everything(), {"count": "9"}, folder, begun=begun, free={"many", "rate"})
    assert form.settings == Everything(count=9, many=3)
    assert sources(form) == {"count 9": "run", "many 3": "run"}
    assert "Run rank64 started with these settings" in text(form.static())
    assert {name for name, field in form.fields.items() if not field.disabled} == {"many", "rate"}
    form.fields["many"].value = 4
    form.reset_button.click()
    assert form.settings.many == 3
    free = forms.open_form(Everything(), {"many": 8}, folder, begun=begun, free={"many"})
    assert sources(free) == {"count 9": "run", "many 8": "form"}


def test_settings_that_hold_settings_have_no_form():
    with pytest.raises(TypeError, match="'split'"):
        forms.Form(preset("t4"))


def test_other_settings_than_those_of_a_run_are_refused_in_a_sentence(folder):
    begun = Everything(count=9).model_dump()
    with pytest.raises(
        StepError, match=r"started with count 9, not 5; share 0.5, not 0.1. Take that out .*RUN"
    ):
        forms.open_form(Everything(), {"count": 5, "share": 0.1}, folder, begun=begun)
    with pytest.raises(ValueError, match=r"The run in .*rank64 has 'gone', which is not a field"):
        forms.open_form(Everything(), {}, folder, begun={**begun, "gone": 1})


def test_a_long_text_that_is_not_the_presets_is_told_by_its_length(folder):
    form = forms.open_form(Everything(), {"prompt": "a\nb"}, folder)
    assert sources(form) == {"prompt 3 characters": "form"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"coutn": 1},
            "SETTINGS has 'coutn', which is not a field of this form. The fields are switch, choice",
        ),
        ({"count": 99}, "The value 99 of 'count' is not allowed: .* less than or equal to 20"),
        ({"choice": "three"}, "The value 'three' of 'choice' is not allowed: .*'one' or 'two'"),
        ('{"count": 1}', "SETTINGS must hold names and values"),
    ],
)
def test_a_parameter_that_cannot_be_is_one_sentence(folder, values, message):
    with pytest.raises(ValueError, match=message) as caught:
        forms.open_form(Everything(), values, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", ["split", "dataset", "training", "generation", "judge"])
def test_every_field_of_every_form_can_be_a_parameter(step, folder):
    start = getattr(preset("t4"), step)
    values = {name: other_value(field) for name, field in forms.Form(start).fields.items()}
    form = forms.open_form(start, values, folder)
    assert {name: getattr(form.settings, name) for name in values} == values
    assert all(getattr(start, name) != value for name, value in values.items())
    assert set(sources(form).values()) == {"form"} and len(sources(form)) == len(values)


def other_value(field: ipywidgets.Widget):
    """A valid value that the field does not show."""
    if isinstance(field, ipywidgets.Checkbox):
        return not field.value
    if isinstance(field, (ipywidgets.Dropdown, ipywidgets.Combobox)):
        return next(option for option in field.options if option != field.value)
    if isinstance(field, (ipywidgets.IntSlider, ipywidgets.FloatSlider)):
        return field.max if field.value != field.max else field.min
    if isinstance(field, ipywidgets.IntText):
        return field.value + 2
    try:
        return float(field.value) / 2
    except ValueError:
        return field.value + "x"


def test_fields_that_are_filled_in_are_values_and_settings_is_over_them(folder):
    values = forms.filled({"count": 6}, count="5", rate="3e-2", name="")
    assert forms.open_form(Everything(), values, folder).settings == Everything(count=6, rate=0.03)
    with pytest.raises(ValueError, match=r"The value 'x' of 'rate' is not allowed: .*valid number"):
        forms.open_form(Everything(), forms.filled({}, rate="x"), folder)


def test_a_notebook_with_two_forms_takes_the_values_by_form():
    given = {"judge": {"batch_size": 2}}
    assert forms.parts(given, "generation", "judge") == {"generation": {}} | given
    with pytest.raises(
        ValueError, match=r"SETTINGS has 'batch_size', but must name .*forms: generation or judge"
    ):
        forms.parts({"batch_size": 2}, "generation", "judge")


# What stands beside a form


def test_what_stands_beside_a_form_follows_it():
    form = forms.Form(GenerationSettings(), beside=lambda chosen: f"<p>{chosen.studies} studies</p>")
    assert "0 studies" in text(form.static())
    form.fields["studies"].value = 12
    assert "12 studies" in text(form.static())
    form.fields["studies"].value = -1
    assert "12 studies" in text(form.static())


# The static twin


def test_the_table_holds_every_value_and_meaning():
    page = text(forms.Form(TrainingSettings(learning_rate=3e-5, base="")).static())
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
