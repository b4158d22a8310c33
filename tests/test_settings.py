"""The knobs refuse what they should, and the presets are what they say."""

import pytest
from pydantic import ValidationError

from utils import settings
from utils.settings import TrainingSettings, preset, with_values

STEPS = ("split", "dataset", "training", "generation", "judge")


@pytest.mark.parametrize("name", settings.PRESETS)
def test_a_preset_is_valid_and_survives_a_manifest(name):
    chosen = preset(name)
    assert chosen.name == name
    assert settings.Preset.model_validate_json(chosen.model_dump_json()) == chosen


def test_the_demo_needs_no_gpu_and_no_network():
    demo = preset("demo")
    assert demo.data == "phantoms" and demo.split.engine == "offline" and demo.judge.engine == "offline"
    assert demo.training.base == settings.DEMO_BASE
    assert (demo.training.precision, demo.training.optimizer) == ("fp32", "adamw_torch")


def test_real_radiographs_on_two_cores_need_no_gpu_and_no_server():
    small, demo = preset("small"), preset("demo")
    assert small.data == "iu_xray" and small.split.engine == "offline" and small.judge.engine == "offline"
    assert small.training.base == settings.SMALL_BASE
    for knob in ("precision", "optimizer", "image_tokens"):
        assert getattr(small.training, knob) == getattr(demo.training, knob)


def test_the_weight_of_recall_is_the_same_at_every_size():
    assert {preset(name).generation.recall_weight for name in settings.PRESETS} == {settings.RECALL_WEIGHT}
    for wrong in (0.05, 2.5):
        with pytest.raises(ValidationError, match="recall_weight"):
            settings.GenerationSettings(recall_weight=wrong)


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(ValueError, match="'huge': choose t4, small, demo"):
        preset("huge")


@pytest.mark.parametrize("name", settings.PRESETS)
@pytest.mark.parametrize("step", STEPS)
def test_changing_one_copy_of_a_preset_leaves_the_next_alone(name, step):
    before = preset(name).model_dump()
    first = getattr(preset(name), step)
    knob = next(iter(type(first).model_fields))
    object.__setattr__(first, knob, "changed")
    assert preset(name).model_dump() == before


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("epochs", 0),
        ("epochs", 51),
        ("epochs", float("nan")),
        ("epochs", "many"),
        ("learning_rate", 0),
        ("learning_rate", 0.2),
        ("warmup", -0.01),
        ("lora_dropout", 1.01),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("max_steps", -2),
        ("precision", "fp8"),
        ("optimizer", "sgd"),
        ("base", None),
        ("recompute", "some"),
        ("recompute", -1),
    ],
)
def test_a_value_out_of_range_is_refused_from_the_start_and_later(knob, value):
    chosen = preset("t4").training
    before = chosen.model_dump()
    with pytest.raises(ValidationError, match=knob):
        TrainingSettings(**{knob: value})
    with pytest.raises(ValidationError, match=knob):
        setattr(chosen, knob, value)
    with pytest.raises(ValidationError, match=knob):
        with_values(chosen, {knob: value})
    assert chosen.model_dump() == before


def test_reports_written_at_once_are_as_many_as_fit_or_as_an_older_run_chose():
    assert preset("t4").generation.batch_size == 0
    assert settings.GenerationSettings.model_validate({"batch_size": 16}).batch_size == 16
    with pytest.raises(ValidationError, match="batch_size"):
        settings.GenerationSettings(batch_size=-1)


@pytest.mark.parametrize("step", STEPS)
def test_an_unknown_knob_is_refused(step):
    chosen = getattr(preset("t4"), step)
    with pytest.raises(ValidationError, match="epocs"):
        with_values(chosen, {"epocs": 3})
    with pytest.raises(ValidationError, match="epocs"):
        chosen.epocs = 3


def test_values_take_their_place_and_the_rest_stays():
    t4 = preset("t4").training
    changed = with_values(t4, {"epochs": 3, "learning_rate": "2e-5"})
    assert changed == TrainingSettings(epochs=3, learning_rate=2e-5) and type(changed) is TrainingSettings
    assert t4 == TrainingSettings()


def test_layers_to_recompute_are_a_word_or_a_number():
    assert preset("t4").training.recompute == "as needed"
    chosen = [with_values(preset("t4").training, {"recompute": given}) for given in ("all", "12", 12)]
    assert [each.recompute for each in chosen] == ["all", "12", "12"]


def test_every_knob_says_what_it_is():
    for model in (settings.PromptSettings, *(type(getattr(preset("t4"), step)) for step in STEPS)):
        for knob, info in model.model_fields.items():
            assert info.description, f"{model.__name__}.{knob}"
