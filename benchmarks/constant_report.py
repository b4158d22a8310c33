"""What one report for everyone scores on IU X-Ray's test studies, beside a model judged by GREEN.

    python benchmarks/constant_report.py annotation_quiz_all.json green_test.jsonl.gz [indiana_reports.csv]

Two tables in Markdown. The first has the constant report and the most frequent
sentences, both chosen on training findings alone, and the recorded model, all
by the offline judge; and the recorded model by GREEN itself. With the
collection's `indiana_reports.csv` also on the normal and the abnormal studies
apart, by its MeSH terms. The second has the phrases that the recorded model gave
often: the mean that GREEN gave each, over the studies whose reference mentions
the region, and the offline judge's on the same rows.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from findings import Studies, annotated

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils import judge, scores  # noqa: E402
from utils.regions import REGIONS  # noqa: E402
from utils.scores import baselines  # noqa: E402
from utils.scores.statistics import interval, scored  # noqa: E402

RECORDED = "recorded model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotation", type=Path, help="the quiz's annotation: training and test findings")
    parser.add_argument("recorded", type=Path, help="judgements of the test studies that GREEN gave")
    parser.add_argument("metadata", type=Path, nargs="?", help="the collection's indiana_reports.csv")
    parser.add_argument("--often", type=int, default=50, help="phrases given so often or more (%(default)s)")
    chosen = parser.parse_args()
    training, test = annotated(chosen.annotation)
    given = scores.read_recorded(chosen.recorded, RECORDED)
    print(report(training, test, given, chosen.metadata, chosen.often))


def report(
    training: Studies, test: Studies, recorded: pd.DataFrame, metadata: Path | None, often: int
) -> str:
    """Both tables, with what they show; findings by study id. Raises ValueError for other test studies."""
    known = [test.get(row.id, {}).get(row.region, "") for row in recorded.itertuples()]
    if not (recorded["reference"].str.strip() == known).all():
        raise ValueError("the recorded judgements are not of the annotation's test studies")
    constant = baselines.chosen(baselines.rank_constants(list(training.values()), judge.judge_pairs))
    frequent = baselines.most_frequent(list(training.values()))
    plain = recorded[["system", "split", "id", "region", "reference", "prediction"]]
    systems = [
        plain.assign(system=name, prediction=plain["region"].map(text).fillna(""))
        for name, text in ((baselines.CONSTANT, constant), (baselines.FREQUENT, frequent))
    ]
    offline = scores.judged(pd.concat([*systems, plain], ignore_index=True))
    kinds, by_what = {}, "Normal and abnormal studies apart: only with indiana_reports.csv."
    if metadata:
        kinds, by_what = scores.normality(test, metadata)
    tables = [
        scores.by_kind(rows, kinds, whole=True).assign(judge=scores.one_judge(rows))
        for rows in (offline, recorded)
    ]
    table = pd.concat(tables)[["judge", "system", "studies", *REGIONS]]
    lines = [
        f"- {region}: “{text}” (most frequent: “{frequent[region]}”)" for region, text in constant.items()
    ]
    parts = [
        f"Test studies: mean, 95 % interval and n (references that mention the region). {by_what}",
        scores.markdown(table),
        "The constant report, chosen on training findings alone:",
        "\n".join(lines),
        f"Phrases that the recorded model gave {often} times or more; the means are over the n studies whose "
        "reference mentions the region:",
        scores.markdown(phrases(recorded, offline[offline["system"] == RECORDED], often)),
    ]
    return "\n\n".join(part.strip() for part in parts)


def phrases(recorded: pd.DataFrame, offline: pd.DataFrame, often: int) -> pd.DataFrame:
    """What the recorded model gave `often` times or more, one row per phrase, with both judges' means."""
    both = scored(recorded).assign(offline=scored(offline)["value"].to_numpy())
    table = []
    for (region, phrase), group in both.groupby(["region", "prediction"], observed=True):
        times = ((recorded["region"] == region) & (recorded["prediction"] == phrase)).sum()
        if phrase.strip() and times >= often:
            low, high = interval(group["value"])
            green = f"{group['value'].mean():.2f} [{low:.2f}, {high:.2f}]"
            row = {"region": region, "phrase": phrase, "given": times, "n": len(group), "GREEN": green}
            table.append(row | {"offline judge": f"{group['offline'].mean():.2f}"})
    return pd.DataFrame(table, columns=["region", "phrase", "given", "n", "GREEN", "offline judge"])


if __name__ == "__main__":
    main()
