"""The baseline of the nearest training study."""

import json

import numpy as np
import pytest
from PIL import Image

from utils.models.loading import load_model, load_processor, lora_config
from utils.models.writer import Writer
from utils.scores import baselines
from utils.settings import TrainingSettings


def test_a_region_comes_from_the_nearest_study_that_mentions_it():
    known = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])
    findings = [{"lung": "up"}, {"lung": "right", "heart": "right"}, {"heart": "down"}, {}]
    seen = np.array([[0.3, 5.0], [4.0, 0.1], [0.2, -3.0]])
    assert baselines.nearest_reports(seen, known, findings) == [
        {"lung": "up", "heart": "right"},
        {"lung": "right", "heart": "right"},
        {"lung": "right", "heart": "down"},
    ]


def test_what_all_radiographs_share_does_not_count():
    known = np.array([[100.0, 1.0], [100.0, -1.0]])
    findings = [{"lung": "up"}, {"lung": "down"}]
    (report,) = baselines.nearest_reports(np.array([[100.0, -0.5]]), known, findings)
    assert report == {"lung": "down"}


@pytest.fixture(scope="module")
def writer(tiny_base, tmp_path_factory):
    from peft import get_peft_model

    adapter = tmp_path_factory.mktemp("adapter")
    reading = {"base": str(tiny_base), "image_tokens": "base", "precision": "fp32"}
    get_peft_model(load_model(**reading), lora_config(TrainingSettings())).save_pretrained(adapter)
    (adapter / "reading.json").write_text(json.dumps(reading))
    return Writer(adapter)


def test_features_are_the_mean_over_patches_and_views(writer, phantom_dataset):
    split = phantom_dataset["test"]
    found = baselines.image_features(writer, split, "test", show=lambda items, label: items)
    assert found.shape[0] == len(split) and found.dtype == np.float32
    views = split[0]["images"]
    one_by_one = [
        baselines.image_features(
            writer,
            split.from_list([{"images": [view]}], features=split.select_columns("images").features),
            "x",
        )
        for view in views
    ]
    assert np.allclose(found[0], np.mean(one_by_one, axis=0)[0], atol=1e-4)


def test_a_study_is_its_own_nearest(writer, phantom_dataset):
    split = phantom_dataset["train"]
    features = baselines.image_features(writer, split, "train")
    findings = [{"lung": study} for study in split["id"]]
    assert [r["lung"] for r in baselines.nearest_reports(features, features, findings)] == split["id"][:]


def test_the_budget_of_tokens_does_not_matter(writer, phantom_dataset):
    features = baselines.image_features(writer, phantom_dataset["val"], "val")
    before = writer.processor
    writer.processor = load_processor(writer.model.get_base_model().config._name_or_path, "tiles")
    tiled = baselines.image_features(writer, phantom_dataset["val"], "val")
    writer.processor = before
    assert np.allclose(features, tiled, atol=1e-4)
    assert isinstance(phantom_dataset["val"][0]["images"][0], Image.Image)
