"""The benchmark of findings: recorded predictions of both forms, and the reader against MeSH terms."""

import gzip
import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import findings as benchmark

BIG, NORMAL = "Cardiomegaly is present.", "The heart is normal."


@pytest.fixture
def files(tmp_path):
    train = [{"id": f"CXR9{i}_IM", "report": {"heart": BIG if i < 4 else NORMAL}} for i in range(20)]
    test = [{"id": f"CXR{i}_IM", "report": {"heart": text}} for i, text in enumerate((BIG, BIG, NORMAL, ""))]
    (tmp_path / "annotation.json").write_text(json.dumps({"train": train, "test": test, "val": []}))
    with gzip.open(tmp_path / "lines.jsonl.gz", "wt") as file:
        for i, study in enumerate(test):
            row = {"id": study["id"], "region": "heart", "prediction": BIG if i in (0, 2, 3) else NORMAL}
            file.write(json.dumps(row) + "\n")
    whole = [f'{study["id"]},"The lungs are clear. {NORMAL}"' for study in test]
    (tmp_path / "whole.csv").write_text("\n".join(["study_id,report", *whole]))
    terms = [f"9{i},{'Cardiomegaly/mild' if i < 5 else 'normal'}," for i in range(19)]
    terms += ["919,no indexing,", "0,,Cardiomegaly", "1,Cardiomegaly,", "2,normal,", "3,normal,"]
    (tmp_path / "indiana_reports.csv").write_text("\n".join(["uid,MeSH,Problems", *terms]))
    return tmp_path


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["findings.py", *map(str, arguments)])
    benchmark.main()
    return capsys.readouterr().out


def test_both_forms_stand_beside_the_reports_that_read_no_image(files, monkeypatch, capsys):
    shown = run(
        monkeypatch, capsys, *(files / name for name in ("annotation.json", "lines.jsonl.gz", "whole.csv"))
    )
    assert "| test | lines | 3 | 2 | 2 | 1 | 0.50" in shown  # the fourth study says nothing of its heart
    assert "| test | whole | 3 | 2 | 0 | 0 | 0.00 [0.00, 0.00] | – | 0.000" in shown
    assert "| test | best constant report | 3 |" in shown and "most frequent sentences" in shown
    assert "| cardiomegaly | 2 of 3 | 2 | 1 | 0.50" in shown and "MeSH" not in shown


def test_the_reader_is_held_against_what_people_have_indexed(files, monkeypatch, capsys):
    names = ("annotation.json", "whole.csv")
    shown = run(
        monkeypatch, capsys, *(files / name for name in names), "--metadata", files / "indiana_reports.csv"
    )
    # One study is not indexed, one has no MeSH term, and one says nothing of its heart.
    assert "22 indexed studies" in shown
    assert "| cardiomegaly | 21 | 6 | 5 | 1.00 | 0.83 | 0.91 |" in shown


def test_other_studies_are_refused(files, monkeypatch, capsys):
    (files / "whole.csv").write_text("study_id,report\nCXR0_IM,Clear.")
    with pytest.raises(ValueError, match="whole does not hold the annotation's 4 test studies"):
        run(monkeypatch, capsys, files / "annotation.json", files / "whole.csv")


@pytest.mark.slow
def test_the_page_shows_what_it_prints(shared, monkeypatch, capsys):
    files = (
        "iu_xray/annotation_quiz_all.json",
        "recorded/green_test.jsonl.gz",
        "recorded/moerad_iu_test.csv",
    )
    metadata = shared / "iu_xray" / "indiana_reports.csv"
    shown = run(monkeypatch, capsys, *(shared / name for name in files), "--metadata", metadata)
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    tables = [part for part in shown.strip().split("\n\n") if part.startswith("| ")]
    overview, by_finding, reader = tables
    assert "0.39 [0.24, 0.55] | 0.079 [0.042, 0.118]" in overview
    assert overview in page and by_finding in page and reader in page
