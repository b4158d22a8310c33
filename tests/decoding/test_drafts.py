"""What a text is guessed to go on with."""

import sys

from conftest import ROOT

from utils.models.decoding.drafts import Drafts

sys.path.insert(0, str(ROOT / "benchmarks"))

END = 99


def learnt(*texts):
    drafts = Drafts()
    for text in texts:
        drafts.learn([*text, END])
    return drafts


def test_a_text_seen_before_is_proposed_from_its_first_token_to_its_end():
    drafts = learnt([5, 6, 7, 8])
    assert drafts.propose([], 16) == [5, 6, 7, 8, END]
    assert drafts.propose([5, 6], 2) == [7, 8]
    assert drafts.propose([5], 0) == []


def test_nothing_is_proposed_after_tokens_never_seen():
    assert learnt([5, 6, 7]).propose([40, 41], 8) == []
    assert Drafts().propose([], 8) == []


def test_a_longer_context_decides_where_a_shorter_one_is_of_two_minds():
    drafts = learnt([1, 2, 3, 4], [1, 2, 3, 4], [9, 2, 3, 7])
    assert drafts.propose([1, 2, 3], 1) == [4]
    assert drafts.propose([9, 2, 3], 1) == [7]


def test_what_most_texts_say_next_is_kept_and_later_texts_can_change_it():
    drafts = Drafts()
    for token in (3, 4, 3, 3):
        drafts.learn([1, token])
    assert drafts.propose([1], 1) == [3]
    for _ in range(4):
        drafts.learn([1, 4])
    assert drafts.propose([1], 1) == [4]


def test_a_context_with_no_token_ahead_gives_none():
    drafts = Drafts()
    drafts.learn([1, 3])
    drafts.learn([1, 4])
    assert drafts.propose([1], 1) == []
    assert drafts.propose([], 2) == [1]


def test_the_table_stops_growing_at_its_limit(monkeypatch):
    monkeypatch.setattr("utils.models.decoding.drafts.MOST_CONTEXTS", 10)
    drafts = learnt(range(10, 60))
    assert len(drafts._kept) == 10
    drafts.learn([10, 11])  # what is known still counts
    assert drafts.propose([], 1) == [10]


def test_replaying_counts_a_pass_for_what_agrees_and_one_token_more():
    import decoding as benchmark
    from judge_calls import Row, byte_tokenizer

    rows = [Row("a", prediction, "Clear.") for prediction in "bcd"]
    tokenizer = byte_tokenizer([f"[Explanation]:{benchmark.FORM.completion}", "Clear."])
    tokens, passes = benchmark.replay(rows, tokenizer, 16)
    start = len(tokenizer("[Explanation]:", add_special_tokens=False)["input_ids"])
    one = tokens // 3
    # The first differs from the form; the second, too, and is known from there on; the third is known whole.
    assert tokens == 3 * one and passes == (one - start) + 2 + 1
