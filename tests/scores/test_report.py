"""The report of a run."""

import base64
import re
from types import SimpleNamespace

import pandas as pd
import pytest
from judged_rows import GREEN, OFFLINE, judgement, seen_rows, table

from utils import scores
from utils.findings.groups import GROUPS
from utils.scores import baselines, findings, report
from utils.scores import in_short as short
from utils.scores.stages import Results
from utils.settings import GenerationSettings

PHANTOMS = "phantom radiographs"


def two_systems(judge=OFFLINE):
    model = [judgement(f"s{i}", score=1.0 if i else 0.5, judge=judge) for i in range(20)]
    model[3] |= {"prediction": "", "score": 0.0, "significant": [0, 2, 0, 0, 0, 0]}
    model[5] |= {"prediction": "Wide | <script> ![x](y)", "score": None}
    constant = [row | {"system": "constant", "score": 0.1} for row in model]
    each = [(system, i) for system in ("model", "constant") for i in range(4)]
    bone = [judgement(f"s{i}", "bone", 0.5, system=system, judge=judge) for system, i in each]
    return table(*model, *constant, *bone)


@pytest.fixture
def write(tmp_path):
    (tmp_path / "bars 1.png").write_bytes(b"png")

    def write(judgements=None, label=PHANTOMS, kinds=(), groups=(), figures=None, tables=(), samples=("s5",)):
        rows = two_systems() if judgements is None else judgements
        workspace = SimpleNamespace(folder=lambda step: tmp_path)
        reports = SimpleNamespace(workspace=workspace, settings=GenerationSettings())
        counted, kinds = findings.count([rows], groups), dict(kinds)
        results = Results(reports, None, rows, [], kinds, "Normal: so indexed.", counted, label)
        figures = figures or {"Scores": (tmp_path / "bars 1.png", "Bars [of] scores.")}
        last = {"settings": {"training": {"lora_rank": 16}, "studies": {"train": 7}}}
        last |= {"versions": {"torch": "2.11.0"}, "commands": ["make demo"]}
        written = report.write_report(results, figures, dict(tables), samples, **last)
        return written.read_text(encoding="utf-8")

    return write


def test_report_says_what_it_is_first(write, tmp_path):
    text = write()
    assert text.startswith("# Chest X-ray findings by region: model\n\n**Not for clinical use.**")
    assert f"Data: {PHANTOMS}. Judge: {OFFLINE}." in text
    assert "drawings" in text and "Do not compare its scores with GREEN" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bars 1.png", "report.html", "report.md"]


def test_report_holds_its_parts(write):
    text = write()
    parts = ["What it can and cannot do", "Results", "Sample reports", "Method", "Limits"]
    parts += ["Settings", "Versions", "Commands"]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == parts
    assert "| `training.lora_rank` | 16 | rank of the adapter's matrices |" in text
    assert "| `studies.train` | 7 |" in text and "| torch | 2.11.0 |" in text and "\nmake demo\n" in text
    assert "![Bars (of) scores.](bars%201.png)" in text
    assert "| Data Split | Lung | Heart | Mediastinal | Bone |" in text
    assert "| constant | test | bone | 4 | +0.00 [+0.00, +0.00] | 1.000 |" in text
    assert "| constant | test | lung | 20 | +0.78 [+0.62, +0.90] | under 0.001 |" in text


def in_short(text):
    """The bullets that say what the model can and cannot do."""
    return text.partition("## What it can and cannot do\n\n")[2].partition("\n\n")[0].splitlines()


def test_plain_words_follow_the_numbers(write):
    text = write()
    assert in_short(text) == [
        "- On the test studies the mean scores of the model are lung 0.88 [0.72, 1.00] n=20, "
        "bone 0.50 [0.50, 0.50] n=4.",
        '- Its most frequent significant error is "missing finding", 2 of 2.',
        "- The intervals of the model and of *constant* do not overlap in 1 of 2 regions: "
        "the model higher in lung.",
    ]
    assert "| model | test | 20 | 4 | 1 of 24 |" in text


def test_plain_words_are_of_the_test_split_with_n_and_interval(write):
    rows = two_systems()
    text = write(pd.concat([rows.assign(split="val", score=0.2), rows]))
    assert "On the test studies the mean scores of the model are lung 0.88 [0.72, 1.00] n=20" in text
    assert "validation" not in "".join(in_short(text)) and "| validation | lung |" in text


def test_plain_words_are_of_what_was_judged_where_that_is_not_the_test(write):
    assert "On the validation studies the mean scores" in write(two_systems().assign(split="val"))


def test_plain_words_claim_nothing_where_systems_are_alike(write):
    same = two_systems().assign(score=0.5, significant=[[0] * 6] * 48)
    text = write(same)
    assert "do not overlap in 0 of 2 regions.\n" in text
    assert "higher" not in text and "The judge counts no significant error." in text


def test_a_worse_model_is_called_lower(write):
    rows = two_systems()
    rows["score"] = rows["system"].map({"model": 0.1, "constant": 0.9})
    assert "do not overlap in 2 of 2 regions: the model lower in lung, bone." in write(rows)


def test_green_on_iu_xray_carries_no_stand_in_labels(write):
    text = write(two_systems(GREEN), "IU X-Ray")
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
    text = write(rows, kinds={"s0": "abnormal", "s1": "abnormal", "s2": "normal"})
    assert text.index("## Results") < text.index("### All and abnormal studies, beside the best baseline")
    head = "| split | region | all: model | all: best baseline | all: difference |"
    assert f"Normal: so indexed.\n\n{head}" in text
    assert "| +0.78 [+0.62, +0.90] | 0.75 [0.50, 1.00] n=2 | 0.10 [0.10, 0.10] best constant report |" in text
    assert in_short(text)[2] == (
        "- On abnormal studies its mean score is higher than the best baseline's in lung "
        "(+0.65 [+0.40, +0.90]); it does not differ clearly from it in bone (+0.00 [+0.00, +0.00])."
    )
    assert "do not overlap" not in text.partition("## Limits")[0]  # said by the paired difference


@pytest.fixture
def whole(write, tmp_path):
    """A report with findings, charts and further tables: its text and its page."""
    (tmp_path / "findings.png").write_bytes(b"png")
    figures = {title: (tmp_path / "findings.png", title) for title in ("All systems", report.SEEN)}
    rows = pd.DataFrame({"region": ["lung"], "n": [20], "ROUGE-L": [0.25]})
    tables = {"Shared <words>": ("ROUGE-L says little.", rows)}
    text = write(seen_rows(), groups=GROUPS, figures=figures, tables=tables, samples=["s0"])
    return text, (tmp_path / "report.html").read_text(encoding="utf-8")


def test_it_opens_with_the_chart_the_quizs_table_and_three_sentences(whole):
    text, page = whole
    said = ["![Findings](findings.png)", "| Data Split |", "## What it can and cannot do", "## Results"]
    places = [text.index(part) for part in said]
    assert places == sorted(places) and text[: places[1]].count("\n|") == 0
    assert text.count("![Findings]") == 1 and text.index("![All systems]") > places[-1]
    assert in_short(text) == [
        "- On the test studies (n=6) the model names 1 of 2 findings (recall 0.50 [0.00, 1.00]), most often "
        "an enlarged heart (1 of 2), and 1 that are not there (precision 0.50 [0.50, 0.50]).",
        "- What it misses most often is an enlarged heart (1 of 2 missed).",
        in_short(text)[2],
    ]
    assert in_short(text)[2].startswith("- The intervals of the model and of *constant* do not overlap in")
    assert page.index("<img") < page.index("<table>") < page.index("What it can") < page.index("<details>")


def test_settings_and_long_tables_are_folded_and_the_rest_is_not(whole):
    _, page = whole
    folded = re.findall(r"<details><summary><h[23]>(.*?)</h[23]></summary>(.*?)</details>", page, re.DOTALL)
    titles = ["Findings, by system and one by one", "Mean scores of all systems"]
    titles += ["The model minus each other system", "Different reports and empty regions"]
    titles += ["Shared &lt;words&gt;", "Settings", "Versions", "Commands"]
    assert [title for title, _ in folded] == titles
    inside = dict(folded)
    assert "training.lora_rank" in inside["Settings"] and "make demo" in inside["Commands"]
    assert "0.250" in inside["Shared &lt;words&gt;"] and "Findings named rightly" in folded[0][1]
    open_parts = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    assert open_parts.count("<table>") == 2  # the quiz's, and a sample
    headings = ["What it can and cannot do", "Results", "Sample reports", "Method", "Limits"]
    assert re.findall(r"<h2>(.*?)</h2>", open_parts) == headings


def test_each_table_stands_there_once(whole):
    tables_of_text = [part for part in whole[0].split("\n\n") if part.startswith("|")]
    for tables in (tables_of_text, re.findall(r"<table>.*?</table>", whole[1], re.DOTALL)):
        assert len(tables) == len(set(tables)) >= 9
    assert whole[0].count("| Data Split |") == 1  # nothing was judged of validation


def test_no_heading_that_a_model_writes_folds_anything(write, tmp_path):
    rows = two_systems()
    rows.loc[rows["id"] == "s5", "prediction"] = "<h2>Settings</h2>\n## Settings\n</details>"
    write(rows)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<h2>Settings</h2>") == page.count("<summary><h2>Settings</h2></summary>") == 1
    assert page.count("<details>") == page.count("</details>") and "&lt;h2&gt;Settings" in page


def seen(*findings_named):
    """`findings.count` of reports (reference, prediction) of lungs and hearts, a study each."""
    numbered = enumerate(findings_named)
    rows = [judgement(f"s{i}", region, reference=ref, prediction=text) for i, (region, ref, text) in numbered]
    return findings.count([table(*rows)], GROUPS)


@pytest.mark.parametrize(
    ("rows", "can", "cannot"),
    [
        ([("heart", "Cardiomegaly.", "Cardiomegaly.")] * 3, "3 of 3 findings", "It misses none of them."),
        (
            [("heart", "Cardiomegaly.", "Normal heart.")] * 3,
            "0 of 3 findings (recall 0.00 [0.00, 0.00]), and 0 that are not there (precision –).",
            "It names fewer than half of these: an enlarged heart (0 of 3).",
        ),
        (
            [("heart", "Cardiomegaly.", "Cardiomegaly.")] * 3 + [("lung", "Effusion.", "Clear lungs.")] * 2,
            "3 of 5 findings (recall 0.60 [0.20, 1.00]), most often an enlarged heart (3 of 3)",
            "It names fewer than half of these: an effusion (0 of 2).",
        ),
        (
            [("lung", f"{name}.", "Clear.") for name in ("Effusion", "Pneumothorax", "Nodule", "Granuloma")],
            "0 of 4 findings",
            " and 1 more.",
        ),
        ([("heart", "Normal heart.", "Cardiomegaly.")] * 3, "mean scores", "no significant error"),
    ],
)
def test_what_it_can_and_cannot_do_is_said_of_the_findings(rows, can, cannot):
    judged = table(*(judgement(f"s{i}") for i in range(3)))
    found = short.in_short(scores.summary(judged), judged, pd.DataFrame(), seen(*rows))
    assert can in found[0] and cannot in found[1]
    assert found[2] == "It was set against no other system."


def test_a_single_system_has_nothing_to_be_set_against(write):
    rows = two_systems()
    text = write(rows[rows["system"] == "model"])
    assert " minus " not in text and "do not overlap in" not in text


def test_samples_are_picked_from_worst_to_best():
    rows = [judgement(f"s{i}", score=i / 10) for i in range(11)]
    rows = table(*rows, judgement("v", split="val", score=0.0))
    assert report.pick_samples(rows) == ["s0", "s5", "s10"]
    assert report.pick_samples(rows[rows["split"] == "val"]) == ["v"]


def test_judgements_read_back_from_parquet_give_the_same_report(write, tmp_path):
    rows = two_systems()
    rows.to_parquet(path := tmp_path.parent / "judgements.parquet")
    assert write(pd.read_parquet(path)) == write(rows)


def test_what_is_missing_is_named(write, tmp_path):
    with pytest.raises(ValueError, match=r"figure lost\.png is missing"):
        write(figures={"Lost": (tmp_path / "lost.png", "x")})
    (outside := tmp_path.parent / "outside.png").write_bytes(b"png")
    with pytest.raises(ValueError, match="is not in the report's folder"):
        write(figures={"Outside": (outside, "x")})
    with pytest.raises(ValueError, match="sample s99"):
        write(samples=["s99"])
    assert not list(tmp_path.glob("report.*"))
