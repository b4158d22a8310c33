"""The report of a run."""

import base64
import re

import pandas as pd
import pytest
from judged_rows import GREEN, OFFLINE, judgement, seen_rows, table

from utils import scores
from utils.findings.groups import GROUPS
from utils.scores import baselines, findings, report

PHANTOMS = "phantom radiographs"


def two_systems(judge=OFFLINE):
    model = [judgement(f"s{i}", score=1.0 if i else 0.5, judge=judge) for i in range(20)]
    model[3] |= {"prediction": "", "score": 0.0, "significant": [0, 2, 0, 0, 0, 0]}
    model[5] |= {"prediction": "Wide | <script> ![x](y)", "score": None}
    constant = [row | {"system": "constant", "score": 0.1} for row in model]
    bone = [
        judgement(f"s{i}", "bone", 0.5, system=s, judge=judge)
        for s in ("model", "constant")
        for i in range(4)
    ]
    return table(*model, *constant, *bone)


@pytest.fixture
def write(tmp_path):
    (tmp_path / "bars 1.png").write_bytes(b"png")

    def write(judgements=None, **more):
        judgements = two_systems() if judgements is None else judgements
        summary = scores.summary(judgements)
        keywords = {
            "summary": summary,
            "judgements": judgements,
            "figures": {"Scores": (tmp_path / "bars 1.png", "Bars [of] scores.")},
            "settings": {"training": {"lora_rank": 16}, "studies": {"train": 7}},
            "versions": {"torch": "2.11.0"},
            "data_label": PHANTOMS,
            "commands": ["make demo"],
            "samples": ["s5"],
        } | more
        return report.write_report(tmp_path, **keywords).read_text(encoding="utf-8")

    return write


def test_report_says_what_it_is_first(write, tmp_path):
    text = write()
    assert text.startswith("# Chest X-ray findings by region: model\n\n**Not for clinical use.**")
    assert f"Data: {PHANTOMS}. Judge: {OFFLINE}." in text
    assert "drawings" in text and "Do not compare its scores with GREEN" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bars 1.png", "report.html", "report.md"]


def test_report_holds_its_parts(write):
    text = write()
    parts = ["In short", "Method", "Results", "Sample reports", "Limits", "Settings", "Versions", "Commands"]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == parts
    assert "| `training.lora_rank` | 16 | rank of the adapter's matrices |" in text
    assert "| `studies.train` | 7 |" in text and "| torch | 2.11.0 |" in text and "\nmake demo\n" in text
    assert "![Bars (of) scores.](bars%201.png)" in text
    assert "### The quiz's tables" in text and "| Data Split | Lung | Heart | Mediastinal | Bone |" in text
    assert "| test | bone | 4 | +0.00 [+0.00, +0.00] | 1.000 |" in text
    assert "| test | lung | 20 | +0.78 [+0.62, +0.90] | under 0.001 |" in text


def test_plain_words_follow_the_numbers(write):
    text = write()
    assert (
        "intervals of the model and of *constant* do not overlap in 1 of 2 regions: the model higher in lung."
        in text
    )
    assert (
        "Test: the model wrote 4 different reports for 20 studies and left 1 of the 24 regions empty" in text
    )
    assert 'the most frequent significant error of the model is "missing finding", 2 of 2.' in text


def test_plain_words_are_of_the_test_split_with_n_and_interval(write):
    rows = two_systems()
    text = write(pd.concat([rows.assign(split="val", score=0.2), rows]))
    short = text.partition("## In short")[2].partition("## Method")[0]
    assert "- Test: the mean scores of the model are lung 0.88 [0.72, 1.00] n=20, bone" in short
    assert "Validation" not in short and "| validation | lung |" in text


def test_plain_words_are_of_what_was_judged_where_that_is_not_the_test(write):
    assert "- Validation: the mean scores of the model are" in write(two_systems().assign(split="val"))


def test_plain_words_claim_nothing_where_systems_are_alike(write):
    same = two_systems().assign(score=0.5, significant=[[0] * 6] * 48)
    text = write(same)
    assert "do not overlap in 0 of 2 regions.\n" in text
    assert "higher" not in text and "most frequent significant error" not in text


def test_a_worse_model_is_called_lower(write):
    rows = two_systems()
    rows["score"] = rows["system"].map({"model": 0.1, "constant": 0.9})
    assert "do not overlap in 2 of 2 regions: the model lower in lung, bone." in write(rows)


def test_green_on_iu_xray_carries_no_stand_in_labels(write):
    text = write(two_systems(GREEN), data_label="IU X-Ray", iu_xray=True)
    assert "stand-in" not in text and "drawings" not in text and "WangLab-OA" in text


def test_samples_show_what_was_written_as_text(write):
    text = write(samples=["s5", "s0"])
    assert "Wide \\| &lt;script> !\\[x](y) | no verdict |" in text
    assert "### s0 (test, mean score 0.50)" in text


def test_the_page_needs_no_other_file_and_keeps_what_the_report_says(write, tmp_path):
    write(samples=["s5", "s0"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.count("<table>") >= 6
    assert "<title>Chest X-ray findings by region: model</title>" in page
    picture = base64.b64encode(b"png").decode()
    assert f'<img alt="Bars (of) scores." src="data:image/png;base64,{picture}">' in page
    assert not re.search(r'src="(?!data:)|<link|<script|@import|https?://', page)
    assert "Wide | &lt;script&gt; ![x](y)" in page  # what the model wrote is text
    assert "Not for clinical use" in page and "<code>training.lora_rank</code>" in page


def test_further_tables_stand_under_the_results(write, tmp_path):
    rows = pd.DataFrame({"region": ["lung"], "n": [20], "ROUGE-L": [0.25]})
    text = write(tables={"Shared words": ("ROUGE-L says little.", rows)})
    assert "### Shared words\n\nROUGE-L says little.\n\n| region | n | ROUGE-L |\n" in text
    assert "| lung | 20 | 0.250 |" in text
    assert "<td>0.250</td>" in (tmp_path / "report.html").read_text()


def test_abnormal_studies_and_the_best_baseline_come_first(write):
    rows = two_systems().replace({"system": {"constant": baselines.CONSTANT}})
    best = baselines.beside_best(rows, {"s0": "abnormal", "s1": "abnormal", "s2": "normal"})
    text = write(rows, best=("Normal: so indexed.", best))
    first = text.index("### All and abnormal studies, beside the best baseline")
    assert text.index("## Results") < first < text.index("**Mean score by region")
    assert (
        "Normal: so indexed.\n\n| split | region | all: model | all: best baseline | all: difference |"
        in text
    )
    assert "| +0.78 [+0.62, +0.90] | 0.75 [0.50, 1.00] n=2 | 0.10 [0.10, 0.10] best constant report |" in text
    short = text[: text.index("## Method")]
    assert (
        "- Test, abnormal studies: the model minus the best baseline is "
        "lung +0.65 [+0.40, +0.90] (best constant report), bone +0.00 [+0.00, +0.00]" in short
    )
    assert "do not overlap" not in short  # said by the paired difference


def test_the_findings_come_first_with_their_chart(write, tmp_path):
    counted = findings.count([seen_rows()], GROUPS)
    (tmp_path / "findings.png").write_bytes(b"png")
    figures = {title: (tmp_path / "findings.png", title) for title in ("All systems", report.SEEN)}
    text = write(seen_rows(), findings=counted, figures=figures)
    short = text.partition("## In short\n\n")[2].partition("## Method")[0].splitlines()
    assert short[0].startswith("- Test: of 2 findings in 6 studies the model names 1 (recall")
    assert short[1].startswith("- Test: of 2 studies with an enlarged heart the model names 1,")
    first, chart = text.index("### Does it see?"), text.index("![Findings](findings.png)")
    assert text.index("## Results") < first < chart < text.index("**Mean score by region")
    assert text.count("![Findings]") == 1 and text.index("![All systems]") > chart
    assert text[first:].splitlines()[2].startswith("**Findings named rightly, phantom radiographs")
    assert "Does it see?" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_single_system_has_nothing_to_be_set_against(write):
    rows = two_systems()
    text = write(rows[rows["system"] == "model"])
    assert " minus " not in text and "do not overlap in" not in text


def test_samples_are_picked_from_worst_to_best():
    rows = table(
        *(judgement(f"s{i}", score=i / 10) for i in range(11)), judgement("v", split="val", score=0.0)
    )
    assert report.pick_samples(rows) == ["s0", "s5", "s10"]
    assert report.pick_samples(rows[rows["split"] == "val"]) == ["v"]


def test_what_is_missing_is_named(write, tmp_path):
    with pytest.raises(ValueError, match=r"figure lost\.png is missing"):
        write(figures={"Lost": (tmp_path / "lost.png", "x")})
    (outside := tmp_path.parent / "outside.png").write_bytes(b"png")
    with pytest.raises(ValueError, match="is not in the report's folder"):
        write(figures={"Outside": (outside, "x")})
    with pytest.raises(ValueError, match="sample s99"):
        write(samples=["s99"])
    assert not list(tmp_path.glob("report.*"))


def test_judgements_read_back_from_parquet_give_the_same_report(write, tmp_path):
    rows = two_systems()
    rows.to_parquet(path := tmp_path.parent / "judgements.parquet")
    assert write(pd.read_parquet(path)) == write(rows)
