"""The script that makes the demo's base model: small here, but the whole way."""

import json

import pytest
import torch
from safetensors.torch import load_file

from utils import model
from utils.demo import base_model
from utils.demo.wording import VALUES, Attributes


def test_a_list_names_every_attribute():
    text = base_model.listed(Attributes(heart="markedly enlarged", effusion="left"))
    said = dict(part.split(": ") for part in text.split("; "))
    assert set(said) == set(VALUES)
    assert said["heart"] == "markedly enlarged" and said["effusion"] == "left" and said["nodule"] == "none"


def test_the_prompt_is_llavas(tiny_base):
    processor = model.load_processor(str(tiny_base))
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Write."}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Clear."}]
    asked = "[INST] <image>\n<image>\nWrite. [/INST]"
    assert processor.apply_chat_template(messages[:1]) == asked
    assert processor.apply_chat_template(messages) == asked + " Clear.</s>"


@pytest.mark.slow
def test_rounds_go_on_where_they_stopped_and_leave_a_model_that_loads(tmp_path, monkeypatch):
    folder = tmp_path / "base"
    monkeypatch.setattr(base_model, "TESTED", 4)
    monkeypatch.setattr(base_model, "EPOCHS_OF_SEEING", 1)
    monkeypatch.setattr(base_model, "PROSE_EVERY", (1,))
    base_model.pretrain(folder, studies=32)
    first = load_file(folder / "model.safetensors")
    base_model.pretrain(folder, studies=32)  # nothing left to do
    assert all(
        torch.equal(weights, first[name]) for name, weights in load_file(folder / "model.safetensors").items()
    )

    monkeypatch.setattr(base_model, "PROSE_EVERY", (1, 4))
    monkeypatch.setattr(base_model, "first_round", lambda *_: pytest.fail("the first round was done again"))
    base_model.pretrain(folder, studies=32)
    figures = json.loads((folder / base_model.FIGURES).read_text())
    assert len(figures["mean loss by round"]) == 2
    assert set(figures["attributes read right, of 4 phantoms"]) == set(VALUES)
    assert model.load_model(str(folder), "base", "fp32").num_parameters() == figures["parameters"]
