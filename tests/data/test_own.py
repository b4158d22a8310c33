"""A person's own studies: tables, folders of DICOM, and two published collections in the form they have."""

import csv
import gzip
import json
import re
from pathlib import Path

import dicom_files
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import JPEGExtended12Bit, JPEGLosslessSV1

from utils.data import dicom, hf_dataset, own
from utils.data.sources import open_data, origin
from utils.data.studies import DataError, data_label, load_studies, write_annotation
from utils.run.workspace import Workspace
from utils.settings import DatasetSettings
from utils.split import split_findings

EXAMPLE = ROOT / "docs" / "own_data" / "phantoms.csv"
CLEAR = "The lungs are clear. The heart is normal in size."


@pytest.fixture
def ws(tmp_path):
    return Workspace(tmp_path / "run")


@pytest.fixture
def mine(tmp_path):
    """A folder with four images."""
    for name in "abcd":
        picture(tmp_path / "mine" / "views" / f"{name}.png")
    return tmp_path / "mine"


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 90).save(path)
    return path


def table(path: Path, rows: list[dict], **form) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], **form)
        writer.writeheader()
        writer.writerows(rows)
    return path


def study(name: str, split: str = "train", **cells: str) -> dict:
    row = {"study": name, "patient": f"of {name}", "split": split, "findings": CLEAR}
    return row | {"images": "views/a.png"} | cells


def built(data: Path):
    """The dataset of steps 1 and 2."""
    waiting = [study for group in load_studies(data).values() for study in group if study.findings is None]
    found = split_findings([study.original_report for study in waiting])
    findings = {study.id: regions for study, regions in zip(waiting, found, strict=True)}
    annotation = write_annotation(data / "split.json", data, findings)
    studies = load_studies(data, annotation)
    dataset, skipped = hf_dataset.build(studies, DatasetSettings(), data / "dataset", data_label="studies")
    assert skipped.empty
    return dataset


def folders(ws: Workspace) -> list[str]:
    return sorted(path.name for path in (ws.root / "own").glob("*"))


def test_the_example_becomes_studies_whose_images_stay_where_they_are(ws, capsys):
    data = open_data(EXAMPLE, "iu_xray", ws)
    everyone = load_studies(data)
    assert {split: len(group) for split, group in everyone.items()} == {"train": 8, "val": 2, "test": 2}
    first = everyone["train"][0]
    assert [path.resolve() for path in first.images] == [
        EXAMPLE.parent / "images" / f"S01_{view}.jpg" for view in ("pa", "lateral")
    ]
    assert first.findings is None and first.original_report.startswith("Heart size")
    said = capsys.readouterr().out
    assert "12 studies and 24 images" in said and "no patient is in two of them" in said
    assert origin(data)["views"] == 24 and data_label(data, everyone) == "studies of phantoms"
    assert [path for path in data.rglob("*") if path.suffix == ".jpg"] == []
    dataset = built(data)
    assert {name: len(rows) for name, rows in dataset.items()} == {"train": 8, "val": 2, "test": 2}
    assert dataset["train"][0]["completion"][0]["content"].startswith("lung: Both lungs are clear.")


def test_the_example_is_found_from_anywhere(ws, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_studies(open_data("docs/own_data/phantoms.csv", "iu_xray", ws))["test"]


def test_json_lines_with_regions_need_no_split_of_their_findings(mine, ws, capsys):
    paths = ["views/a.png", "views/b.png"]
    lines = [
        {"Study ID": 17, "lung": "Clear.", "bone": None, "age": 3, "image_paths": paths},
        {"Study ID": 18, "lung": "", "bone": "No fracture.", "image_paths": ["views/c.png"]},
    ]
    path = mine / "studies.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    studies = [study for group in load_studies(open_data(path, "iu_xray", ws)).values() for study in group]
    found = {study.id: (study.findings, len(study.images)) for study in studies}
    assert found == {"17": ({"lung": "Clear."}, 2), "18": ({"bone": "No fracture."}, 1)}
    assert "not used: age" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        ({"images": "views/a.png;views/b.png"}, {}),
        ({"images": "views/a.png | views/b.png"}, {"delimiter": ";"}),
        ({"images": "['views/a.png', 'views/b.png']"}, {}),
        ({"images": "views/a.png", "image_2": "views/b.png"}, {"delimiter": "\t"}),
        ({"images": "{0}/views/a.png;{0}/views/b.png"}, {}),
    ],
)
def test_several_images_may_be_written_in_several_ways(mine, ws, cells, form):
    cells = {name: text.format(mine) for name, text in cells.items()}
    data = open_data(table(mine / "t.csv", [study("S1", **cells)], **form), "iu_xray", ws)
    assert [path.name for path in load_studies(data)["train"][0].images] == ["a.png", "b.png"]


def test_a_row_may_be_an_image_and_a_folder_may_be_named(mine, ws):
    rows = [study("S1"), study("S2", "val"), study("S1", images="views/b.png"), study("S1")]
    table(mine / "t.csv", rows)
    (mine / "t.csv").rename(mine / "unzipped.csv")
    data = open_data(mine, "iu_xray", ws)
    assert [path.name for path in load_studies(data)["train"][0].images] == ["a.png", "b.png"]
    assert data_label(data, load_studies(data)) == "studies of mine"
    table(mine / "more.csv", rows)
    with pytest.raises(DataError, match=r"has 2 tables, such as more\.csv: name one of them in DATA"):
        open_data(mine, "iu_xray", ws)


def test_a_table_that_changed_is_read_anew(mine, ws):
    path = table(mine / "t.csv", [study("S1")])
    before = origin(open_data(path, "iu_xray", ws))
    table(path, [study("S1"), study("S2", "test")])
    after = origin(open_data(path, "iu_xray", ws))
    assert after["studies"]["test"] == 1 and before["sha256"] != after["sha256"]


# splits


def test_without_splits_patients_are_split_by_a_hash_of_their_ids(mine, ws, capsys):
    rows = [study(f"S{n}", "", patient=f"P{n // 3}") for n in range(900)]
    everyone = load_studies(open_data(table(mine / "t.csv", rows), "iu_xray", ws))
    assert "patients are split 80/10/10 by a hash of their ids" in capsys.readouterr().out
    patients = [{int(study.id[1:]) // 3 for study in group} for group in everyone.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 300
    assert 210 < len(patients[0]) < 270 and min(map(len, patients)) > 15
    again = load_studies(open_data(table(mine / "u.csv", rows[::-1]), "iu_xray", ws))
    assert all({x.id for x in again[split]} == {x.id for x in group} for split, group in everyone.items())
    assert [own.split_of(f"P{n}") for n in range(12)].count("train") == 8  # for good: a hash does not move


@pytest.mark.parametrize(
    ("patients", "images", "said"),
    [
        (("P1", "P2", ""), "", "patients are split 80/10/10 by a hash of their ids, the same each time."),
        (
            ("P1", "P2", ""),
            "views/a.png",
            "where the patient is not known (1 of 3), the study's own id counts.",
        ),
        (
            ("", "", ""),
            "",
            "studies are split 80/10/10 by a hash of their ids, the same each time; one patient",
        ),
    ],
)
def test_the_rule_of_the_split_counts_the_studies_that_are_kept(mine, ws, capsys, patients, images, said):
    rows = [study(f"S{n}", "", patient=patient) for n, patient in enumerate(patients)]
    rows[-1]["images"] = images
    open_data(table(mine / "t.csv", rows), "iu_xray", ws)
    assert said in capsys.readouterr().out


def test_without_patients_it_is_said_that_they_may_cross(mine, ws, capsys):
    rows = [{name: text for name, text in study("S1").items() if name != "patient"}]
    open_data(table(mine / "t.csv", rows), "iu_xray", ws)
    assert "not each study's patient is known, so one may be in two of them" in capsys.readouterr().out


def test_split_names_of_other_collections_are_known(mine, ws):
    rows = [study("S1"), study("S2", "validate"), study("S3", "Validation"), study("S4", "TEST")]
    everyone = load_studies(open_data(table(mine / "t.csv", rows), "iu_xray", ws))
    assert {split: len(group) for split, group in everyone.items()} == {"train": 1, "val": 2, "test": 1}


# faults


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [{"study": "S1", "text": CLEAR, "images": "a"}],
            ("no column for findings", "study, text, images;", "name them"),
        ),
        ([{"number": "1", "findings": CLEAR}], ("no column for study or images", "number, findings;")),
        (
            [study("S1"), study("S1", "test"), study("S2"), study("S2", "val")],
            ("Studies in two splits: 2, such as S1 (train and test)",),
        ),
        (
            [study("S1", patient="P"), study("S2", "test", patient="P")],
            ("Patients in two splits: 1, P (train and test)",),
        ),
        ([study("S1"), study("S2", "")], ("1 of 2 studies have no split, such as S2",)),
        ([study("S1", "holdout")], ("Rows with a split other than train, val, test: 1, 'holdout' of S1",)),
        ([study("")], ("Rows without a study's id: 1, row 1",)),
        (
            [study("S1", images="../b.png"), study("S2", images="/etc/c.png")],
            ("Images outside their folder: 2", "../b.png of study S1"),
        ),
        ([study("a/b")], ("has the id 'a/b', which cannot name a folder",)),
        (
            [study("S1", findings=" ")],
            ("no study is left to train on", "Studies without findings, left out: 1, S1"),
        ),
        (
            [study("S1", images="views/z.png")],
            ("no study is left to train on", "Images that are not there, left out: 1, views/z.png"),
        ),
        ([study("S1", "test")], ("no study is left to train on",)),
    ],
)
def test_what_spoils_the_whole_is_one_sentence_and_leaves_what_was_there(mine, ws, rows, words):
    kept = open_data(table(mine / "t.csv", [study("S9")]), "iu_xray", ws)
    before = (kept / "annotation.json").read_bytes()
    with pytest.raises(DataError) as caught:
        open_data(table(mine / "t.csv", rows), "iu_xray", ws)
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert said.startswith(str(mine / "t.csv")) and said.endswith(".") and "\n" not in said
    assert (kept / "annotation.json").read_bytes() == before and folders(ws) == ["t"]


def test_what_spoils_one_study_is_left_out_and_counted(mine, ws, capsys):
    rows = [
        study("S1", images="views/a.png;views/gone.png"),
        study("S2", findings=""),
        study("S3", findings=" "),
        study("S4", images="views/lost.png"),
        study("S5", images=""),
        study("S6"),
        study("S6", findings="Large heart."),
    ]
    data = open_data(table(mine / "t.csv", rows), "iu_xray", ws)
    said = capsys.readouterr().out
    assert "Studies without findings, left out: 2, such as S2" in said
    assert "Images that are not there, left out: 2, such as views/gone.png" in said
    assert "Studies without an image, left out: 2, such as S4" in said
    assert "Studies whose rows have different findings or patients, left out: 1, S6" in said
    assert [(study.id, len(study.images)) for study in load_studies(data)["train"]] == [("S1", 1)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"study,findings,images\nS1,clear, no effusion,views/a.png\n", "line 2 has more fields"),
        ("t.csv", "study,findings,images\nS1,größe,x\n".encode("cp1252"), "is not UTF-8"),
        ("t.csv", b"", "no column for study or findings or images"),
        ("t.csv", b"study,findings,images\n", "has no studies"),
        ("t.csv", b'study,findings,images\nS1,"' + b"x" * 200_000 + b'",a\n', "cannot be read as a table"),
        ("t.csv.gz", b"study,findings,images\n", "cannot be read as a table"),
        ("t.jsonl", b'{"study": "S1"', "cannot be read as a table"),
        ("t.jsonl", b"[1]", "line 1 is no JSON object"),
        ("t.jsonl", b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "cannot be read as a table"),
        ("t.jsonl", b'{"study": "S", "findings": {"lung": 1}, "images": []}', "row 1: findings is not text"),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence(mine, ws, name, content, words):
    (mine / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_data(mine / name, "iu_xray", ws)
    assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert folders(ws) == []


# DICOM


def test_a_folder_of_dicom_is_joined_to_its_table_and_what_is_no_radiograph_counted(tmp_path, ws, capsys):
    folder = tmp_path / "export"
    ids = {"AccessionNumber": "A1", "PatientID": "P1"}
    dicom_files.write(folder / "1" / "IM0001", ViewPosition="LL", InstanceNumber=1, **ids)
    dicom_files.write(folder / "1" / "IM0002", ViewPosition="PA", InstanceNumber=2, **ids)
    dicom_files.write(folder / "1" / "IM0003", Modality="CT", **ids)
    dicom_files.write(folder / "1" / "IM0004", Modality="CT", **ids)
    dicom_files.write(folder / "2" / "x.dcm", StudyInstanceUID="1.2.3", PatientID="P2")
    dicom_files.write(folder / "2" / "y.dcm", None, StudyInstanceUID="1.2.3", PatientID="P2")
    splits = {"A1": "train", "1.2.3": "val", "A9": "test"}
    rows = [{"Accession Number": name, "Report": CLEAR, "split": split} for name, split in splits.items()]
    table(folder / "reports.csv", rows)
    data = open_data(folder, "iu_xray", ws)
    everyone = load_studies(data)
    said = capsys.readouterr().out
    assert [path.name for path in everyone["train"][0].images] == ["IM0002", "IM0001"]  # frontal first
    assert [path.name for path in everyone["val"][0].images] == ["x.dcm"]
    assert "DICOM files left out (modality CT, not CR or DX): 2, such as 1/IM0003" in said
    assert "DICOM files left out (no pixels): 1, 2/y.dcm" in said
    assert "Studies without an image, left out: 1, A9" in said
    dataset = built(data)
    assert [dataset[split]["views"] for split in ("train", "val")] == [[2], [1]]
    assert dataset["train"][0]["images"][0].size == (64, 64)


def test_the_head_of_a_dicom_file_is_read_once(tmp_path, ws, monkeypatch):
    read, header = [], dicom.header
    monkeypatch.setattr(dicom, "header", lambda path, *rest: read.append(path.name) or header(path, *rest))
    found = dicom_files.write(tmp_path / "found" / "a.dcm", AccessionNumber="A1", PatientID="P1")
    table(found.parent / "t.csv", [{"study": "A1", "split": "train", "findings": CLEAR}])
    named = dicom_files.write(tmp_path / "named" / "b.dcm")
    table(named.parent / "t.csv", [{"study": "A1", "split": "train", "findings": CLEAR, "image": "b.dcm"}])
    for folder in (found.parent, named.parent):
        open_data(folder, "iu_xray", ws)
    assert read == ["a.dcm", "b.dcm"]


def test_patients_of_the_dicom_files_do_not_cross_splits_either(tmp_path, ws):
    for name in ("A1", "A2"):
        dicom_files.write(tmp_path / "export" / f"{name}.dcm", AccessionNumber=name, PatientID="P1")
    splits = {"A1": "train", "A2": "test"}
    rows = [{"study": name, "findings": CLEAR, "split": split} for name, split in splits.items()]
    table(tmp_path / "export" / "reports.csv", rows)
    with pytest.raises(DataError, match=r"Patients in two splits: 1, P1 \(train and test\)"):
        open_data(tmp_path / "export", "iu_xray", ws)


def test_a_table_may_name_dicom_files_and_those_of_other_machines_are_counted(mine, ws, capsys):
    dicom_files.write(mine / "x.dcm")
    dicom_files.write(mine / "ct.dcm", Modality="CT")
    rows = [study("S1", images="x.dcm;ct.dcm")]
    data = open_data(table(mine / "t.csv", rows), "iu_xray", ws)
    assert [path.name for path in load_studies(data)["train"][0].images] == ["x.dcm"]
    assert "DICOM files left out (modality CT, not CR or DX): 1, ct.dcm" in capsys.readouterr().out


def test_modalities_that_say_less_are_taken_and_counted(mine, ws, capsys):
    for name, modality in (("a", "OT"), ("b", "OT"), ("c", ""), ("d", "RG"), ("e", "CR"), ("f", "US")):
        dicom_files.write(mine / f"{name}.dcm", Modality=modality)
    rows = [study("S1", images="a.dcm;b.dcm;c.dcm;d.dcm;e.dcm;f.dcm")]
    data = open_data(table(mine / "t.csv", rows), "iu_xray", ws)
    assert len(load_studies(data)["train"][0].images) == 5
    said = capsys.readouterr().out
    taken = "DICOM files taken for radiographs, though their modality is"
    assert f"{taken} OT: 2, such as a.dcm." in said and f"{taken} not given: 1, c.dcm." in said
    assert f"{taken} RG: 1, d.dcm." in said and "(modality US, not CR or DX): 1, f.dcm" in said


@pytest.mark.parametrize("named", [True, False])
def test_dicom_that_needs_a_decoder_is_refused_before_anything_is_split(mine, ws, monkeypatch, named):
    monkeypatch.setattr(Decoder, "is_available", property(lambda one: JPEGLosslessSV1 != one.UID))
    dicom_files.write(mine / "a.dcm", AccessionNumber="S1")
    dicom_files.compressed(mine / "b.dcm", JPEGLosslessSV1, b"\xff\xd8", AccessionNumber="S1")
    row = study("S1", images="a.dcm;b.dcm")
    table(mine / "t.csv", [row if named else {key: row[key] for key in row if key != "images"}])
    with pytest.raises(
        DataError, match=r"JPEG Lossless need a decoder: run %pip .* run this notebook again\.$"
    ):
        open_data(mine / "t.csv", "iu_xray", ws)
    assert folders(ws) == []


def test_dicom_that_no_decoder_here_can_read_is_left_out_and_counted(mine, ws, capsys):
    """JPEG of 12 bits, which Pillow does not read; and a file that is cut off."""
    for name in ("a", "b"):
        dicom_files.compressed(mine / f"{name}.dcm", JPEGExtended12Bit, b"\xff\xd8 cut off")
    dicom_files.write(mine / "c.dcm", Rows=65)
    dicom_files.write(mine / "d.dcm", WindowCenter=5, WindowWidth=0)
    data = open_data(table(mine / "t.csv", [study("S1", images="a.dcm;b.dcm;c.dcm;d.dcm")]), "iu_xray", ws)
    assert [path.name for path in load_studies(data)["train"][0].images] == ["d.dcm"]
    said = capsys.readouterr().out
    assert re.search(r"pixels that cannot be read, JPEG Extended.*\): 2, such as a\.dcm \(.+\)", said)
    assert re.search(r"pixels that cannot be read, Explicit VR Little Endian\): 1, c\.dcm \(.+\)", said)
    assert built(data)["train"]["views"] == [1]


def test_without_pydicom_a_table_with_dicom_is_refused(mine, ws, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    (mine / "x.dcm").write_bytes(b"any")
    with pytest.raises(DataError, match=r"run %pip install pydicom, then this cell again\.$"):
        open_data(table(mine / "t.csv", [study("S1", images="x.dcm")]), "iu_xray", ws)


# published collections, in their own layout

METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset ascites  // eval for infection

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation, pleural effusion or pneumothorax.  Bilateral
 nodular opacities most likely represent nipple shadows.

 IMPRESSION:

 No acute cardiopulmonary process.
""".replace(":\n", ": \n").replace("\n\n", "\n \n")  # as published, with space at the ends of lines


def mimic(folder: Path, suffix: str = ".jpg", packed: bool = False) -> Path:
    """Three studies of three patients as MIMIC-CXR-JPG lays them out; the second has no findings."""
    views = [
        ("02aa804e-bde0afdd-112c0b34-7bc16630-4e384014", "10000032", "50414267", "LATERAL", "train"),
        ("174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962", "10000032", "50414267", "PA", "train"),
        ("abea5eb9-b7c32823-3a14c5ca-77868030-69c83139", "10000935", "51178377", "AP", "validate"),
        ("e084de3b-be89b11e-20fe3f9f-9c8d8dfe-4cfd202c", "11000183", "51967845", "AP", "test"),
    ]
    metadata, splits = [METADATA], ["dicom_id,study_id,subject_id,split"]
    for image_id, patient, name, position, split in views:
        place = folder / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s{name}"
        write = dicom_files.write if suffix == ".dcm" else picture
        write(place / f"{image_id}{suffix}")
        text = REPORT.replace("FINDINGS", "IMPRESSION") if split == "validate" else REPORT
        place.with_name(f"s{name}.txt").write_text(text)
        about = f"CHEST (PA AND LAT),{position},3056,2544,21800506,213014.531,,,Erect"
        metadata.append(f"{image_id},{patient},{name},{about}")
        splits.append(f"{image_id},{name},{patient},{split}")
    for name, lines in (("metadata", metadata), ("split", splits)):
        content = "\n".join(lines).encode() + b"\n"
        path = folder / f"mimic-cxr-2.0.0-{name}.csv{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize(("suffix", "packed"), [(".jpg", True), (".dcm", False)])
def test_mimic_cxr_is_known_by_its_files(tmp_path, ws, capsys, suffix, packed):
    data = open_data(mimic(tmp_path / "mimic", suffix, packed), "iu_xray", ws)
    everyone = load_studies(data)
    first = everyone["train"][0]
    assert first.id == "s50414267" and [path.name[:8] for path in first.images] == ["174413ec", "02aa804e"]
    assert first.original_report == (
        "There is no focal consolidation, pleural effusion or pneumothorax. Bilateral nodular opacities most "
        "likely represent nipple shadows."
    )
    assert [len(group) for group in everyone.values()] == [1, 0, 1]
    said = capsys.readouterr().out
    assert "Studies without findings, left out: 1, s51178377" in said
    assert data_label(data, everyone) == "studies of MIMIC-CXR"


def test_what_is_missing_of_mimic_cxr_is_named(tmp_path, ws):
    folder = mimic(tmp_path / "mimic")
    (folder / "files").rename(folder / "elsewhere")
    with pytest.raises(DataError, match="has no folder files: unpack MIMIC-CXR's images and reports"):
        open_data(folder, "iu_xray", ws)
    (folder / "mimic-cxr-2.0.0-metadata.csv").unlink()
    with pytest.raises(DataError, match=r"and no mimic-cxr-2\.0\.0-metadata\.csv: put it beside"):
        open_data(folder, "iu_xray", ws)


PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,"
    "labelCUIS,LocalizationsCUIS"
)


@pytest.mark.parametrize("place", ["{dir}/{image}", "images/{image}", "{image}"])
def test_padchest_is_known_by_its_columns_and_split_by_patient(tmp_path, ws, capsys, place):
    folder, lines = tmp_path / "padchest", [PADCHEST]
    for number in range(40):
        sides = {f"{number}_b.png": "L", f"{number}_a.png": "PA", f"{number}_c.png": "EXCLUDE"}
        for image, side in sides.items():
            picture(folder / place.format(dir=number % 3, image=image))
            who = f"20140915,2053668664013635{number},P{number // 2},1930.0,F,POSTEROANTERIOR,{side}"
            labels = "Physician,\"['normal']\",[],\"[['normal'], ['normal']]\",[],[]"
            lines.append(
                f"{len(lines)},{image},{number % 3},{who},Manual review of DICOM fields,No,4765777,"
                f"sin hallazgos patologicos edad paciente .,{labels}"
            )
    path = folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    path.write_text("\n".join(lines) + "\n")
    data = open_data(folder if place == "{image}" else path, "iu_xray", ws)
    everyone = load_studies(data)
    studies = [study for group in everyone.values() for study in group]
    assert len(studies) == 40 and data_label(data, everyone) == "studies of PadChest"
    assert all([path.name[-5] for path in study.images] == ["a", "b"] for study in studies)
    split = {study.id: study.split for study in studies}
    assert all(split[f"2053668664013635{n}"] == split[f"2053668664013635{n + 1}"] for n in range(0, 40, 2))
    said = capsys.readouterr().out
    assert "reports are in Spanish" in said and "patients are split 80/10/10" in said
    assert pd.Series(split).nunique() > 1
