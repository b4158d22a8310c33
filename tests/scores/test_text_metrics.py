"""BLEU-4 and ROUGE-L: textbook values, and the rows that they count."""

import pandas as pd
import pytest
from judged_rows import judgement, table

from utils.scores import tables


@pytest.mark.parametrize(
    ("reference", "prediction", "value"),
    [
        ("Lungs are clear.", "lungs are CLEAR", 1.0),
        ("the cat sat on the mat", "the cat is on the mat", 2 * 5 / 12),
        ("a b c d", "d c b a", 0.25),
        ("No effusion.", "", 0.0),
        ("No effusion.", "Heart normal.", 0.0),
    ],
)
def test_rouge_l(reference, prediction, value):
    assert tables.rouge_l(reference, prediction) == pytest.approx(value)


def test_bleu_is_counted_over_the_whole_corpus():
    assert tables.bleu_4(["the lungs are clear today"] * 2, ["the lungs are clear today"] * 2) == 1
    # 1- to 4-word precisions 5/6, 3/5, 1/4, 0/3 in the first alone; the second lends four-word matches
    both = tables.bleu_4(
        ["the cat sat on the mat", "the lungs are clear"], ["the cat is on the mat", "the lungs are clear"]
    )
    expected = ((5 + 4) / 10 * (3 + 3) / 8 * (1 + 2) / 6 * (0 + 1) / 4) ** 0.25
    assert both == pytest.approx(expected)


def test_no_four_words_in_common_is_zero_and_quiet(recwarn):
    assert tables.bleu_4(["a b c d e"], ["a b x d e"]) == pytest.approx(0, abs=1e-6)
    assert not recwarn


def test_the_columns_stand_beside_the_judges_score_on_the_same_rows():
    rows = table(
        judgement("s1", score=0.5, reference="Lungs are clear.", prediction="Lungs are clear."),
        judgement("s2", score=0.0, reference="Lungs are clear.", prediction=""),
        judgement("s3", "bone", None, reference="", prediction="Intact."),
    )
    (row,) = tables.text_metrics(rows).to_dict("records")
    assert (row["region"], row["n"], row["score"], row["ROUGE-L"]) == ("lung", 2, 0.25, 0.5)
    assert row["ROUGE-L low"] <= 0.5 <= row["ROUGE-L high"]


def test_word_overlap_follows_green_poorly(shared):
    rows = pd.read_json(shared / "recorded" / "green_test.jsonl.gz", lines=True)
    rows = rows[(rows["reference"] != "") & (rows["prediction"] != "")]
    overlap = [tables.rouge_l(*pair) for pair in zip(rows["reference"], rows["prediction"], strict=True)]
    assert 0.3 < rows["green"].corr(pd.Series(overlap, index=rows.index)) < 0.6
