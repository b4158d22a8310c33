"""Step 4 planned and kept to: what is asked, what it costs, in which order, and when time is up."""

from types import SimpleNamespace

import pandas as pd
import pytest

from utils.judge import write_completion
from utils.models.decoding import MOST_ROWS
from utils.models.systems import BASE, MODEL, SHUFFLED
from utils.run.machine import CARDS
from utils.run.workspace import StepError
from utils.scores import plan
from utils.scores.baselines import BASELINES
from utils.settings import JudgeSettings


class Judge:
    """Answers every pair with one matched finding and keeps what it was asked."""

    label, fingerprint = "counting judge (not GREEN)", "1"

    def __init__(self):
        self.asked = []

    def ask(self, pairs):
        for index, pair in enumerate(pairs):
            self.asked.append(pair)
            yield index, write_completion("Fine.", {}, {}, ["clear"])


def rows(system, *texts):
    """A study for each text, its prediction for the lungs; the reference says nothing of the heart."""
    columns = ("system", "split", "id", "region", "reference", "prediction")
    pairs = (("lung", "Clear."), ("heart", ""))
    lines = [(system, "test", f"s{n}", *pair, text) for n, text in enumerate(texts) for pair in pairs]
    return pd.DataFrame(lines, columns=columns)


@pytest.fixture
def systems():
    of = {MODEL: rows(MODEL, "a", "b", "b", ""), SHUFFLED: rows(SHUFFLED, "b", "c")}
    return of | {"constant": rows("constant", "d", "e")}


def quiet(systems, judge, cache, hours=0, said=None):
    said = [] if said is None else said
    how = {"say": said.append, "bar": lambda label: lambda *_: None}
    return plan.in_turn(judge, JudgeSettings(hours=hours), cache, **how)(systems)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "answers.jsonl"


NO_TIME = 1e-9  # hours


def test_a_question_counts_once_and_not_where_its_answer_is_saved(systems, cache):
    judge = Judge()
    assert plan.questions(systems, judge, cache=cache) == {MODEL: 2, SHUFFLED: 1, "constant": 2}
    quiet({SHUFFLED: systems[SHUFFLED]}, judge, cache)
    assert plan.questions(systems, judge, cache=cache) == {MODEL: 1, SHUFFLED: 0, "constant": 2}


def test_the_counts_are_what_is_asked(systems, cache):
    judge = Judge()
    counts = plan.questions(systems, judge, cache=cache)
    done = quiet(systems, judge, cache)
    assert list(done) == list(systems) and len(judge.asked) == sum(counts.values())
    assert [len(done[name]) for name in systems] == [len(systems[name]) for name in systems]


def test_time_up_ends_after_an_answer_says_what_is_left_and_the_next_run_goes_on(systems, cache, monkeypatch):
    judge, said = Judge(), []  # each answer takes a second
    monkeypatch.setattr(plan, "time", SimpleNamespace(monotonic=lambda: len(judge.asked)))
    done = quiet(systems, judge, cache, 2.5 / 3600, said)
    assert list(done) == [MODEL, SHUFFLED] and len(judge.asked) == 4  # time is up in the constant's questions
    assert "1 of 2 questions into constant" in said[-1] and "Run all cells again" in said[-1]
    again = Judge()
    assert list(quiet(systems, again, cache)) == list(systems)
    assert set(judge.asked).isdisjoint(again.asked) and len(again.asked) == 1


def test_where_time_is_up_before_the_model_is_judged_it_says_so(systems, cache):
    judge = Judge()
    done = quiet(systems, judge, cache, NO_TIME)
    assert done == {} and len(judge.asked) == 1
    with pytest.raises(StepError, match=f"before the {MODEL} was judged"):
        plan.all_or_stop(done, MODEL)


def test_what_is_answered_already_is_judged_whatever_the_time(systems, cache):
    quiet(systems, Judge(), cache)
    assert list(quiet(systems, Judge(), cache, NO_TIME)) == list(systems)


def test_the_hours_begin_with_the_first_system(systems, cache, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(plan, "time", SimpleNamespace(monotonic=lambda: clock.now))
    in_turn = plan.in_turn(Judge(), JudgeSettings(hours=1), cache, say=lambda _: None)
    assert list(in_turn({MODEL: systems[MODEL]})) == [MODEL]
    clock.now = 3601.0
    assert in_turn({"constant": systems["constant"]}) == {}


def test_a_choice_of_systems(systems):
    assert list(plan.chosen(systems, "model")) == [MODEL]
    assert list(plan.chosen(systems, "model and shuffled")) == [MODEL, SHUFFLED]
    assert list(plan.chosen(systems, "all")) == list(systems)


def test_by_the_plan_a_question_takes_a_second_and_all_of_step_4_little_more_than_two_hours():
    fast, likely, slow = plan.judge_seconds()
    assert fast < likely <= 1 < slow
    assert "\n| all |  | 2.3 (" in plan.table()


def test_the_plan_names_every_system_and_the_look_at_the_test_studies():
    rows = [item.name for item in plan.iu_xray()]
    names = [row.removeprefix("judge: ") for row in rows if "judge" in row]
    assert names == [MODEL, BASE, SHUFFLED, *BASELINES]
    look, reports, of_base = plan.iu_xray()[:3]
    assert (look.name, look.count) == (plan.LOOK, 590) and reports.name == "write reports"
    assert (of_base.name, of_base.count) == (f"write reports: {BASE}", 150)
    assert all(
        150 * one / reports.count < other for one, other in zip(reports.hours, of_base.hours, strict=True)
    )  # it was not taught to be brief
    assert 0 < look.hours[0] < look.hours[1] < look.hours[2] < 0.05
    assert f"| {plan.LOOK} | 590 | under 0.1 |" in plan.table()
    assert plan.iu_xray(gpus=2)[0].hours == tuple(hours / 2 for hours in look.hours)


def test_cards_share_the_work_and_a_better_one_takes_less_time():
    one, two = (plan.planned("model", 100, plan.judge_seconds(), gpus) for gpus in (1, 2))
    assert two.hours == tuple(hours / 2 for hours in one.hours) and one.count == two.count
    for card in CARDS[1:]:
        assert all(a < b for a, b in zip(plan.judge_seconds(card), plan.judge_seconds(), strict=True))
    assert "hours on 2 x L4" in plan.table(CARDS[1], 2)


def test_a_longer_question_leaves_room_for_fewer():
    few, many = (plan.rows_at_once(plan.JUDGE, slots) for slots in (2048, 512))
    assert 1 <= few < many and plan.rows_at_once(plan.JUDGE, 10**6) == 1


def test_a_model_in_32_bits_writes_more_slowly():
    reading = {"base": "llava-v1.6-mistral-7b", "precision": "fp16", "views": 2}
    half, full = (plan.report_seconds(reading | {"precision": kind}, 366, 16) for kind in ("fp16", "fp32"))
    assert plan.report_seconds(reading | {"precision": "bf16"}, 366, 16) == half
    assert all(one < other for one, other in zip(half, full, strict=True))


def test_reports_are_planned_for_as_many_at_once_as_fit_where_no_number_is_given():
    reading = {"base": "llava-v1.6-mistral-7b", "precision": "fp16", "views": 2}
    fitting, most, few = (plan.report_seconds(reading, 366, number) for number in (0, MOST_ROWS, 16))
    assert fitting == most and all(one < other for one, other in zip(fitting, few, strict=True))
    long = [plan.report_seconds(reading, 8000, number) for number in (0, 16)]
    assert long[0] == long[1]  # memory holds fewer than either
