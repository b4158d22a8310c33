"""The report of a run, `report.md`: what was done, what came out, what it cannot show.

Every sentence about results is written from the numbers given; none is kept
where its number is missing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from .charts import NOT_CLINICAL
from .regions import REGIONS, tidy
from .scores import SPLITS, compare, diversity, error_counts, is_green, order_splits, table_markdown


def write_report(
    folder: str | Path,
    *,
    summary: pd.DataFrame,
    judgements: pd.DataFrame,
    figures: Mapping[str, tuple[str | Path, str]],
    settings: Mapping,
    versions: Mapping[str, str],
    data_label: str,
    judge_label: str,
    commands: Sequence[str],
    samples: Sequence[str],
    iu_xray: bool = False,
) -> Path:
    """Write `folder/report.md`, whole or not at all, and give its path.

    `summary` and `judgements` are those of `scores`, the first system being the
    model and the others its baselines; `figures` maps a title to (path, alt
    text), the path lying under `folder`; `samples` are study ids. `iu_xray` as
    in `scores.table_markdown`. Raises ValueError where a figure or a sample is
    missing, or the judge is not the one named.
    """
    raise NotImplementedError
