"""From reports to judgements: the rows that `judgements.parquet` holds.

A row is one region of one study as one system wrote it: `system`, `split`,
`id`, `region`, `reference`, `prediction`, then what the judge said: `score`
(NaN where it gave no verdict), `significant` and `insignificant` (six counts
each), `matched`, `completion`, and `judge`, its label. A region that the
study's findings do not mention is kept with an empty reference: it is never
judged, and counts in no score.
"""

import gzip
import json
from pathlib import Path

import pandas as pd
from datasets import Dataset

from .judge import Judgement, judge_pairs, parse_completion
from .regions import REGIONS, mentioned
from .settings import JudgeSettings
from .workspace import StepError

CONSTANT = "best constant report"


def references(split: Dataset) -> dict[str, dict[str, str]]:
    """By study id, the findings by region that the study mentions."""
    return {study["id"]: mentioned(study) for study in split.select_columns(["id", *REGIONS])}


def prediction_rows(split: Dataset, generations: list[dict]) -> pd.DataFrame:
    """The rows for `generations`, lines of `generations.jsonl` on studies of `split`: four a study."""
    known = references(split)
    rows = [
        {
            **{name: line[name] for name in ("system", "split", "id")},
            "region": region,
            "reference": known[line["id"]].get(region, ""),
            "prediction": line["report"].get(region, ""),
        }
        for line in generations
        for region in REGIONS
    ]
    return pd.DataFrame(rows, columns=["system", "split", "id", "region", "reference", "prediction"])


def constant_rows(split: Dataset, name: str, report: dict[str, str]) -> pd.DataFrame:
    """The rows to judge if every study of `split`, called `name`, got the same `report`."""
    lines = [{"system": CONSTANT, "split": name, "id": study, "report": report} for study in split["id"]]
    return prediction_rows(split, lines)


def judged(rows: pd.DataFrame, **options) -> pd.DataFrame:
    """`rows` with their judgements, by `judge.judge_pairs` with `options`."""
    has_reference = rows["reference"] != ""
    asked = rows[has_reference]
    pairs = list(zip(asked["reference"], asked["prediction"], strict=True))
    found = with_judgements(asked, judge_pairs(pairs, **options))
    label = found["judge"].iloc[0] if len(found) else ""
    silent = with_judgements(rows[~has_reference], [parse_completion("", label)] * (~has_reference).sum())
    return pd.concat([found, silent]).sort_index()


def with_judgements(rows: pd.DataFrame, judgements: list[Judgement]) -> pd.DataFrame:
    """`rows` with their judgements, which stand in the same order."""
    names = ("score", "significant", "insignificant", "matched", "completion", "judge")
    columns = {name: [getattr(judgement, name) for judgement in judgements] for name in names}
    columns["score"] = pd.array(columns["score"], dtype="float64")
    return rows.assign(**columns)


def judge_options(settings: JudgeSettings) -> dict:
    """The settings as `judge_pairs` takes them."""
    shared = {"engine": settings.engine, "batch_size": settings.batch_size or None}
    if settings.engine == "green":
        return {**shared, "precision": settings.precision}
    if settings.engine == "server":
        return {**shared, "base_url": settings.base_url}
    return {"engine": settings.engine}


def by_study(judgements: pd.DataFrame) -> dict[str, dict[str, Judgement]]:
    """By study id and region, the judgements of one system on one split."""
    found: dict[str, dict[str, Judgement]] = {}
    for row in judgements[judgements["reference"] != ""].itertuples():
        found.setdefault(row.id, {})[row.region] = parse_completion(row.completion, row.judge)
    return found


def save(judgements: pd.DataFrame, path: Path) -> Path:
    """Write `judgements` as parquet, as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    judgements.to_parquet(temporary, index=False)
    temporary.replace(path)
    return path


def read_recorded(path: Path, system: str) -> pd.DataFrame:
    """Judgements that GREEN gave somewhere else, as rows; their completions are read by our own parser.

    `path` is JSON lines, gzipped or not, with split, id, region, reference,
    prediction and completion. Rows without a reference are left out.
    Raises StepError for a file of another kind.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        rows = pd.DataFrame(lines)[["split", "id", "region", "reference", "prediction", "completion"]]
    except (OSError, ValueError, KeyError) as error:
        raise StepError(f"{path} is not a file of recorded judgements ({error}).") from None
    rows = rows[rows["reference"].str.strip() != ""].assign(system=system)
    judgements = [parse_completion(text, "GREEN-radllama2-7b (recorded)") for text in rows["completion"]]
    return with_judgements(rows, judgements)
