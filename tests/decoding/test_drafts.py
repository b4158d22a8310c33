"""The table of n-grams, and the width of a pass chosen from what passes cost."""

import sys

import pytest
from conftest import ROOT

from utils.decoding.drafts import BEFORE, Drafts, Ngrams, Width

sys.path.insert(0, str(ROOT / "benchmarks"))

END = 99


def learnt(*texts):
    drafts = Drafts()
    for text in texts:
        drafts.learn([*text, END])
    return drafts


def test_a_text_seen_before_is_proposed_from_its_first_token_to_its_end():
    drafts = learnt([5, 6, 7, 8])
    assert drafts.propose([], None, 16) == [5, 6, 7, 8, END]
    assert drafts.propose([5, 6], None, 2) == [7, 8]
    assert drafts.propose([5], None, 0) == []


def test_nothing_is_proposed_after_tokens_never_seen():
    assert learnt([5, 6, 7]).propose([40, 41], None, 8) == []
    assert Drafts().propose([], None, 8) == []


def test_a_longer_context_decides_where_a_shorter_one_is_of_two_minds():
    drafts = learnt([1, 2, 3, 4], [1, 2, 3, 4], [9, 2, 3, 7])
    assert drafts.propose([1, 2, 3], None, 1) == [4]
    assert drafts.propose([9, 2, 3], None, 1) == [7]


def test_what_most_texts_say_next_is_kept_and_later_texts_can_change_it():
    table = Ngrams()
    for token in (3, 4, 3, 3):
        table.learn([1, token])
    assert table.get((1,)) == 3
    for _ in range(4):
        table.learn([1, 4])
    assert table.get((1,)) == 4


def test_a_context_with_no_token_ahead_gives_none():
    table = Ngrams()
    table.learn([1, 3])
    table.learn([1, 4])
    assert table.get((1,)) is None
    assert table.get((BEFORE,)) == 1


def test_a_prompts_own_words_are_proposed_where_the_texts_before_know_nothing():
    drafts = learnt([1, 2, 3])
    own = drafts.of_prompt([30, 31, 32, 33])
    assert drafts.propose([30, 31], own, 8) == [32, 33]
    assert drafts.propose([1], own, 2) == [2, 3]


def test_the_table_stops_growing_at_its_limit(monkeypatch):
    monkeypatch.setattr("utils.decoding.drafts.MOST_CONTEXTS", 10)
    drafts = learnt(range(10, 60))
    assert len(drafts.table) == 10
    drafts.learn([10, 11])  # what is known still counts
    assert drafts.propose([], None, 1) == [10]


def chosen(width, seconds, right, rows=16, passes=200):
    """The last widths chosen where a pass of n tokens takes `seconds(n)` and `right` proposals are right."""
    widths = []
    for _ in range(passes):
        most = width.choose(rows)
        width.timed(rows * (most + 1), seconds(rows * (most + 1)))
        for _ in range(rows):
            width.checked(most, min(right, most))
        widths.append(most)
    return widths[-60:]


@pytest.mark.parametrize(
    ("seconds", "right", "best"),
    [
        (lambda tokens: 0.1, 16, 16),  # width is free and everything right
        (lambda tokens: 0.1 + 1e-5 * tokens, 6, 8),
        (lambda tokens: 0.001 * tokens, 0, 0),  # every token costs and nothing is right
        (lambda tokens: 0.05 + 0.001 * tokens, 1, 2),
    ],
)
def test_the_width_follows_what_passes_cost_and_what_is_right(seconds, right, best):
    widths = chosen(Width(16), seconds, right)
    assert max(set(widths), key=widths.count) == best
    assert len(set(widths)) > 1  # others are tried now and then


def test_a_width_that_paid_is_left_when_drafts_go_wrong():
    width = Width(16)
    assert max(set(early := chosen(width, lambda n: 0.1 + 0.001 * n, 16)), key=early.count) == 16
    assert max(set(late := chosen(width, lambda n: 0.1 + 0.001 * n, 0)), key=late.count) == 0


def test_no_drafts_is_a_choice_too():
    none, three = Width(0), Width(3)
    assert {none.choose(8) for _ in range(40)} == {0}
    assert {three.choose(8) for _ in range(40)} == {0, 2, 3}


def test_replaying_counts_a_pass_for_what_agrees_and_one_token_more():
    import drafts as benchmark
    from judge_calls import byte_tokenizer

    answers = {("a", "b"): "Clear.", ("a", "c"): "Clear.", ("a", "d"): "Clear."}
    tokenizer = byte_tokenizer([benchmark.FORM, "Clear."])
    tokens, passes = benchmark.replay(answers, tokenizer, 16)
    one = tokens // 3
    # The first a token a pass; the second as well begins otherwise than the form; the third is whole at once.
    assert tokens == 3 * one and passes == one + 2 + 1
