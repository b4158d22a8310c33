"""DICOM files: which of them are radiographs, whose, and their pixels as a viewer shows them.

pydicom reads them. It is optional: only who has DICOM files needs it.
"""

import os
import warnings
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from .views import rank

if TYPE_CHECKING:
    from pydicom import Dataset

RADIOGRAPHS = ("CR", "DX")
MISSING = "DICOM files need the package pydicom: run %pip install pydicom, then this cell again"

_SUFFIXES = (".dcm", ".dicom")
_PICTURES = (".png", ".jpg", ".jpeg")
_HEAD = [
    *("AccessionNumber", "StudyInstanceUID", "PatientID", "Modality", "ViewPosition", "InstanceNumber"),
    *("NumberOfFrames", "SamplesPerPixel", "PixelData"),
]
_LONG = 1024  # bytes; a longer value, such as the pixels, is passed over when only the head is wanted


class NoPydicom(ValueError):
    """The package is missing; the message says what to do."""


class Header(NamedTuple):
    """Of one file: the ids that a table may name its study by, its patient, and its place among the views."""

    ids: tuple[str, ...]
    patient: str
    order: tuple[int, int]


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its suffix, or by its first bytes where it has none that says so."""
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES or suffix in _PICTURES or not path.is_file():
        return suffix in _SUFFIXES
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def find(folder: Path) -> Iterable[Path]:
    """The DICOM files below `folder`, in the order of their names."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if is_dicom(path := Path(place, name)))


def header(path: Path) -> Header:
    """The head of a DICOM file. Raises ValueError, saying why, where it is no radiograph or has no pixels."""
    with _sentences():
        dataset = _library().dcmread(path, defer_size=_LONG, specific_tags=_HEAD)
        _check(dataset)
        ids = (dataset.get(name) for name in ("AccessionNumber", "StudyInstanceUID"))
        order = rank(dataset.get("ViewPosition")), int(dataset.get("InstanceNumber") or 0)
        return Header(tuple(str(name) for name in ids if name), str(dataset.get("PatientID") or ""), order)


def read(path: Path) -> Image.Image:
    """A radiograph as 8-bit grey (mode L), in its own window and with bone white.

    The order is the standard's: modality LUT or rescale, then the first VOI
    LUT or window, then MONOCHROME1 inverted. Without a window the samples are
    stretched over their own range. Padding is black. Raises ValueError where
    it cannot be done.
    """
    with _sentences():
        dataset = _library().dcmread(path)
        _check(dataset)
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
    """The least and the greatest sample, but for strays such as dead pixels.

    A stray lies further from the middle 98 % of the samples than half of their spread.
    """
    low, high = np.percentile(samples, (1, 99))
    reach = (high - low) / 2
    near = samples[(samples >= low - reach) & (samples <= high + reach)] if reach else samples
    return float(near.min()), float(near.max())


def _library():
    try:
        import pydicom.pixels
    except ModuleNotFoundError:
        raise NoPydicom(MISSING) from None
    return pydicom


@contextmanager
def _sentences():
    """What pydicom raises, of many kinds, as a ValueError; its warnings of small faults are not shown."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged file raises nearly anything; a missing decoder a RuntimeError
        raise ValueError(f"{error or type(error).__name__}") from None


def _check(dataset: "Dataset") -> None:
    modality, frames = dataset.get("Modality") or "unknown", int(dataset.get("NumberOfFrames") or 1)
    if modality not in RADIOGRAPHS:
        raise ValueError(f"modality {modality}, not {' or '.join(RADIOGRAPHS)}")
    if "PixelData" not in dataset:
        raise ValueError("no pixels")
    if frames > 1:
        raise ValueError(f"{frames} frames, not one")
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise ValueError("in colour")


def _padding(dataset: "Dataset", stored: np.ndarray) -> np.ndarray:
    """Which samples only fill the frame round the picture, by the value or the range that the file gives."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(stored.shape, bool)
    ends = sorted(_of_type(int(end), stored.dtype) for end in (value, value if limit is None else limit))
    return (stored >= ends[0]) & (stored <= ends[1])


def _of_type(value: int, kind: np.dtype) -> int:
    """A value that was written with the other sign, such as 65535 for -1, as the samples have it."""
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    return value + (most - least + 1) * (int(value < least) - int(value > most))


def _windowed(dataset: "Dataset", stored: np.ndarray, picture: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The samples after modality and VOI, and the two values that are shown black and white.

    picture: which samples are no padding
    """
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    samples = apply_modality_lut(stored, dataset)
    if table := dataset.get("VOILUTSequence"):
        shown = apply_voi_lut(np.rint(samples).astype(np.int32), dataset).astype(np.float64)
        return shown, 0, 2 ** table[0].LUTDescriptor[2] - 1
    window = _window(dataset)
    if window is None:
        return samples.astype(np.float64), *own_range(samples[picture])
    # What lies far below and far above the window; a negative slope turns the two round.
    with np.errstate(over="ignore"):
        low, high = apply_voi_lut(np.array([-1e12, 1e12]), dataset, window)
    return apply_voi_lut(samples, dataset, window), float(low), float(high)


def _window(dataset: "Dataset") -> int | None:
    """The number of the first window that has a centre and a width that can be; None without one."""
    if not dataset.get("VOILUTFunction"):
        dataset.VOILUTFunction = "LINEAR"  # the standard's default, where the element is missing or empty
    least = 1 if dataset.VOILUTFunction == "LINEAR" else 0
    ends = (np.atleast_1d(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    windows = enumerate(zip(*ends, strict=False))
    return next((n for n, (at, width) in windows if at is not None and width and width >= least), None)
