"""What a run shows, in sentences: what the model can and cannot do, and how it stands beside the controls.

They are of the test split, or of the first split where there is no test.
"""

from collections.abc import Iterator

import pandas as pd

from utils.regions import REGIONS

from . import findings as seen
from .baselines import BASELINES
from .judging import ABNORMAL
from .statistics import cell, error_counts, model_and_split, one_split
from .tables import difference

MOST = 3  # findings that a sentence names


def in_short(
    summary: pd.DataFrame, judgements: pd.DataFrame, best: pd.DataFrame, counted: pd.DataFrame
) -> list[str]:
    """Three sentences: what the model can do, what it cannot, and how it stands beside the others.

    The arguments are those of `stages.Results`. Without findings the first two are of its scores and errors,
    without `best` the third is of the other systems by name.
    """
    can, cannot = _of_findings(counted) or _of_scores(summary, judgements)
    return [can, cannot, _of_best(best) if len(best) else _of_others(summary)]


def further(summary: pd.DataFrame) -> Iterator[str]:
    """What else came out: a sentence for each system that is no baseline, such as a control."""
    model, split, rows = model_and_split(summary)
    for other in rows["system"].unique():
        if other not in (model, *BASELINES):
            yield f"{split.capitalize()}: {_set_against(rows, model, other)}."


def _of_findings(counted: pd.DataFrame) -> tuple[str, str] | None:
    """What the model names and what it does not; None where no study has a finding that is counted."""
    if counted.empty:
        return None
    model, split, rows = model_and_split(counted)
    whole, present = seen.findings_of(rows, model)
    if present.empty:
        return None

    def right_of(row: pd.Series) -> str:
        return f"{seen.PLAIN[row.name]} ({row['right']:,} of {row['present']:,})"

    present = present.sort_values(["recall", "present"], ascending=False, kind="stable")
    best = f", most often {right_of(present.iloc[0])}" if whole["right"] else ""
    can = (
        f"On the {split} studies (n={whole['n']:,}) the {model} names {whole['right']:,} "
        f"of {whole['present']:,} findings (recall {seen.value(whole, 'recall')}){best}, "
        f"and {whole['named'] - whole['right']:,} that are not there "
        f"(precision {seen.value(whole, 'precision')})."
    )
    few, worst = present[present["recall"] < 0.5].iloc[::-1], present.iloc[-1]
    if len(few):
        more = f" and {len(few) - MOST} more" if len(few) > MOST else ""
        listed = ", ".join(right_of(row) for _, row in few.head(MOST).iterrows())
        return can, f"It names fewer than half of these: {listed}{more}."
    if worst["right"] == worst["present"]:
        return can, "It misses none of them."
    missed = f"{worst['present'] - worst['right']:,} of {worst['present']:,} missed"
    return can, f"What it misses most often is {seen.PLAIN[worst.name]} ({missed})."


def _of_scores(summary: pd.DataFrame, judgements: pd.DataFrame) -> tuple[str, str]:
    """The model's mean scores, and the error that it makes most often."""
    model, split, rows = model_and_split(summary)
    own = rows[rows["system"] == model]
    means = ", ".join(f"{region} {cell(own, region)}" for region in own["region"])
    errors = error_counts(judgements).query("system == @model and split == @rows.split.iloc[0]")
    types = errors.groupby("error", sort=False)["significant"].sum()
    most = f'Its most frequent significant error is "{types.idxmax()}", {types.max():,} of {types.sum():,}.'
    most = most if types.sum() else "The judge counts no significant error."
    return f"On the {split} studies the mean scores of the {model} are {means}.", most


def _of_best(best: pd.DataFrame) -> str:
    """Beside the best baseline, on abnormal studies where there are any."""
    rows = one_split(best)
    studies = ABNORMAL if ABNORMAL in set(rows["studies"]) else rows["studies"].iloc[0]
    rows = rows[rows["studies"] == studies]
    higher, lower = rows["difference_low"] > 0, rows["difference_high"] < 0
    alike = "it in" if (higher | lower).any() else "the best baseline's in any region:"
    groups = {"is higher than the best baseline's in": higher, "is lower than the best baseline's in": lower}
    groups[f"does not differ clearly from {alike}"] = ~higher & ~lower
    columns = ["difference", "difference_low", "difference_high"]
    told = rows["region"] + [f" ({difference(*row)})" for row in rows[columns].to_numpy()]
    parts = [f"{words} {', '.join(told[these])}" for words, these in groups.items() if these.any()]
    return f"On {studies} studies its mean score {'; it '.join(parts)}."


def _of_others(summary: pd.DataFrame) -> str:
    model, _, rows = model_and_split(summary)
    others = [_set_against(rows, model, name) for name in rows["system"].unique() if name != model]
    sentence = "; ".join(others) or "it was set against no other system"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _set_against(rows: pd.DataFrame, model: str, other: str) -> str:
    """Where the intervals of two systems do not overlap in `rows`, a summary of one split."""
    own, theirs = (rows[rows["system"] == name].set_index("region") for name in (model, other))
    both = [region for region in REGIONS if region in own.index and region in theirs.index]
    own, theirs = own.loc[both], theirs.loc[both]
    above, below = own.index[own["low"] > theirs["high"]], own.index[own["high"] < theirs["low"]]
    sides = (("higher", above), ("lower", below))
    where = [f"the {model} {word} in {', '.join(regions)}" for word, regions in sides if len(regions)]
    return (
        f"the intervals of the {model} and of *{other}* do not overlap in {len(above) + len(below)} "
        f"of {len(both)} regions{': ' if where else ''}{', '.join(where)}"
    )
