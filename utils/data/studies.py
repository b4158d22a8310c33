"""IU X-Ray on disk: the annotation and the radiographs as studies.

The layout is the quiz's: an annotation, and `images/<id>/<k>.png` beside it with k = 0, 1, ... (the frontal
view first). The annotation holds the splits train, val and test, each a list of studies with an `id` and
either a `report` (findings by region) or, not yet split into regions, an `original_report`. A study may list
its `images` itself, as paths below `images/`.
"""

import json
import os
import re
import reprlib
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from utils import regions
from utils.run.disk import read_json, write_json

from . import dicom

SPLITS = ("train", "val", "test")
ANNOTATIONS = ("annotation.json", "annotation_quiz_all.json")  # the second is the quiz's own name for it
IU_XRAY = "IU X-Ray"
IU_XRAY_STUDIES = {"train": 2069, "val": 296, "test": 590}

_ID = re.compile(r"[\w-][\w.-]*")  # one folder name: nothing that could lead out of images/
_LONGEST_ID = 255  # bytes of one folder name
_IMAGE = re.compile(r"\d+\.(png|jpe?g)", re.IGNORECASE)
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error, Image.DecompressionBombError)


class DataError(ValueError):
    """The studies cannot be read; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Study:
    """One examination. `findings` holds the regions it mentions; None: not yet split into regions."""

    id: str
    split: str
    findings: dict[str, str] | None
    original_report: str
    images: tuple[Path, ...]


def find_annotation(folder: Path) -> Path:
    """The annotation of a folder of studies. Raises DataError where there is none."""
    for name in ANNOTATIONS:
        if (folder / name).is_file():
            return folder / name
    lacks = f"{'has no' if folder.is_dir() else 'is not a folder with an'} {ANNOTATIONS[0]}"
    raise DataError(f"{folder} {lacks}: name the folder that contains it and images/, or a table of studies.")


def load_studies(folder: Path, annotation: Path | None = None) -> dict[str, list[Study]]:
    """The studies of a folder in the quiz's layout, by split, in the annotation's order; some have no images.

    `annotation` is read in place of the folder's own. Images are not opened. Raises DataError for an
    annotation that is missing, not JSON, or not in the layout, and for an id that comes twice.
    """
    path = annotation or find_annotation(folder)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        lacks = f"There is no annotation {path}"
        raise DataError(f"{lacks}: run notebooks/01_region_split.ipynb first.") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): copy or download it again.") from None
    except RecursionError:
        raise DataError(f"{path} is nested too deep for an annotation: copy or download it again.") from None
    missing = [split for split in SPLITS if not isinstance(_get(content, split), list)]
    if missing:
        raise DataError(f"{path} has no list of studies named {' or '.join(missing)}: add it (it may be []).")
    studies, split_of = {}, {}
    for split in SPLITS:
        studies[split] = [_study(entry, split, n, path, folder) for n, entry in enumerate(content[split])]
        for study in studies[split]:
            if study.id in split_of:
                where = " and ".join(dict.fromkeys((split_of[study.id], split)))
                raise DataError(f"{path} has study {study.id} twice ({where}): remove one of the two.")
            split_of[study.id] = split
    return studies


def write_annotation(path: Path, folder: Path, findings: dict[str, dict[str, str]]) -> Path:
    """The annotation of `folder` to `path`, with `findings`, by id, as reports of studies that have none."""
    content = json.loads(find_annotation(folder).read_bytes())
    for entry in chain.from_iterable(content[split] for split in SPLITS):
        if entry.get("report") is None and entry["id"] in findings:
            entry["report"] = {name: findings[entry["id"]].get(name, "") for name in regions.ALL}
    return write_json(path, content)


def data_label(folder: Path, splits: dict[str, list[Study]]) -> str:
    """What the studies of `folder` are, as every table, chart and card says it."""
    drawn = folder / "phantoms.json"  # left by whoever draws phantoms
    if drawn.is_file():
        return read_json(drawn)["label"]
    counts = {split: len(studies) for split, studies in splits.items()}
    return IU_XRAY if counts == IU_XRAY_STUDIES else f"studies of {folder.name}"


def read_view(path: Path, longest_side: int) -> Image.Image:
    """A radiograph as 8-bit grey (mode L), upright, scaled down to `longest_side` pixels where it is larger.

    More than 8 bits are stretched over the image's own range (see `dicom.own_range`), DICOM is shown in its
    own window, transparent parts become black. Raises DataError naming a file that cannot be read.
    """
    try:
        if dicom.is_dicom(path):
            view = dicom.read(path)
        else:
            with Image.open(path) as image:
                image.load()
                with suppress(*DAMAGED):  # an orientation that cannot be read turns nothing
                    ImageOps.exif_transpose(image, in_place=True)
                view = _grey(image)
    except DAMAGED as error:
        reason = regions.tidy(str(error))
        raise DataError(f"{path.parent.name}/{path.name} cannot be read: {reason}") from None
    view.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS, reducing_gap=None)
    return view


def check_id(name: object, where: str) -> None:
    """Raises DataError, beginning with `where`, for a study's id that cannot name a folder."""
    if not isinstance(name, str) or not _ID.fullmatch(name) or len(name.encode()) > _LONGEST_ID:
        fault = "no id" if name is None else f"the id {reprlib.repr(name)}, which cannot name a folder"
        raise DataError(f"{where} has {fault}: correct it.")


def _get(content: object, key: str) -> object:
    return content.get(key) if isinstance(content, dict) else None


def _study(entry: object, split: str, position: int, path: Path, folder: Path) -> Study:
    """One entry of the annotation as a study; raises DataError that names the study and the key."""
    name = _get(entry, "id")
    check_id(name, f"{path}: study number {position + 1} of {split}")
    where, report, original = f"study {name} of {split}", entry.get("report"), entry.get("original_report")
    if report is None and original is None:
        raise DataError(f"{path}: {where} has no key report or original_report: add it.")
    if not isinstance(original, str | None):
        raise DataError(f"{path}: {where} has an original_report that is not text: correct it.")
    findings = None if report is None else _findings(report, f"{path}: the report of {where}")
    listed = entry.get("images")
    images = _images(folder, name) if listed is None else _listed(listed, f"{path}: study {name}", folder)
    return Study(name, split, findings, original or "", images)


def _findings(report: object, where: str) -> dict[str, str]:
    names = ", ".join(regions.ALL)
    if not isinstance(report, dict):
        raise DataError(f"{where} is not split into regions: give a text for each of {names}.")
    for key, text in report.items():
        if key not in regions.ALL:
            raise DataError(f"{where} has the region {key!r}, which is none of {names}: rename it.")
        if not isinstance(text, str | None):
            raise DataError(f"{where} has findings of {key} that are not text: correct them.")
    return regions.mentioned(report, regions.ALL)


def _images(folder: Path, name: str) -> tuple[Path, ...]:
    views = folder / "images" / name
    images = (path for path in views.iterdir() if _IMAGE.fullmatch(path.name)) if views.is_dir() else ()
    return tuple(sorted(images, key=lambda path: (int(path.stem), path.name)))


def leads_out(path: str) -> bool:
    """Whether a path leaves the folder that it is below."""
    steps = PurePosixPath(os.path.normpath(path.replace("\\", "/")))
    return steps.is_absolute() or ".." in steps.parts


def _listed(images: object, where: str, folder: Path) -> tuple[Path, ...]:
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise DataError(f"{where} has images that are not a list of paths: correct them.")
    for image in filter(leads_out, images):
        leads = f"{reprlib.repr(image)}, which leads out of images/"
        raise DataError(f"{where} has the image {leads}: correct it.")
    return tuple(folder / "images" / image for image in images)


def _grey(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":  # more than 8 bits a sample
        samples = np.asarray(image, dtype=np.float64)
        low, high = dicom.own_range(samples)
        grey = np.clip((samples - low) * (255 / (high - low or 1)), 0, 255)
        return Image.fromarray(np.uint8(np.rint(grey)))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return image.convert("L")
