"""A dataset on the Hugging Face Hub as rows, its images written to a folder as they come."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets
import fsspec
import huggingface_hub

from utils import regions
from utils.workspace import progress, replacing_file

from .layouts import Layout, columns_of, row_of, used
from .own import Row
from .studies import DataError

_ID = "id"  # of a study, where the dataset has no column for it


def recognise(name: str, folder: Path, token: str | None) -> tuple[Layout, str]:
    """The layout of the dataset `name`, read as a stream, and its revision; below `folder` go its images.

    Raises DataError, with what to do, where it is not to be had or lacks a column.
    """
    try:
        revision = huggingface_hub.dataset_info(name, token=token).sha
        streams = datasets.load_dataset(name, revision=revision, streaming=True, token=token)
        names = next(iter(streams.values())).features or {}
    except Exception as error:  # the library raises many kinds: not there, gated, no network, several subsets
        raise DataError(
            f"{name} is neither here nor a dataset on the Hub that can be read "
            f"({regions.tidy(str(error))[:200]}): correct DATA, or set the secret HF_TOKEN if it is private."
        ) from None
    pictures = [column for column, feature in names.items() if _is_image(feature)]
    columns = columns_of([_ID, *names], pictures, name)
    folder = folder / name / revision
    rows = _rows(streams, columns, folder, token)
    return Layout(name.replace("/", "--"), rows, folder, Path(name), [used(columns, list(names))]), revision


def _is_image(feature: object) -> bool:
    return isinstance(getattr(feature, "feature", feature), datasets.Image)


def _rows(streams: dict, columns: dict[str, list[str]], folder: Path, token: str | None) -> Iterator[Row]:
    for split, stream in streams.items():
        for column in columns["images"]:
            kind = datasets.Image(decode=False)
            several = not isinstance(stream.features[column], datasets.Image)
            stream = stream.cast_column(column, datasets.List(kind) if several else kind)
        for number, record in enumerate(progress(stream, f"{split}: reading from the Hub"), start=1):
            pictures = [picture for column in columns["images"] for picture in _list(record[column])]
            names = [f"{split}/{number:07d}-{place}" for place in range(len(pictures))]
            for name, picture in zip(names, pictures, strict=True):
                _keep(picture, folder / name, token)
            row = row_of({_ID: f"{split}-{number:07d}", **record}, columns, f"{split} row {number:,}", names)
            yield row._replace(split=split if len(streams) > 1 else "")


def _list(value: object) -> Iterable[dict]:
    return value if isinstance(value, list) else [value] if value else []


def _keep(picture: dict, path: Path, token: str | None) -> None:
    """An image, as it is on the Hub, in a file; one that is there already is not fetched again."""
    if path.is_file():
        return
    with replacing_file(path) as part:
        if picture["bytes"] is not None:
            part.write_bytes(picture["bytes"])
            return
        with fsspec.open(picture["path"], "rb", token=token) as file:
            part.write_bytes(file.read())
