"""Collections in the form in which they were published: their reports, their views, their own annotations."""

import json
import shutil
import zipfile
from pathlib import Path

import dicom_files
import pytest
from PIL import Image

from utils.data import hf_dataset
from utils.data.sources import beside, open_data, origin
from utils.data.studies import DataError, data_label, load_studies, write_annotation
from utils.run.workspace import Workspace
from utils.settings import DatasetSettings

CLEAR = "The lungs are clear."


@pytest.fixture
def ws(tmp_path):
    return Workspace(tmp_path / "run")


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 90).save(path)
    return path


def everyone(data: Path) -> dict:
    return {study.id: study for group in load_studies(data).values() for study in group}


# MIMIC-CXR


def mimic(folder: Path, studies: dict[str, tuple[str | None, list[tuple[str, str]]]]) -> Path:
    """By study its report, and its views by the columns ViewPosition and ViewCodeSequence_CodeMeaning."""
    metadata = ["dicom_id,ViewPosition,ViewCodeSequence_CodeMeaning"]
    splits = ["dicom_id,study_id,subject_id,split"]
    for number, (study, (report, views)) in enumerate(studies.items()):
        place = folder / "files" / "p10" / f"p1000{number}" / f"s{study}"
        for view, (position, meaning) in enumerate(views):
            picture(place / f"{study}-{view}.jpg")
            metadata.append(f"{study}-{view},{position},{meaning}")
            splits.append(f"{study}-{view},{study},1000{number},train")
        if report is not None:
            place.with_suffix(".txt").write_text(report)
    for name, lines in (("metadata", metadata), ("split", splits)):
        (folder / f"mimic-cxr-2.0.0-{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_mimic_cxrs_reports_are_whole_and_counted_by_rule_and_reason(tmp_path, ws, capsys):
    report = f" FINAL REPORT\n {{}} {CLEAR}\n HEART: Large.\n IMPRESSION: No change.\n"
    headings = ["FINDINGS:", "FINDINGS:", "FINDINGS AND IMPRESSION:", "CHEST, TWO VIEWS:", "INDICATION:"]
    studies = {str(n): (report.format(name), [("PA", "")]) for n, name in enumerate(headings)}
    studies["7"] = (None, [("PA", "")])
    data = open_data(mimic(tmp_path / "mimic", studies), "iu_xray", ws)
    assert {study.original_report for study in everyone(data).values()} == {f"{CLEAR} HEART: Large."}
    said = capsys.readouterr().out
    for sentence in (
        "Findings from a section FINDINGS: 2, such as s0.",
        "Findings from a section FINDINGS AND IMPRESSION, as there is no other: 1, s2.",
        "Findings from a section named after its views, as there is no other: 1, s3.",
        "Reports with an impression and no findings: 1, s4.",
        "Reports that are not there: 1, s7.",
        "Studies without findings, left out: 2, such as s4.",
    ):
        assert sentence in said and sentence in origin(data)["notes"]


def test_a_view_of_unknown_position_stands_for_the_frontal_one_that_is_missing(tmp_path, ws):
    views = {
        "1": [("LATERAL", ""), ("LL", ""), ("", "")],
        "2": [("LATERAL", ""), ("", "lateral"), ("", "postero-anterior")],
        "3": [("LATERAL", ""), ("", ""), ("PA", "")],
    }
    report = f" FINDINGS: {CLEAR}\n"
    folder = mimic(tmp_path / "mimic", {name: (report, of) for name, of in views.items()})
    data = open_data(folder, "iu_xray", ws)
    shown = [[path.stem[-1] for path in study.images] for study in everyone(data).values()]
    assert shown == [["2", "0", "1"], ["2", "0", "1"], ["2", "0", "1"]]


def test_of_two_views_one_is_that_of_unknown_position(tmp_path, ws):
    folder = tmp_path / "export"
    for number, position in enumerate(("LL", "LL", None, None)):
        tags = {"ViewPosition": position} if position else {}
        dicom_files.write(folder / f"{number}.dcm", AccessionNumber="A1", InstanceNumber=number, **tags)
    (folder / "t.csv").write_text(f"study,split,findings\nA1,train,{CLEAR}\n")
    data = open_data(folder, "iu_xray", ws)
    assert [path.name for path in everyone(data)["A1"].images] == ["2.dcm", "3.dcm", "0.dcm", "1.dcm"]


def test_padchests_unknown_projection_comes_before_the_lateral_one_only_without_a_frontal(tmp_path, ws):
    lines = ["ImageID,ImageDir,StudyID,PatientID,Projection,Report"]
    for study, projections in {"S1": ("L", "UNK"), "S2": ("UNK", "L", "PA"), "S3": ("L", "COSTAL")}.items():
        for projection in projections:
            picture(tmp_path / "pad" / f"{study}{projection}.png")
            lines.append(f"{study}{projection}.png,0,{study},P{study[1]},{projection},Normal.")
    (tmp_path / "pad" / "t.csv").write_text("\n".join(lines))
    studies = everyone(open_data(tmp_path / "pad" / "t.csv", "iu_xray", ws))
    shown = {name: [path.stem[2:] for path in study.images] for name, study in studies.items()}
    assert shown == {"S1": ["UNK", "L"], "S2": ["PA", "L", "UNK"], "S3": ["COSTAL", "L"]}


# IU X-Ray of Kaggle

REPORTS = f"""uid,MeSH,Problems,image,indication,comparison,findings,impression
1,normal,normal,Xray Chest,Cough,None.,"{CLEAR} No effusion.",Normal.
2,Cardiomegaly,Cardiomegaly,Xray Chest,,,,Large heart.
3,normal,normal,Xray Chest,,,Heart is normal.,
"""
PROJECTIONS = """uid,filename,projection
1,1_IM-0001-3001.dcm.png,Lateral
1,1_IM-0001-4001.dcm.png,Frontal
2,2_IM-0652-1001.dcm.png,Frontal
3,3_IM-1384-1001.dcm.png,Frontal
9,9_IM-0009-1001.dcm.png,Frontal
"""


def kaggle(folder: Path, place: str = "images/images_normalized") -> Path:
    for line in PROJECTIONS.splitlines()[1:]:
        picture(folder / place / line.split(",")[1])
    (folder / "indiana_reports.csv").write_text(REPORTS)
    (folder / "indiana_projections.csv").write_text(PROJECTIONS)
    return folder


@pytest.mark.parametrize("place", ["images/images_normalized", "images", "images_normalized", "."])
@pytest.mark.parametrize("named", ["", "indiana_reports.csv", "indiana_projections.csv"])
def test_the_collection_as_kaggle_has_it(tmp_path, ws, capsys, place, named):
    folder = kaggle(tmp_path / "input", place)
    data = open_data(folder / named, "iu_xray", ws)
    studies = everyone(data)
    texts = {name: study.original_report for name, study in studies.items()}
    assert texts == {"CXR1_IM-0001": f"{CLEAR} No effusion.", "CXR3_IM-1384": "Heart is normal."}
    assert [path.name[10:14] for path in studies["CXR1_IM-0001"].images] == ["4001", "3001"]
    said = capsys.readouterr().out
    assert "Reports with an impression and no findings: 1, 2." in said
    assert "Studies with images and without a report, left out: 1, 9 (1 images)." in said
    assert "split 80/10/10 by a hash" in said
    assert data_label(data, load_studies(data)) == "studies of IU X-Ray of Kaggle"
    assert beside(str(folder / named), ws, "indiana_reports.csv") == folder / "indiana_reports.csv"


@pytest.mark.parametrize("missing", ["indiana_reports.csv", "indiana_projections.csv"])
def test_what_is_missing_of_kaggles_form_is_named(tmp_path, ws, missing):
    folder = kaggle(tmp_path / "input")
    (folder / missing).unlink()
    (other,) = folder.glob("*.csv")
    with pytest.raises(DataError, match=f"has no {missing}: put it there"):
        open_data(other, "iu_xray", ws)


def test_the_real_tables_give_the_quizs_own_ids_and_its_findings(shared, tmp_path, ws):
    folder = tmp_path / "kaggle"
    (folder / "images").mkdir(parents=True)
    for name in ("indiana_reports.csv", "indiana_projections.csv"):
        shutil.copyfile(shared / "iu_xray" / name, folder / name)
    for line in (folder / "indiana_projections.csv").read_text().splitlines()[1:]:
        (folder / "images" / line.split(",")[1]).touch()
    studies = everyone(open_data(folder, "iu_xray", ws))
    quiz = {study.id: study for study in load_studies(shared / "iu_xray")["val"]}
    assert len(studies) == 3851 - 514 and len(quiz.keys() - studies.keys()) == 0
    same = [
        studies[name].original_report == " ".join(study.original_report.split())
        for name, study in quiz.items()
    ]
    assert (sum(same), len(same)) == (295, 296)  # of one the quiz left a sentence out


# R2Gen's annotations


def r2gen(folder: Path, places: str = "images", suffix: str = ".png") -> Path:
    entries = {}
    for n, split in enumerate(("train", "val", "test"), start=1):
        name = f"CXR{n}_IM-000{n}"
        entry = {"id": name, "report": f"{CLEAR}  Number {n}.", "split": split}
        entries[split] = [entry | {"image_path": [f"{name}/{view}.png" for view in (0, 1)]}]
    for (entry,) in entries.values():
        for name in entry["image_path"] if places else ():
            picture((folder / places / name).with_suffix(suffix))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotation.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("named", ["", "annotation.json"])
def test_r2gens_own_annotation(tmp_path, ws, named, suffix, capsys):
    data = open_data(r2gen(tmp_path / "iu_xray", suffix=suffix) / named, "iu_xray", ws)
    ids = {split: [study.id for study in group] for split, group in load_studies(data).items()}
    assert ids == {"train": ["CXR1_IM-0001"], "val": ["CXR2_IM-0002"], "test": ["CXR3_IM-0003"]}
    study = everyone(data)["CXR2_IM-0002"]
    assert (study.findings, study.original_report) == (None, f"{CLEAR}  Number 2.")
    assert [path.name for path in study.images] == [f"0{suffix}", f"1{suffix}"]
    assert "The splits are the table's own" in capsys.readouterr().out
    findings = {name: {"lung": CLEAR} for name in everyone(data)}
    annotation = write_annotation(tmp_path / "split.json", data, findings)
    dataset, skipped = hf_dataset.build(
        load_studies(data, annotation), DatasetSettings(), tmp_path / "dataset", data_label="studies"
    )
    assert skipped.empty and [dataset[name]["views"] for name in dataset] == [[2], [2], [2]]


def test_r2gens_annotation_of_mimic_cxr_is_one_study_for_all_its_images(tmp_path, ws):
    entry = {"study_id": 50414267, "subject_id": 10000032, "report": CLEAR, "split": "train"}
    views = {f"d{n}": f"p10/p10000032/s50414267/d{n}.jpg" for n in range(2)}
    entries = [entry | {"id": name, "image_path": [view]} for name, view in views.items()]
    for entry in entries:
        picture(tmp_path / "mimic_cxr" / "images" / entry["image_path"][0])
    path = tmp_path / "mimic_cxr" / "annotation.json"
    path.write_text(json.dumps({"train": entries, "val": [], "test": []}))
    studies = everyone(open_data(path.parent, "iu_xray", ws))
    assert {name: len(study.images) for name, study in studies.items()} == {"s50414267": 2}
    shutil.rmtree(path.parent / "images")
    with pytest.raises(DataError, match=r"has no images beside it, and s50414267 is not of IU X-Ray"):
        open_data(path, "iu_xray", ws)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "holdout"}, "Rows with a split other than train, val, test: 1, 'holdout'"),
        ({"id": None}, "Rows without a study's id: 1"),
        ({"id": "CXR2_IM-0002"}, "Studies in two splits: 1, CXR2_IM-0002"),
        ({"report": ["Clear."]}, "study number 1: report is not text"),
        ({"image_path": ["../../x.png"]}, "Images outside their folder: 1"),
        ({"report": "", "split": "val"}, "no study is left to train on"),
    ],
)
def test_what_is_wrong_in_r2gens_annotation_is_named(tmp_path, ws, changes, words):
    path = r2gen(tmp_path / "iu_xray") / "annotation.json"
    content = json.loads(path.read_text())
    content["train"][0].update(changes)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        open_data(path.parent, "iu_xray", ws)
    assert words in str(caught.value) and str(path.parent) in str(caught.value)


def test_the_real_annotation_of_r2gen_has_the_quizs_studies(shared, tmp_path, ws):
    folder = tmp_path / "iu_xray"
    folder.mkdir()
    shutil.copyfile(shared / "iu_xray" / "r2gen_annotation.json", folder / "annotation.json")
    (folder / "images").symlink_to(shared / "iu_xray" / "images256", target_is_directory=True)
    data = open_data(folder, "iu_xray", ws)
    loaded = load_studies(data)
    assert data_label(data, loaded) == "IU X-Ray"
    quiz = load_studies(shared / "iu_xray")
    assert {split: {study.id for study in group} for split, group in loaded.items()} == {
        split: {study.id for study in group} for split, group in quiz.items()
    }


# archives, and what lies beside


def zipped(folder: Path, archive: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, f"{inside}{path.relative_to(folder)}")
    return archive


@pytest.mark.parametrize("make", [kaggle, r2gen])
def test_either_form_may_be_an_archive(tmp_path, ws, make, capsys):
    archive = zipped(make(tmp_path / "x"), tmp_path / "archive.zip", "iu_xray/")
    data = open_data(archive, "iu_xray", ws)
    first = (data / "annotation.json").read_bytes()
    assert all(path.is_file() for study in everyone(data).values() for path in study.images)
    assert len(origin(data)["sha256"]) == 64
    capsys.readouterr()
    assert open_data(archive, "iu_xray", ws) == data and (data / "annotation.json").read_bytes() == first
    assert "unpacked earlier" in capsys.readouterr().out


def test_a_quizs_archive_keeps_the_terms_beside_it(tmp_path, ws):
    folder = tmp_path / "x"
    content = {"train": [{"id": "CXR1", "report": {"lung": CLEAR}}], "val": [], "test": []}
    picture(folder / "iu" / "images" / "CXR1" / "0.png")
    (folder / "iu" / "annotation.json").write_text(json.dumps(content))
    (folder / "indiana_reports.csv").write_text(REPORTS)
    archive = zipped(folder, tmp_path / "archive.zip")
    data = open_data(archive, "iu_xray", ws)
    assert everyone(data)["CXR1"].findings == {"lung": CLEAR}
    assert beside(str(archive), ws, "indiana_reports.csv") == data / "indiana_reports.csv"


@pytest.fixture
def terms(tmp_path):
    """A folder with the collection's terms, an annotation and a table."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("indiana_reports.csv", "annotation.json", "t.csv", "x.zip"):
        (folder / name).write_text("")
    return folder / "indiana_reports.csv"


@pytest.mark.parametrize("named", ["", "annotation.json", "t.csv", "x.zip"])
@pytest.mark.parametrize("how", ["field", "relative", "step 1"])
def test_terms_are_found_beside_whatever_is_named(terms, ws, monkeypatch, named, how):
    path = terms.parent / named
    field = str(path) if how == "field" else ""
    if how == "relative":  # to the project, as `open_data` reads it
        monkeypatch.setattr("utils.data.sources.PROJECT", terms.parents[1])
        field = str(path.relative_to(terms.parents[1]))
    elif how == "step 1":
        (ws.root / "x").mkdir(parents=True)
        ws.finish("regions", settings={}, outputs=[], data=str(path))
    assert beside(field, ws, terms.name) == terms


def test_without_terms_there_are_none(ws, tmp_path):
    assert beside("", ws, "indiana_reports.csv") is None
    assert beside("me/x", ws, "indiana_reports.csv") is None
    ws.data.mkdir(parents=True)
    (ws.data / "indiana_reports.csv").write_text("")
    assert beside("", ws, "indiana_reports.csv") == ws.data / "indiana_reports.csv"
