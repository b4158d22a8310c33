"""The benchmark of the constant report: one report for everyone beside recorded judgements."""

import gzip
import json
import re
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import constant_report

from utils.judge import write_completion

NORMAL, WRITTEN = "The lungs are clear.", "Lungs are clear."


@pytest.fixture
def files(tmp_path):
    train = [{"id": f"t{i}", "report": {"lung": NORMAL if i else "Effusion."}} for i in range(20)]
    texts = ["Lungs are clear.", "Lungs clear.", "Left pleural effusion.", ""]
    test = [{"id": f"CXR{i}_IM", "report": {"lung": text}} for i, text in enumerate(texts)]
    (tmp_path / "annotation.json").write_text(
        json.dumps({"train": train, "test": test, "val": [{"id": "v"}]})
    )
    matched, missed = (
        write_completion("", {}, {}, ["clear"]),
        write_completion("", {"b": ["effusion"]}, {}, []),
    )
    with gzip.open(tmp_path / "recorded.jsonl.gz", "wt") as file:
        for study, completion in zip(test, (matched, matched, missed, ""), strict=True):
            row = {"split": "test", "region": "lung", "prediction": WRITTEN, "completion": completion}
            file.write(json.dumps(row | {"id": study["id"], "reference": study["report"]["lung"]}) + "\n")
    (tmp_path / "indiana_reports.csv").write_text("uid,MeSH\n0,normal\n1,normal\n2,Pleural Effusion/left\n")
    return tmp_path


def run(monkeypatch, capsys, files, *more):
    arguments = ["constant_report.py", files / "annotation.json", files / "recorded.jsonl.gz", *more]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    constant_report.main()
    return capsys.readouterr().out


def test_constant_and_recorded_model_stand_on_all_and_on_abnormal_studies(files, monkeypatch, capsys):
    shown = run(monkeypatch, capsys, files, files / "indiana_reports.csv", "--often", "4")
    rows = re.findall(r"^\| (offline|GREEN)[^|]*\| ([^|]+) \| (\w+) \| ([\d.]+) [^|]* n=(\d)", shown, re.M)
    assert ("offline", "best constant report", "all", "0.67", "3") in rows
    assert ("offline", "recorded model", "abnormal", "0.00", "1") in rows
    assert ("GREEN", "recorded model", "normal", "1.00", "2") in rows
    assert len(rows) == 12
    assert f"- lung: “{NORMAL}”" in shown  # chosen among training texts
    assert f"| lung | {WRITTEN} | 4 | 3 | 0.67 [0.00, 1.00] | 0.67 |" in shown


def test_without_mesh_terms_it_says_what_is_missing(files, monkeypatch, capsys):
    shown = run(monkeypatch, capsys, files)
    assert "only with indiana_reports.csv" in shown and "abnormal |" not in shown
    assert WRITTEN not in shown.split("Phrases", 1)[1]  # given four times, not fifty


def test_judgements_of_other_studies_are_refused(files, monkeypatch, capsys):
    text = (files / "annotation.json").read_text().replace("Left pleural effusion.", "Nodule.")
    (files / "annotation.json").write_text(text)
    with pytest.raises(ValueError, match="not of the annotation's test studies"):
        run(monkeypatch, capsys, files)


@pytest.mark.slow
def test_the_page_shows_what_it_prints(shared, monkeypatch, capsys):
    files = [shared / "iu_xray" / "annotation_quiz_all.json", shared / "recorded" / "green_test.jsonl.gz"]
    arguments = ["constant_report.py", *files, shared / "iu_xray" / "indiana_reports.csv"]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    constant_report.main()
    printed = capsys.readouterr().out.strip()
    assert printed in (ROOT / "docs" / "constant_report.md").read_text(encoding="utf-8")
