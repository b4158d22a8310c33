"""Where the model looked: what is replaced, by what, and that the heat lies where the text comes from."""

from itertools import pairwise

import numpy as np
import pytest
from adapters import with_probe
from PIL import Image

from utils.models import looked
from utils.models.looked import GRID, WINDOW, box, mean_views, passes, replaced, where_it_looked
from utils.models.study import lines_of, log_probabilities, read_study
from utils.models.writer import Writer
from utils.regions import REGIONS


@pytest.fixture(scope="module")
def writer(tiny_base, phantom_dataset, tmp_path_factory):
    return Writer(with_probe(tiny_base, tmp_path_factory.mktemp("run"), phantom_dataset["test"]))


@pytest.fixture(scope="module")
def means(phantom_dataset):
    return mean_views(phantom_dataset["train"]["images"], 2)


def quietly(batches, _):
    return batches


def test_mean_views_are_means_by_place_whatever_their_sizes():
    studies = [
        [Image.new("L", (40, 20), 10), Image.new("L", (9, 9), 50)],
        [Image.new("RGB", (300, 300), (30,) * 3)],
    ]
    first, second = mean_views(studies, 2)
    assert first.size == second.size == (looked.SIDE, looked.SIDE)
    assert set(np.unique(first)) == {20} and set(np.unique(second)) == {50}
    assert len(mean_views(studies[1:], 2)) == 1


@pytest.mark.parametrize("size", [(256, 256), (301, 97), (64, 500)])
def test_patches_are_the_whole_view_and_a_window_replaces_its_own(size):
    seen = np.zeros(size[::-1])
    for row, column in np.ndindex(GRID, GRID):
        left, top, right, bottom = box(size, row, column)
        seen[top:bottom, left:right] += 1
    assert (seen == 1).all()
    view, other = Image.new("L", size, 5), Image.new("L", size, 200)
    changed = np.asarray(replaced(view, other, 3, 1)) == 200
    left, top, right, bottom = box(size, 3, 1, WINDOW)
    assert changed[top:bottom, left:right].all() and changed.sum() == (right - left) * (bottom - top)
    assert (np.asarray(view) == 5).all()


def test_each_region_has_a_map_of_each_view(writer, phantom_dataset, means):
    views = next(study["images"] for study in phantom_dataset["test"] if study["views"] == 2)
    found, batches = read_study(writer, views, 60), []
    heat = where_it_looked(writer, views, found, means, lambda given, _: batches.extend(given) or given)
    assert sum(map(len, batches)) == passes(2)
    assert list(heat) == [region for region in REGIONS if region in found.report]
    assert all(one.shape == (2, GRID, GRID) and np.isfinite(one).all() and one.any() for one in heat.values())
    # The corner patch lies in one window only, whose drop can be had by hand.
    changed = [replaced(views[0], means[0].resize(views[0].size), 0, 0), *views[1:]]
    both = log_probabilities(writer.model, writer.processor, [views, changed], found.tokens)
    for region, line in lines_of(writer.processor, found.tokens).items():
        drop = (both[0] - both[1])[line.start : line.stop].sum()
        assert heat[region][0, 0, 0] == pytest.approx(drop, abs=1e-3)


def test_a_study_that_is_the_mean_has_no_heat(writer, means):
    found = read_study(writer, means[:1], 40)
    heat = where_it_looked(writer, means[:1], found, means, quietly)
    assert all(np.abs(one).max() < 1e-3 for one in heat.values())


def test_the_lines_share_out_the_answer(writer, phantom_dataset):
    found = read_study(writer, phantom_dataset["test"][0]["images"], 60)
    lines = list(lines_of(writer.processor, found.tokens).values())
    assert lines[0].start == 0
    assert all(one.stop == two.start for one, two in pairwise(lines))
    assert lines[-1].stop <= len(found.tokens)


@pytest.mark.parametrize("drops", [1, 3])
def test_a_patch_has_the_mean_of_its_windows(drops):
    windows = np.zeros((drops, looked.POSITIONS, looked.POSITIONS))
    windows[0, 2, 3] = 4.0
    heat = looked._by_patch(windows)
    assert heat.shape == (drops, GRID, GRID) and (heat[0] > 0).sum() == WINDOW**2 and heat[0].max() == 1.0
