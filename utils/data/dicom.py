"""DICOM files by pydicom, which is optional: which are radiographs, whose, and as a viewer shows them."""

import os
import re
import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pydicom import Dataset

RADIOGRAPHS = ("CR", "DX")
MISSING = "DICOM files need the package pydicom: run %pip install pydicom, then this cell again"
NO_DECODER = (
    "DICOM files in {} need a decoder: run %pip install pylibjpeg[all], restart the runtime, then run "
    "this notebook again"
)

_SUFFIXES = (".dcm", ".dicom")
_PICTURES = (".png", ".jpg", ".jpeg")
_MAY_BE = ("DR", "RG", "OT", "")  # modalities that radiographs of public collections have, and others, too
_CLASSES = re.compile(  # of files that are radiographs, or may be
    r"(Computed Radiography|(Multi-frame Grayscale (Byte|Word) )?Secondary Capture) Image Storage"
    r"|Digital X-Ray Image Storage - For (Presentation|Processing)"
)
_NO_FILM = ("SD", "DRW", "DV")  # conversions: a scanned document, a drawing, a video
_SLICE = ("SliceThickness", "ImagePositionPatient")
_DECODING = ("PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation")
_HEAD = [
    *("AccessionNumber", "StudyInstanceUID", "PatientID", "Modality", "ViewPosition", "InstanceNumber"),
    *("NumberOfFrames", "SamplesPerPixel", "PixelData", "SOPClassUID", "ConversionType"),
    *(*_SLICE, *_DECODING),
]
_FRONTAL = re.compile(r"(PA|AP|POSTERO|ANTERO|FRONTAL)(\b|-?(ANTERIOR|POSTERIOR))")
_SIDES = re.compile(r"(L|LL|RL|[LR][AP]O|[LR]LO|SWIMMERS)$|.*LATERAL")
_LONG = 1024  # bytes; a longer value, such as the pixels, is passed over when only the head is wanted


class NoPackage(ValueError):
    """A package is missing; the message says what to do."""


class Header(NamedTuple):
    """Of a file: ids that a table may name its study by, patient, place among the views, modality or ""."""

    ids: tuple[str, ...]
    patient: str
    order: tuple[int, int]
    modality: str


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its suffix, or by its first bytes where it has none that says so."""
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES or suffix in _PICTURES or not path.is_file():
        return suffix in _SUFFIXES
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def find(folder: Path) -> Iterable[Path]:
    """The DICOM files below `folder`, in the order of their names."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if is_dicom(path := Path(parent, name)))


def rank(position: object) -> int:
    """The place of a view by its position: 0 PA and AP, 1 other frontal ones, 2 unknown, 3 from the side."""
    name = str(position or "").strip().upper()
    if name in ("PA", "AP"):
        return 0
    if "OBLIQUE" not in name and _FRONTAL.match(name):
        return 1
    return 3 if "OBLIQUE" in name or _SIDES.match(name) else 2


def in_order(views: Iterable, rank_of: Callable[..., int]) -> list:
    """A study's views, frontal ones first; without one, those of unknown position before lateral ones."""
    views = list(views)
    frontal = any(rank_of(view) == 0 for view in views)
    return sorted(views, key=lambda view: rank_of(view) > 0 if frontal else rank_of(view))


def header(path: Path, decoded: set[tuple] | None = None) -> Header:
    """The head of a DICOM file. Raises ValueError, saying why, where it is no radiograph or has no pixels.

    decoded: the kinds of pixels of which a file was read before; of a new kind the first file's are read
    """
    with _opened(path, defer_size=_LONG, specific_tags=_HEAD) as dataset:
        ids = (dataset.get(name) for name in ("AccessionNumber", "StudyInstanceUID"))
        order = rank(dataset.get("ViewPosition")), int(dataset.get("InstanceNumber") or 0)
        patient, modality = str(dataset.get("PatientID") or ""), _modality(dataset)
        head = Header(tuple(str(name) for name in ids if name), patient, order, modality)
    syntax = dataset.file_meta.TransferSyntaxUID
    pixels = (syntax, *(str(dataset.get(name)) for name in _DECODING))
    if decoded is not None and pixels not in decoded:
        try:
            read(path)
        except (OSError, ValueError) as error:
            from pydicom.pixels import get_decoder

            lacks = any(name.startswith("pylibjpeg") for name in get_decoder(syntax).missing_dependencies)
            advice = "; %pip install pylibjpeg[all] and a restart may help" if lacks else ""
            raise ValueError(f"pixels that cannot be read, {_short(syntax)}{advice}") from error
        decoded.add(pixels)
    return head


def read(path: Path) -> Image.Image:
    """A radiograph as 8-bit grey (mode L), in its own window and with bone white.

    The order is the standard's: modality LUT or rescale, then the first VOI LUT or window, then MONOCHROME1
    inverted. Without a window the samples are stretched over their own range. Padding is black. Raises
    ValueError where it cannot be done.
    """
    with _opened(path) as dataset:
        stored = dataset.pixel_array
        padding = _padding(dataset, stored)
        if padding.all():
            raise ValueError("nothing but padding")
        samples, low, high = _windowed(dataset, stored, ~padding)
        grey = np.clip((samples - low) / ((high - low) or 1), 0, 1) * 255
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            grey = 255 - grey
        grey[padding] = 0
        return Image.fromarray(np.uint8(np.rint(grey)))


def own_range(samples: np.ndarray) -> tuple[float, float]:
    """The least and the greatest sample, without strays far outside the middle 98 % of all samples."""
    low, high = np.percentile(samples, (1, 99))
    reach = (high - low) / 2
    near = samples[(samples >= low - reach) & (samples <= high + reach)] if reach else samples
    return float(near.min()), float(near.max())


@contextmanager
def _opened(path: Path, **options):
    """A radiograph's dataset. What pydicom raises becomes a ValueError, its warnings are not shown."""
    try:
        import pydicom.pixels
    except ModuleNotFoundError:
        raise NoPackage(MISSING) from None
    try:
        with warnings.catch_warnings(action="ignore"):
            dataset = pydicom.dcmread(path, **options)
            _check(dataset)
            yield dataset
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged file raises nearly anything; a missing decoder a RuntimeError
        raise ValueError(f"{error or type(error).__name__}") from None


def _check(dataset: "Dataset") -> None:
    """Raises ValueError for what is no single grey radiograph, NoPackage where its decoder is missing."""
    from pydicom.pixels import get_decoder

    _modality(dataset)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if "PixelData" not in dataset:
        raise ValueError("no pixels")
    if frames > 1:
        raise ValueError(f"{frames} frames, not one")
    grey = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).startswith("MONOCHROME")
    if dataset.get("SamplesPerPixel", 1) != 1 or not grey:
        raise ValueError("in colour")
    if not get_decoder(syntax := dataset.file_meta.TransferSyntaxUID).is_available:
        raise NoPackage(NO_DECODER.format(_short(syntax)))


def _modality(dataset: "Dataset") -> str:
    """The modality. Raises ValueError for no projection radiograph; the rest decides where it says little."""
    modality = str(dataset.get("Modality") or "").strip().upper()
    if modality in RADIOGRAPHS:
        return modality
    storage = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    storage = storage.name if storage and storage.name != storage else ""  # "" for a private class, too
    conversion = str(dataset.get("ConversionType") or "")
    if modality not in _MAY_BE:
        why = ""
    elif storage and not _CLASSES.fullmatch(storage):
        why = f" ({storage})"
    elif conversion in _NO_FILM:
        why = f" (conversion {conversion})"
    elif any(dataset.get(name) is not None for name in _SLICE):
        why = " (a slice)"
    else:
        return modality
    raise ValueError(f"modality {modality or 'unknown'}{why}, not {' or '.join(RADIOGRAPHS)}")


def _short(syntax) -> str:
    """The name of a transfer syntax without its details."""
    return re.split(r", | \(", syntax.name)[0]


def _padding(dataset: "Dataset", stored: np.ndarray) -> np.ndarray:
    """Which samples only fill the frame round the picture, by the value or the range that the file gives."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(stored.shape, bool)
    least, most = np.iinfo(stored.dtype).min, np.iinfo(stored.dtype).max
    ends = (int(end) for end in (value, value if limit is None else limit))
    # A value written with the other sign, such as 65535 for -1, becomes what the samples have.
    low, high = sorted(end + (most - least + 1) * ((end < least) - (end > most)) for end in ends)
    return (stored >= low) & (stored <= high)


def _windowed(dataset: "Dataset", stored: np.ndarray, picture: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The samples after modality and VOI, and the two shown black and white; `picture` is no padding."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    samples = apply_modality_lut(stored, dataset)
    if table := dataset.get("VOILUTSequence"):
        shown = apply_voi_lut(np.rint(samples).astype(np.int32), dataset).astype(np.float64)
        return shown, 0, 2 ** table[0].LUTDescriptor[2] - 1
    if not dataset.get("VOILUTFunction"):
        dataset.VOILUTFunction = "LINEAR"  # the standard's default, where the element is missing or empty
    least = 1 if dataset.VOILUTFunction == "LINEAR" else 0
    ends = (np.atleast_1d(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    windows = enumerate(zip(*ends, strict=False))
    usable = (n for n, (centre, width) in windows if centre is not None and width and width >= least)
    if (window := next(usable, None)) is None:
        return samples.astype(np.float64), *own_range(samples[picture])
    # What lies far below and far above the window; a negative slope turns the two round.
    with np.errstate(over="ignore"):
        low, high = apply_voi_lut(np.array([-1e12, 1e12]), dataset, window)
    return apply_voi_lut(samples, dataset, window), float(low), float(high)
