"""A dataset on the Hugging Face Hub as rows, its images written to a folder as they come."""

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import fsspec
from huggingface_hub import HfApi

from utils import regions
from utils.workspace import progress, replacing_file

from .layouts import Layout, columns_of, row_of, used
from .own import Row
from .studies import DataError

_ID, _NUMBER = "id", "the number of the row"  # of a study, where the dataset has no column for it


def recognise(name: str, folder: Path, token: str | None) -> tuple[Layout, str]:
    """The layout of the dataset `name`, read as a stream, and its revision; below `folder` go its images.

    Raises DataError, with what to do, where it is not to be had or lacks a column.
    """
    with _sentences(name):
        revision = HfApi(token=token).dataset_info(name).sha
        streams = datasets.load_dataset(name, revision=revision, streaming=True, token=token)
    names = next(iter(streams.values())).features or {}
    pictures = [column for column, feature in names.items() if _is_image(feature)]
    columns = columns_of([_ID, *names], pictures, name)
    told = {**columns, "study": [column for column in columns["study"] if column in names] or [_NUMBER]}
    folder = folder / name / revision
    rows = _rows(name, streams, columns, folder, token)
    return Layout(name.replace("/", "--"), rows, folder, Path(name), [used(told, list(names))]), revision


@contextmanager
def _sentences(name: str):
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the library raises many kinds: not there, gated, no network, several subsets
        said = re.sub(r"\?\S+", "", regions.tidy(str(error)))[:200]  # without an address's signature
        raise DataError(
            f"{name} is neither here nor a dataset on the Hub that can be read ({said}): correct DATA, or "
            "run this cell again; if it is private, set the secret HF_TOKEN."
        ) from None


def _is_image(feature: object) -> bool:
    return isinstance(getattr(feature, "feature", feature), datasets.Image)


def _rows(name: str, streams: dict, columns: dict[str, list[str]], folder: Path, token: str | None):
    """The rows of each split, as their images are written; a split that is the only one is none."""
    with _sentences(name):
        for split, stream in streams.items():
            for row in _split(split, stream, columns, folder, token):
                yield row._replace(split=split if len(streams) > 1 else "")


def _split(split: str, stream, columns: dict, folder: Path, token: str | None) -> Iterator[Row]:
    stream = stream.decode(False)  # the images' own bytes
    for number, record in enumerate(progress(stream, f"{split}: reading from the Hub"), start=1):
        pictures = [picture for column in columns["images"] for picture in _list(record[column])]
        names = [f"{split}/{number:07d}-{place}" for place in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            _keep(picture, folder / name, token)
        yield row_of({_ID: f"{split}-{number:07d}", **record}, columns, f"{split} row {number:,}", names)


def _list(value: object) -> Iterable[dict]:
    return value if isinstance(value, list) else [value] if value else []


def _keep(picture: dict, path: Path, token: str | None) -> None:
    """An image, as it is on the Hub, in a file; one that is there already is not fetched again."""
    inside, address = picture["bytes"], picture["path"] or ""
    if path.is_file() or (inside is None and not address.startswith("hf://")):  # never a file of this machine
        return
    with replacing_file(path) as part, part.open("wb") as kept:
        if inside is not None:
            kept.write(inside)
            return
        with fsspec.open(address, "rb", token=token) as file:
            shutil.copyfileobj(file, kept)
