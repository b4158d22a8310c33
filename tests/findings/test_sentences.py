"""Sentences and words, as every reader of a report takes it apart."""

from utils.findings.reader import read_findings
from utils.findings.sentences import STOPWORDS, sentences, words
from utils.split.auditing import failures
from utils.split.offline import region_of, split_offline


def test_a_sentence_ends_at_its_mark_with_or_without_a_blank_after_it():
    assert sentences("A 1.5 cm nodule.The heart; normal .. Clear?") == [
        "A 1.5 cm nodule.",
        "The heart; normal ..",
        "Clear?",
    ]
    assert sentences("The heart; normal", semicolons=True) == ["The heart;", "normal"]


def test_the_reader_and_the_splitter_cut_a_report_at_the_same_places():
    """What was one statement for the reader, "no pneumothorax ... heart size", was two for the splitter."""
    text = "No pleural effusion.Heart size is mildly enlarged."
    split = split_offline(text)
    apart = read_findings(split["lung"]) + read_findings(split["heart"])
    assert read_findings(text) == apart and [finding.present for finding in apart] == [False, True]


def test_a_word_of_any_alphabet_is_whole():
    assert words("Ölung 3.7 cm") == ["ölung", "3", "7", "cm"]
    assert words("Ölung 3.7 cm", decimals=True) == ["ölung", "3.7", "cm"]
    assert region_of("Ölung") is None  # "lung" in it is no word


def test_negations_are_no_stop_words_and_a_size_stays_whole():
    assert STOPWORDS.isdisjoint({"no", "not", "nor", "without", "cannot", "xxxx"})
    split = dict.fromkeys(("heart", "mediastinal", "bone", "others"), "") | {"lung": "A 7.3 cm nodule."}
    assert failures("A 3.7 cm nodule.", split)
