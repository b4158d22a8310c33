"""Scores: reports to judgements, judgements to means with intervals, and what is written of them.

`judging`: reports and baselines to judged rows, and a check that the judge is GREEN
`baselines`: reports that the model must beat
`statistics`: means with intervals, comparisons of systems; `tables`: to read
`findings`: the findings that reports name rightly, to read
`plan`: what step 4 costs, and its time limit; `parallel`: reports written and judged on several processes
`stages`: what notebook 04 does, a call a cell
`report`, `in_short`: the written report
"""

from .judging import METADATA, judged, normality, prediction_rows, read_judgements, read_recorded, references  # noqa: F401
from .statistics import compare, one_judge, published, region_table, summary  # noqa: F401
from .tables import beside, by_kind, comparison, comparisons, markdown, quiz_tables  # noqa: F401
