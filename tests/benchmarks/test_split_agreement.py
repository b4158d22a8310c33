"""The benchmark of the offline split: the yardstick, gold against itself, and what gold does not place."""

import json
import sys

import pandas as pd
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import split_agreement

TEXT = "The heart is normal. Large hiatal hernia. Lungs clear and ribs intact. Both hila are prominent."
GOLD = {
    "heart": "Heart is normal.",
    "others": "Large hiatal hernia.",
    "lung": "Lungs clear.",
    "bone": "Ribs intact.",
    "mediastinal": "",
}


def test_obvious_words_take_whole_sentences():
    assert split_agreement.by_obvious_words(TEXT) == {
        "heart": "The heart is normal.",
        "others": "Large hiatal hernia.",
        "lung": "Lungs clear and ribs intact.",
        "bone": "Lungs clear and ribs intact.",
        "mediastinal": "Both hila are prominent.",
    }


def test_gold_is_held_against_itself_where_a_sentence_comes_again():
    rows = [
        ("Clear.", "lung", "lung", True),
        ("Clear", "lung", "lung", True),
        ("clear.", "lung", "others", False),
        ("Kyphosis.", "bone", "bone", True),
        ("Chest.", "others", "", None),
    ]
    frame = pd.DataFrame(rows, columns=["sentence", "ours", "gold", "agree"]).astype({"agree": "boolean"})
    share, itself, ours, best = split_agreement.repeated(frame)
    assert share == 3 / 4 and best == 3 / 4  # two of three, and the one that comes once
    assert itself == pytest.approx(1 / 3)  # of three pairs, one
    assert ours == pytest.approx(2 / 3)
    assert split_agreement.of_four(frame) == 1  # the disagreement is with others: not scored


def test_what_gold_does_not_place_is_counted_and_listed(tmp_path, capsys, monkeypatch):
    quiz, r2gen = tmp_path / "quiz.json", tmp_path / "r2gen.json"
    quiz.write_text(json.dumps({"train": [{"id": "a", "report": GOLD}], "test": []}))
    r2gen.write_text(json.dumps({"train": [{"id": "a", "report": TEXT}]}))
    for flags in ([], ["--list"]):
        monkeypatch.setattr(sys, "argv", ["split_agreement.py", str(quiz), str(r2gen), *flags])
        split_agreement.main()
        shown = capsys.readouterr().out
        assert "2 of 4 sentences (50.0%): not scored" in shown and "held out" not in shown
        assert ("1 x Both hila are prominent." in shown) == bool(flags)
