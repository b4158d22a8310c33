"""Other metrics: textbook values of BLEU-4 and ROUGE-L, the rows that they count, and pairs for RadEval."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

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


def rows_of_two():
    return table(
        judgement(),
        judgement("s2", reference="No effusion, no “mass”.", prediction="Effusion.\nMass.", score=0.0),
        judgement("s3", prediction="", score=0.0),
        judgement("s4", reference="", score=None),
        judgement("s1", system="constant", prediction="No effusion."),
    )


def test_pairs_are_kept_for_other_metrics_and_an_old_file_survives_a_failure(tmp_path, monkeypatch):
    path = tables.write_pairs(rows_of_two(), tmp_path / "pairs.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["s1", "s2", "s3", "s1"]  # s4 mentions nothing: no pair
    pair = {"ref": "No effusion, no “mass”.", "hyp": "Effusion.\nMass.", "id": "s2"}
    assert lines[1] == pair | {"region": "lung", "system": "model", "split": "test"}
    frame = pd.read_json(path, lines=True).query("system == 'model'")
    assert len(frame["ref"].tolist()) == len(frame["hyp"].tolist()) == 3
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        tables.write_pairs(rows_of_two().head(1), path)
    assert path.read_bytes() == before


class RadEval:
    """The interface of RadEval 2.2.1, for where it is not installed: a list a metric, in the pairs' order."""

    asked: ClassVar[list] = []

    def __init__(self, metrics=None, per_sample=False, show_progress=True):
        assert per_sample and not show_progress
        self.keys = [f"{name}_{part}" for name in metrics for part in ("simple", "partial")]

    def __call__(self, refs, hyps):
        assert isinstance(refs, list) and isinstance(hyps, list) and len(refs) == len(hyps)
        RadEval.asked += zip(refs, hyps, strict=True)
        return {key: [len(hyp) / 100 for hyp in hyps] for key in self.keys}


def test_radevals_metrics_stand_beside_the_shared_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "radeval", SimpleNamespace(RadEval=RadEval))
    found = tables.text_metrics(rows_of_two(), radeval=["radgraph"]).set_index("system")
    model = found.loc["model"]
    assert model["radgraph_simple"] == pytest.approx((0.12 + 0.15 + 0) / 3)  # an empty prediction counts as 0
    assert model["radgraph_partial low"] <= model["radgraph_partial"] <= model["radgraph_partial high"]
    assert found.loc["constant", "radgraph_simple"] == pytest.approx(0.12) and model["n"] == 3
    assert len(RadEval.asked) == len(set(RadEval.asked)) == 3 and all(hyp for _, hyp in RadEval.asked)


def test_without_a_metric_chosen_radeval_is_not_needed():
    assert "ROUGE-L low" in tables.text_metrics(rows_of_two())


def test_the_interface_is_that_of_the_package():
    package = pytest.importorskip("radeval", reason="radeval is not installed")
    pytest.importorskip("rouge_score", reason="rouge_score, which radeval needs, is not installed")
    found = tables.radeval_scores([("Lungs are clear.", "Lungs are clear."), ("No mass.", "")], ["rouge"])
    assert package.RadEval and found["rougeL"] == [1.0, 0.0] and set(found) == {"rouge1", "rouge2", "rougeL"}
