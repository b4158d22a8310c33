"""From reports to judgements: the rows that `judgements.parquet` holds.

A row is one region of one study as one system wrote it: `system`, `split`, `id`, `region`, `reference`,
`prediction`, then what the judge said: `score` (NaN where it gave no verdict), `significant` and
`insignificant` (six counts each), `matched`, `completion`, and `judge`, its label. A region that the study's
findings do not mention is kept with an empty reference: it is never judged, and counts in no score.
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
Report = dict[str, str]  # texts by region
Tables = dict[str, pd.DataFrame]  # rows by system


def references(split: Dataset) -> dict[str, Report]:
    """By study id, the findings by region that the study mentions."""
    return {study["id"]: mentioned(study) for study in split.select_columns(["id", *REGIONS])}


def prediction_rows(split: Dataset, generations: Iterable[dict]) -> pd.DataFrame:
    """The rows for `generations`, lines of `generations.jsonl` on studies of `split`: four a study."""
    known, rows = references(split), []
    for line in generations:
        for region in REGIONS:
            texts = (known[line["id"]].get(region, ""), line["report"].get(region, ""))
            rows.append((line["system"], line["split"], line["id"], region, *texts))
    return pd.DataFrame(rows, columns=["system", "split", "id", "region", "reference", "prediction"])


def all_systems(
    dataset: DatasetDict, reports: dict[str, dict[str, list[dict]]], others: dict[str, dict[str, list[dict]]]
) -> Tables:
    """The rows to judge by system; a system without any is left out.

    reports: by system and split, lines of `generations.jsonl`; the fine-tuned model comes first
    others: by baseline and split, a report for each study, of which those of the model's studies are taken
    """
    written, tables = next(iter(reports.values())), {}
    for system, of_splits in (reports | others).items():
        parts = []
        for name, lines in of_splits.items():
            if system in others:
                given = dict(zip(dataset[name]["id"], lines, strict=True))
                lines = [line | {"system": system, "report": given[line["id"]]} for line in written[name]]
            parts.append(prediction_rows(dataset[name], lines))
        tables[system] = pd.concat(parts, ignore_index=True)
    return {system: rows for system, rows in tables.items() if len(rows)}


def judged(rows: pd.DataFrame, **options) -> pd.DataFrame:
    """`rows` with their judgements, by `judge.judge_pairs` with `options`."""
    asked, unasked = rows[rows["reference"] != ""], rows[rows["reference"] == ""]
    pairs = zip(asked["reference"], asked["prediction"], strict=True)
    asked = with_judgements(asked, judge_pairs(pairs, **options))
    label = asked["judge"].iloc[0] if len(asked) else ""
    unasked = with_judgements(unasked, [parse_completion("", label)] * len(unasked))
    return pd.concat([asked, unasked]).sort_index()


def with_judgements(rows: pd.DataFrame, judgements: list[Judgement]) -> pd.DataFrame:
    """`rows` with their judgements, which stand in the same order."""
    names = ("score", "significant", "insignificant", "matched", "completion", "judge")
    columns = {name: [getattr(judgement, name) for judgement in judgements] for name in names}
    return rows.assign(**columns | {"score": pd.array(columns["score"], dtype="float64")})


def _recorded(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with what their completions, which GREEN wrote elsewhere, say."""
    return with_judgements(rows, [parse_completion(text, RECORDED_LABEL) for text in rows["completion"]])


def normality(references: dict[str, Report], metadata: Path | None = None) -> tuple[dict[str, str], str]:
    """Which studies are normal and which abnormal, by id, and a sentence that says by what.

    references: as `references` gives them
    metadata: the collection's own `indiana_reports.csv`, where it is at hand; a study is normal where its
        MeSH terms say `normal`. A study that the file does not hold, or that nobody indexed, has no kind.

    Without the file, or where it has none of the studies, a study is abnormal where the offline judge reads
    an abnormal finding in its reference, which agrees with the MeSH terms on 93 % of 2,588 indexed studies of
    IU X-Ray. Raises StepError for a file of another kind.
    """
    kinds = _indexed(references, metadata) if metadata and metadata.is_file() else {}
    if kinds:
        left_out = len(references) - len(kinds)
        return kinds, f"Normal: the collection's own MeSH terms say so ({left_out:,} studies have no terms)."
    for study, texts in references.items():
        findings = [finding for text in texts.values() for finding in read_findings(text)]
        abnormal = any(finding.present and finding.names != {UNNAMED} for finding in findings)
        kinds[study] = ABNORMAL if abnormal else NORMAL
    return kinds, "Normal: the offline judge finds nothing abnormal in the reference (no MeSH terms)."


def _indexed(references: Iterable[str], metadata: Path) -> dict[str, str]:
    """By id, the kind of each study of the collection that has terms in `metadata`."""
    try:
        terms = pd.read_csv(metadata, dtype=str).set_index("uid")["MeSH"].fillna("")
    except (KeyError, ValueError) as error:
        raise StepError(f"{metadata} is not the collection's {METADATA} ({error}).") from None
    numbers = {study: study[3:].split("_")[0] for study in references if study.startswith("CXR")}
    known = {study: terms.get(number, "").strip().lower() for study, number in numbers.items()}
    indexed = {study: term for study, term in known.items() if term not in ("", *NOT_INDEXED)}
    return {study: NORMAL if term == "normal" else ABNORMAL for study, term in indexed.items()}


def by_study(judgements: pd.DataFrame) -> dict[str, dict[str, Judgement]]:
    """By study id and region, the judgements of one system on one split."""
    studies: dict[str, dict[str, Judgement]] = {}
    for row in judgements[judgements["reference"] != ""].itertuples():
        studies.setdefault(row.id, {})[row.region] = parse_completion(row.completion, row.judge)
    return studies


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
            rows = pd.DataFrame(map(json.loads, file))
        rows = rows[["split", "id", "region", "reference", "prediction", "completion"]]
    except (OSError, ValueError, KeyError) as error:
        raise StepError(f"{path} is not a file of recorded judgements ({error}).") from None
    return _recorded(rows.assign(system=system))


# One row per study, at the commit that published it; by region: reference, predictions, evaluation, green.
ADDRESS = "https://raw.githubusercontent.com/Adibvafa/WangLab-OA/"
ADDRESS += "af773f47fc0fb7aad9880f506483519f5f9dc510/results/results_test.csv"
SYSTEM = "WangLab-OA LLaVA-NeXT"
PAIRS = 20
SAME = 1e-6  # scores this close are one score
# Of twenty recorded verdicts dealt out at random among their pairs, 5 fall right on average, and half or
# more in fewer than one deal of a hundred: a judge below half may as well not have read the question.
POOR = 0.5


def published_judgements(path: Path, address: str = ADDRESS) -> pd.DataFrame:
    """The published judgements as rows; downloaded to `path` once, 3 MB. StepError where that fails."""
    if path.exists():
        return _read_published(path, str(path))
    with replacing_file(path) as temporary:
        try:
            fetch(address, temporary, "published judgements")
        except DataError as error:
            raise StepError(f"{address}: {error}") from None
        return _read_published(temporary, address)


def _read_published(path: Path, name: str) -> pd.DataFrame:
    """The rows of the published CSV. StepError, naming `name`, for another shape or other scores."""
    wrong, parts = f"{name} does not hold the published judgements", []
    texts = {"reference": "reference", "prediction": "predictions", "completion": "evaluation"}
    try:
        wide = pd.read_csv(path, dtype=str, keep_default_na=False)
        for region in REGIONS:
            rows = pd.DataFrame({to: wide[f"{region}_{column}"] for to, column in texts.items()})
            about = {"system": SYSTEM, "split": "test", "id": wide["patient_ids"], "region": region}
            parts.append(rows.assign(**about, green=wide[f"{region}_green"].astype(float)))
    except (KeyError, ValueError) as error:
        raise StepError(f"{wrong} ({tidy(str(error))}).") from None
    rows = _recorded(pd.concat(parts, ignore_index=True))
    if rows.empty or not ((rows["score"].fillna(0.0) - rows["green"]).abs() < SAME).all():
        raise StepError(f"{wrong}: its scores are not those of its completions.")
    return rows.drop(columns="green")


def check_judge(
    engine: Engine, known: pd.DataFrame, n: int = PAIRS, cache: Path | None = None
) -> pd.DataFrame:
    """Ask `engine` about `n` pairs of `known` that GREEN has judged.

    known: rows as `published_judgements` or `read_recorded` give them
    cache: as in `judge.judge_pairs`, so that a second run asks nothing

    One row per pair: region, reference, prediction, recorded, judged, agree (the same score).
    `attrs["verdict"]` says in a sentence how well they agree, no verdict counted as 0, and warns where
    few do. Raises StepError where `known` has no pair with a score and text on both sides.
    """
    table = _spread(known, n).rename(columns={"score": "recorded"})
    table = table[["region", "reference", "prediction", "recorded"]]
    if table.empty:
        raise StepError("The self-check needs recorded judgements of pairs with text on both sides.")
    judged = judge_pairs(zip(table["reference"], table["prediction"], strict=True), engine, cache=cache)
    table["judged"] = [judgement.score for judgement in judged]
    scores, spoke = table["judged"].astype(float).fillna(0.0), table["judged"].notna()
    distance, pearson = (scores - table["recorded"]).abs(), scores.corr(table["recorded"])
    table["agree"] = spoke & (distance < SAME)
    same = table["agree"].sum()
    verdict = (
        f"{engine.label}: {same} of {len(table)} scores as recorded, mean absolute difference "
        f"{distance.mean():.2f}, Pearson {'undefined' if np.isnan(pearson) else f'{pearson:.2f}'}, "
        f"{(~spoke).sum()} without a verdict."
    )
    if same < POOR * len(table):
        verdict += " **Fewer than half agree, as if the judge had not read the questions. "
        verdict += "Check the precision and the model before you trust the scores below.**"
    table.attrs["verdict"] = verdict
    return table


def _spread(known: pd.DataFrame, n: int) -> pd.DataFrame:
    """`n` distinct pairs, as many of each region, whose scores lie nearest to even steps from 0 to 1."""
    known = known.reset_index(drop=True)
    two_sided = (known["reference"].str.strip() != "") & (known["prediction"].str.strip() != "")
    known = known[known["score"].notna() & two_sided].drop_duplicates(["reference", "prediction"])
    regions = [region for region in REGIONS if region in set(known["region"])]
    chosen = []
    for number, region in enumerate(regions):
        left = known.loc[known["region"] == region, "score"]
        count = n // len(regions) + (number < n % len(regions))
        for wanted in np.linspace(0, 1, count)[: len(left)]:
            chosen.append((left - wanted).abs().idxmin())
            left = left.drop(chosen[-1])
    return known.loc[chosen].reset_index(drop=True)
