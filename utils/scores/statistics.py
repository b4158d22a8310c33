"""Judgements to tables: means with intervals, comparisons, baselines.

A judgement is one row per system, split, study and region. Only rows whose reference has text count: a region
that a study does not mention is unknown, so nothing can be scored there.

A row without a verdict (score None or NaN) counts as 0, stays in n, and is counted in `no_verdict`. So do
the published numbers: green-score 0.0.12 gives 0 to every completion in which it reads no matched finding,
and the refusals in the recorded judgements ("The reference report is not provided ...") are in it as 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd

from utils.findings.bootstrap import MIDDLE, RESAMPLES, SEED, resampled
from utils.regions import ALL, REGIONS, tidy

SPLIT_NAMES = {"val": "validation", "test": "test", "train": "training"}
# The six error types of GREEN, a to f (Ostmeier et al. 2024), in short.
ERRORS = ("false finding", "missing finding", "wrong location", "wrong severity")
ERRORS += ("comparison not in reference", "comparison left out")
EVERY = "all"  # every study, beside one kind of study
PUBLISHED_DATA = "IU X-Ray"  # the label of the studies that the published results are of
# System, split, mean of each region in the order of REGIONS, as published. WangLab-OA's
# recorded judgements give 0.315 for bone on test where 0.32 was published.
PUBLISHED = (
    ("WangLab-OA LLaVA-NeXT", "val", (0.69, 0.72, 0.50, 0.31)),
    ("WangLab-OA LLaVA-NeXT", "test", (0.70, 0.89, 0.66, 0.32)),
    ("Shen16 LLaVA-1.5", "test", (0.67, 0.82, 0.59, 0.33)),
    ("readygetset Qwen2-VL-7B", "test", (0.69, 0.84, 0.59, 0.12)),
)


def published() -> pd.DataFrame:
    """The published GREEN means to beat: system, split, and one column per region."""
    rows = ((system, split, *means) for system, split, means in PUBLISHED)
    return pd.DataFrame(rows, columns=["system", "split", *REGIONS])


def is_green(judge: str) -> bool:
    """Whether a judge's label names GREEN-radllama2-7b itself, at any precision."""
    return judge.lower().startswith("green") and "not green" not in judge.lower()


def one_judge(rows: pd.DataFrame) -> str:
    """The label of the judge of all `rows`. Raises ValueError where there is more than one, or none."""
    judges = list(rows["judge"].unique()) if "judge" in rows else []
    if len(judges) != 1:
        raise ValueError(f"all scores must come from one judge, not from {len(judges)}: {judges}")
    return judges[0]


def order_splits(splits: Iterable[str]) -> list[str]:
    """The distinct splits: validation, test, then the others as they came."""
    seen = list(dict.fromkeys(splits))
    return [s for s in SPLIT_NAMES if s in seen] + [s for s in seen if s not in SPLIT_NAMES]


def split_name(split: str) -> str:
    """A split as readers call it."""
    return SPLIT_NAMES.get(split, split)


def one_split(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the test split, or of the first split where there is no test."""
    splits = order_splits(rows["split"])
    return rows[rows["split"] == ("test" if "test" in splits else splits[0])]


def model_and_split(rows: pd.DataFrame) -> tuple[str, str, pd.DataFrame]:
    """The model, which is the first system; its test split, or first, by name; all rows of that split."""
    model = rows["system"].iloc[0]
    split = one_split(rows[rows["system"] == model])["split"].iloc[0]
    return model, split_name(split), rows[rows["split"] == split]


def scored(rows: Iterable[dict] | pd.DataFrame) -> pd.DataFrame:
    """The rows that count: those of the four regions whose reference has text.

    Adds `value` (the score, 0 where there is no verdict) and `no_verdict`; split and region become ordered
    categories. Raises ValueError for a missing column, an unknown region, a score outside 0 to 1, or a study
    given twice.
    """
    rows = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if missing := {"split", "region", "reference", "score"} - set(rows.columns):
        raise ValueError(f"judgements lack the column {', '.join(sorted(missing))}")
    if unknown := sorted(map(str, set(rows["region"]) - set(ALL))):
        raise ValueError(f"no such region: {', '.join(unknown)}; regions are {', '.join(ALL)}")
    rows = rows[rows["region"].isin(REGIONS) & _has_text(rows["reference"])].copy()
    score = pd.to_numeric(rows["score"])
    if not score.dropna().between(0, 1).all():
        raise ValueError(f"a score lies outside 0 to 1: {score.min():g} to {score.max():g}")
    key = [column for column in ("system", "split", "id", "region") if column in rows]
    for study in rows.loc[rows.duplicated(key), "id"] if "id" in key else ():
        raise ValueError(f"study {study} has more than one judgement of the same system, split and region")
    rows["no_verdict"] = score.isna()
    rows["value"] = score.fillna(0.0).astype(float)
    rows["split"] = pd.Categorical(rows["split"], order_splits(rows["split"]), ordered=True)
    rows["region"] = pd.Categorical(rows["region"], REGIONS, ordered=True)
    return rows


def region_table(rows: Iterable[dict] | pd.DataFrame) -> pd.DataFrame:
    """Mean score of one system: index split, columns the four regions.

    `rows` have split, region, reference, score. NaN marks a region that no reference of the split mentions;
    no verdict counts as 0, see the module's text.
    """
    rows = scored(rows)
    if "system" in rows and rows["system"].nunique() > 1:
        raise ValueError("region_table takes one system at a time; summary takes several")
    table = rows.groupby(["split", "region"], observed=False)["value"].mean().unstack("region")
    table.index, table.columns = table.index.astype(str).rename("split"), list(REGIONS)
    return table


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `scores`, one per study; ValueError without any."""
    scores = np.round(np.asarray(scores, dtype=float), 12)
    if not scores.size:
        raise ValueError("no scores: an interval needs at least one study")
    kinds, drawn = resampled(scores, RESAMPLES, SEED)
    low, high = np.quantile(drawn / scores.size @ kinds, MIDDLE)
    return float(low), float(high)


def summary(judgements: pd.DataFrame) -> pd.DataFrame:
    """One row per system, split and region: mean, n, low, high, no_verdict, empty, judge.

    `low` and `high` bound the 95 % bootstrap interval over studies; `empty` counts predictions left empty.
    Systems keep the order in which they come. Raises ValueError where there is more than one judge.
    """
    rows, table = scored(judgements), []
    for names, group in groups(rows.assign(empty=~_has_text(rows["prediction"]))):
        low, high = interval(group["value"])
        means = {"mean": group["value"].mean(), "n": len(group), "low": low, "high": high}
        table.append(names | means | dict(group[["no_verdict", "empty"]].sum()))
    return pd.DataFrame(table).assign(judge=one_judge(rows))


def compare(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Two systems on the studies that both have, one row per split and region.

    Columns: n (studies), mean_a, mean_b, difference (a - b), low and high (95 % paired bootstrap interval of
    the difference), p (two-sided sign-flip test, not corrected for the number of rows). Raises ValueError
    where judges or references differ.
    """
    sides = [scored(side).astype({"split": str, "region": str}) for side in (a, b)]
    if any("system" in side and side["system"].nunique() > 1 for side in sides):
        raise ValueError("compare takes one system on each side")
    one_judge(pd.concat(sides))
    columns = ["split", "region", "id", "reference", "value"]
    pairs = pd.merge(*(side[columns] for side in sides), on=columns[:3], suffixes=("_a", "_b"))
    if pairs.empty:
        raise ValueError("the two systems have no judged study in common")
    for study in pairs.loc[pairs["reference_a"].map(tidy) != pairs["reference_b"].map(tidy), "id"]:
        raise ValueError(f"study {study} has different references in the two systems")
    pairs["difference"], table = pairs["value_a"] - pairs["value_b"], []
    for split, region in product(order_splits(pairs["split"]), REGIONS):
        group = pairs[(pairs["split"] == split) & (pairs["region"] == region)]
        if len(group):
            low, high = interval(group["difference"])
            mean_a, mean_b, difference = group[["value_a", "value_b", "difference"]].mean()
            row = {"split": split, "region": region, "n": len(group), "mean_a": mean_a, "mean_b": mean_b}
            row |= {"difference": difference, "low": low, "high": high, "p": sign_flip(group["difference"])}
            table.append(row)
    return pd.DataFrame(table)


def sign_flip(differences: Sequence[float], resamples: int = RESAMPLES) -> float:
    """Two-sided p-value of paired differences being symmetric about 0.

    Monte Carlo, so never below 1 / (resamples + 1). Flipping signs at random leaves, for each distinct size,
    a binomial number of positive ones; `scipy.stats.permutation_test` takes thirty times as long for 590.
    """
    differences = np.round(np.asarray(differences, dtype=float), 12)
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    positive = np.random.default_rng(SEED).binomial(counts, 0.5, size=(resamples, len(counts)))
    sums = np.abs((2 * positive - counts) @ sizes)
    extreme = np.count_nonzero(sums >= abs(differences.sum()) - 1e-9)
    return (extreme + 1) / (resamples + 1)


def error_counts(judgements: pd.DataFrame) -> pd.DataFrame:
    """One row per system, split, region and error: n (judged rows), significant (errors), judge."""
    rows, table = scored(judgements), []
    for names, group in groups(rows):
        errors = np.stack(group["significant"].map(np.asarray)).sum(axis=0)
        table.append(pd.DataFrame({**names, "error": ERRORS, "n": len(group), "significant": errors}))
    return pd.concat(table, ignore_index=True).assign(judge=one_judge(rows))


def diversity(judgements: pd.DataFrame) -> pd.DataFrame:
    """One row per system and split: studies, reports, described, empty.

    `reports` counts the different reports written (all four regions together, case and white space aside);
    `empty` says how many of the `described` regions, those whose reference has text, were left empty.
    """
    rows = judgements[judgements["region"].isin(REGIONS)]
    texts, described = rows["prediction"].fillna("").map(tidy).str.casefold(), _has_text(rows["reference"])
    rows = rows.assign(text=texts, described=described, empty=described & (texts == ""))
    of_splits, table = dict(list(rows.groupby(["system", "split"]))), []
    for system, split in product(rows["system"].unique(), order_splits(rows["split"])):
        if (system, split) in of_splits:
            group = of_splits[system, split]
            reports = group.pivot(index="id", columns="region", values="text")
            row = {"system": system, "split": split, "studies": len(reports)}
            row |= {"reports": len(reports.drop_duplicates())}
            table.append(row | dict(group[["described", "empty"]].sum()))
    return pd.DataFrame(table)


def cell(group: pd.DataFrame, region: str) -> str:
    """A region's mean, interval and n among the rows of a `summary`: `0.70 [0.66, 0.74] n=590`."""
    for row in group[group["region"] == region].to_dict("records"):
        return f"{quoted(row['mean'], row['low'], row['high'])} n={row['n']}"
    return "not mentioned"


def quoted(value: float, low: float, high: float, form: str = ".2f") -> str:
    """A value with its interval: `0.70 [0.66, 0.74]`."""
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def groups(rows: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """The `scored` rows of each system, split and region, after these three by name."""
    for system in rows["system"].unique():
        of_system = rows[rows["system"] == system]
        for (split, region), group in of_system.groupby(["split", "region"], observed=True):
            yield {"system": system, "split": split, "region": region}, group


def _has_text(texts: pd.Series) -> pd.Series:
    return texts.fillna("").astype(str).str.strip() != ""
