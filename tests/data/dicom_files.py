"""DICOM files as machines write them, made with pydicom."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # every value of 12 bits once


def write(path: Path, samples: np.ndarray | None = RAMP, photometric="MONOCHROME2", bits=12, **tags) -> Path:
    """A radiograph of `samples`, or one without pixels; `tags` are further elements by keyword."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Modality = "DX"
    if samples is not None:
        dataset.set_pixel_data(samples, photometric, bits)
    for name, value in tags.items():
        if isinstance(value, tuple):  # with another type than the dictionary's
            dataset.add_new(name, value[1], value[0])
        else:
            setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def compressed(path: Path, syntax: UID, stream: bytes | None = None, **how) -> Path:
    """The same with its pixels compressed: as `stream` or, without it, by pydicom."""
    dataset = dcmread(write(path, **how))
    if stream is None:
        dataset.compress(syntax)
    else:
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return path


def picture(samples: np.ndarray, form: str, **how) -> bytes:
    """`samples` as Pillow compresses them."""
    stream = io.BytesIO()
    Image.fromarray(samples).save(stream, form, **how)
    return stream.getvalue()


def lookup(first: int, bits: int, values: list[int]) -> list[Dataset]:
    """A VOI LUT Sequence: `values` for the samples from `first` on."""
    table = Dataset()
    table.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    table.add_new("LUTData", "US", values)
    return [table]
