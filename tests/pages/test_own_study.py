"""The desk for a study of one's own: files, paths, shaded words, and what cannot be read."""

import re

import numpy as np
import pytest
from page_text import text
from PIL import Image

from utils.models.study import StudyReport, Word
from utils.pages import own_study
from utils.regions import REGIONS

SEEN = []


class NoProbe:
    """Stands for a writer."""

    reading, probe, recall_weight = {"views": 2, "longest_side": 64}, None, 1.0


@pytest.fixture
def desk(monkeypatch):
    def read(writer, views):
        SEEN.append(views)
        words = {"lung": [Word("<b>clear</b>", 0.875), Word("&", 0.25)], "heart": [Word("normal.", 1.0)]}
        report = {region: " ".join(word.text for word in said) for region, said in words.items()}
        return StudyReport(report, {}, words, {}, 0.0, {}, [], min(len(views), 2), 0.1)

    monkeypatch.setattr(own_study, "read_study", read)
    SEEN.clear()
    return own_study.Desk(NoProbe(), [Image.new("L", (8, 8))], None, "phantom")


@pytest.fixture
def paths(tmp_path):
    """Two views, told apart by their grey."""
    names = {"b lateral.png": 90, "a frontal.png": 30}
    for name, grey in names.items():
        Image.new("L", (100, 50), grey).save(tmp_path / name)
    return [tmp_path / name for name in names]


def greys(views):
    return [int(np.asarray(view)[0, 0]) for view in views]


def test_it_opens_on_the_example_without_a_click(desk):
    assert len(SEEN) == 1 and own_study.EXAMPLE in text(desk.shown.value)
    assert "phantom" in text(desk.shown.value) and "Not for clinical use." in text(desk.shown.value)
    assert desk.static().data.count("<figure>") == 1
    assert "about 5 s" in text(desk.looking.shown.value)  # where it looked: 49 times 0.1 s


def test_words_are_escaped_and_shaded_with_their_numbers(desk):
    page = desk.shown.value
    assert "&lt;b&gt;clear&lt;/b&gt;" in page and ">&amp;</span>" in page
    found = re.findall(r'<span title="([\d.]+)" style="background:rgba\([\d,]+,([\d.]+)\)">', page)
    assert ("1.00", "0.00") in found and ("0.00", "0.75") in found  # the legend's ends
    shades = [float(shade) for _, shade in sorted(found)]
    assert shades == sorted(shades, reverse=True)
    assert all(region in text(page) for region in REGIONS)
    assert text(page).count("nothing written") == 2


@pytest.mark.parametrize("version", [7, 8])
def test_files_of_both_ipywidgets_are_read_in_the_order_of_their_names(desk, paths, version, monkeypatch):
    if version == 7:
        value = {path.name: {"metadata": {}, "content": path.read_bytes()} for path in paths}
    else:
        value = tuple({"name": path.name, "content": memoryview(path.read_bytes())} for path in paths)
    monkeypatch.setattr(own_study, "uploaded", lambda _, real=own_study.uploaded: real(value))
    desk._take(desk._chosen)
    assert greys(SEEN[-1]) == [30, 90] and SEEN[-1][0].size == (64, 32)
    assert "Nothing left this machine" in text(desk.shown.value)
    assert own_study.EXAMPLE not in text(desk.shown.value) and "phantom" not in text(desk.shown.value)


def test_paths_are_read_in_their_own_order(desk, paths):
    desk.paths.value = f' "{paths[0]}" ; {paths[1]};'
    assert greys(SEEN[-1]) == [90, 30]
    desk.paths.value = ""
    assert len(SEEN) == 2


def test_more_views_than_the_model_reads_are_said(desk, paths):
    desk.paths.value = ";".join(map(str, [*paths, paths[0]]))
    assert "Not read: 1 more" in text(desk.shown.value) and desk.shown.value.count("<figure>") == 2


def test_what_cannot_be_read_is_said_and_the_next_study_is_read(desk, paths, tmp_path):
    (tmp_path / "<i>.txt").write_text("not a picture")
    for given, said in (
        (str(tmp_path / "<i>.txt"), "&lt;i&gt;.txt cannot be read"),
        (str(tmp_path / "gone.png"), "is not a file"),
        (";", "There is no image"),
    ):
        desk.paths.value = given
        assert said in desk.shown.value and "<figure>" not in desk.shown.value
        assert desk.looking.button.disabled
    desk.paths.value = str(paths[0])
    assert "<figure>" in desk.shown.value


def test_an_upload_never_leaves_its_folder(desk, tmp_path, monkeypatch):
    value = {"../../away.png": {"content": b"no picture"}}
    monkeypatch.setattr(own_study, "uploaded", lambda _, real=own_study.uploaded: real(value))
    desk._take(desk._chosen)
    assert "away.png cannot be read" in text(desk.shown.value)
