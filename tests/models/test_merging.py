"""Merged weights: those of peft, in 16 bits and in shards; and what stands in the way, in a sentence."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from adapters import an_adapter
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from utils.data import phantoms
from utils.models import __main__ as command
from utils.models import anywhere, loading
from utils.models.loading import READING
from utils.models.reading import Reader
from utils.models.writer import Writer
from utils.run.machine import Card
from utils.run.workspace import StepError

STUDIES = [phantoms.draw((13, 2, number)).views for number in range(3)]
SHARD = 4 * 10**6


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return an_adapter(tmp_path_factory.mktemp("to_merge") / "adapter", "demo", "pooled", STUDIES)


@pytest.fixture(scope="module")
def merged(adapter, tmp_path_factory):
    """The folder that the command leaves."""
    folder = tmp_path_factory.mktemp("merged") / "new"
    anywhere.merge(adapter, folder, SHARD)
    return folder


def by_peft(adapter):
    """The weights by peft, of the base model as the adapter met it."""
    how = {**loading.how_to_read(adapter), "precision": "fp16"}
    base = loading.load_model(how["base"], how["image_tokens"], how["precision"]).dequantize()
    return PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()


def test_the_weights_are_those_of_peft(adapter, merged):
    model, found = AutoModelForImageTextToText.from_pretrained(merged, output_loading_info=True)
    assert not any(found.values())
    expected, weights = by_peft(adapter), model.state_dict()
    assert set(expected) - set(weights) == {"model.image_newline"}  # tiles alone have it
    for name, weight in weights.items():
        assert weight.dtype == torch.float16, name
        torch.testing.assert_close(weight, expected[name].half(), rtol=1e-3, atol=1e-6)
    without = loading.load_model("demo", "pooled", "fp16").dequantize().state_dict()
    changed = [name for name in weights if not torch.equal(weights[name], without[name].half())]
    assert len(changed) == 4 * 7  # layers, and the linear maps of each


def test_they_come_in_shards_with_all_that_reading_needs(merged):
    shards = list(merged.glob("model-*.safetensors"))
    assert len(shards) > 1 and all(path.stat().st_size < SHARD + 10**5 for path in shards)
    index = json.loads((merged / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {path.name for path in shards}
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())
    assert not list(merged.parent.glob(".*"))


def test_the_merged_model_writes_what_the_adapter_does(adapter, merged):
    model = AutoModelForImageTextToText.from_pretrained(merged, dtype=torch.float32)
    reader = Reader(model, AutoProcessor.from_pretrained(merged), merged)
    reader.model.generation_config.max_new_tokens = 40
    writer = Writer(adapter)
    assert [reader.report(views) for views in STUDIES] == writer.write(STUDIES, 40)


def test_small_weights_are_one_file_and_those_of_bf16_stay_bf16(adapter, tmp_path):
    other = tmp_path / "adapter"
    shutil.copytree(adapter, other)
    (other / READING).write_text(json.dumps({**loading.how_to_read(adapter), "precision": "bf16"}))
    anywhere.merge(other, tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").glob("model*")] == ["model.safetensors"]
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "new")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_a_gpu_without_bf16_is_no_hindrance(adapter, tmp_path, monkeypatch):
    gpu = Card("Tesla T4", 15, bf16=False)
    for module in (anywhere, loading):
        monkeypatch.setattr(module, "card", lambda: gpu)
    other = tmp_path / "adapter"
    shutil.copytree(adapter, other)
    (other / READING).write_text(json.dumps({**loading.how_to_read(adapter), "precision": "bf16"}))
    anywhere.merge(other, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["dtype"] == "bfloat16"


def test_nothing_is_overwritten(adapter, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match=f"^{tmp_path} is there already: name a new folder.$"):
        command.main(["merge", str(adapter), str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_without_an_adapter_nothing_is_made(tmp_path):
    with pytest.raises(StepError, match="There is no adapter in"):
        anywhere.merge(tmp_path / "none", tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_room_is_asked_for_first(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    monkeypatch.setattr(loading, "load_model", lambda *_: pytest.fail("it was loaded before"))
    with pytest.raises(StepError, match=r"take 0\.0 GB, but 0\.0 GB are free in .*make room"):
        anywhere.merge(adapter, tmp_path / "new" / "deep")
    assert not list(tmp_path.iterdir())


def test_a_merge_that_is_killed_leaves_no_folder(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(anywhere, "save_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        anywhere.merge(adapter, tmp_path / "new", SHARD)
    assert not list(tmp_path.iterdir())
