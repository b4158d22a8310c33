"""The benchmark of the judge's cost counts what it says it counts."""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import judge_calls

PAIRS = [
    ("Clear.", "Clear."),
    ("Clear.", ""),
    ("", "Clear."),
    ("No effusion.", "Effusion."),
    ("Clear.", "Clear."),
]


@pytest.fixture(scope="module")
def costs():
    return judge_calls.compare(PAIRS * 2, new_tokens=2)


def test_green_score_asks_every_row_in_eights_and_we_each_distinct_question_once(costs):
    theirs, ours = costs
    assert (theirs.questions, theirs.passes) == (10, 4)
    assert (ours.questions, ours.passes) == (2, 3)  # one pass more: the prompts are read apart
    assert theirs.tokens_out == 20 and ours.tokens_out == 4
    assert theirs.tokens_in > 8 * ours.tokens_in


def test_a_part_of_the_rows_is_named_as_one(costs):
    assert judge_calls.report(*costs, 10, 2360, 2).startswith("the first 10 of 2,360 rows")
    assert "5.00x" in judge_calls.report(*costs, 10, 10, 2)
