"""Studies to a Hugging Face dataset: radiographs inside, and a prompt and a completion as TRL wants them.

A row is a study: `id`; `images`, a list of 8-bit grey PNGs; `prompt` and `completion`, one chat message each;
the text of each region, empty where the study does not mention it; and `views`, the number of images. The
prompt names the regions that the completion has, and no other.
"""

import glob
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import datasets
import pandas as pd
import pyarrow.parquet as pq
from datasets import DatasetDict, Features, Image, List, Value, disable_progress_bars, load_dataset
from datasets.features.features import register_feature

from utils.regions import REGIONS, mentioned, render
from utils.run.disk import replacing
from utils.run.progress import counter
from utils.settings import DatasetSettings

from .card import dataset_card
from .shards import STUDIES, Shard, Skip, bytes_a_study, write_shards
from .studies import SPLITS, DataError, Study, read_view

_TEXT = Value("string")
MESSAGES = List({"role": _TEXT, "content": _TEXT})
_CHAT = {"id": _TEXT, "images": List(Image()), "prompt": MESSAGES, "completion": MESSAGES}
FEATURES = Features(_CHAT | dict.fromkeys(REGIONS, _TEXT) | {"views": Value("int32")})

COUNTED = ["views", *REGIONS]
BY_PATH = b"longest_side"  # in the schema of shards whose radiographs stay in their source folder
SAMPLE = 16  # studies by which the size of a dataset is told before it is built
SPARE = 1.1  # of that size must be free

disable_progress_bars()  # of the library's copying, which takes seconds; `build` shows its own


@dataclass
class SourceView(Image):
    """A radiograph in its source folder, read when it is used, as a dataset would hold it."""

    longest_side: int = 672
    _type: str = field(default="SourceView", init=False, repr=False)

    def decode_example(self, value: dict, token_per_repo_id: dict | None = None):
        """The view as a PIL image. Raises DataError where it cannot be read."""
        return read_view(Path(value["path"]), self.longest_side)


with warnings.catch_warnings(action="ignore"):  # the function is called experimental
    register_feature(SourceView, "SourceView")


def instruction(names: Iterable[str] = REGIONS) -> str:
    """The user's prompt: findings of the regions `names`, a line each, in the form of `regions.render`."""
    form = render(dict.fromkeys(names, "..."))
    return f"Write the findings of this chest X-ray study, one line a region:\n{form}"


def build(
    splits: dict[str, list[Study]],
    settings: DatasetSettings,
    folder: Path,
    *,
    data_label: str,
    processes: int | None = None,
    show: Callable[[int, int], None] | None = None,
    **facts: object,
) -> tuple[DatasetDict, pd.DataFrame]:
    """Make the dataset of `splits` in `folder`: parquet shards and a dataset card, as a whole or not at all.

    Returns the dataset, and a table of what was left out of it: id, split, file, reason. `data_label` says
    what the radiographs are; `facts` are listed in the card. The same studies give the same bytes in any
    number of `processes`, by default one per core. `show` is called with (studies done, studies). A build
    that was killed goes on from its finished shards, which lie beside `folder` until then.

    A study is left out if no image of it can be read, it mentions no region, or its findings are not split
    yet; an image, if it is damaged. Raises DataError where no study is left. Where the disk has no room for
    the dataset and the copy of it that is read, this is said, and the shards name the radiographs, which stay
    where they are.
    """
    reasons = {study.id: _unusable(study) for study in chain(*splits.values())}
    usable = {split: [study for study in of if not reasons[study.id]] for split, of in splits.items()}
    unusable = ((study.id, split) for split, of in splits.items() for study in of if reasons[study.id])
    skipped = [Skip(name, split, "", reasons[name]) for name, split in unusable]
    every = list(chain(*usable.values()))
    room = folder.with_name(f".{folder.name}.shards")
    room.mkdir(parents=True, exist_ok=True)
    by_path = bool(every) and not _fits(every, settings, room)
    processes = processes or min(os.cpu_count() or 1, math.ceil(len(every) / STUDIES)) or 1
    show, done, written = show or counter("reading images"), 0, {}
    if every:
        show(0, len(every))
    for shard, rows, left_out in write_shards(_shards(usable, settings, room, by_path), processes):
        done += len(shard.rows)
        skipped += left_out
        if rows:  # load_dataset refuses an empty split
            written.setdefault(shard.split, []).append(shard.path)
        show(done, len(every))
    order = {name: n for n, name in enumerate(reasons)}
    skipped.sort(key=lambda skip: order[skip.id])
    table = pd.DataFrame(skipped, columns=Skip._fields)
    if not written:
        shutil.rmtree(room)
        raise DataError(f"No study can be used in the dataset: {skip_summary(table, splits)}.")
    _assemble(written, folder, data_label, facts)
    shutil.rmtree(room)
    return load(folder), table


def _assemble(written: dict[str, list[Path]], folder: Path, data_label: str, facts: dict) -> None:
    """Move the shards of each split to `folder`, under a card."""
    texts = {
        split: pd.concat(pq.read_table(path, columns=COUNTED).to_pandas() for path in paths)
        for split, paths in written.items()
    }
    card = dataset_card(_counts(texts), data_label, facts)
    with replacing(folder) as temporary:
        (temporary / "data").mkdir()
        card.save(temporary / "README.md")
        for split, paths in written.items():
            for n, path in enumerate(paths):
                path.replace(temporary / "data" / f"{split}-{n:05d}-of-{len(paths):05d}.parquet")


def _shards(usable: dict[str, list], settings: DatasetSettings, room: Path, by_path: bool) -> Iterator[Shard]:
    schema = FEATURES.arrow_schema
    if by_path:
        schema = schema.with_metadata({**schema.metadata, BY_PATH: str(settings.longest_side).encode()})
    for split, studies in usable.items():
        for n, start in enumerate(range(0, len(studies), STUDIES)):
            some, path = studies[start : start + STUDIES], room / f"{split}-{n:05d}.parquet"
            rows, files = [_row(study) for study in some], [study.images for study in some]
            yield Shard(path, split, rows, files, schema, settings, by_path)


def _fits(studies: list[Study], settings: DatasetSettings, room: Path) -> bool:
    """Whether the disk has room for the dataset and the copy that `load` maps into memory; says so if not."""
    some = studies[:: math.ceil(len(studies) / SAMPLE)]
    size = bytes_a_study(next(_shards({"": some}, settings, room, by_path=False))) * len(studies)
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = {folder: shutil.disk_usage(folder).free for folder in (room, cache)}
    one_disk = room.stat().st_dev == cache.stat().st_dev
    held = sum(path.stat().st_size for path in room.iterdir())  # finished before a build was killed
    needed = size * SPARE
    if free[room] + held >= needed * (1 + one_disk) and (one_disk or free[cache] >= needed):
        return True
    source = os.path.commonpath([image.parent for study in studies for image in study.images])
    print(
        f"The dataset would take about {size / 1e9:,.1f} GB in {room.parent}, and as much for reading in "
        f"{cache}; {' and '.join(f'{left / 1e9:,.1f} GB' for left in free.values())} are free. So the "
        f"radiographs stay in {source}, and steps 3 and 4 read them there: keep that folder."
    )
    return False


def skip_summary(skipped: pd.DataFrame, splits: dict[str, list[Study]]) -> str:
    """What `build` left out of `splits`, in one line."""
    studies = f"{sum(map(len, splits.values())):,}"
    files = list(skipped.loc[skipped["file"] != "", "file"])
    reasons = skipped.loc[skipped["file"] == "", "reason"].value_counts()
    parts = [f"{count:,} of {studies} studies have {reason}" for reason, count in reasons.items()]
    if files:
        more = f" and {len(files) - 3:,} more" if len(files) > 3 else ""
        parts.append(f"damaged views: {len(files):,} ({', '.join(files[:3])}{more})")
    return "; ".join(parts) or f"all {studies} studies are in the dataset"


def load(folder: Path, needed: str = "") -> DatasetDict:
    """The dataset that `build` made, mapped from disk. Raises DataError where a part of it is missing."""
    shards = sorted((folder / "data").glob("*.parquet"))
    if not shards:
        raise DataError(f"There is no dataset in {folder}: run notebooks/02_build_hf_dataset.ipynb first.")
    files: dict[str, list[str]] = {}
    for path in shards:  # named one by one, as the library takes a folder's own name for a pattern
        files.setdefault(path.name.rsplit("-", 3)[0], []).append(glob.escape(str(path)))
    loaded, side = load_dataset("parquet", data_files=files), longest_side_by_path(folder)
    dataset = DatasetDict({**{split: loaded[split] for split in SPLITS if split in loaded}, **loaded})
    if needed and needed not in dataset:
        lacks = f"No {needed} study has an image"
        raise DataError(f"{lacks}. In 02, set DATA to a folder with some and run it again.")
    if side:
        first = Path(pq.read_table(shards[0], columns=["images"])["images"][0][0]["path"].as_py())
        if not first.is_file():
            mend = "put the radiographs back, or run notebooks/02_build_hf_dataset.ipynb again"
            raise DataError(f"This dataset reads {first}, which is not there any more: {mend}.")
        for rows in dataset.values():
            rows.info.features["images"] = List(SourceView(longest_side=side))
    return dataset


def longest_side_by_path(folder: Path) -> int | None:
    """For a dataset whose radiographs lie in their source folder, to what they are scaled; else None."""
    first = min((folder / "data").glob("*.parquet"))
    side = (pq.read_schema(first).metadata or {}).get(BY_PATH)
    return int(side) if side else None


def statistics(dataset: DatasetDict) -> pd.DataFrame:
    """For each split the number of studies, of views, and of studies that mention each region."""
    return _counts({split: rows.select_columns(COUNTED).to_pandas() for split, rows in dataset.items()})


def _counts(texts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    counts = {
        split: {"studies": len(rows), "views": rows["views"].sum(), **(rows[list(REGIONS)] != "").sum()}
        for split, rows in texts.items()
    }
    return pd.DataFrame.from_dict(counts, orient="index").rename_axis("split")


def _row(study: Study) -> dict:
    """The row of a study without its radiographs."""
    findings = mentioned(study.findings)
    chat = {"prompt": [{"role": "user", "content": instruction(findings)}]}
    chat["completion"] = [{"role": "assistant", "content": render(findings)}]
    return {"id": study.id} | chat | {name: findings.get(name, "") for name in REGIONS}


def _unusable(study: Study) -> str:
    """Why a study cannot be a row, as far as can be told without opening its images; else ""."""
    if not study.images:
        return "no image"
    if study.findings is None:
        return "findings that are not split into regions yet"
    return "" if mentioned(study.findings) else f"no findings of {', '.join(REGIONS)}"
