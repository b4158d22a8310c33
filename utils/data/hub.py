"""A dataset on the Hugging Face Hub as rows, its images written to a folder as they come."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import datasets
import fsspec
from huggingface_hub import HfApi

from utils import regions
from utils.run.disk import replacing_file
from utils.run.progress import progress

from .own import SPLIT_NAMES, Faults, Layout, Row
from .studies import SPLITS, DataError
from .tables import columns_of, row_of, used

_ID, _NUMBER = "id", "the number of the row"  # of a study, where the dataset has no column for it
_HUBS = "the Hub's splits"  # where there are several
_ANOTHER = "Rows whose column of splits says another one than the Hub, whose counts"
_NONE = f"Rows in a column of splits that has one only, or none of {', '.join(SPLITS)}, and so counts as none"


def recognise(name: str, folder: Path, token: str | None) -> tuple[Layout, str]:
    """The layout and revision of the dataset `name`, read as a stream; its images go below `folder`.

    Raises DataError, with what to do, where it is not to be had or lacks a column.
    """
    with _sentences(name):
        revision = HfApi(token=token).dataset_info(name).sha
        streams = datasets.load_dataset(name, revision=revision, streaming=True, token=token)
    features = next(iter(streams.values())).features or {}
    inner = {column: getattr(feature, "feature", feature) for column, feature in features.items()}
    pictures = [column for column, feature in inner.items() if isinstance(feature, datasets.Image)]
    columns = columns_of([_ID, *features], pictures, name)
    shown = {**columns, "study": [column for column in columns["study"] if column in features] or [_NUMBER]}
    shown["split"] = [_HUBS] if len(streams) > 1 else columns["split"]
    folder, counts = folder / name / revision, Faults()
    rows_of = partial(_split, columns=columns, folder=folder, token=token)
    rows, notes = _rows(name, streams, rows_of, counts), [used(shown, list(features))]
    return Layout(name.replace("/", "--"), rows, folder, Path(name), notes, counts), revision


@contextmanager
def _sentences(name: str):
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the library raises many kinds: not there, gated, no network, several subsets
        reason = re.sub(r"\?\S+", "", regions.tidy(str(error)))[:200]  # without an address's signature
        raise DataError(
            f"{name} is neither here nor a dataset on the Hub that can be read ({reason}): correct DATA, or "
            "run this cell again; if it is private, set the secret HF_TOKEN."
        ) from None


def _rows(name: str, streams: dict, rows_of: Callable, counts: Faults) -> Iterator[Row]:
    """The rows, with the Hub's splits where it has several, else a column's where that has several."""
    with _sentences(name):
        if len(streams) == 1:
            rows = list(rows_of(*next(iter(streams.items()))))
            named = {_plain(row.split) for row in rows}
            counted = len(named) > 1 and not named.isdisjoint(SPLITS)
            for row in rows:
                if row.split and not counted:
                    counts.add(_NONE, row.split)
                yield row if counted else row._replace(split="")
            return
        for split, stream in streams.items():
            for row in rows_of(split, stream):
                if row.split and _plain(row.split) != _plain(split):
                    counts.add(_ANOTHER, f"{row.split} of {row.study}, in {split}")
                yield row._replace(split=split)


def _plain(split: str) -> str:
    name = split.strip().lower()
    return SPLIT_NAMES.get(name, name)


def _split(split: str, stream, columns: dict, folder: Path, token: str | None) -> Iterator[Row]:
    features = (stream.features or {}).items()
    labels = {name: feature for name, feature in features if isinstance(feature, datasets.ClassLabel)}
    stream = stream.decode(False)  # the images' own bytes
    for number, record in enumerate(progress(stream, f"{split}: reading from the Hub"), start=1):
        for name, label in labels.items():  # a number that stands for a name
            record[name] = None if record[name] is None else label.int2str(record[name])
        cells = [record[column] or [] for column in columns["images"]]
        pictures = [picture for cell in cells for picture in (cell if isinstance(cell, list) else [cell])]
        names = [f"{split}/{number:07d}-{n}" for n in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            _keep(picture, folder / name, token)
        yield row_of({_ID: f"{split}-{number:07d}", **record}, columns, f"{split} row {number:,}", names)


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
