"""The script that makes the demo's base model: small here, but the whole way."""

import json

import pytest

from tools import base_model
from utils.data.wording import VALUES, Attributes
from utils.models import loading
from utils.regions import parse


def test_a_list_names_every_attribute():
    text = base_model.listed(Attributes(heart="markedly enlarged", effusion="left"))
    said = {part for line in parse(text).values() for part in line.split(", ")}
    assert len(said) == len(VALUES)
    assert {"heart markedly enlarged", "effusion left", "nodule none"} <= said


def test_the_prompt_is_llavas(tiny_base):
    processor = loading.load_processor(str(tiny_base))
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Write."}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Clear."}]
    asked = "[INST] <image>\n<image>\nWrite. [/INST]"
    assert processor.apply_chat_template(messages[:1]) == asked
    assert processor.apply_chat_template(messages) == asked + " Clear.</s>"


@pytest.mark.slow
def test_the_script_leaves_a_model_that_loads_and_its_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(base_model, "TESTED", 4)
    monkeypatch.setattr(base_model, "EPOCHS_OF_SEEING", 1)
    base_model.pretrain(tmp_path / "base", studies=32)
    figures = json.loads((tmp_path / "base" / base_model.FIGURES).read_text())
    assert set(figures["attributes read right, of 4 phantoms"]) == set(VALUES)
    assert (
        loading.load_model(str(tmp_path / "base"), "base", "fp32").num_parameters() == figures["parameters"]
    )
