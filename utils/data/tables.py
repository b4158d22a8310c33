"""Tables of one's own: CSV or JSON lines, with a row for each study or for each image of one."""

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TextIO

from utils import regions
from utils.run.progress import progress

from . import dicom
from .own import Faults, Layout, Row, dicom_head
from .studies import DataError

TABLES = (".csv", ".csv.gz", ".jsonl")
# What a column is for, and its names, without regard to case, spaces and underscores.
COLUMNS = {
    "study": ("study", "studyid", "id", "accessionnumber", "studyinstanceuid"),
    "patient": ("patient", "patientid", "subjectid"),
    "split": ("split",),
    "findings": ("findings", "report"),
}
FORM = f"name them study, findings (or {', '.join(regions.ALL)}), images and, where known, split and patient"
_IMAGES = re.compile(r"(images?|imagepaths?|paths?|files?)\d*")


def names_of(path: Path) -> list[str]:
    """The names of a table's columns. Raises DataError for a file that is no table."""
    if path.suffix.lower() == ".jsonl":  # each line names its own
        return list(dict.fromkeys(chain.from_iterable(_records(path))))
    with _opened(path) as file:
        return list(dict.fromkeys(next(_csv(file), [])))


def layout_of(path: Path, name: str, names: list[str]) -> Layout:
    """The layout of a table with the columns `names`. Raises DataError without those that are needed."""
    pictures = [name for name in names if _IMAGES.fullmatch(_plain(name))]
    need_images = not pictures and not any(dicom.find(path.parent))
    columns = columns_of(names, pictures, str(path), need_images)
    notes = [used(columns, names)]
    rows = _rows(path, columns, {} if pictures else _heads(path.parent, notes))
    return Layout(name, rows, path.parent, path, notes, Faults(), opened=not pictures)


def columns_of(names: list[str], images: list[str], where: str, need_images=True) -> dict[str, list]:
    """The columns by what they are for. Raises DataError with those that are missing and those there are."""
    known = {_plain(name): name for name in reversed(names)}
    columns = {use: [known[a] for a in aliases if a in known][:1] for use, aliases in COLUMNS.items()}
    columns |= {"regions": [name for name in names if _plain(name) in regions.ALL], "images": images}
    has = columns | {"findings": columns["findings"] + columns["regions"]}
    needed = ("study", "findings", "images") if need_images else ("study", "findings")
    if missing := [use for use in needed if not has[use]]:
        lacks = f"has no column for {' or '.join(missing)}"
        raise DataError(f"{where} {lacks}: its columns are {', '.join(names)}; {FORM}.")
    return columns


def used(columns: dict[str, list[str]], names: list[str]) -> str:
    """In a sentence: which columns are read, as what, and which are not."""
    read = [f"{use} from {', '.join(chosen)}" for use, chosen in columns.items() if chosen]
    unread = [name for name in names if not any(name in chosen for chosen in columns.values())]
    return f"Columns: {'; '.join(read)}{'; not used: ' if unread else ''}{', '.join(unread)}."


def row_of(record: dict, columns: dict[str, list[str]], where: str, images: Iterable[str]) -> Row:
    """A record of a table as a row. Raises DataError, beginning with `where`, for what is not text."""
    texts = [name for use, names in columns.items() if use != "images" for name in names]
    read = {name: _text(record.get(name), f"{where}: {name}") for name in texts}
    study, patient, split, whole = ("".join(map(read.get, columns[use])) for use in COLUMNS)
    by_region = {_plain(name): read[name] for name in columns["regions"]}
    return Row(study, patient, split, by_region if any(by_region.values()) else whole, tuple(images))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _rows(path: Path, columns: dict[str, list[str]], heads: dict[str, list]) -> Iterator[Row]:
    folder = path.parent.absolute()
    for number, record in enumerate(_records(path), start=1):
        images = [image for name in columns["images"] for image in paths(record.get(name), folder)]
        row = row_of(record, columns, f"{path}: row {number:,}", images)
        if files := heads.get(row.study):
            patient = row.patient or files[0][1].patient
            row = row._replace(patient=patient, images=tuple(name for name, _ in files))
        yield row


def _heads(folder: Path, notes: list[str]) -> dict[str, list[tuple[str, dicom.Header]]]:
    """The DICOM files of a folder by their study's ids, frontal views first; notes say what is left out."""
    files_of, faults = {}, Faults()
    for path in progress(dicom.find(folder), "reading DICOM heads"):
        name = path.relative_to(folder).as_posix()
        if (head := dicom_head(path, name, faults)) is None:
            continue
        for key in head.ids:
            files_of.setdefault(key, []).append((name, head))
    for files in files_of.values():
        files.sort(key=lambda file: file[1].order[1])
        files[:] = dicom.in_order(files, lambda file: file[1].order[0])
    notes += faults.sentences()
    notes.append("Images are found by AccessionNumber or StudyInstanceUID, as the table names none.")
    return files_of


def paths(value: object, folder: Path) -> list[str]:
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


def _records(path: Path) -> Iterator[dict[str, object]]:
    with _opened(path) as file:
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


def _csv(file: TextIO):
    """The lines of a CSV, whichever of comma, semicolon and tab its first one has most of."""
    head = file.readline()
    file.seek(0)
    return csv.reader(file, delimiter=max(",;\t", key=head.count))


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The text of a table. Raises DataError, in one sentence, for a file that is none."""
    open_file = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with open_file(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8: save it again as CSV UTF-8.") from None
    except (csv.Error, json.JSONDecodeError, RecursionError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}): save it again.") from None
