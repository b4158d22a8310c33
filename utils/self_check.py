"""Is this judge GREEN as published? Twenty questions with known answers, before thousands are asked.

The answers are those that the reference solution's authors published with
their test run. They are fetched when they are needed: their references are
IU X-Ray's, whose licence keeps them out of this project.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import requests

from .evaluation import RECORDED_LABEL, with_judgements
from .judge import Engine, judge_pairs, parse_completion
from .regions import REGIONS, tidy
from .workspace import StepError, replacing_file

# A row a study, at the commit that published it; by region its reference, predictions, evaluation and green.
ADDRESS = (
    "https://raw.githubusercontent.com/Adibvafa/WangLab-OA/"
    "af773f47fc0fb7aad9880f506483519f5f9dc510/results/results_test.csv"
)
SYSTEM = "WangLab-OA LLaVA-NeXT"
PAIRS = 20
TIMEOUT = 30  # seconds without an answer
SAME = 1e-6  # scores this close are one score
# Of twenty recorded verdicts dealt out at random among their pairs, 5 fall right on average, and half or
# more in fewer than one deal of a hundred: a judge below half may as well not have read the question.
POOR = 0.5


def published(path: Path, address: str = ADDRESS) -> pd.DataFrame:
    """The published judgements as rows (see `evaluation`); downloaded to `path` once, 3 MB.

    Raises StepError where they cannot be downloaded, or are not what they
    should be: then nothing is kept.
    """
    if path.exists():
        return read_published(path)
    try:
        answer = requests.get(address, timeout=TIMEOUT)
        answer.raise_for_status()
    except requests.RequestException as error:
        status = getattr(error.response, "status_code", None)
        reason = f"the server answers {status}" if status else f"no answer, {type(error).__name__}"
        raise StepError(f"{address} cannot be downloaded ({reason}).") from None
    with replacing_file(path) as temporary:
        temporary.write_bytes(answer.content)
        return read_published(temporary, address)


def read_published(path: Path, name: str = "") -> pd.DataFrame:
    """The rows of the published CSV, which has a row a study.

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


def check(engine: Engine, known: pd.DataFrame, n: int = PAIRS, cache: Path | None = None) -> pd.DataFrame:
    """Ask `engine` about `n` pairs of `known` that GREEN has judged.

    known: rows as `published` or `evaluation.read_recorded` give them
    cache: as in `judge.judge_pairs`, so that a second run asks nothing

    A row a pair: region, reference, prediction, recorded, judged, agree (the
    same score). `attrs["verdict"]` says in a sentence how many agree, and
    warns where they are few. Raises StepError where `known` has no pair with
    a score and text on both sides.
    """
    chosen = _spread(known, n)
    if chosen.empty:
        raise StepError("The self-check needs recorded judgements of pairs with text on both sides.")
    judged = judge_pairs(zip(chosen["reference"], chosen["prediction"], strict=True), engine, cache=cache)
    distance = np.abs([one.score_as_published for one in judged] - chosen["score"])
    spoke = np.array([one.score is not None for one in judged])
    table = chosen[["region", "reference", "prediction"]].assign(
        recorded=chosen["score"], judged=[one.score for one in judged], agree=spoke & (distance < SAME)
    )
    same, silent = int(table["agree"].sum()), int((~spoke).sum())
    verdict = (
        f"{engine.label}: {same} of {len(table)} scores as recorded, mean absolute difference "
        f"{distance.mean():.2f}, {silent} without a verdict."
    )
    if same < POOR * len(table):
        verdict += (
            " **Fewer than half agree, as if the questions had not been read: "
            "look at the precision and the model before you trust the scores below.**"
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
