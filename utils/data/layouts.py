"""The rows of tables: CSV or JSON lines of one's own, and the published layouts of MIMIC-CXR and PadChest.

Column names and folders of the two collections are those of their publishers:
MIMIC-CXR-JPG 2.0.0 and 2.1.0, and PadChest's table of 2019.
"""

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TextIO

import pandas as pd

from utils import regions
from utils.workspace import progress

from . import dicom
from .own import Faults, Row, dicom_head
from .studies import ANNOTATIONS, DataError

TABLES = (".csv", ".csv.gz", ".jsonl")
# What a column is for, and its names, without regard to case, spaces and underscores.
COLUMNS = {
    "study": ("study", "studyid", "id", "accessionnumber", "studyinstanceuid"),
    "patient": ("patient", "patientid", "subjectid"),
    "split": ("split",),
    "findings": ("findings", "report"),
}
FORM = f"name them study, findings (or {', '.join(regions.ALL)}), images and, where known, split and patient"
SPANISH = (
    "PadChest's reports are in Spanish: in 01 choose a language model, as the offline engine and the judges "
    "read English."
)
_IMAGES = re.compile(r"(images?|imagepaths?|paths?|files?)\d*")
_PADCHEST = {"ImageID", "ImageDir", "StudyID", "PatientID", "Projection", "Report"}
_PROJECTIONS = ("PA", "AP", "AP_horizontal", "L")  # the order of views; others come after
_SECTION = re.compile(r"^\s*([A-Z][A-Z ()/,-]*):", re.MULTILINE)


class Layout(NamedTuple):
    """What is read: its name, its rows, the folder of its images, the table, and what to say of it.

    `opened`: the images were found by their heads, so these have been read.
    """

    name: str
    rows: Iterator[Row]
    images: Path
    table: Path
    notes: list[str]
    opened: bool = False


def recognise(path: Path) -> Layout | None:
    """The layout of a table, or of a folder with one; None for a folder with an annotation, and for the rest.

    Raises DataError for a folder with several tables, and for a table without the columns that are needed.
    """
    if path.is_file() and path.name.lower().endswith(TABLES):
        return _table(path, path.name.split(".")[0])
    if not path.is_dir() or any((path / name).is_file() for name in ANNOTATIONS):
        return None
    if splits := sorted(path.glob("mimic-cxr-*-split.csv*")):
        return _mimic(path, splits[0])
    tables = sorted(file for file in path.iterdir() if file.name.lower().endswith(TABLES))
    if len(tables) > 1:
        several = f"{len(tables)} tables, such as {tables[0].name}"
        raise DataError(f"{path} has {several}: name one of them in DATA.")
    return _table(tables[0], path.name) if tables else None


def _table(path: Path, name: str) -> Layout:
    with _sentences(path):
        names = list(dict.fromkeys(name for record in _heading(path) for name in record))
    if _PADCHEST.issubset(names):
        return Layout("PadChest", _padchest(path), path.parent, path, [SPANISH])
    pictures = [name for name in names if _IMAGES.fullmatch(_plain(name))]
    columns = columns_of(names, pictures, path, found_otherwise=not pictures and any(dicom.find(path.parent)))
    notes = [used(columns, names)]
    heads = {} if columns["images"] else _heads(path.parent, notes)
    return Layout(name, _rows(path, columns, heads), path.parent, path, notes, opened=not columns["images"])


def columns_of(
    names: list[str], images: list[str], where: str | Path, found_otherwise: bool = False
) -> dict[str, list[str]]:
    """The columns by what they are for. Raises DataError with those wanted and those found.

    `found_otherwise`: the images need no column.
    """
    plain = {name: _plain(name) for name in names}
    found = {
        what: [name for alias in aliases for name in names if plain[name] == alias][:1]
        for what, aliases in COLUMNS.items()
    }
    found["regions"] = [name for name in names if plain[name] in regions.ALL]
    found["images"] = images
    missing = [] if found["study"] else ["study"]
    missing += [] if found["findings"] or found["regions"] else ["findings"]
    missing += [] if images or found_otherwise else ["images"]
    if missing:
        raise DataError(
            f"{where} has no column for {' or '.join(missing)}: its columns are {', '.join(names)}; {FORM}."
        )
    return found


def used(columns: dict[str, list[str]], names: list[str]) -> str:
    """In a sentence: which columns are read, as what, and which are not."""
    read = [f"{what} from {', '.join(chosen)}" for what, chosen in columns.items() if chosen]
    unread = [name for name in names if not any(name in chosen for chosen in columns.values())]
    return f"Columns: {'; '.join(read)}{'; not used: ' if unread else ''}{', '.join(unread)}."


def row_of(record: dict, columns: dict[str, list[str]], where: str, images: Iterable[str]) -> Row:
    """A record of a table as a row. Raises DataError, beginning with `where`, for what is not text."""
    texts = [name for what, names in columns.items() if what != "images" for name in names]
    read = {name: _text(record.get(name), f"{where}: {name}") for name in texts}
    study, patient, split, whole = ("".join(map(read.get, columns[what])) for what in COLUMNS)
    by_region = {_plain(name): read[name] for name in columns["regions"]}
    return Row(study, patient, split, by_region if any(by_region.values()) else whole, tuple(images))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _rows(path: Path, columns: dict[str, list[str]], heads: dict[str, list]) -> Iterator[Row]:
    folder = path.parent.absolute()
    with _sentences(path):
        for number, record in enumerate(_records(path), start=1):
            cells = (record.get(name) for name in columns["images"])
            images = [name for cell in cells for name in _paths(cell, folder)]
            row = row_of(record, columns, f"{path}: row {number:,}", images)
            if files := heads.get(row.study):
                patient = row.patient or files[0][1].patient
                row = row._replace(patient=patient, images=tuple(name for name, _ in files))
            yield row


def _heads(folder: Path, notes: list[str]) -> dict[str, list[tuple[str, dicom.Header]]]:
    """The DICOM files of a folder by their study's ids, frontal views first; notes say what is left out."""
    found, faults = {}, Faults()
    for path in progress(dicom.find(folder), "reading DICOM heads"):
        name = path.relative_to(folder).as_posix()
        if (head := dicom_head(path, name, faults)) is None:
            continue
        for key in head.ids:
            found.setdefault(key, []).append((name, head))
    for files in found.values():
        files.sort(key=lambda file: file[1].order)
    notes += faults.sentences()
    notes.append("Images are found by AccessionNumber or StudyInstanceUID, as the table names none.")
    return found


def _paths(value: object, folder: Path) -> list[str]:
    """The paths in a cell: a list, or text with ; or | between them."""
    if isinstance(value, str):
        value = value.strip()
        value = re.split(r"[;|,]", value[1:-1]) if value.startswith("[") else re.split(r"[;|]", value)
    parts = [Path(str(part).strip(" '\"").replace("\\", "/")) for part in value or ()]
    inside = (part.relative_to(folder) if part.is_relative_to(folder) else part for part in parts)
    return [part.as_posix() for part in inside if part.name]


def _text(value: object, where: str) -> str:
    if value is None or isinstance(value, str | int | float):
        return "" if value is None else str(value).strip()
    raise DataError(f"{where} is not text: correct it.")


def _heading(path: Path) -> Iterator[Iterable[str]]:
    """The names of a table's columns: of CSV in its first line, of JSON lines in every line."""
    if path.suffix.lower() == ".jsonl":
        yield from _records(path)
    else:
        with _open(path) as file:
            yield next(_csv(file), [])


def _records(path: Path) -> Iterator[dict[str, object]]:
    with _open(path) as file:
        if path.suffix.lower() == ".jsonl":
            for number, line in enumerate(file, start=1):
                record = json.loads(line) if line.strip() else {}
                if not isinstance(record, dict):
                    raise DataError(f"{path}: line {number:,} is no JSON object: write one study a line.")
                if record:
                    yield record
            return
        lines = _csv(file)
        names = next(lines, [])
        for line in filter(any, lines):
            if len(line) > len(names):
                fault = f"line {lines.line_num:,} has more fields than there are columns"
                raise DataError(f"{path}: {fault}: put quotes around a text that holds a comma.")
            yield dict(zip(names, line, strict=False))


def _open(path: Path) -> TextIO:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    return opened(path, "rt", encoding="utf-8-sig", newline="")


def _csv(file: TextIO):
    """The lines of a CSV, whichever of comma, semicolon and tab its first one has most of."""
    head = file.readline()
    file.seek(0)
    return csv.reader(file, delimiter=max(",;\t", key=head.count))


@contextmanager
def _sentences(path: Path):
    try:
        yield
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8: save it again as CSV UTF-8.") from None
    except (csv.Error, json.JSONDecodeError, RecursionError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}): save it again.") from None


def _mimic(folder: Path, splits: Path) -> Layout:
    metadata = next(iter(sorted(folder.glob("mimic-cxr-*-metadata.csv*"))), None)
    if not metadata:
        raise DataError(f"{folder} has {splits.name} and no mimic-cxr-2.0.0-metadata.csv: put it beside.")
    if not (folder / "files").is_dir():
        raise DataError(f"{folder} has no folder files: unpack MIMIC-CXR's images and reports into it.")
    notes = ["Findings are the section FINDINGS of each report; a report without one has no findings."]
    return Layout("MIMIC-CXR", _mimic_rows(folder, splits, metadata), folder, splits, notes)


def _mimic_rows(folder: Path, splits: Path, metadata: Path) -> Iterator[Row]:
    keys = ["dicom_id", "subject_id", "study_id"]
    table = _read(splits, [*keys, "split"]).merge(_read(metadata, ["dicom_id", "ViewPosition"]), how="left")
    table["side"] = ~table["ViewPosition"].isin(dicom.FRONTAL)
    table = table.sort_values(["subject_id", "study_id", "side"], kind="stable")
    rows = table[["subject_id", "study_id", "split", "dicom_id"]].itertuples(index=False)
    for (subject, study, split), views in groupby(rows, key=lambda view: view[:3]):
        place = f"files/p{subject[:2]}/p{subject}/s{study}"
        names = ((f"{place}/{view.dicom_id}.jpg", f"{place}/{view.dicom_id}.dcm") for view in views)
        images = [_first_there(folder, *either) for either in names]
        yield Row(f"s{study}", subject, split, _findings(folder / f"{place}.txt"), tuple(images))


def _findings(report: Path) -> str:
    """The last section FINDINGS of a report of MIMIC-CXR; empty without one, or without the report."""
    if not report.is_file():
        return ""
    text = report.read_text(encoding="utf-8", errors="replace")
    heads = list(_SECTION.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    found = [text[head.end() : end] for head, end in zip(heads, ends, strict=True) if head[1] == "FINDINGS"]
    return regions.tidy(found[-1]) if found else ""


def _padchest(path: Path) -> Iterator[Row]:
    table = _read(path, sorted(_PADCHEST))
    table = table[table["Projection"] != "EXCLUDE"]
    order = table["Projection"].map({name: place for place, name in enumerate(_PROJECTIONS)}).fillna(9)
    table = table.assign(order=order).sort_values("order", kind="stable")
    for view in table.itertuples(index=False):
        places = (f"{view.ImageDir}/{view.ImageID}", f"images/{view.ImageID}", view.ImageID)
        image = _first_there(path.parent, *places)
        yield Row(view.StudyID, view.PatientID, "", regions.tidy(view.Report), (image,))


def _first_there(folder: Path, *names: str) -> str:
    """The first of `names` that is a file; the first of all where none is."""
    return next((name for name in names if (folder / name).is_file()), names[0])


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    """Columns of a published table, as text."""
    try:
        return pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is not as it was published ({error}): download it again.") from None
