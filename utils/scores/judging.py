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
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict

from utils.data.downloads import fetch
from utils.data.layouts import INDIANA
from utils.data.studies import DataError
from utils.findings.reader import UNNAMED, read_findings
from utils.judge import Engine, Judgement, judge_pairs, parse_completion
from utils.regions import REGIONS, mentioned, tidy
from utils.run.disk import replacing_file
from utils.run.workspace import StepError

RECORDED_LABEL = "GREEN-radllama2-7b (recorded)"
METADATA = INDIANA[0]  # the collection's own: one line per study, with its MeSH terms
NOT_INDEXED = ("no indexing", "technical quality of image unsatisfactory")
NORMAL, ABNORMAL = "normal", "abnormal"


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


def baseline_rows(
    split: Dataset, name: str, system: str, report: dict[str, str] | list[dict[str, str]]
) -> pd.DataFrame:
    """The rows to judge for a baseline called `system` on `split`, called `name`.

    `report` is one report that every study gets, or one for each study in the order of `split`.
    """
    reports = [report] * len(split) if isinstance(report, dict) else report
    lines = [
        {"system": system, "split": name, "id": study, "report": written}
        for study, written in zip(split["id"], reports, strict=True)
    ]
    return prediction_rows(split, lines)


def all_systems(
    dataset: DatasetDict, reports: dict[str, dict[str, list[dict]]], others: dict[str, dict[str, dict | list]]
) -> dict[str, pd.DataFrame]:
    """The rows to judge by system; a system without any is left out.

    reports: by system and split, lines of `generations.jsonl`; the fine-tuned model comes first
    others: by baseline and split, a report for all studies or one for each; they get the model's studies
    """
    written = next(iter(reports.values()))
    parts = {
        system: [prediction_rows(dataset[name], lines) for name, lines in of.items()]
        for system, of in reports.items()
    }
    for system, of in others.items():
        parts[system] = []
        for name, given in of.items():
            count = len(written[name])
            report = given if isinstance(given, dict) else given[:count]
            parts[system].append(baseline_rows(dataset[name].select(range(count)), name, system, report))
    found = {system: pd.concat(rows, ignore_index=True) for system, rows in parts.items()}
    return {system: rows for system, rows in found.items() if len(rows)}


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


def normality(
    references: dict[str, dict[str, str]], metadata: Path | None = None
) -> tuple[dict[str, str], str]:
    """Which studies are normal and which abnormal, by id, and a sentence that says by what.

    references: by study id, the findings by region, as `references` gives them
    metadata: the collection's own `indiana_reports.csv`, where it is at hand; a
        study is normal where its MeSH terms say `normal`. A study that the file
        does not hold, or that nobody indexed, has no kind.

    Without the file, or where it has none of the studies, a study is abnormal
    where the offline judge reads an abnormal finding in its reference, which
    agrees with the MeSH terms on 93 % of 2,588 indexed studies of IU X-Ray.
    Raises StepError for a file of another kind.
    """
    kinds = _indexed(references, metadata) if metadata and metadata.is_file() else {}
    if not kinds:
        kinds = {study: _kind_of(findings.values()) for study, findings in references.items()}
        return kinds, "Normal: the offline judge finds nothing abnormal in the reference (no MeSH terms)."
    left_out = len(references) - len(kinds)
    return kinds, f"Normal: the collection's own MeSH terms say so ({left_out:,} studies have no terms)."


def _indexed(references: Iterable[str], metadata: Path) -> dict[str, str]:
    """By id, the kind of each study of the collection that has terms in `metadata`."""
    try:
        terms = pd.read_csv(metadata, dtype=str).set_index("uid")["MeSH"].fillna("")
    except (KeyError, ValueError) as error:
        raise StepError(f"{metadata} is not the collection's {METADATA} ({error}).") from None
    kinds = {}
    for study in references:
        number = study.removeprefix("CXR").split("_")[0] if study.startswith("CXR") else ""
        term = terms.get(number, "").strip().lower()
        if term and term not in NOT_INDEXED:
            kinds[study] = NORMAL if term == "normal" else ABNORMAL
    return kinds


def _kind_of(texts: Iterable[str]) -> str:
    found = [finding for text in texts for finding in read_findings(text)]
    return ABNORMAL if any(one.present and one.names != {UNNAMED} for one in found) else NORMAL


def by_study(judgements: pd.DataFrame) -> dict[str, dict[str, Judgement]]:
    """By study id and region, the judgements of one system on one split."""
    found: dict[str, dict[str, Judgement]] = {}
    for row in judgements[judgements["reference"] != ""].itertuples():
        found.setdefault(row.id, {})[row.region] = parse_completion(row.completion, row.judge)
    return found


def save(judgements: pd.DataFrame, path: Path) -> Path:
    """Write `judgements` as parquet, as a whole or not at all."""
    with replacing_file(path) as temporary:
        judgements.to_parquet(temporary, index=False)
    return path


def read_judgements(path: str | Path) -> pd.DataFrame:
    """The judgements that another run saved. Raises StepError for a file of another kind."""
    try:
        rows = pd.read_parquet(path)
        rows[["system", "split", "id", "region", "reference", "prediction", "score", "judge"]]
    except (OSError, ValueError, KeyError) as error:
        raise StepError(f"{path} is not a run's judgements.parquet ({error}).") from None
    return rows


def read_recorded(path: str | Path, system: str) -> pd.DataFrame:
    """Judgements that GREEN gave somewhere else, as rows; their completions are read by our own parser.

    `path` is JSON lines, gzipped or not, with split, id, region, reference, prediction and completion.
    Raises StepError for a file of another kind.
    """
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        rows = pd.DataFrame(lines)[["split", "id", "region", "reference", "prediction", "completion"]]
    except (OSError, ValueError, KeyError) as error:
        raise StepError(f"{path} is not a file of recorded judgements ({error}).") from None
    rows = rows.assign(system=system)
    judgements = [parse_completion(text, RECORDED_LABEL) for text in rows["completion"]]
    return with_judgements(rows, judgements)


# One row per study, at the commit that published it; by region: reference, predictions, evaluation, green.
ADDRESS = (
    "https://raw.githubusercontent.com/Adibvafa/WangLab-OA/"
    "af773f47fc0fb7aad9880f506483519f5f9dc510/results/results_test.csv"
)
SYSTEM = "WangLab-OA LLaVA-NeXT"
PAIRS = 20
SAME = 1e-6  # scores this close are one score
# Of twenty recorded verdicts dealt out at random among their pairs, 5 fall right on average, and half or
# more in fewer than one deal of a hundred: a judge below half may as well not have read the question.
POOR = 0.5


def published_judgements(path: Path, address: str = ADDRESS) -> pd.DataFrame:
    """The published judgements as rows; downloaded to `path` once, 3 MB.

    Raises StepError where they cannot be downloaded, which the next call goes
    on with, or are not what they should be: then nothing is kept.
    """
    if path.exists():
        return read_published(path)
    with replacing_file(path) as temporary:
        try:
            fetch(address, temporary, "published judgements")
        except DataError as error:
            raise StepError(f"{address}: {error}") from None
        return read_published(temporary, address)


def read_published(path: Path, name: str = "") -> pd.DataFrame:
    """The rows of the published CSV, which has one row per study.

    Raises StepError, naming the file by `name` or its path, for one of another
    shape and one whose scores are not those of its completions.
    """
    wrong = f"{name or path} does not hold the published judgements"
    try:
        wide = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = pd.concat([_of_region(wide, region) for region in REGIONS], ignore_index=True)
    except (KeyError, ValueError) as error:
        raise StepError(f"{wrong} ({tidy(str(error))}).") from None
    judgements = [parse_completion(text, RECORDED_LABEL) for text in rows["completion"]]
    read = np.array([judgement.score_as_published for judgement in judgements])
    if rows.empty or not (np.abs(read - rows["green"]) < SAME).all():
        raise StepError(f"{wrong}: its scores are not those of its completions.")
    return with_judgements(rows.drop(columns="green"), judgements)


def _of_region(wide: pd.DataFrame, region: str) -> pd.DataFrame:
    columns = {
        "reference": f"{region}_reference",
        "prediction": f"{region}_predictions",
        "completion": f"{region}_evaluation",
    }
    rows = pd.DataFrame({to: wide[column] for to, column in columns.items()})
    about = {"system": SYSTEM, "split": "test", "id": wide["patient_ids"], "region": region}
    return rows.assign(**about, green=wide[f"{region}_green"].astype(float))


def check_judge(
    engine: Engine, known: pd.DataFrame, n: int = PAIRS, cache: Path | None = None
) -> pd.DataFrame:
    """Ask `engine` about `n` pairs of `known` that GREEN has judged.

    known: rows as `published_judgements` or `read_recorded` give them
    cache: as in `judge.judge_pairs`, so that a second run asks nothing

    A row a pair: region, reference, prediction, recorded, judged, agree (the same score).
    `attrs["verdict"]` says in a sentence how well they agree, no verdict counted as 0, and warns where
    few do. Raises StepError where `known` has no pair with a score and text on both sides.
    """
    chosen = _spread(known, n)
    if chosen.empty:
        raise StepError("The self-check needs recorded judgements of pairs with text on both sides.")
    judged = judge_pairs(zip(chosen["reference"], chosen["prediction"], strict=True), engine, cache=cache)
    scores = pd.Series([one.score_as_published for one in judged], chosen.index)
    distance, pearson = (scores - chosen["score"]).abs(), scores.corr(chosen["score"])
    spoke = np.array([one.score is not None for one in judged])
    table = chosen[["region", "reference", "prediction"]].assign(
        recorded=chosen["score"], judged=[one.score for one in judged], agree=spoke & (distance < SAME)
    )
    same, silent = int(table["agree"].sum()), int((~spoke).sum())
    verdict = (
        f"{engine.label}: {same} of {len(table)} scores as recorded, mean absolute difference "
        f"{distance.mean():.2f}, Pearson {'undefined' if np.isnan(pearson) else f'{pearson:.2f}'}, "
        f"{silent} without a verdict."
    )
    if same < POOR * len(table):
        verdict += (
            " **Fewer than half agree, as if the judge had not read the questions. "
            "Check the precision and the model before you trust the scores below.**"
        )
    table.attrs["verdict"] = verdict
    return table.reset_index(drop=True)


def _spread(known: pd.DataFrame, n: int) -> pd.DataFrame:
    """`n` distinct pairs, as many of each region: those whose scores lie nearest to even steps from 0 to 1.

    Of equally near ones it is the first in the file's order.
    """
    known = known.reset_index(drop=True)
    two_sided = (known["reference"].str.strip() != "") & (known["prediction"].str.strip() != "")
    known = known[known["score"].notna() & two_sided]
    known = known.drop_duplicates(["reference", "prediction"])
    regions = [region for region in REGIONS if region in set(known["region"])]
    chosen = []
    for number, region in enumerate(regions):
        left = known.loc[known["region"] == region, "score"]
        count = n // len(regions) + (number < n % len(regions))
        for wanted in np.linspace(0, 1, count)[: len(left)]:
            nearest = (left - wanted).abs().idxmin()
            chosen.append(nearest)
            left = left.drop(nearest)
    return known.loc[chosen]
