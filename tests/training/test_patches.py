"""Training on what the tower saw before: the same losses; never of other pictures, or half a file."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from datasets import DatasetDict
from PIL import Image

from utils.models import features
from utils.models.features import Tower
from utils.settings import preset, with_values
from utils.training import probing
from utils.training import trainer as training

pytestmark = pytest.mark.slow

FEW = {"max_steps": 2, "batch_size": 2, "evaluate_every": 1, "evaluate_on": 3, "save_every": 2, "samples": 0}


@pytest.fixture(scope="module")
def settings(tiny_base):
    return with_values(preset("demo").training, {**FEW, "base": str(tiny_base), "choose": "last"})


@pytest.fixture
def looks(monkeypatch):
    """How many views each look of the tower was for."""
    counts, look = [], Tower.look

    def counted(self, views):
        counts.append(len(views))
        return look(self, views)

    monkeypatch.setattr(Tower, "look", counted)
    return counts


def seen(dataset, views=2, splits=("train", "val")):
    return sum(min(count, views) for name in splits for count in dataset[name]["views"])


def files(folder):
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize(("views", "budget"), [(1, "base"), (2, "frontal"), (2, "pooled")])
def test_losses_are_those_of_looking_in_each_step_and_the_tower_looks_once(
    settings, phantom_dataset, tmp_path, looks, monkeypatch, views, budget
):
    settings = with_values(settings, {"views": views, "image_tokens": budget})
    kept = training.train(settings, phantom_dataset, tmp_path / "kept")
    assert sum(looks) == seen(phantom_dataset, views)  # once, for the probe too
    assert not (tmp_path / "kept" / "scratch" / features.PATCHES).exists()  # step 4 needs the disk
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    anew = training.train(settings, phantom_dataset, tmp_path / "anew")
    for column in ("loss", "eval_loss"):
        assert kept.log[column].tolist() == pytest.approx(anew.log[column].tolist(), rel=1e-5, nan_ok=True)


def test_pictures_are_read_once_to_name_features_and_patches(settings, phantom_dataset, tmp_path):
    features._content.cache_clear()
    probing.run_probe(settings, phantom_dataset, tmp_path, tmp_path / "scratch")
    probing.kept_patches(settings, phantom_dataset, tmp_path / "scratch")
    assert features._content.cache_info().misses == 2  # a block of each split


def test_a_disk_without_room_is_said(settings, phantom_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_000_000_000))
    assert probing.kept_patches(settings, phantom_dataset, tmp_path) is None
    assert "has 4.0 GB free" in capsys.readouterr().out


def test_tiles_are_not_kept(settings, phantom_dataset, tmp_path):
    tiles = with_values(settings, {"image_tokens": "tiles"})
    assert probing.kept_patches(tiles, phantom_dataset, tmp_path) is None and not list(tmp_path.iterdir())


def test_what_is_read_is_what_the_tower_sees(settings, phantom_dataset, tmp_path):
    kept = probing.kept_patches(settings, phantom_dataset, tmp_path)
    tower = probing.tower_of(settings)
    for name in ("train", "val"):
        for study in (3, 0):
            read = kept[kept.numbers[name][study]]
            torch.testing.assert_close(
                read, tower.look(phantom_dataset[name][study]["images"]), rtol=1e-4, atol=1e-4
            )
    count, size = sum(map(len, kept.numbers["train"])), read[0].numel() * 4
    assert size == features.view_bytes(settings) and count == sum(phantom_dataset["train"]["views"])


def test_other_pictures_another_precision_and_another_number_of_views_are_seen_anew(
    settings, phantom_dataset, tmp_path, looks
):
    def paint(row, number):
        grey = Image.new("L", row["images"][0].size, 200)
        return {"images": [grey, *row["images"][1:]]} if number == 3 else row

    def look(settings, dataset):
        looks.clear()
        probing.kept_patches(settings, dataset, tmp_path)
        return sum(looks)

    assert look(settings, phantom_dataset) == seen(phantom_dataset)
    assert look(settings, phantom_dataset) == 0
    val = phantom_dataset["val"].map(paint, with_indices=True)
    assert look(settings, DatasetDict(phantom_dataset, val=val)) == seen(phantom_dataset, splits=["val"])
    assert look(with_values(settings, {"views": 1}), phantom_dataset) == seen(phantom_dataset, 1)
    assert look(with_values(settings, {"image_tokens": "pooled"}), phantom_dataset) == 0  # pooled later


def test_half_a_file_is_seen_anew_and_a_look_that_is_cut_short_leaves_none(
    settings, phantom_dataset, tmp_path, looks, monkeypatch
):
    whole = probing.kept_patches(settings, phantom_dataset, tmp_path)
    numbers = [number for study in whole.numbers["train"] for number in study]
    expected = whole[numbers]
    path, _ = whole._where[numbers[0]]
    path.write_bytes(path.read_bytes()[:-1000])
    looks.clear()
    again = probing.kept_patches(settings, phantom_dataset, tmp_path)
    assert sum(looks) == len(numbers) and torch.equal(again[numbers], expected)

    def dies(tensors, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    shutil.rmtree(tmp_path / features.PATCHES)
    monkeypatch.setattr(features, "save_file", dies)
    with pytest.raises(KeyboardInterrupt):
        probing.kept_patches(settings, phantom_dataset, tmp_path)
    assert files(tmp_path / features.PATCHES) == []
