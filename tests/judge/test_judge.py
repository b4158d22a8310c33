"""The parser against what GREEN wrote, and the asking: once, in order, cached, resumable."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from utils.judge import JudgeError, Judgement, judge_pairs, parse_completion, write_completion

SECTIONS = """Fine in general.

[Clinically Significant Errors]:
{significant}

[Clinically Insignificant Errors]:
None.

[Matched Findings]:
{matched}"""


class CountingEngine:
    """Answers every pair with one matched finding and keeps what it was asked; last pair first."""

    label, fingerprint = "counting judge", "1"

    def __init__(self, stop_after: int | None = None):
        self.asked, self.stop_after = [], stop_after

    def ask(self, pairs):
        for index in reversed(range(len(pairs))):
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(pairs[index])
            yield index, write_completion(f"{pairs[index]}", {"a": [pairs[index][1]]}, {}, [pairs[index][0]])


@pytest.fixture
def recorded(shared) -> list[dict]:
    """What GREEN answered on the published test predictions."""
    with gzip.open(shared / "recorded" / "green_test.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def test_every_recorded_completion_parses_as_recorded(recorded):
    judged = [parse_completion(row["completion"]) for row in recorded]
    assert len(recorded) == 2360
    for row, judgement in zip(recorded, judged, strict=True):
        assert judgement.score_as_published == pytest.approx(row["green"], abs=1e-12)
        assert list(judgement.significant) == row["significant"] and judgement.matched == row["matched"]
        assert judgement.score in (None, judgement.score_as_published)
    refused = [row for row, judgement in zip(recorded, judged, strict=True) if judgement.score is None]
    assert len(refused) == sum("[Matched Findings]:" not in row["completion"] for row in recorded)
    assert all(row["green"] == 0 for row in refused)


def parsed(significant="None.", matched="2. No effusion; No nodule."):
    return parse_completion(SECTIONS.format(significant=significant, matched=matched))


def test_a_verdict_in_full():
    one = parsed("(a) False report of a finding: 1. A nodule.\n(b) Missing: 2. Effusion; Fracture.")
    assert (one.score, one.explanation) == (0.4, "Fine in general.")
    assert (one.significant, one.insignificant) == ((1, 2, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0))
    assert one.matched_findings == ("No effusion", "No nodule")
    assert one.sentences == {"a": ("A nodule",), "b": ("Effusion", "Fracture")}


@pytest.mark.parametrize(
    ("significant", "counts"),
    [
        ("None.", (0, 0, 0, 0, 0, 0)),
        ("No errors. (a) False: 3. x", (0, 0, 0, 0, 0, 0)),
        ("1. (a) False: 3. x\n2. (c) Place: 1. y", (3, 0, 1, 0, 0, 0)),
        ("(1) False: 3. x\n(6) Omitting: 12. y", (3, 0, 0, 0, 0, 12)),
        ("(b) Missing: 1. x\n(1) False: 5. y", (0, 1, 0, 0, 0, 0)),
        ("(b) Missing: two. x", (0, 0, 0, 0, 0, 0)),
        ("(b) Missing: 1. x\n(b) Missing: 2. y", (0, 2, 0, 0, 0, 0)),
        ("(b) Missing: 3. x\n\n(c) Place: 1. y", (0, 3, 0, 0, 0, 0)),
        ("The judge digresses. (d) Severity: 1. mild: not severe: 2.", (0, 0, 0, 1, 0, 0)),
    ],
)
def test_the_shapes_of_an_error_section(significant, counts):
    assert parsed(significant).significant == counts


@pytest.mark.parametrize(
    ("matched", "count", "score"),
    [
        ("None.", 0, 0.0),
        ("No matched findings.", 0, 0.0),
        ("0.", 0, 0.0),
        ("10. Many", 10, 1.0),
        ("", 0, None),
        ("The heart size.", 0, None),
    ],
)
def test_the_shapes_of_the_matched_section(matched, count, score):
    one = parsed(matched=matched)
    assert (one.matched, one.score, one.score_as_published) == (count, score, score or 0.0)


def test_no_verdict_is_told_from_a_score_of_zero():
    refused = parse_completion("The candidate report is missing. Please provide it.")
    assert refused.score is None
    assert refused.score_as_published == 0.0
    assert refused.explanation == "The candidate report is missing. Please provide it."
    cut_off = parse_completion(SECTIONS.split("[Matched")[0].format(significant="(a) False: 1. x"))
    assert cut_off.score is None
    assert cut_off.significant == (1, 0, 0, 0, 0, 0)


def test_a_missing_error_section_counts_no_errors_as_in_green_score():
    assert parse_completion("[Matched Findings]:\n2. a; b").score == 1.0


def test_what_is_written_is_read_back():
    text = write_completion(
        "Why.", {"b": ["an effusion; left", "a  nodule"]}, {"f": ["stable"]}, ["heart normal"]
    )
    one = parse_completion(text, "some judge")
    assert one.significant == (0, 2, 0, 0, 0, 0)
    assert one.sentences == {"b": ("an effusion, left", "a nodule")}
    assert one.insignificant_sentences == {"f": ("stable",)}
    assert (one.matched_findings, one.explanation, one.judge) == (("heart normal",), "Why.", "some judge")
    assert one.score == pytest.approx(1 / 3)


def test_each_distinct_pair_is_asked_once_and_answers_keep_the_order():
    engine, seen = CountingEngine(), []
    pairs = [("a", "x"), ("b", "x"), (" a ", "x"), ("a", "y"), ("b", "x")]
    judged = judge_pairs(pairs, engine, progress=lambda done, total: seen.append((done, total)))
    assert [one.matched_findings[0] for one in judged] == ["a", "b", "a", "a", "b"]
    assert [one.sentences["a"][0] for one in judged] == ["x", "x", "x", "y", "x"]
    assert len(engine.asked) == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_recorded_test_predictions_need_916_questions(recorded):
    engine = CountingEngine()
    judge_pairs([(row["reference"], row["prediction"]) for row in recorded if row["reference"]], engine)
    assert len(engine.asked) == 916


def test_an_empty_prediction_misses_everything_without_asking():
    engine = CountingEngine()
    (one,) = judge_pairs([("Heart is large. No effusion.", " \n")], engine)
    assert (one.score, one.matched, one.significant) == (0.0, 0, (0, 2, 0, 0, 0, 0))
    assert "without asking" in one.explanation
    assert not engine.asked


def test_identical_texts_are_asked_unless_chosen_and_then_labelled():
    engine = CountingEngine()
    assert judge_pairs([("a", "a")], engine)[0].score == 0.5
    one, other = judge_pairs([("a", "a"), ("a", "b")], engine, identical_without_asking=True)
    assert one.score == 1.0
    assert one.judge == other.judge == "counting judge, identical texts not asked"  # one table, one judge
    assert engine.asked == [("a", "a"), ("a", "b")]


def test_an_empty_reference_is_refused_and_named():
    with pytest.raises(JudgeError, match="pair 1 has an empty reference"):
        judge_pairs([("a", "b"), (" ", "b")])


def test_an_unknown_judge_is_refused():
    with pytest.raises(JudgeError, match="offline, green, server"):
        judge_pairs([("a", "b")], "oracle")


def test_options_that_reach_no_engine_are_refused():
    with pytest.raises(JudgeError, match="leave out precision"):
        judge_pairs([("a", "b")], CountingEngine(), precision="nf4")


def test_nothing_to_judge_is_nothing():
    assert judge_pairs([]) == []


def test_a_second_run_asks_nothing_and_another_judge_does(tmp_path):
    pairs, cache = [("a", "x"), ("b", "x")], tmp_path / "new" / "judge.jsonl"
    first = judge_pairs(pairs, CountingEngine(), cache=cache)
    again = CountingEngine()
    assert judge_pairs(pairs, again, cache=cache) == first
    assert not again.asked
    again.fingerprint = "2"
    judge_pairs(pairs, again, cache=cache)
    assert len(again.asked) == 2


def test_a_run_that_stops_goes_on_where_it_was(tmp_path):
    pairs, cache = [(letter, "x") for letter in "abcdef"], tmp_path / "judge.jsonl"
    with pytest.raises(KeyboardInterrupt):
        judge_pairs(pairs, CountingEngine(stop_after=4), cache=cache)
    rest = CountingEngine()
    judged = judge_pairs(pairs, rest, cache=cache)
    assert len(rest.asked) == 2
    assert judged == judge_pairs(pairs, CountingEngine())


def test_after_sigkill_the_answers_given_are_kept(tmp_path):
    cache = tmp_path / "judge.jsonl"
    script = (
        "import sys, time; sys.path[:0] = sys.argv[1:4]\n"
        "from test_judge import CountingEngine; from utils.judge import judge_pairs\n"
        "def slow(done, total):\n"
        "    if done == 3: print('three', flush=True); time.sleep(60)\n"
        "judge_pairs([(c, 'x') for c in 'abcdef'], CountingEngine(), cache=sys.argv[4], progress=slow)\n"
    )
    command = [sys.executable, "-c", script, ROOT, ROOT / "tests", Path(__file__).parent, cache]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"three\n"
        os.kill(child.pid, signal.SIGKILL)
    engine = CountingEngine()
    judge_pairs([(letter, "x") for letter in "abcdef"], engine, cache=cache)
    assert sorted(pair[0] for pair in engine.asked) == ["a", "b", "c"]


def test_a_file_of_another_kind_is_named_and_left_as_it_is(tmp_path):
    cache = tmp_path / "mine.csv"
    cache.write_text("study,score\n1,2\n")
    with pytest.raises(JudgeError, match=r"mine\.csv"):
        judge_pairs([("a", "x")], CountingEngine(), cache=cache)
    assert cache.read_text() == "study,score\n1,2\n"


def test_a_cache_of_before_is_read(tmp_path):
    cache = tmp_path / "judge.jsonl"
    key = "d98ccec967e21f8cf8594e8939861c5730b05a03cdf6e70dba15d9d0d5206d79"  # of a file written before
    entry = {"key": key, "judge": "counting judge", "reference": "a", "prediction": "x", "completion": "KEPT"}
    cache.write_text('{"file": "answers of a judge", "version": 1}\n' + json.dumps(entry) + "\n")
    engine = CountingEngine()
    (judged,) = judge_pairs([("a", "x")], engine, cache=cache)
    assert judged.completion == "KEPT" and engine.asked == []


def test_a_judgement_cannot_be_changed():
    one = parsed()
    assert isinstance(one, Judgement)
    with pytest.raises(AttributeError):
        one.score = 1.0
