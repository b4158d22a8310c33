"""Rows and their radiographs to parquet shards: in several processes, and on from where a build stopped.

Beside a finished `train-00003.parquet` lies `train-00003.json`, the hashes of it and of what it was made
from, and what was left out. Without a true note it is made again. `GROUP` studies at a time are in memory.
"""

import hashlib
import io
import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from utils.run.disk import file_hash, read_note, replacing_file, write_json
from utils.settings import DatasetSettings

from .studies import DataError, read_view

STUDIES = 500  # a shard: a kill costs a process what it did in less than a minute
GROUP = 32  # rows that are written, and later read, at a time
VERSION = 2  # of how a radiograph is stored; shards of another are made again
NO_READABLE_IMAGE = "no image that can be read"


class Skip(NamedTuple):
    """What was left out of the dataset, and why: a study, or one `file` of it."""

    id: str
    split: str
    file: str
    reason: str


class Shard(NamedTuple):
    """A shard to be written: rows without `images` and `views`, and the files for these."""

    path: Path
    split: str
    rows: list[dict]
    files: list[tuple[Path, ...]]
    schema: pa.Schema
    settings: DatasetSettings
    by_path: bool = False  # the radiographs stay where they are, and the shard names them


def write_shards(shards: Iterable[Shard], processes: int) -> Iterator[tuple[Shard, int, list[Skip]]]:
    """Write `shards`; yields (shard, number of rows, skipped). DataError where a process is killed."""
    if processes == 1:
        for shard in shards:
            yield shard, *write_shard(shard)
        return
    # Spawned, not forked: the caller may hold threads, and forking those can hang.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=_end_with_parent)
    started = ((shard, pool.submit(write_shard, shard)) for shard in shards)
    try:
        under_way = deque(islice(started, 2 * processes))  # no more, as their rows are in memory
        while under_way:
            shard, future = under_way.popleft()
            under_way.extend(islice(started, 1))
            yield shard, *future.result()
    except BrokenProcessPool:
        fault = "A process that reads radiographs was killed, as happens when memory runs out"
        raise DataError(f"{fault}. Run this again: it continues where it stopped.") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process as soon as the one that started it is killed, lest it write beside the next build."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def write_shard(shard: Shard) -> tuple[int, list[Skip]]:
    """Write one shard, unless it is as it should be; the number of its rows, and what was left out."""
    note, made_from = shard.path.with_suffix(".json"), _made_from(shard)
    held = read_note(note)
    is_there = held.get("made_from") == made_from and shard.path.is_file()
    if not is_there or held["sha256"] != file_hash(shard.path):
        note.unlink(missing_ok=True)
        skipped, count = [], 0
        with replacing_file(shard.path) as part, pq.ParquetWriter(part, shard.schema) as writer:
            for start in range(0, len(shard.rows), GROUP):
                if rows := list(_rows(shard, start, start + GROUP, skipped)):
                    writer.write_table(pa.Table.from_pylist(rows, schema=shard.schema))
                count += len(rows)
        held = {"made_from": made_from, "sha256": file_hash(shard.path), "rows": count, "skipped": skipped}
        write_json(note, held)
    return held["rows"], [Skip(*skip) for skip in held["skipped"]]


def bytes_a_study(shard: Shard) -> float:
    """The mean size of a study's row in `shard`, in bytes, which is not written."""
    rows = _rows(shard, 0, len(shard.rows), [])
    views = sum(len(view["bytes"]) for row in rows for view in row["images"])
    return (views + sum(len(json.dumps(row)) for row in shard.rows)) / max(1, len(shard.rows))


def _rows(shard: Shard, start: int, end: int, skipped: list[Skip]) -> Iterator[dict]:
    for row, files in zip(shard.rows[start:end], shard.files[start:end], strict=True):
        if images := _views(shard, row["id"], files, skipped):
            yield {**row, "images": images, "views": len(images)}
        else:
            skipped.append(Skip(row["id"], shard.split, "", NO_READABLE_IMAGE))


def _views(shard: Shard, study: str, files: Iterable[Path], skipped: list[Skip]) -> list[dict]:
    """The first readable images of a study, in the form that `datasets.Image` stores: as PNG, or by path."""
    views: list[dict] = []
    for path in files:
        if len(views) == shard.settings.views:
            break
        try:
            view = read_view(path, shard.settings.longest_side)
        except DataError as error:
            skipped.append(Skip(study, shard.split, f"{study}/{path.name}", str(error)))
            continue
        png = io.BytesIO()
        if not shard.by_path:
            view.save(png, format="PNG")
        path = str(path.absolute()) if shard.by_path else None
        views.append({"bytes": png.getvalue() or None, "path": path})
    return views


def _made_from(shard: Shard) -> str:
    """A hash of all that decides what is in the shard; of an image file name and size, as its time varies."""
    files = [
        [(str(f) if shard.by_path else f.name, f.stat().st_size if f.is_file() else -1) for f in of_study]
        for of_study in shard.files
    ]
    schema = shard.schema.serialize().to_pybytes().hex()
    made = [VERSION, shard.settings.model_dump(), shard.by_path, schema, shard.split, shard.rows, files]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()
