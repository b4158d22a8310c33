"""Studies to a Hugging Face dataset: radiographs inside, and a prompt and a completion as TRL wants them.

A row is a study: `id`; `images`, a list of 8-bit grey PNGs; `prompt` and
`completion`, one chat message each; the text of each region, empty where the
study does not mention it; and `views`, the number of images. The prompt names
the regions that the completion has, and no other.
"""

import io
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, Image, List, Value, disable_progress_bars, load_dataset
from huggingface_hub import DatasetCard, DatasetCardData

from utils.regions import REGIONS, mentioned, render
from utils.settings import DatasetSettings
from utils.workspace import progress, replacing

from .studies import DataError, Study, read_view

MESSAGES = List({"role": Value("string"), "content": Value("string")})
FEATURES = Features(
    {
        "id": Value("string"),
        "images": List(Image()),
        "prompt": MESSAGES,
        "completion": MESSAGES,
        **dict.fromkeys(REGIONS, Value("string")),
        "views": Value("int32"),
    }
)
NO_IMAGE = "no image"
NO_READABLE_IMAGE = "no image that can be read"
NO_REGION = f"no findings of {', '.join(REGIONS)}"
NOT_SPLIT = "findings that are not split into regions yet"

_SHARD_BYTES = 500 * 2**20  # the size the Hub recommends

disable_progress_bars()  # of the library's copying, which takes seconds; `build` shows its own


class Skip(NamedTuple):
    """What was left out of the dataset, and why: a study, or one `file` of it."""

    id: str
    split: str
    file: str
    reason: str


def instruction(names: Iterable[str] = REGIONS) -> str:
    """The user's prompt: findings of the regions `names`, a line each, in the form of `regions.render`."""
    form = render(dict.fromkeys(names, "..."))
    return f"Write the findings of this chest X-ray study, one line a region:\n{form}"


def build(
    splits: dict[str, list[Study]],
    settings: DatasetSettings,
    show: Callable[..., Iterable] = progress,
) -> tuple[DatasetDict, pd.DataFrame]:
    """The dataset of `splits`, and a table of what was left out of it: id, split, file, reason.

    A study is left out where no image of it can be read, where it mentions
    no region, or where its findings are not split yet; an image, where it is
    damaged. A split without a study left is not in the dataset. The dataset
    lies in a temporary file, not in memory. Raises DataError where no study is left.
    """
    skipped: list[Skip] = []
    dataset = DatasetDict()
    folder = Path(tempfile.mkdtemp(prefix="xray_dataset_"))
    weakref.finalize(dataset, shutil.rmtree, folder, ignore_errors=True)
    for split, studies in splits.items():
        path = folder / f"{split}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, FEATURES.arrow_schema) as writer:
            for row in _rows(show(studies, f"{split}: reading images"), settings, skipped):
                writer.write_batch(pa.RecordBatch.from_pylist([row], schema=FEATURES.arrow_schema))
        rows = Dataset.from_file(str(path))
        if len(rows):  # load_dataset refuses an empty split
            dataset[split] = rows
    table = pd.DataFrame(skipped, columns=Skip._fields)
    if not dataset:
        raise DataError(f"No study can be used in the dataset: {skip_summary(table, splits)}.")
    return dataset, table


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


def save(dataset: DatasetDict, folder: Path, *, data_label: str, **facts: object) -> Path:
    """Write `dataset` to `folder` as parquet shards and a dataset card, as a whole or not at all.

    `data_label` says what the radiographs are; `facts` are listed in the
    card. The same dataset gives the same bytes. What was in `folder` is replaced.
    """
    with replacing(folder) as temporary:
        (temporary / "data").mkdir()
        for split, rows in dataset.items():
            shards = min(len(rows), 1 + rows.data.nbytes // _SHARD_BYTES)
            for n in range(shards):
                name = f"{split}-{n:05d}-of-{shards:05d}.parquet"
                rows.shard(shards, n, contiguous=True).to_parquet(temporary / "data" / name)
        _card(dataset, data_label, facts).save(temporary / "README.md")
    return folder


def load(folder: Path) -> DatasetDict:
    """The dataset that `save` wrote. Raises DataError where there is none."""
    if not any((folder / "data").glob("*.parquet")):
        raise DataError(f"There is no dataset in {folder}: run notebooks/02_build_hf_dataset.ipynb first.")
    return load_dataset(str(folder))


def statistics(dataset: DatasetDict) -> pd.DataFrame:
    """For each split the number of studies, of views, and of studies that mention each region."""
    table = {}
    for split, rows in dataset.items():
        texts = rows.select_columns(["views", *REGIONS]).to_pandas()
        mentions = {name: int((texts[name] != "").sum()) for name in REGIONS}
        table[split] = {"studies": len(texts), "views": int(texts["views"].sum()), **mentions}
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("split")


def _rows(studies: Iterable[Study], settings: DatasetSettings, skipped: list[Skip]) -> Iterable[dict]:
    for study in studies:
        reason = _unusable(study)
        images = [] if reason else _views(study, settings, skipped)
        if not images:
            skipped.append(Skip(study.id, study.split, "", reason or NO_READABLE_IMAGE))
            continue
        findings = mentioned(study.findings)
        yield {
            "id": study.id,
            "images": images,
            "prompt": [{"role": "user", "content": instruction(findings)}],
            "completion": [{"role": "assistant", "content": render(findings)}],
            **{name: findings.get(name, "") for name in REGIONS},
            "views": len(images),
        }


def _unusable(study: Study) -> str | None:
    """Why a study cannot be a row, as far as can be told without opening its images."""
    if not study.images:
        return NO_IMAGE
    if study.findings is None:
        return NOT_SPLIT
    return None if mentioned(study.findings) else NO_REGION


def _views(study: Study, settings: DatasetSettings, skipped: list[Skip]) -> list[dict]:
    """The first readable images of a study as PNG, in the form that `datasets.Image` stores."""
    views = []
    for path in study.images:
        if len(views) == settings.views:
            break
        try:
            view = read_view(path, settings.longest_side)
        except DataError as error:
            skipped.append(Skip(study.id, study.split, f"{study.id}/{path.name}", str(error)))
            continue
        png = io.BytesIO()
        view.save(png, format="PNG")
        views.append({"bytes": png.getvalue(), "path": None})
    return views


def _card(dataset: DatasetDict, data_label: str, facts: dict[str, object]) -> DatasetCard:
    """The dataset card.

    Its head lists no data files: `load_dataset` tells the splits by the
    files' names, and where a card does list them it knows a local dataset by
    its folder's name alone, so that one run would get another's rows out of
    its cache (seen with datasets 4.0).
    """
    head = DatasetCardData(
        pretty_name=f"Chest X-ray findings by region ({data_label})",
        license="other",
        language="en",
        task_categories=["image-text-to-text"],
    )
    columns = {
        "id": "the study",
        "images": "its radiographs, 8-bit grey PNG, frontal first",
        "prompt": "the user's message; it names the regions that the completion has",
        "completion": "the assistant's message, one `region: findings` line a region",
        ", ".join(REGIONS): "the findings of each region; empty where the study does not mention it",
        "views": "number of radiographs",
    }
    text = f"""
# Chest X-ray findings by region

**{data_label}**

Each row is a study. It has the radiographs, and the findings by region as a chat for fine-tuning a
vision-language model. **Not for clinical use.**

| column | |
|---|---|
{_lines(f"| {name} | {what} |" for name, what in columns.items())}

If a study does not mention a region, that region is unknown, not normal. Prompt and completion leave it
out. Findings that belong to no region (`others`) are left out of the dataset.

## Studies

The table shows the studies and views in each split, and how many studies mention each region.

{_table(statistics(dataset))}

## How it was made

Findings that the source does not split by region were split by this project. Radiographs were
converted to 8-bit grey. Damaged radiographs are left out, and so are studies without a usable
radiograph.

{_lines(f"- {name.replace('_', ' ')}: {fact}" for name, fact in facts.items())}

## Limits

- Findings are what one report says about a study. No radiologist has checked their split into regions.
- A report may leave out a finding that is present: a region without text is not a normal region.
- If the studies are phantoms, they are drawings: results on them say nothing about patients.

## Licence

Radiographs and findings keep the licence of their source. IU X-Ray is CC BY-NC-ND 4.0: if this dataset
was made from IU X-Ray, do not publish it.
"""
    return DatasetCard(f"---\n{head.to_yaml()}\n---\n{text}")


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _table(frame: pd.DataFrame) -> str:
    head = f"| {frame.index.name} | {' | '.join(frame.columns)} |"
    rows = (f"| {name} | {' | '.join(f'{value:,}' for value in row)} |" for name, row in frame.iterrows())
    return _lines([head, "|---" * (len(frame.columns) + 1) + "|", *rows])
