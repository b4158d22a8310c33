"""What the vision tower sees in studies: of which views, kept where, by which towers."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tools import base_model
from utils.models import features, loading
from utils.models.features import Tower, study_features
from utils.training import collection

WIDTH = 192  # of the tiny base's tower


@pytest.fixture(scope="module")
def tower(tiny_base):
    return Tower(str(tiny_base), "fp32", 2, loading.load_processor(str(tiny_base)))


@pytest.fixture(scope="module")
def views(phantom_dataset):
    return phantom_dataset["test"][0]["images"]


def close(one, two):
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


def test_of_a_study_the_first_view_and_the_mean_of_all_are_seen(tower, views):
    one, two = views
    found = tower.see([[one, two], [two], [two, one]])
    assert found.shape == (3, 2, 2, WIDTH) and found.dtype == np.float32
    (alone,), (other,) = tower.see([[one]]), tower.see([[two]])
    close(found[0, 0], alone[0])
    close(found[0, 1], (alone[0] + other[0]) / 2)
    close(found[1, 0], found[1, 1])  # a study with one view
    close(found[2, 0], other[0])
    close(found[2, 1], found[0, 1])
    assert not np.allclose(alone[0], other[0], atol=1e-2)


def test_of_the_patches_mean_and_maximum_are_taken(tower, views):
    pixels = tower.processor.image_processor(views[:1], return_tensors="pt")["pixel_values"][:, 0]
    with torch.no_grad():
        hidden = tower.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][0, 1:]
    (found,) = tower.see([views[:1]])
    close(found[0], torch.stack([hidden.mean(0), hidden.max(0).values]).numpy())


def test_no_more_views_are_seen_than_that(tower, views, tiny_base):
    fewer = Tower(str(tiny_base), "fp32", 1, tower.processor, load=lambda: tower_model(tower))
    close(fewer.see([views]), tower.see([views[:1]]))
    assert fewer.fingerprint != tower.fingerprint


def tower_model(tower):
    class Whole:
        model = tower.model

    return Whole


def test_the_budget_of_tokens_does_not_matter(tower, views, tiny_base):
    processor = loading.load_processor(str(tiny_base), "tiles")
    tiled = Tower(str(tiny_base), "fp32", 2, processor, load=lambda: tower_model(tower))
    close(tiled.see([views]), tower.see([views]))


@pytest.fixture
def seen(monkeypatch):
    """How many studies each look at the radiographs was for."""
    counts, see = [], Tower.see

    def counted(self, studies):
        counts.append(len(studies))
        return see(self, studies)

    monkeypatch.setattr(Tower, "see", counted)
    return counts


def test_features_are_kept_by_block_and_only_a_changed_one_is_computed_again(
    tower, phantom_dataset, tmp_path, monkeypatch, seen
):
    monkeypatch.setattr(features, "BLOCK", 2)
    split = phantom_dataset["test"]
    expected = study_features(tower, split, "test")
    assert seen == [2, 2, 1] and expected.shape == (5, 2, 2, WIDTH)
    seen.clear()
    np.testing.assert_array_equal(study_features(tower, split, "test", tmp_path), expected)
    assert seen == [2, 2, 1] and len(list(tmp_path.glob("*.npy"))) == len(list(tmp_path.iterdir())) == 3
    seen.clear()
    np.testing.assert_array_equal(study_features(tower, split, "test", tmp_path), expected)
    assert seen == []

    def paint(row, number):
        grey = Image.new("L", row["images"][0].size, 200)
        return {"images": [grey, *row["images"][1:]]} if number == 3 else row

    changed = split.map(paint, with_indices=True)
    found = study_features(tower, changed, "test", tmp_path)
    assert seen == [2] and not np.allclose(found[3], expected[3], atol=1e-2)
    np.testing.assert_array_equal(found[[0, 1, 4]], expected[[0, 1, 4]])


def test_another_tower_does_not_take_the_features_of_the_first(
    tower, phantom_dataset, tmp_path, tiny_base, seen
):
    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)
    model = base_model.new_model(tower.processor, seed=1)
    model.save_pretrained(other)
    split, kept = phantom_dataset["val"], tmp_path / "kept"
    one = study_features(tower, split, "val", kept)
    two = study_features(Tower(str(other), "fp32", 2, tower.processor), split, "val", kept)
    assert seen == [4, 4] and not np.allclose(one, two, atol=1e-2)


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory):
    """A base model whose tower are convolutions, in a folder, and its processor."""
    folder = tmp_path_factory.mktemp("convolutions")
    processor = base_model.new_processor(
        ["lung: clear. heart: normal."], collection.SIDE, collection.PATCH, collection.VOCABULARY
    )
    processor.save_pretrained(folder)
    collection.new_model(processor).save_pretrained(folder)
    return folder


def test_the_language_model_reads_the_patches_of_convolutions_row_by_row(convolutions):
    model, read = loading.load_model(str(convolutions), "base", "fp32"), []
    model.model.multi_modal_projector.register_forward_hook(lambda _, given, __: read.append(given[0]))
    side = collection.SIDE
    pixels = torch.randn(2, 1, 3, side, side, generator=torch.manual_seed(0))
    with torch.no_grad():
        outputs = model.model.get_image_features(pixels, torch.tensor([[side, side]] * 2))
        seen = model.model.vision_tower(pixels[:, 0], output_hidden_states=True, return_dict=True)
    assert model.config.text_config._attn_implementation == "sdpa"  # which a tower of convolutions has not
    rows = side // collection.PATCH
    assert len(outputs.pooler_output) == 2 and len(outputs.pooler_output[0]) == rows**2
    assert torch.equal(read[0], loading.patches_of(seen, model.config))
    for row in range(rows):
        for column in range(rows):
            assert torch.equal(read[0][:, row * rows + column], seen.last_hidden_state[:, :, row, column])


def test_features_of_convolutions_are_those_of_their_patches(convolutions, views):
    tower = Tower(str(convolutions), "fp32", 2, loading.load_processor(str(convolutions)))
    found = tower.see([views, views[:1]])
    assert found.shape == (2, 2, 2, collection.WIDTHS[-1]) and np.isfinite(found).all()
    assert (found[..., 1, :] >= found[..., 0, :]).all()  # the maximum, and the mean


def norms(model):
    return {name: value.clone() for name, value in model.model.vision_tower.named_buffers()}


def unchanged(before, model):
    return all(torch.equal(before[name], value) for name, value in norms(model).items())


def test_the_norms_of_the_tower_do_not_learn_from_what_the_rest_trains_on(convolutions):
    pixels = torch.randn(4, 3, collection.SIDE, collection.SIDE, generator=torch.manual_seed(0))
    model = loading.load_model(str(convolutions), "base", "fp32")
    before = norms(model)
    assert any("running_mean" in name for name in before)
    model.train()
    assert model.model.vision_tower.training  # else its activations were kept, not computed again
    model.model.vision_tower(pixels)
    assert unchanged(before, model)
    free = collection.new_model(loading.load_processor(str(convolutions))).train()
    before = norms(free)
    free.model.vision_tower(pixels)
    assert not unchanged(before, free)  # as they would
