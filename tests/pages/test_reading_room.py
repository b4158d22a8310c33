"""The reading room, without a browser."""

import json
import re

import numpy as np
import pytest
from judged_rows import OFFLINE, judgement, table
from page_text import text

from utils.findings.probe import Probe
from utils.judge import write_completion
from utils.models.loading import ADAPTER_FILES, PROBE, READING, load_model
from utils.models.writer import Writer
from utils.pages import reading_room
from utils.pages.reading_room import ALL_REGIONS, ANY_ERROR, ReadingRoom, ranked
from utils.scores.statistics import ERRORS


@pytest.fixture
def judgements():
    return table(
        judgement("a", "lung", 0.0, significant=[1, 0, 0, 0, 0, 0]),
        judgement("a", "heart", 1.0),
        judgement("b", "lung", 1.0),
        judgement("c", "lung", 0.2, significant=[0, 2, 0, 0, 0, 0]),
        judgement("c", "heart", 0.4, significant=[1, 0, 0, 0, 0, 0]),
        judgement("c", "bone", None, reference=""),
    )


def shown(judgements, **choice):
    return [(row.Index, round(row.score, 2), row.errors) for row in ranked(judgements, **choice).itertuples()]


def test_studies_come_in_the_order_asked_for(judgements):
    assert shown(judgements) == [("c", 0.3, 3), ("a", 0.5, 1), ("b", 1.0, 0)]
    assert [name for name, *_ in shown(judgements, order="best first")] == ["b", "a", "c"]
    assert [name for name, *_ in shown(judgements, order="by id")] == ["a", "b", "c"]


def test_a_region_counts_alone_and_leaves_out_studies_that_do_not_mention_it(judgements):
    assert shown(judgements, region="heart") == [("c", 0.4, 1), ("a", 1.0, 0)]
    assert shown(judgements, region="bone") == []


def test_an_error_type_leaves_the_studies_that_have_it(judgements):
    assert shown(judgements, error=ERRORS[1]) == [("c", 0.3, 2)]
    assert shown(judgements, error=ERRORS[0], region="lung") == [("a", 0.0, 1)]


def test_it_opens_on_the_worst_study_and_draws_only_what_is_shown(judgements):
    drawn = []
    room = ReadingRoom(judgements, lambda id: drawn.append(id) or f"<p>{id}</p>")
    assert drawn == ["c"] and "c · 0.30 · 3 errors" in room.shown.value
    room.next.click()
    room.order.value = "best first"
    assert drawn == ["c", "a", "b"] and "1 error" in room.choice.options[1][0]


def test_filters_that_leave_nothing_say_so_and_can_be_taken_back(judgements):
    room = ReadingRoom(judgements, str)
    room.error.value = ERRORS[5]
    assert "no such study" in room.shown.value and room.next.disabled
    room.error.value, room.region.value = ANY_ERROR, ALL_REGIONS
    assert "c · 0.30" in room.shown.value and not room.next.disabled
    assert "c · 0.30" in room.static().data


# What the probe sees

NAMES = ("effusion", "cardiomegaly")
WEIGHT = 1.0


def probe(features=1):
    """Of both findings half of the studies that the threshold is set on have 0.1, half 0.8."""
    calibration = np.array([[0.1, 0.1], [0.8, 0.8]])
    return Probe(NAMES, np.zeros((2, features)), np.array([2.0, -2.0]), calibration)


def test_every_bar_has_its_number_and_only_what_the_report_is_to_name_stands_out():
    plan = {"lung": ("effusion",), "heart": (), "mediastinal": (), "bone": ()}
    markup = reading_room.bars(probe(), np.array([0.934, 0.2]), plan, WEIGHT)
    lines = [text(row) for row in re.findall(r"<tr>.*?</tr>", markup)]
    assert lines == ["finding probability", "effusion 0.93 named", "cardiomegaly 0.20"]
    assert re.findall(r'width:(\d+%)"></i><u style="left:(\d+%)', markup) == [("93%", "80%"), ("20%", "80%")]
    assert re.findall(r"<b>(.*?)</b>", markup) == ["effusion", "0.93"]
    meters = re.findall(r'class="(meter [^"]*)" aria-hidden="true"', markup)
    assert meters == ["meter lung named", "meter heart"]
    assert "Findings probe, not a diagnosis" in text(markup) and "recall_weight 1" in text(markup)
    assert "from the mark on, 0.80," in text(markup)
    assert "<img" not in markup


@pytest.fixture(scope="module")
def adapter(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    reading = {"base": str(tiny_base), "image_tokens": "base", "precision": "fp32", "views": 2}
    (folder / READING).write_text(json.dumps(reading))
    (folder / ADAPTER_FILES[0]).write_text("weights, which no probe needs")
    return folder


def test_a_writer_that_is_closed_still_has_what_the_probe_saw(adapter, tiny_base, phantom_dataset, tmp_path):
    split = phantom_dataset["test"]
    writer = Writer(adapter, WEIGHT, tmp_path)
    writer.model = load_model(str(tiny_base), precision="fp32")
    features = writer.features(split, "test")
    probe(features[0].size).save(adapter / PROBE)
    writer = Writer(adapter, WEIGHT, tmp_path)
    writer.close()
    shown = list(map(text, reading_room.probe_bars(writer, split, "test")))
    assert len(shown) == len(split) and all("effusion 0.88 named cardiomegaly 0.12" in s for s in shown)


def test_the_room_shows_the_bars_of_each_study_beside_its_views_and_without_a_probe_none(phantom_dataset):
    split = phantom_dataset["test"]
    ids = split["id"]
    answer = write_completion("Fine.", {}, {}, ["clear"])
    judged = table(*(judgement(id, score=n / 9, completion=answer) for n, id in enumerate(ids)))
    written = [{"id": id, "report": {"lung": f"Text of {id}."}} for id in ids]
    bars = [f"<p>bars of {id}</p>" for id in ids]
    room = reading_room.open_room(split, judged, written, bars, note="drawn")
    for id in ids:
        shown = room.shown.value
        assert f"Text of {id}." in shown and OFFLINE in shown and "drawn" in text(shown)
        views, after = shown.split(f"<p>bars of {id}</p></div>")
        assert '<div class="side"><figure>' in views and after.startswith("<table>")
        room.next.click()
    without = type("Writer", (), {"probe": None, "recall_weight": WEIGHT})
    assert reading_room.probe_bars(without, split, "test") == []
    plain = reading_room.open_room(split, judged, written).shown.value
    assert f"Text of {ids[0]}." in plain and "bars of" not in plain
