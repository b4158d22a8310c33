"""The layouts in which studies come: a table of one's own, or a collection as it was published.

Names are those of the publishers: MIMIC-CXR-JPG 2.0.0 and 2.1.0, PadChest's table of 2019, R2Gen, and Kaggle.
"""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pandas as pd

from utils import regions

from . import reports, tables
from .dicom import in_order, rank
from .own import Faults, Layout, Row, merged
from .studies import ANNOTATIONS, SPLITS, DataError

SPANISH = (
    "PadChest's reports are in Spanish: in 01 choose a language model, as the offline engine and the judges "
    "read English."
)
_PADCHEST = {"ImageID", "ImageDir", "StudyID", "PatientID", "Projection", "Report"}
_PROJECTIONS = ("PA", "AP", "AP_horizontal", "L")  # the order of views; others come after
INDIANA = ("indiana_reports.csv", "indiana_projections.csv")  # IU X-Ray's: a line for a study, for an image
_R2GEN = ("images", "files")  # folders of its images, in IU X-Ray and MIMIC-CXR
_MEANING = "ViewCodeSequence_CodeMeaning"  # of MIMIC-CXR: a view's position in words


def recognise(path: Path) -> Layout | None:
    """The layout of a table, or of a folder with one; else None. Raises DataError if it is not usable."""
    if path.name in INDIANA and path.is_file():
        return _kaggle(path.parent)
    if path.is_file() and path.name.lower().endswith(tables.TABLES):
        return _table(path, path.name.split(".")[0])
    if path.suffix == ".json" and path.is_file():
        return _r2gen(path)
    if not path.is_dir():
        return None
    if annotation := next((path / name for name in ANNOTATIONS if (path / name).is_file()), None):
        return _r2gen(annotation)
    if splits := sorted(path.glob("mimic-cxr-*-split.csv*")):
        return _mimic(path, splits[0])
    if (path / INDIANA[0]).is_file():
        return _kaggle(path)
    files = sorted(file for file in path.iterdir() if file.name.lower().endswith(tables.TABLES))
    if len(files) > 1:
        raise DataError(f"{path} has {len(files)} tables, such as {files[0].name}: name one of them in DATA.")
    return _table(files[0], path.name) if files else None


def _table(path: Path, name: str) -> Layout:
    names = tables.names_of(path)
    if _PADCHEST.issubset(names):
        return Layout("PadChest", _padchest(path), path.parent, path, [SPANISH], Faults())
    return tables.layout_of(path, name, names)


def _mimic(folder: Path, splits: Path) -> Layout:
    metadata = min(folder.glob("mimic-cxr-*-metadata.csv*"), default=None)
    if not metadata:
        raise DataError(f"{folder} has {splits.name} and no mimic-cxr-2.0.0-metadata.csv: put it beside.")
    if not (folder / "files").is_dir():
        raise DataError(f"{folder} has no folder files: unpack MIMIC-CXR's images and reports into it.")
    notes, counts = ["Findings are a section of each report; a report without one has no findings."], Faults()
    return Layout("MIMIC-CXR", _mimic_rows(folder, splits, metadata, counts), folder, splits, notes, counts)


def _mimic_rows(folder: Path, splits: Path, metadata: Path, counts: Faults) -> Iterator[Row]:
    keys = ["dicom_id", "subject_id", "study_id"]
    known = _read(metadata, ["dicom_id", "ViewPosition"], [_MEANING])
    position = known["ViewPosition"].where(known["ViewPosition"] != "", known.get(_MEANING, ""))
    known = known[["dicom_id"]].assign(rank=position.map(rank))
    table = _read(splits, [*keys, "split"]).merge(known, how="left").fillna({"rank": rank(None)})
    table = table.sort_values(["subject_id", "study_id"], kind="stable")
    rows = table[["subject_id", "study_id", "split", "dicom_id", "rank"]].itertuples(index=False)
    for (subject, study, split), views in groupby(rows, key=lambda view: view[:3]):
        below = f"files/p{subject[:2]}/p{subject}/s{study}"
        names = (f"{below}/{view.dicom_id}" for view in in_order(views, lambda view: view.rank))
        images = [_first_there(folder, f"{name}.jpg", f"{name}.dcm") for name in names]
        text, how = "", reports.NO_REPORT
        if (report := folder / f"{below}.txt").is_file():
            text, how = reports.findings(report.read_text(encoding="utf-8", errors="replace"))
        counts.add(how, f"s{study}")
        yield Row(f"s{study}", subject, split, text, tuple(images))


def _kaggle(folder: Path) -> Layout:
    for name in INDIANA:
        if not (folder / name).is_file():
            raise DataError(f"{folder} has no {name}: put it there, as Kaggle has the collection.")
    notes = [f"IU X-Ray as Kaggle has it: findings from {INDIANA[0]}, frontal views by {INDIANA[1]}."]
    rows = _kaggle_rows(folder, counts := Faults())
    return Layout("IU X-Ray of Kaggle", rows, folder, folder / INDIANA[0], notes, counts)


def _kaggle_rows(folder: Path, counts: Faults) -> Iterator[Row]:
    table = _read(folder / INDIANA[1], ["uid", "filename", "projection"])
    views = {uid: list(group.itertuples()) for uid, group in table.groupby("uid", sort=False)}
    for study in _read(folder / INDIANA[0], ["uid", "findings", "impression"]).itertuples():
        shown = in_order(views.pop(study.uid, []), lambda view: view.projection != "Frontal")
        files = [view.filename for view in shown]
        folders = ("images/images_normalized/", "images/", "images_normalized/", "")
        images = [_first_there(folder, *(parent + name for parent in folders)) for name in files]
        if study.impression.strip() and not study.findings.strip():
            counts.add(reports.ONLY_IMPRESSION, study.uid)
        # The id that the quiz and R2Gen give it: the collection's number of the examination.
        number = min(files, default=study.uid).rpartition("-")[0]
        name = number if number.startswith(f"{study.uid}_") else study.uid
        yield Row(f"CXR{name}", "", "", regions.tidy(study.findings), tuple(images))
    for uid, files in views.items():
        counts.add("Studies with images and without a report, left out", f"{uid} ({len(files)} images)")


def _r2gen(path: Path) -> Layout | None:
    """R2Gen's annotation, of IU X-Ray or MIMIC-CXR: a text as `report`, an `image_path`; None for another."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None  # `load_studies` says what is wrong with it
    groups = content.items() if isinstance(content, dict) else ()
    entries = [(split, entry) for split, group in groups if isinstance(group, list) for entry in group]
    of_r2gen = (
        isinstance(entry, dict)
        and {"report", "image_path"} <= entry.keys()
        and not isinstance(entry["report"], dict | None)  # the quiz's: findings by region, or not split yet
        for _, entry in entries
    )
    if not entries or not all(of_r2gen):
        return None
    notes = ["R2Gen's annotation: the findings of all splits are whole, and step 1 splits them by region."]
    return Layout(path.parent.absolute().name, _r2gen_rows(path, entries), path.parent, path, notes, Faults())


def _r2gen_rows(path: Path, entries: list[tuple[str, dict]]) -> Iterator[Row]:
    columns = {"study": ["study"], "patient": ["subject_id"], "split": ["split"], "findings": ["report"]}
    for number, (split, entry) in enumerate(entries, start=1):
        # Of MIMIC-CXR an entry is an image, of IU X-Ray a study.
        study = f"s{entry['study_id']}" if "study_id" in entry else entry.get("id")
        record = {**entry, "study": study, "split": entry.get("split") or split}
        images = [_r2gen_image(path.parent, name) for name in tables.paths(entry["image_path"], path.parent)]
        where = f"{path}: study number {number:,}"
        yield tables.row_of(record, {**columns, "regions": []}, where, images)


def in_the_quizs_form(layout: Layout) -> dict | None:
    """R2Gen's annotation of IU X-Ray in the quiz's form, to fetch images for; None with images beside."""
    if any((layout.images / name).is_dir() for name in _R2GEN):
        return None
    studies = merged(layout.rows, layout.table)
    if other := next((name for name in studies if not name.startswith("CXR")), None):
        lacks = f"{layout.table} has no images beside it"
        raise DataError(f"{lacks}, and {other} is not of IU X-Ray: put them in images/.")
    entries = {name: {"id": name, "original_report": row.findings} for name, row in studies.items()}
    return {split: [entries[name] for name in studies if studies[name].split == split] for split in SPLITS}


def _r2gen_image(folder: Path, name: str) -> str:
    """Where an image lies, perhaps in another format than the annotation says."""
    stem = name.rpartition(".")[0]
    names = dict.fromkeys((name, f"{stem}.png", f"{stem}.jpg", f"{stem}.jpeg"))
    return _first_there(folder, *(f"{parent}/{name}" for name in names for parent in _R2GEN))


def _padchest(path: Path) -> Iterator[Row]:
    table = _read(path, sorted(_PADCHEST))
    table = table[table["Projection"] != "EXCLUDE"]
    order = table["Projection"].map({name: n for n, name in enumerate(_PROJECTIONS)}).fillna(9)
    frontal = (order < _PROJECTIONS.index("L")).groupby(table["StudyID"]).transform("any")
    order = order.mask((table["Projection"] == "L") & ~frontal, 10)  # one of unknown projection is likelier
    table = table.assign(order=order).sort_values("order", kind="stable")
    for view in table.itertuples(index=False):
        names = (f"{view.ImageDir}/{view.ImageID}", f"images/{view.ImageID}", view.ImageID)
        image = _first_there(path.parent, *names)
        yield Row(view.StudyID, view.PatientID, "", regions.tidy(view.Report), (image,))


def _first_there(folder: Path, *names: str) -> str:
    """The first of `names` that is a file; the first of all where none is."""
    return next((name for name in names if (folder / name).is_file()), names[0])


def _read(path: Path, columns: list[str], optional: list[str] = ()) -> pd.DataFrame:
    """Columns of a published table, as text."""
    wanted = {*columns, *optional}
    try:
        table = pd.read_csv(path, usecols=lambda name: name in wanted, dtype=str, keep_default_na=False)
        return table[[*columns, *(name for name in optional if name in table)]]
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is not as it was published ({error}): download it again.") from None
