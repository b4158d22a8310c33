"""The reading room, without a browser."""

import pytest
from judged_rows import judgement, table

from utils.pages.viewers import ALL_REGIONS, ANY_ERROR, ReadingRoom, places
from utils.scores.means import ERRORS

IDS = ["c", "a", "b", "unjudged"]


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
    return [
        (IDS[place], round(score, 2), errors) for place, score, errors in places(judgements, IDS, **choice)
    ]


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
    room = ReadingRoom(IDS, judgements, lambda i: drawn.append(IDS[i]) or f"<p>{IDS[i]}</p>")
    assert drawn == ["c"] and "c · 0.30 · 3 errors" in room.shown.value
    room.next.click()
    room.order.value = "best first"
    assert drawn == ["c", "a", "b"] and "1 error" in room.choice.options[1][0]


def test_filters_that_leave_nothing_say_so_and_can_be_taken_back(judgements):
    room = ReadingRoom(IDS, judgements, lambda i: IDS[i])
    room.error.value = ERRORS[5]
    assert "no such study" in room.shown.value and room.next.disabled
    room.error.value, room.region.value = ANY_ERROR, ALL_REGIONS
    assert "c · 0.30" in room.shown.value and not room.next.disabled
    assert "c · 0.30" in room.static().data
