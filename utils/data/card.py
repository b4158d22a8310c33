"""The card of a dataset: what its columns are, its counts, how it was made, limits and licence."""

from collections.abc import Iterable

import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData

from utils.regions import REGIONS

COLUMNS = {
    "id": "the study",
    "images": "its radiographs, 8-bit grey PNG, frontal first",
    "prompt": "the user's message; it names the regions that the completion has",
    "completion": "the assistant's message, one `region: findings` line a region",
    ", ".join(REGIONS): "the findings of each region; empty where the study does not mention it",
    "views": "number of radiographs",
}


def dataset_card(statistics: pd.DataFrame, data_label: str, facts: dict[str, object]) -> DatasetCard:
    """The card of a dataset with `statistics`, one row per split.

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
    text = f"""
# Chest X-ray findings by region

**{data_label}**

Each row is a study. It has the radiographs, and the findings by region as a chat for fine-tuning a
vision-language model. **Not for clinical use.**

| column | |
|---|---|
{_lines(f"| {name} | {what} |" for name, what in COLUMNS.items())}

If a study does not mention a region, that region is unknown, not normal. Prompt and completion leave it
out. Findings that belong to no region (`others`) are left out of the dataset.

## Studies

The table shows the studies and views in each split, and how many studies mention each region.

{_table(statistics)}

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
