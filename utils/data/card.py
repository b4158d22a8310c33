"""The card of a dataset: what its columns are, its counts, how it was made, limits and licence."""

import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData

from utils.regions import REGIONS

TEXT = """
# Chest X-ray findings by region

**{label}**

Each row is a study. It has the radiographs, and the findings by region as a chat for fine-tuning a
vision-language model. **Not for clinical use.**

| column | |
|---|---|
| id | the study |
| images | its radiographs, 8-bit grey PNG, frontal first |
| prompt | the user's message; it names the regions that the completion has |
| completion | the assistant's message, one `region: findings` line a region |
| {regions} | the findings of each region; empty where the study does not mention it |
| views | number of radiographs |

If a study does not mention a region, that region is unknown, not normal. Prompt and completion leave it
out. Findings that belong to no region (`others`) are left out of the dataset.

## Studies

The table shows the studies and views in each split, and how many studies mention each region.

{table}

## How it was made

Findings that the source does not split by region were split by this project. Radiographs were
converted to 8-bit grey. Damaged radiographs are left out, and so are studies without a usable
radiograph.

{made}

## Limits

- Findings are what one report says about a study. No radiologist has checked their split into regions.
- A report may leave out a finding that is present: a region without text is not a normal region.
- If the studies are phantoms, they are drawings: results on them say nothing about patients.

## Licence

Radiographs and findings keep the licence of their source. IU X-Ray is CC BY-NC-ND 4.0: if this dataset
was made from IU X-Ray, do not publish it.
"""


def dataset_card(statistics: pd.DataFrame, data_label: str, facts: dict[str, object]) -> DatasetCard:
    """The card of a dataset with `statistics`, one row per split."""
    head = {"license": "other", "language": "en", "task_categories": ["image-text-to-text"]}
    head = DatasetCardData(pretty_name=f"Chest X-ray findings by region ({data_label})", **head)
    rows = [["split", *statistics.columns]]
    rows += [[name, *(f"{value:,}" for value in row)] for name, row in statistics.iterrows()]
    head_row, *lines = (f"| {' | '.join(row)} |" for row in rows)
    table = "\n".join([head_row, "|---" * len(rows[0]) + "|", *lines])
    made = "\n".join(f"- {name.replace('_', ' ')}: {fact}" for name, fact in facts.items())
    text = TEXT.format(label=data_label, regions=", ".join(REGIONS), table=table, made=made)
    return DatasetCard(f"---\n{head.to_yaml()}\n---\n{text}")
