"""Which findings reports name rightly: recall, precision and F1 by finding, with intervals.

The rows are those of `judgements.parquet`; scores play no part. A finding is counted only where the reference
mentions its region: elsewhere nobody knows whether the study has it. An absent or empty prediction names
nothing.

- recall: of the studies that have the finding, the share whose report names it
- precision: of the reports that name it, the share whose study has it; undefined (NaN) where none does
- F1: 2 right / (present + named); undefined only where no study has it and no report names it

Micro pools the counts of all findings. Macro is the mean of the F1 of the findings that any study has.
Intervals are 95 % percentile bootstrap intervals over studies, each with all its regions, for the findings of
one study are not independent; a draw in which a value is undefined is left out of that value's interval.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from .bootstrap import MIDDLE, RESAMPLES, SEED, resampled
from .groups import Group, named

MICRO, MACRO = "micro", "macro"
SAME = ", same studies as "  # between the model's name and that of a system with fewer studies
COLUMNS = ("system", "split", "id", "region", "reference", "prediction")  # of the rows to count
VALUES = ("recall", "precision", "f1")


def count(rows: pd.DataFrame, groups: Sequence[Group], resamples: int = RESAMPLES) -> pd.DataFrame:
    """One row per (system, split, finding), then `micro` and `macro`; systems and splits as they come.

    rows: of several systems, with the columns `COLUMNS`, one for each study and region

    Columns: system, split, finding, region; n (studies whose reference mentions the region), present, named,
    right; recall, precision, f1, each with its `_low` and `_high`. Micro and macro have the sums over the
    findings, and as n the studies with any of the regions; macro has an F1 alone. Without groups there
    are no rows. Raises ValueError for a missing column and for a study that is given twice.
    """
    table = []
    findings = [*((group.name, group.region) for group in groups), (MICRO, ""), (MACRO, "")]
    for head, of_system in _systems(rows) if groups else ():
        marks = _marks(of_system, groups)
        values, intervals = _bootstrapped(marks, resamples)
        totals = marks.sum(axis=0)  # (4, findings)
        whole = [len(marks), *totals[1:].sum(axis=1)]
        for i, finding in enumerate(findings):
            numbers = map(int, totals[:, i] if i < len(groups) else whole)
            rates = [rate for name in VALUES for rate in (values[name][i], *intervals[name][:, i])]
            table.append([*head, *finding, *numbers, *rates])
    columns = [name + end for name in VALUES for end in ("", "_low", "_high")]
    head = ["system", "split", "finding", "region", "n", "present", "named", "right"]
    return pd.DataFrame(table, columns=[*head, *columns])


def on_same_studies(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows`, and before each system that has fewer studies the first system once more, on these alone:
    its name ends with `SAME` and that system's."""
    model = rows["system"].iloc[0] if len(rows) else ""
    own = rows[rows["system"] == model]
    parts, seen = [own], []
    for system, theirs in rows[rows["system"] != model].groupby("system", sort=False):
        studies = _studies(theirs)
        of_model = _studies(own[own["split"].isin(theirs["split"].unique())])
        if studies < of_model and studies not in seen:
            seen.append(studies)
            shared = [study in studies for study in zip(own["split"], own["id"], strict=True)]
            parts.append(own[shared].assign(system=f"{model}{SAME}{system}"))
        parts.append(theirs)
    return pd.concat(parts, ignore_index=True)


def _studies(rows: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(rows["split"], rows["id"], strict=True))


def _systems(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """The rows of each system and split, after these two."""
    missing = set(COLUMNS) - set(rows.columns)
    if missing:
        raise ValueError(f"rows lack the column {', '.join(sorted(missing))}")
    twice = rows.duplicated(["system", "split", "id", "region"])
    if twice.any():
        raise ValueError(f"study {rows.loc[twice, 'id'].iloc[0]} is given twice for one system and region")
    for system, of_system in rows.groupby("system", sort=False, observed=True):
        for split, of_split in of_system.groupby("split", sort=False, observed=True):
            yield (system, str(split)), of_split


def _marks(rows: pd.DataFrame, groups: Sequence[Group]) -> np.ndarray:
    """(studies, 4, findings), 0 or 1: the region is mentioned; if so, the finding is present, named, both."""
    marks: dict[str, np.ndarray] = {}  # without the studies that mention none of the regions
    texts = (rows[name].fillna("").astype(str) for name in ("reference", "prediction"))
    for study, region, *both in zip(rows["id"], rows["region"], *texts, strict=True):
        of_region = [group.region == region for group in groups]
        if both[0].strip() and any(of_region):
            named_in = [[group.name in named(text, region) for group in groups] for text in both]
            of_study = np.array([of_region, *named_in, np.logical_and(*named_in)], dtype=int)
            marks[study] = marks.get(study, 0) + of_study
    return np.array([*marks.values()], dtype=int).reshape(-1, 4, len(groups))


def _bootstrapped(marks: np.ndarray, resamples: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values by name, (findings + 2,), and their intervals, (2, findings + 2); micro and macro come last."""
    studies, _, findings = marks.shape
    totals = marks[:, 1:].sum(axis=0)
    has = totals[0] > 0  # findings that any study has: those of macro
    drawn = np.zeros((0, 3, findings))
    if studies:
        kinds, draws = resampled(marks[:, 1:].reshape(studies, -1), resamples, SEED)
        drawn = (draws.astype(float) @ kinds).reshape(resamples, 3, findings)
    values = {name: column[0] for name, column in _values(totals[None], has).items()}
    return values, {name: _interval(column) for name, column in _values(drawn, has).items()}


def _values(totals: np.ndarray, has: np.ndarray) -> dict[str, np.ndarray]:
    """Recall, precision and F1, (draws, findings + 2), of (draws, 3, findings) present, named and right."""
    pooled = np.concatenate([totals, totals.sum(axis=2, keepdims=True)], axis=2)
    present, predicted, right = pooled.swapaxes(0, 1)
    f1 = _ratio(2 * right, present + predicted)
    of_macro = f1[:, :-1][:, has]
    macro = _ratio(np.nansum(of_macro, axis=1), (~np.isnan(of_macro)).sum(axis=1))[:, None]
    nothing = np.full_like(macro, np.nan)
    columns = (_ratio(right, present), nothing), (_ratio(right, predicted), nothing), (f1, macro)
    return {name: np.concatenate(both, axis=1) for name, both in zip(VALUES, columns, strict=True)}


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`, NaN where that is nothing of nothing."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=np.asarray(below) > 0)


def _interval(draws: np.ndarray) -> np.ndarray:
    """(2, values): the middle 95 % of (draws, values), NaN where every draw is."""
    bounds, defined = np.full((2, draws.shape[1]), np.nan), ~np.isnan(draws).all(axis=0)
    if defined.any():
        bounds[:, defined] = np.nanquantile(draws[:, defined], MIDDLE, axis=0)
    return bounds
