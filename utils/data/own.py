"""Studies of one's own, as rows of a table, brought into the layout that `studies` describes.

A row is a study, or one image of a study. The images stay where they are: the new folder's `images` is a link
to them. What spoils the whole, such as a patient in two splits, is refused in one sentence; what spoils one
study or one image is left out, counted and said.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from utils import regions
from utils.run.disk import replacing, write_json
from utils.run.progress import progress

from . import dicom
from .studies import ANNOTATIONS, SPLITS, DataError, check_id, leads_out

SPLIT_NAMES = {"": "", "train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val")
ORIGIN = "origin.json"  # in the folder of studies: where they came from
SPLIT_SHARES = "80/10/10"  # of train, val and test, where the table has no splits

DIFFERENT = object()  # in place of the findings of a study whose rows contradict one another


class Row(NamedTuple):
    """What a row says; `images` are paths below the images' folder. Empty: the table does not say."""

    study: str
    patient: str
    split: str
    findings: str | dict[str, str]  # as written, or by region
    images: tuple[str, ...]


class Faults:
    """Faults by kind, with how often and the first case; `decoded` is what `dicom.header` knows of pixels."""

    def __init__(self) -> None:
        self.counts, self.first = Counter(), {}
        self.decoded: set[tuple] = set()

    def add(self, fault: str, case: str) -> None:
        """Count a fault, and keep its first case."""
        self.counts[fault] += 1
        self.first.setdefault(fault, case)

    def sentences(self) -> list[str]:
        """One per kind: what, how many, and a case."""
        cases = ((fault, number, ", such as" if number > 1 else ",") for fault, number in self.counts.items())
        return [f"{fault}: {number:,}{such} {self.first[fault]}." for fault, number, such in cases]

    def refuse(self, where: str | Path) -> None:
        """Raises DataError with the first kind, if there is any."""
        for sentence in self.sentences():
            raise DataError(f"{where}: {sentence} Correct the table.")


class Layout(NamedTuple):
    """What is read, and what to say of it."""

    name: str
    rows: Iterator[Row]
    images: Path
    table: Path
    notes: list[str]  # said before the rows are read
    counts: Faults  # said after
    opened: bool = False  # the images were found by their heads, so these have been read


def write(layout: Layout, target: Path, source: dict) -> Path:
    """The studies of `layout` as the folder `target`, with an annotation and a link to the folder of images.

    What was found is printed, in a sentence each, and noted beside `source` in the folder. Raises DataError
    for what spoils the whole, naming the table, and leaves what was in `target` as it was.
    """
    images, where, faults, views = layout.images, layout.table, Faults(), 0
    studies = merged(layout.rows, where)
    rule = _split(studies, where)
    annotation: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for name in progress(list(studies), "checking images"):
        row = studies.pop(name)
        by_region = isinstance(row.findings, dict)
        findings = regions.mentioned(row.findings, regions.ALL) if by_region else row.findings
        if findings is DIFFERENT:
            faults.add("Studies whose rows have different findings or patients, left out", name)
        elif not findings:
            faults.add("Studies without findings, left out", name)
        elif usable := [path for path in row.images if _usable(images / path, path, faults, layout.opened)]:
            entries = annotation[row.split]
            check_id(name, f"{where}: study number {len(entries) + 1} of {row.split}")
            views += len(usable)
            report = {"report" if by_region else "original_report": findings}
            entries.append({"id": name, **report, "images": usable})
        else:
            faults.add("Studies without an image, left out", name)
    notes = [rule, *layout.counts.sentences(), *faults.sentences()]
    counts = {split: len(group) for split, group in annotation.items()}
    if not counts["train"]:
        raise DataError(f"{where}: no study is left to train on. {' '.join(faults.sentences())}".strip())
    with replacing(target) as folder:
        (folder / "images").symlink_to(images.resolve(), target_is_directory=True)
        write_json(folder / ANNOTATIONS[0], annotation)
        write_json(folder / ORIGIN, {**source, "studies": counts, "views": views, "notes": notes})
    print(f"{sum(counts.values()):,} studies and {views:,} images from {where}.", *notes, sep="\n")
    return target


def split_of(key: str) -> str:
    """The split of a patient or study by the hash of its id: the same whenever and wherever it is asked."""
    tenth = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) * 10 // 2**64
    return "train" if tenth < 8 else "val" if tenth < 9 else "test"


def merged(rows: Iterable[Row], where: str | Path) -> dict[str, Row]:
    """The rows by study: the images of one study together. Refuses rows of a study that differ."""
    studies: dict[str, Row] = {}
    faults = Faults()
    for number, row in enumerate(rows, start=1):
        split = SPLIT_NAMES.get(row.split.strip().lower())
        before = studies.get(row.study)
        if fault := _fault(number, row, split, before):
            faults.add(*fault)
        elif before is None:
            studies[row.study] = row._replace(split=split)
        elif (before.findings, before.patient) != (row.findings, row.patient):
            studies[row.study] = before._replace(findings=DIFFERENT)
        else:
            images = dict.fromkeys((*before.images, *row.images))
            studies[row.study] = before._replace(images=tuple(images))
    faults.refuse(where)
    if not studies:
        raise DataError(f"{where} has no studies: add a row for each.")
    return studies


def _fault(number: int, row: Row, split: str | None, before: Row | None) -> tuple[str, str] | None:
    """What in a row spoils the whole, and where it is; `before` holds the earlier rows of its study."""
    if not row.study:
        return "Rows without a study's id", f"row {number:,}"
    if split is None:
        return f"Rows with a split other than {', '.join(SPLITS)}", f"{row.split!r} of {row.study}"
    if path := next(filter(leads_out, row.images), None):
        return "Images outside their folder", f"{path} of study {row.study}"
    if before and before.split != split:
        return "Studies in two splits", f"{row.study} ({before.split or 'none'} and {split or 'none'})"
    return None


def _split(studies: dict[str, Row], where: str | Path) -> str:
    """Gives each study a split, and says in a sentence how; refuses patients in two of them."""
    unsplit = [name for name, row in studies.items() if not row.split]
    if 0 < len(unsplit) < len(studies):
        some = f"{len(unsplit):,} of {len(studies):,} studies"
        raise DataError(f"{where}: {some} have no split, such as {unsplit[0]}: give all of them one.")
    for name in unsplit:
        studies[name] = studies[name]._replace(split=split_of(studies[name].patient or name))
    faults, splits = Faults(), defaultdict(dict)
    for row in studies.values():
        splits[row.patient][row.split] = None
    for patient, several in splits.items():
        if patient and len(several) > 1:
            faults.add("Patients in two splits", f"{patient} ({' and '.join(several)})")
    faults.refuse(where)
    patients = [row.patient for row in studies.values() if row.images]  # without an image it is left out
    unknown = patients.count("")
    if not unsplit:
        rest = "not each study's patient is known, so one may be" if unknown else "no patient is"
        return f"The splits are the table's own; {rest} in two of them."
    who = "patients" if any(patients) else "studies"
    rule = f"Without a column of splits, {who} are split {SPLIT_SHARES} by a hash of their ids"
    rule += ", the same each time"
    if not unknown:
        return f"{rule}."
    if not any(patients):
        return f"{rule}; one patient's studies may be in two splits."
    share = f"{unknown:,} of {len(patients):,}"
    return f"{rule}; where the patient is not known ({share}), the study's own id counts."


def dicom_head(path: Path, name: str, faults: Faults) -> dicom.Header | None:
    """A DICOM file's head; None for no radiograph, which is counted. DataError where a package is missing."""
    try:
        head = dicom.header(path, faults.decoded)
    except dicom.NoPackage as error:
        raise DataError(f"{error}.") from None
    except (OSError, ValueError) as error:
        why = f" ({regions.tidy(str(error.__cause__))})" if error.__cause__ else ""
        faults.add(f"DICOM files left out ({regions.tidy(str(error))})", f"{name}{why}")
        return None
    if head.modality not in dicom.RADIOGRAPHS:
        modality = head.modality or "not given"
        faults.add(f"DICOM files taken for radiographs, though their modality is {modality}", name)
    return head


def _usable(path: Path, name: str, faults: Faults, opened: bool) -> bool:
    """Whether an image is there and, if it is DICOM, a radiograph; of one that was `opened` this is known."""
    if not path.is_file():
        faults.add("Images that are not there, left out", name)
        return False
    return opened or not dicom.is_dicom(path) or dicom_head(path, name, faults) is not None
