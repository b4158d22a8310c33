"""The dataset browser on phantoms, without a browser window: what is found, decoded, shown and said."""

import base64
import io
import re

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from page_text import HOSTILE, text
from PIL import Image

from utils.data import hf_dataset
from utils.pages.dataset_browser import SIDE, DatasetBrowser, find, texts, windowed, zoomed
from utils.regions import REGIONS

LABEL = "phantom radiographs: drawn, not patients"


def row(name: str, **findings: str) -> dict:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((120, 90)).save(file, format="PNG")
    message = [{"role": "user", "content": "x"}]
    images = [{"bytes": file.getvalue(), "path": None}] * 2
    chat = {"id": name, "images": images, "prompt": message, "completion": message, "views": 2}
    return chat | {region: findings.get(region, "") for region in REGIONS}


def made(**splits: list[dict]) -> DatasetDict:
    parts = {name: Dataset.from_list(rows, features=hf_dataset.FEATURES) for name, rows in splits.items()}
    return DatasetDict(parts)


@pytest.fixture(scope="module")
def small():
    return made(
        train=[
            row("a", lung="Small left pleural effusion.", bone="Old rib fracture."),
            row("b", lung="No effusion.", heart="Enlarged."),
        ],
        test=[row("c", heart="Normal (size)."), row("d", bone="An effusion of the knee; prefixeffusion.")],
    )


def pictures(browser: DatasetBrowser) -> list[np.ndarray]:
    data = re.findall(r"data:image/png;base64,([\w+/=]+)", browser.shown.value)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in data]


def alts(browser: DatasetBrowser) -> list[str]:
    return re.findall(r'<img alt="([^"]*)"', browser.shown.value)


def listed(browser: DatasetBrowser) -> list[str]:
    return [name.partition(" ")[0] for name, _ in browser.choice.options]


@pytest.mark.parametrize(
    ("choice", "ids"),
    [
        ({}, "abcd"),
        ({"split": "test"}, "cd"),
        ({"region": "bone"}, "ad"),
        ({"words": "effusion"}, "abd"),
        ({"words": "EFFUS left"}, "a"),
        ({"words": "effusion", "region": "lung"}, "ab"),
        ({"words": "fixeffusion"}, ""),
        ({"words": "(size)"}, "c"),
        ({"words": "effusion", "region": "lung", "split": "test"}, ""),
    ],
)
def test_studies_are_found_by_split_region_and_words(small, choice, ids):
    assert "".join(find(texts(small), **choice)["id"]) == ids


def test_the_windows_function_is_dicoms():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    levels = np.asarray(windowed(ramp, 100, 51)).ravel()
    assert np.array_equal(np.asarray(windowed(ramp, 128, 256)), np.asarray(ramp))
    assert levels[:75].max() == 0 and levels[125:].min() == 255  # 99.5 - 25 and 99.5 + 25
    assert levels[99] == round(((99 - 99.5) / 50 + 0.5) * 255)


def test_zoom_shows_the_part_that_is_asked_for():
    view = Image.new("L", (200, 100))
    view.paste(255, (100, 50, 200, 100))  # the lower right quarter is white
    assert zoomed(view, 1, 0.5, 0.5).size == (SIDE, SIDE // 2)
    inside = (slice(9, -9), slice(9, -9))  # at its edge a part takes in a little of what lies beside it
    assert np.asarray(zoomed(view, 2, 1, 1))[inside].min() == 255
    assert np.asarray(zoomed(view, 2, 0, 0))[inside].max() == 0
    assert zoomed(view, 4, 0.3, 0.9).size == (SIDE, SIDE // 2)


def test_it_opens_on_the_first_study_with_its_views_and_findings(small):
    browser = DatasetBrowser(small, "IU X-Ray")
    assert listed(browser) == list("abcd") and len(pictures(browser)) == 2
    words = text(browser.shown.value)
    assert "Small left pleural effusion." in words and "not mentioned" in words
    assert "IU X-Ray" in words and "Not for clinical use." in words
    assert alts(browser) == [f"view {n} of 2 · center 128, width 256 · zoom 1" for n in (1, 2)]
    assert text(browser.static()) == words


def test_only_the_views_of_the_study_on_show_are_decoded(small, monkeypatch):
    decoded = []
    decode = hf_dataset.Image.decode_example
    monkeypatch.setattr(
        hf_dataset.Image, "decode_example", lambda *a, **k: decoded.append(1) or decode(*a, **k)
    )
    small["train"][0]
    one = len(decoded)
    browser = DatasetBrowser(small, "IU X-Ray")
    assert len(decoded) == 2 * one
    browser.words.value = "effusion"
    browser.next.click()
    assert len(decoded) == 4 * one and "study b" in text(browser.shown.value)


def test_filters_work_together_and_can_leave_nothing(small):
    browser = DatasetBrowser(small, "IU X-Ray")
    browser.split.value, browser.words.value = "train", "effusion"
    assert listed(browser) == ["a", "b"]
    assert '<mark class="note">effusion</mark>' in browser.shown.value
    browser.region.value = "mediastinal"
    assert "no such study" in text(browser.shown.value) and browser.next.disabled
    browser.center.value = 90  # nothing to draw, and no error
    browser.region.value, browser.words.value = "any region", ""
    assert listed(browser) == ["a", "b"] and "center 90" in alts(browser)[0]


def test_window_and_zoom_change_the_picture_and_stay_from_study_to_study(small):
    browser = DatasetBrowser(small, "IU X-Ray")
    before = pictures(browser)[0]
    browser.center.value, browser.width.value = 128, 2
    assert np.isin(pictures(browser)[0], (0, 255)).mean() > 0.9 > np.isin(before, (0, 255)).mean()
    browser.zoom.value, browser.across.value = 3, 0
    browser.next.click()
    assert alts(browser)[0] == "view 1 of 2 · center 128, width 2 · zoom 3"
    browser.previous.click()
    browser.whole.click()
    assert np.array_equal(pictures(browser)[0], before)
    assert (browser.width.value, browser.zoom.value, browser.across.value) == (256, 1, 0.5)


def test_a_phantom_is_marked_in_every_part_of_the_picture(phantom_dataset):
    browser = DatasetBrowser(phantom_dataset, LABEL)
    plain = DatasetBrowser(phantom_dataset, "IU X-Ray")
    for shown in (browser, plain):
        shown.zoom.value, shown.across.value, shown.down.value = 4, 0, 0
    corner = (slice(-30, None), slice(-100, None))
    assert pictures(browser)[0][corner].max() == 255
    assert not np.array_equal(pictures(browser)[0][corner], pictures(plain)[0][corner])
    assert np.array_equal(pictures(browser)[0][:-40], pictures(plain)[0][:-40])
    assert alts(browser)[0].startswith("phantom, view 1")


def test_texts_are_escaped_with_and_without_a_search():
    browser = DatasetBrowser(made(train=[row("a", lung=HOSTILE)]), "<b>")
    assert "<script>" not in browser.shown.value and "<b>" not in browser.shown.value
    browser.words.value = "<script"
    assert "<script" not in browser.shown.value
    assert '<mark class="note">&lt;script</mark>' in browser.shown.value
