"""IU X-Ray on disk: download, check, and the annotation and radiographs as studies.

The layout is the quiz's: an annotation, and `images/<id>/<k>.png` beside it
with k = 0, 1, ... (the frontal view first). The annotation holds the splits
train, val and test, each a list of studies with an `id` and either a `report`
(findings by region) or, not yet split into regions, an `original_report`.
"""

import json
import os
import re
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from stat import S_ISLNK
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from . import regions
from .demo import phantoms
from .workspace import counter, write_json

SPLITS = ("train", "val", "test")
ANNOTATIONS = ("annotation.json", "annotation_quiz_all.json")  # the second is the quiz's own name for it
IU_XRAY = "IU X-Ray"
IU_XRAY_STUDIES = {"train": 2069, "val": 296, "test": 590}
IU_XRAY_DRIVE_ID = "1cdcsyJtW8G2YYptlujzDAU-fMXOpew5K"
MOST_BYTES = 40 * 2**30  # of an unpacked archive; the whole collection as PNG takes about 14 GiB

_ID = re.compile(r"[\w-][\w.-]*")  # one folder name: nothing that could lead out of images/
_IMAGE = re.compile(r"\d+\.(png|jpe?g)", re.IGNORECASE)
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    zlib.error,
    struct.error,
    Image.DecompressionBombError,
)
_BAD_ARCHIVE = (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError)


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


def find_data(folder: str | Path = "") -> Path | None:
    """The folder of studies: `folder`, else what `XRAY_DATA` names, else None.

    Raises DataError where a folder is named that holds no annotation.
    """
    folder = folder or os.environ.get("XRAY_DATA", "")
    if not folder:
        return None
    folder = Path(folder).expanduser()
    _annotation(folder)
    return folder


def open_data(folder: str | Path, source: str, place: Path) -> Path:
    """The folder of studies: the one `find_data` gives, else `source` in `place`, brought there once.

    `source` is "iu_xray", which is downloaded, or "phantoms", which are drawn.
    """
    named = find_data(folder)
    if named:
        return named
    if source == "phantoms":
        return phantoms.write(place, **phantoms.DEMO_SET, progress=counter("drawing phantoms"))
    return download(place)


def load_studies(folder: Path, annotation: Path | None = None) -> dict[str, list[Study]]:
    """The studies of a folder in the quiz's layout, by split, in the annotation's order.

    `annotation` is read in place of the folder's own. Studies without an
    image are among them: they have findings all the same. Images are not
    opened here. Raises DataError for an annotation that is missing, not JSON,
    or not in the layout, and for an id that comes twice.
    """
    path = annotation or _annotation(folder)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"There is no annotation {path}: run notebooks/01_region_split.ipynb first."
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): copy or download it again.") from None
    missing = [split for split in SPLITS if not isinstance(_get(content, split), list)]
    if missing:
        raise DataError(
            f"{path} has no list of studies called {' or '.join(missing)}: add it (it may be [])."
        )
    studies: dict[str, list[Study]] = {}
    split_of: dict[str, str] = {}
    for split in SPLITS:
        studies[split] = [_study(entry, split, n, path, folder) for n, entry in enumerate(content[split])]
        for study in studies[split]:
            if study.id in split_of:
                where = " and ".join(dict.fromkeys((split_of[study.id], split)))
                raise DataError(f"{path} has study {study.id} twice ({where}): remove one of the two.")
            split_of[study.id] = split
    return studies


def write_annotation(path: Path, folder: Path, findings: dict[str, dict[str, str]]) -> Path:
    """The annotation of `folder`, to `path`, with `findings` as the reports of validation studies, by id.

    A study that has a report already keeps it.
    """
    content = json.loads(_annotation(folder).read_bytes())
    for entry in content["val"]:
        if entry.get("report") is None and entry["id"] in findings:
            entry["report"] = {name: findings[entry["id"]].get(name, "") for name in regions.ALL}
    return write_json(path, content)


def data_label(folder: Path, splits: dict[str, list[Study]]) -> str:
    """What the studies of `folder` are, as every table, chart and card says it."""
    drawn = folder / "phantoms.json"  # left by whoever draws phantoms
    if drawn.is_file():
        return json.loads(drawn.read_bytes())["label"]
    counts = {split: len(studies) for split, studies in splits.items()}
    return IU_XRAY if counts == IU_XRAY_STUDIES else f"studies of {folder.name}"


def read_view(path: Path, longest_side: int) -> Image.Image:
    """A radiograph as 8-bit grey (mode L), scaled down to `longest_side` pixels where it is larger.

    Samples of more than 8 bits are stretched over the image's own range;
    transparent parts become black. Raises DataError naming a file that
    cannot be read.
    """
    try:
        with Image.open(path) as image:
            view = _grey(image)
    except _DAMAGED as error:
        raise DataError(
            f"{path.parent.name}/{path.name} cannot be read: {regions.tidy(str(error))}"
        ) from None
    view.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS, reducing_gap=None)
    return view


def download(target: Path) -> Path:
    """IU X-Ray as the quiz prepared it, downloaded to `target` unless it is there already.

    Takes up an interrupted download. Raises DataError where the download
    fails, the archive is not what it should be, or `target` holds anything else.
    """
    if _occupied(target):
        _expect(load_studies(target), IU_XRAY_STUDIES, target)
        return target
    archive = target.with_name(f"{target.name}.archive")
    archive.parent.mkdir(parents=True, exist_ok=True)
    try:
        import gdown
    except ImportError:
        raise DataError(
            "The download needs gdown, which is not installed: run `pip install gdown`."
        ) from None
    try:
        gdown.download(id=IU_XRAY_DRIVE_ID, output=str(archive), resume=True)
    except Exception as error:  # gdown lets through whatever its HTTP client raises
        raise DataError(_by_hand(regions.tidy(str(error)))) from error
    if not archive.is_file():
        raise DataError(_by_hand("nothing arrived"))
    unpack(archive, target, expected=IU_XRAY_STUDIES)
    archive.unlink()
    return target


def unpack(
    archive: Path, target: Path, *, expected: dict[str, int] | None = None, most_bytes: int = MOST_BYTES
) -> Path:
    """Unpack a zip or tar archive of studies so that `target` becomes the folder of its annotation.

    All or nothing: a member with an absolute path, `..` or a link, more than
    `most_bytes` in all, or (with `expected`) another number of studies a
    split raises DataError, and so does a `target` that is not empty.
    """
    if _occupied(target):
        raise DataError(
            f"{target} is already there and would be overwritten: move it or name another folder."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        inside = Path(temporary, "archive")
        try:
            _extract(archive, inside, most_bytes)
        except _BAD_ARCHIVE as error:
            raise DataError(
                f"{archive} cannot be unpacked ({error}): if it is damaged, delete it and download it again."
            ) from None
        annotations = [path for name in ANNOTATIONS for path in inside.rglob(name)]
        if not annotations:
            raise DataError(f"{archive} holds no {' or '.join(ANNOTATIONS)}: it is not the quiz's archive.")
        found = min(annotations, key=lambda path: len(path.parts)).parent
        try:
            _expect(load_studies(found), expected, archive)
        except DataError as error:  # name what is there to stay
            raise DataError(str(error).replace(str(inside), str(archive))) from None
        found.replace(target)
    return target


def _occupied(target: Path) -> bool:
    return any(target.iterdir()) if target.is_dir() else target.exists()


def _annotation(folder: Path) -> Path:
    for name in ANNOTATIONS:
        if (folder / name).is_file():
            return folder / name
    what = "has no" if folder.is_dir() else "is not a folder with an"
    raise DataError(
        f"{folder} {what} {ANNOTATIONS[0]}: name the folder that holds it, with images/ beside it."
    )


def _get(content: object, key: str) -> object:
    return content.get(key) if isinstance(content, dict) else None


def _study(entry: object, split: str, position: int, path: Path, folder: Path) -> Study:
    """One entry of the annotation as a study; raises DataError that names the study and the key."""
    name = _get(entry, "id")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        fault = "has no id" if name is None else f"has the id {name!r}, which cannot name a folder"
        raise DataError(f"{path}: study number {position + 1} of {split} {fault}: correct it.")
    report, original = entry.get("report"), entry.get("original_report")
    needed = "report or original_report" if split == "val" else "report"
    if report is None and (split != "val" or original is None):
        raise DataError(f"{path}: study {name} of {split} has no key {needed}: add it.")
    if original is not None and not isinstance(original, str):
        raise DataError(
            f"{path}: study {name} of {split} has an original_report that is not text: correct it."
        )
    return Study(name, split, _findings(report, name, split, path), original or "", _images(folder, name))


def _findings(report: object, name: str, split: str, path: Path) -> dict[str, str] | None:
    if report is None:
        return None
    where = f"{path}: the report of study {name} of {split}"
    if not isinstance(report, dict):
        raise DataError(
            f"{where} is not split into regions: give a text for each of {', '.join(regions.ALL)}."
        )
    unknown = [key for key in report if key not in regions.ALL]
    if unknown:
        raise DataError(
            f"{where} has the region {unknown[0]!r}, which is none of {', '.join(regions.ALL)}: rename it."
        )
    wrong = [key for key, text in report.items() if not isinstance(text, str | None)]
    if wrong:
        raise DataError(f"{where} has findings of {wrong[0]} that are not text: correct them.")
    return regions.mentioned(report, regions.ALL)


def _images(folder: Path, name: str) -> tuple[Path, ...]:
    views = folder / "images" / name
    if not views.is_dir():
        return ()
    return tuple(
        sorted(
            (path for path in views.iterdir() if _IMAGE.fullmatch(path.name)),
            key=lambda path: (int(path.stem), path.name),
        )
    )


def _grey(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":  # more than 8 bits a sample
        samples = np.asarray(image, dtype=np.float64)
        low, high = samples.min(), samples.max()
        return Image.fromarray(np.uint8(np.rint((samples - low) * (255 / (high - low or 1)))))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, "black")
        return Image.alpha_composite(black, image).convert("L")
    return image.convert("L")


class _Member(NamedTuple):
    """One entry of an archive. `special`: neither a file nor a folder."""

    name: str
    size: int
    is_folder: bool
    special: bool
    open: Callable[[], IO[bytes]]


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield [
                _Member(item.filename, item.file_size, item.is_dir(), link, partial(opened.open, item))
                for item in opened.infolist()
                for link in [S_ISLNK(item.external_attr >> 16)]
            ]
    else:
        with tarfile.open(archive) as opened:
            yield [
                _Member(item.name, item.size, item.isdir(), special, partial(opened.extractfile, item))
                for item in opened.getmembers()
                for special in [not (item.isdir() or item.isfile())]
            ]


def _extract(archive: Path, folder: Path, most_bytes: int) -> None:
    """Extract the files of an archive, after a look at the names and sizes of all of them."""
    with _members(archive) as members:
        paths = [PureWindowsPath(member.name) for member in members]  # reads both / and \
        for member, path in zip(members, paths, strict=True):
            if member.special or path.anchor or ".." in path.parts:
                raise DataError(
                    f"{archive} holds {member.name!r}, a link or a path that leads out: delete it."
                )
        if sum(member.size for member in members) > most_bytes:
            raise DataError(f"{archive} unpacks to more than {most_bytes:,} bytes: delete it.")
        for member, path in zip(members, paths, strict=True):
            if member.is_folder:
                continue
            target = folder.joinpath(*path.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy)


def _expect(studies: dict[str, list[Study]], expected: dict[str, int] | None, where: Path) -> None:
    """Raise DataError unless there are as many studies a split as `expected`, and images."""
    found = {split: len(group) for split, group in studies.items()}
    if expected and found != expected:
        counts = " where IU X-Ray has ".join(
            "/".join(f"{number[split]:,}" for split in SPLITS) for number in (found, expected)
        )
        raise DataError(f"{where} has {counts} studies ({'/'.join(SPLITS)}): move it and download it again.")
    if not any(study.images for group in studies.values() for study in group):
        raise DataError(
            f"{where} has no images/<id>/0.png beside its annotation: move it and download it again."
        )


def _by_hand(reason: str) -> str:
    return (
        f"The quiz's archive could not be downloaded ({reason}): download it in a browser from "
        f"https://drive.google.com/file/d/{IU_XRAY_DRIVE_ID}, unpack it, and name the folder in the notebook."
    )
