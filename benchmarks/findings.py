"""Which findings recorded predictions name rightly on IU X-Ray, beside reports that read no image.

    python benchmarks/findings.py annotation_quiz_all.json green_test.jsonl.gz [moerad_iu_test.csv ...]
    python benchmarks/findings.py ... --metadata indiana_reports.csv

A file of recorded predictions of the test studies has a row for each study and region (JSON lines,
gzipped or not: id, region, prediction), or for each study (CSV: study_id, report): then the
offline engine splits the report by region. The findings are those that training reports name
often. The first table has all of them together, for each recorded file, for the best constant
report and for the most frequent sentences, both chosen on training findings alone; the next go
finding by finding, of those that name any.

With the collection's own `indiana_reports.csv` it also prints how good the reader of findings is:
what it reads in the training and test references, against what people have indexed, its MeSH terms
and problems. They index the whole report, of which the reader has the region's findings only.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils import judge, scores  # noqa: E402
from utils.findings import counts, groups  # noqa: E402
from utils.regions import REGIONS, mentioned  # noqa: E402
from utils.scores import baselines, findings  # noqa: E402
from utils.scores.judging import NOT_INDEXED  # noqa: E402
from utils.split import split_findings  # noqa: E402

LABEL = "IU X-Ray"
Studies = dict[str, dict[str, str]]  # findings by region, by study id
# The terms that stand for a group, as patterns of a whole term, such as `aorta/tortuous/mild`.
TERMS = {
    "effusion": r"pleural effusion.*",
    "opacity": r"(opacity|pulmonary atelectasis|consolidation|airspace disease).*",
    "hypoinflation": r"lung\b.*/hypoinflation.*",
    "hyperinflation": r"lung\b.*/hyperdistention.*|(pulmonary )?emphysema.*|pulmonary disease, chronic.*",
    "granuloma": r"(calcified )?granuloma.*|granulomatous disease.*",
    "cardiomegaly": r"cardiomegaly.*",
    "tortuous or calcified aorta": r"aorta\b.*/tortuous.*|atherosclerosis.*|calcinosis/aorta.*",
    "degenerative change": r".*degenerative.*|spondylosis.*|osteophyte.*",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotation", type=Path, help="the quiz's annotation: training and test findings")
    parser.add_argument("recorded", type=Path, nargs="+", help="predictions of the test studies")
    parser.add_argument("--metadata", type=Path, help="the collection's indiana_reports.csv")
    chosen = parser.parse_args()
    training, test = annotated(chosen.annotation)
    given = {path.name.split(".")[0]: read(path) for path in chosen.recorded}
    print(report(training, test, given))
    if chosen.metadata:
        table, studies = reader_against_terms(training | test, chosen.metadata)
        text = "The reader against the collection's MeSH terms and problems"
        print(f"\n{text}, {studies:,} indexed studies:\n\n{scores.markdown(table)}")


def annotated(path: Path) -> tuple[Studies, Studies]:
    """The training and the test findings of the quiz's annotation."""
    splits = json.loads(path.read_text(encoding="utf-8"))
    training, test = (
        {study["id"]: mentioned(study["report"]) for study in splits[name]} for name in ("train", "test")
    )
    return training, test


def read(path: Path) -> Studies:
    """Recorded predictions by study id and region, of both forms."""
    if path.suffix == ".csv":
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        return dict(zip(rows["study_id"], split_findings(list(rows["report"])), strict=True))
    studies = pd.read_json(path, lines=True).groupby("id", sort=False)
    return {study: dict(zip(rows["region"], rows["prediction"], strict=True)) for study, rows in studies}


def report(training: Studies, test: Studies, recorded: dict[str, Studies]) -> str:
    """The tables, with what they count; recorded predictions by their name.

    Raises ValueError where these are of other studies than `test`.
    """
    for name, given in recorded.items():
        if set(given) != set(test):
            raise ValueError(f"{name} does not hold the annotation's {len(test)} test studies")
    known = list(training.values())
    everyone = {
        baselines.CONSTANT: baselines.chosen(baselines.rank_constants(known, judge.judge_pairs)),
        baselines.FREQUENT: baselines.most_frequent(known),
    }
    systems = recorded | {name: dict.fromkeys(test, text) for name, text in everyone.items()}
    rows = [
        (name, "test", study, region, said.get(region, ""), given[study].get(region, ""))
        for name, given in systems.items()
        for study, said in test.items()
        for region in REGIONS
    ]
    counted = findings.count([pd.DataFrame(rows, columns=counts.COLUMNS)], groups.frequent(known))
    return f"{findings.tables(counted, data_label=LABEL)}\n{findings.others(counted)}".strip()


def reader_against_terms(studies: Studies, metadata: Path) -> tuple[pd.DataFrame, int]:
    """A row for each finding that has `TERMS`, and how many of `studies` are indexed.

    Only studies that mention the finding's region count: n, those with a term for it, those where
    the reader reads it, precision, recall and F1 of the reader.
    """
    terms = pd.read_csv(metadata, dtype=str, keep_default_na=False).set_index("uid")
    indexed = {}
    for study in studies:
        row = terms.loc[study.removeprefix("CXR").split("_")[0]]
        if row["MeSH"] and row["MeSH"].strip().lower() not in NOT_INDEXED:
            indexed[study] = [term.strip() for term in f"{row['MeSH']};{row['Problems']}".lower().split(";")]
    table = []
    for group in groups.GROUPS:
        if group.name not in TERMS:
            continue
        pattern = re.compile(TERMS[group.name])
        texts = {study: studies[study].get(group.region, "") for study in indexed}
        with_term = {
            study for study in indexed if texts[study] and any(map(pattern.fullmatch, indexed[study]))
        }
        as_read = {study for study, text in texts.items() if group.name in groups.named(text, group.region)}
        both = len(with_term & as_read)
        table.append(
            {
                "finding": group.name,
                "n": sum(map(bool, texts.values())),
                "indexed": len(with_term),
                "read": len(as_read),
                "precision": f"{both / max(1, len(as_read)):.2f}",
                "recall": f"{both / max(1, len(with_term)):.2f}",
                "F1": f"{2 * both / max(1, len(as_read) + len(with_term)):.2f}",
            }
        )
    return pd.DataFrame(table), len(indexed)


if __name__ == "__main__":
    main()
