"""The benchmark of the judge's cost counts what it says it counts."""

import sys

import pytest
from conftest import ROOT

from utils.judge.green import prompt

sys.path.insert(0, str(ROOT / "benchmarks"))
import judge_calls
from judge_calls import Row

ROWS = [
    Row("Clear.", "Clear.", "The same. " * 40),
    Row("Clear.", "", "Short."),
    Row("", "Clear.", "Short."),
    Row("No effusion.", "Effusion.", "Other."),
    Row("Clear.", "Clear.", "The same. " * 40),
] * 2


@pytest.fixture(scope="module")
def tokenizer():
    return judge_calls.byte_tokenizer([prompt("", ""), *(row.completion for row in ROWS)])


def test_green_score_asks_every_row_in_eights_that_wait_for_their_longest(tokenizer):
    cost = judge_calls.in_batches(ROWS, tokenizer)
    longest = max(len(judge_calls.answer(row, tokenizer)) for row in ROWS)
    asked = max(len(judge_calls.question(row, tokenizer)) for row in ROWS)
    assert (cost.questions, cost.passes, cost.tokens_out) == (10, 2 * longest, 10 * longest)
    assert 0 <= 10 * (asked + longest - 1) - cost.tokens_in <= 10 * 20  # each batch to its own longest


def test_we_ask_each_distinct_question_once_and_write_no_more_than_the_answers(tokenizer):
    asked = judge_calls.distinct(ROWS)
    assert [row[:2] for row in asked] == [("Clear.", "Clear."), ("No effusion.", "Effusion.")]
    cost = judge_calls.ours(ROWS, tokenizer)
    answers = [len(judge_calls.answer(row, tokenizer)) for row in asked]
    assert (cost.questions, cost.tokens_out) == (2, sum(answers))
    assert cost.passes <= max(answers) + 2  # the questions' start and their rest are read apart


def test_the_report_gives_what_each_way_saves():
    costs = {"one": judge_calls.Cost(10, 4, 100, 20), "two": judge_calls.Cost(2, 1, 25, 10)}
    said = judge_calls.report(costs, 10).splitlines()
    assert said[0] == "10 recorded rows"
    assert said[2].split() == ["questions", "10", "(1.00x)", "2", "(5.00x)"]
    assert said[4].split() == ["tokens", "in", "100", "(1.00x)", "25", "(4.00x)"]
