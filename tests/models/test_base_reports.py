"""The base model without fine-tuning: it writes as if there were no adapter, and goes on when stopped."""

import json

import probes
import pytest
import torch
from peft import get_peft_model

from utils.models import loading
from utils.models import writer as writing
from utils.models.systems import BASE, SHUFFLED
from utils.models.writer import Writer, read_generations, write_reports
from utils.settings import GenerationSettings, preset

SHORT = GenerationSettings(batch_size=2, max_new_tokens=16)
READING = {"base": "", "image_tokens": "base", "precision": "fp32"}


@pytest.fixture(scope="module")
def reading(tiny_base):
    return {**READING, "base": str(tiny_base)}


@pytest.fixture(scope="module")
def taught(reading, phantom_dataset, tmp_path_factory):
    """An adapter of all that can be taught, which changes what is written, and a probe beside it."""
    folder = tmp_path_factory.mktemp("taught") / "adapter"
    settings = preset("demo").training.model_copy(update={"projector": True})
    model = get_peft_model(loading.load_model(**reading), loading.lora_config(settings))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero, so that an adapter changes nothing at first
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    (folder / loading.READING).write_text(json.dumps({**reading, "views": 2}))
    features = Writer(folder).features(phantom_dataset["test"], "test")
    probes.by_chance(features, ("effusion", "opacity", "cardiomegaly")).save(folder / loading.PROBE)
    return Writer(folder, recall_weight=1.0, kept=folder.parent / "features")


@pytest.fixture(scope="module")
def downloaded(reading, taught, phantom_dataset):
    """By study, what the base model writes that has never had an adapter or a probe."""
    model, split = loading.load_model(**reading), phantom_dataset["test"]
    tokens = dict(writing.stream(model, taught.processor, split["images"], SHORT.max_new_tokens))
    return {study: writing.as_text(taught.processor, tokens[i]) for i, study in enumerate(split["id"])}


def test_the_base_model_writes_what_it_wrote_before_it_had_an_adapter(
    taught, downloaded, phantom_dataset, tmp_path
):
    split, path = phantom_dataset["test"], tmp_path / "g.jsonl"
    tuned = write_reports(taught, split, "test", path, SHORT)
    base = write_reports(taught, split, "test", path, SHORT, BASE)
    assert {row["id"]: row["text"] for row in base} == downloaded
    assert all(one["text"] != other["text"] for one, other in zip(tuned, base, strict=True))
    assert {row["system"] for row in base} == {BASE} and all(row["plan"] == {} for row in base)
    again = write_reports(taught, split, "test", tmp_path / "again.jsonl", SHORT)
    assert again == tuned  # with the adapter, which is on again
    kept = read_generations(path, taught.adapter)
    assert all(row in kept for row in [*tuned, *base]) and len(kept) == 2 * len(split)


def test_the_base_model_is_interrupted_goes_on_and_leaves_the_adapter_on(
    taught, downloaded, phantom_dataset, tmp_path
):
    split, path = phantom_dataset["test"], tmp_path / "g.jsonl"
    tuned = taught.write(split["images"], SHORT.max_new_tokens)

    def interrupted(items, *_):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        write_reports(taught, split, "test", path, SHORT, BASE, interrupted)
    assert taught.write(split["images"], SHORT.max_new_tokens) == tuned
    assert len(read_generations(path)) == 2
    rows = write_reports(taught, split, "test", path, SHORT, BASE)
    assert {row["id"]: row["text"] for row in rows} == downloaded
    assert len(read_generations(path)) == len(split)


def test_the_base_model_is_not_asked_again_whatever_the_probe_is_to_name(
    taught, phantom_dataset, tmp_path, monkeypatch
):
    split, path = phantom_dataset["test"], tmp_path / "g.jsonl"
    rows = write_reports(taught, split, "test", path, SHORT, BASE)
    monkeypatch.setattr(taught, "recall_weight", 0.1)
    taught.close()
    monkeypatch.setattr(writing, "load_model", lambda *_: pytest.fail("a model was loaded for nothing"))
    assert write_reports(taught, split, "test", path, SHORT, BASE) == rows
    none = SHORT.model_copy(update={"shuffled": 0})
    assert write_reports(taught, split, "test", path, none, BASE) == []


def test_both_controls_write_on_the_same_studies(taught, phantom_dataset, tmp_path):
    few, split = SHORT.model_copy(update={"shuffled": 2}), phantom_dataset["test"]
    base, shuffled = (
        write_reports(taught, split, "test", tmp_path / "g.jsonl", few, system) for system in (BASE, SHUFFLED)
    )
    assert [row["id"] for row in base] == [row["id"] for row in shuffled] == [split["id"][0], split["id"][2]]


def test_a_writer_that_gave_its_memory_back_writes_again(taught, downloaded, phantom_dataset):
    split = phantom_dataset["test"]
    before = taught.write(split["images"][:2], SHORT.max_new_tokens)
    taught.close()
    assert taught.write(split["images"][:2], SHORT.max_new_tokens) == before
    with taught.writing(BASE):
        plain = dict(taught.stream(split["images"][:2], SHORT.max_new_tokens))
    assert [plain[0], plain[1]] == list(downloaded.values())[:2]
