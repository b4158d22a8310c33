"""The heat map on demand: its time is said before, and it is of the study that is shown."""

import numpy as np
import pytest
from page_text import text
from PIL import Image

from utils.models.study import StudyReport
from utils.pages import looking
from utils.pages.looking import HOT, Looking, heat_view, heated
from utils.run.workspace import StepError

CALLS = []


class Writer:
    def __init__(self):
        self.reading = {"views": 2}


def study(seconds=0.5):
    return StudyReport({"lung": "Clear."}, {}, {"lung": []}, {}, 0.0, {}, [1], 1, seconds)


@pytest.fixture
def room(monkeypatch, phantom_dataset):
    """A button on a model that looked at the lung's upper left corner."""

    def where(writer, views, found, means, show):
        CALLS.append((len(views), len(means)))
        list(show([1, 2], ""))
        heat = np.full((1, 8, 8), -0.1)
        heat[0, 0, 0] = 2.0
        return {"lung": heat}

    CALLS.clear()
    monkeypatch.setattr(looking, "where_it_looked", where)
    monkeypatch.setattr(looking, "read_study", lambda *_: study())
    return Looking(Writer(), phantom_dataset["train"])


VIEW = [Image.new("L", (64, 32), 40)]


def test_a_study_that_was_timed_says_how_long_before_the_click(room):
    room.offer(VIEW, study())
    assert "24 s" in room.button.description and "49 times, which takes about 24 s" in text(room.shown.value)
    assert not CALLS
    room.button.click()
    assert CALLS == [(1, 2)] and "at most by 2.0" in text(room.shown.value)
    room.region.value = "bone"
    assert "wrote nothing on bone" in text(room.shown.value)
    room.region.value = "lung"
    assert room.shown.value.count("<figure>") == 1 and len(CALLS) == 1


def test_without_a_time_the_first_click_takes_it_and_the_second_starts(room):
    room.offer(VIEW)
    assert "first click" in text(room.shown.value)
    room.button.click()
    assert "about 24 s" in text(room.shown.value) and not CALLS
    room.button.click()
    assert len(CALLS) == 1
    room.offer(VIEW)  # the next study
    assert "<figure>" not in room.shown.value and "first click" in text(room.shown.value)


def test_nothing_to_look_at_and_what_fails(room, monkeypatch):
    assert room.button.disabled
    room.offer(VIEW, study(100))
    assert "82 min" in room.button.description

    def full(*_):
        raise StepError("Memory does not hold <it>.")

    monkeypatch.setattr(looking, "where_it_looked", full)
    room.button.click()
    assert "does not hold &lt;it&gt;" in room.shown.value and not room.button.disabled


def test_the_hottest_part_is_the_most_orange_and_the_rest_stays_grey():
    heat = np.full((8, 8), -1.0)
    heat[0, 0] = 3.0
    seen = np.asarray(heated(VIEW[0], heat, 3.0), dtype=int)
    assert seen.shape == (32, 64, 3)
    assert np.abs(seen[0, 0] - (0.3 * 40 + 0.7 * np.array(HOT))).max() <= 3
    assert (seen[-8:] == 40).all()
    assert (np.asarray(heated(VIEW[0], heat, -1.0)) == 40).all()
    assert "as probable as it was" in heat_view(VIEW, np.zeros((1, 8, 8)), "lung")
