"""Scores: reports to judgements, judgements to means with intervals, and what is written of them.

`judging`: reports and baselines to judged rows, and a check that the judge is GREEN
`baselines`: reports that the model must beat
`statistics`: means with intervals, comparisons of systems; `tables`: to read
`findings`: the findings that reports name rightly, to read
`parallel`: reports written and judged on several processes
`stages`: what notebook 04 does, a call a cell
`report`: the written report
"""

from .judging import (
    METADATA,
    all_systems,
    check_judge,
    judged,
    normality,
    prediction_rows,
    published_judgements,
    read_judgements,
    read_recorded,
    references,
)
from .statistics import (
    ERRORS,
    compare,
    diversity,
    error_counts,
    interval,
    one_judge,
    one_split,
    published,
    region_table,
    sign_flip,
    summary,
)
from .tables import (
    beside,
    by_kind,
    comparison,
    comparisons,
    markdown,
    quiz_tables,
    table_markdown,
    write_pairs,
)

__all__ = [
    "ERRORS",
    "METADATA",
    "all_systems",
    "beside",
    "by_kind",
    "check_judge",
    "compare",
    "comparison",
    "comparisons",
    "diversity",
    "error_counts",
    "interval",
    "judged",
    "markdown",
    "normality",
    "one_judge",
    "one_split",
    "prediction_rows",
    "published",
    "published_judgements",
    "quiz_tables",
    "read_judgements",
    "read_recorded",
    "references",
    "region_table",
    "sign_flip",
    "summary",
    "table_markdown",
    "write_pairs",
]
