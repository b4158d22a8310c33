"""Baselines, made of training studies alone: two reports that everyone gets, and two made of looks.

The best constant and the most frequent sentences read no picture. The constant is a training text that
reports often give, chosen by cross-validation within training. The third gives each study the findings of the
training study that looks most like it, by the cosine of their image features as the fine-tuned model's own
vision tower sees them: a model that scores no better copies. The fourth says what the findings probe reads,
in fixed sentences: a model that is no better has added nothing to the probe.
"""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from datasets import DatasetDict

from utils.findings.bootstrap import SEED
from utils.findings.plans import left_out
from utils.findings.reader import EVERYTHING, UNNAMED, read_findings
from utils.judge import judge_pairs
from utils.models.writer import Writer
from utils.regions import REGIONS, mentioned
from utils.run.progress import progress

from .judging import ABNORMAL, Report, references
from .statistics import EVERY, compare, scored, summary

CONSTANT = "best constant report"
FREQUENT = "most frequent sentences"
NEAREST = "nearest training study"
PROBED = "probe's own sentences"
BASELINES = (CONSTANT, FREQUENT, NEAREST, PROBED)
AT_ONCE = 256  # studies that are compared with all training studies at once


def make(
    writer: Writer, dataset: DatasetDict, show: Callable = progress
) -> tuple[dict[str, dict[str, list[Report]]], pd.DataFrame]:
    """By baseline and split a report for each study; and what the constant was chosen from."""
    training = list(references(dataset["train"]).values())
    copied, ranked = nearest(writer, dataset, show), rank_constants(training, judge_pairs)
    reports = {CONSTANT: chosen(ranked), FREQUENT: most_frequent(training)}
    counts = {split: len(of_split) for split, of_split in copied.items()}
    given = {name: {split: [report] * n for split, n in counts.items()} for name, report in reports.items()}
    fixed = probed(writer, dataset, reports[CONSTANT])
    return given | {NEAREST: copied} | ({PROBED: fixed} if fixed else {}), ranked


def probed(writer: Writer, dataset: DatasetDict, constant: Report) -> dict[str, list[Report]]:
    """By split, validation and test, a report for each study without a language model; `{}` without a probe.

    A region has one fixed sentence for each finding that the probe reads, else `constant`'s text.
    """
    reports = {}
    if writer.probe and writer.probe.names:
        for name in [split for split in dataset if split != "train"]:
            plans = writer.plans(writer.features(dataset[name], name))
            reports[name] = [constant | left_out({}, plan) for plan in plans]
    return reports


def nearest(writer: Writer, dataset: DatasetDict, show: Callable = progress) -> dict[str, list[Report]]:
    """By split, validation and test, a report for each study, by `nearest_reports` and `models.features`."""
    seen = {name: writer.features(studies, name, show)[:, 1, 0] for name, studies in dataset.items()}
    known, findings = seen.pop("train"), list(references(dataset["train"]).values())
    return {name: nearest_reports(features, known, findings) for name, features in seen.items()}


def nearest_reports(features: np.ndarray, known: np.ndarray, findings: list[Report]) -> list[Report]:
    """For each row of `features` a report by region, copied from the training studies.

    known: (training studies, hidden), features of the studies with `findings`, the regions that each mentions

    A region comes from the nearest training study that mentions it; one that none mentions is left out.
    """
    centre = known.mean(axis=0)  # without it every pair of radiographs is alike
    known = _unit(known - centre)
    mention = {region: [i for i, study in enumerate(findings) if region in study] for region in REGIONS}
    reports: list[Report] = [{} for _ in features]
    for start in range(0, len(features), AT_ONCE):
        alike = _unit(features[start : start + AT_ONCE] - centre) @ known.T
        for region, studies in mention.items():
            for row, best in enumerate(alike[:, studies].argmax(axis=1) if studies else (), start=start):
                reports[row][region] = findings[studies[best]][region]
    return reports


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def most_frequent(train_findings: list[dict[str, str]]) -> dict[str, str]:
    """The most frequent training text of each region that any study mentions, as most often spelled."""
    return {region: _spelled(texts)[0][0] for region, texts in _by_region(train_findings).items()}


def chosen(ranked: pd.DataFrame) -> dict[str, str]:
    """For each region the text to give to everyone: the first of `rank_constants`."""
    return ranked.groupby("region", sort=False)["text"].first().to_dict()


def rank_constants(
    train_findings: list[dict[str, str]],
    judge: Callable[[list[tuple[str, str]]], list],
    candidates: int = 20,
    folds: int = 10,
    sample: int = 1000,
    seed: int = SEED,
) -> pd.DataFrame:
    """Texts that could be given to every study, by region, the chosen one first; training findings only.

    judge: takes (reference, prediction) pairs and gives objects with `.score`; it is asked once for each
        distinct pair, at most `candidates * sample` pairs a region

    The references, a random `sample`, are dealt into `folds`. Candidates are the `candidates` most frequent
    texts that say what they speak of (see `_candidates`). The best has the highest mean over folds. Chosen is
    the most frequent of those within one standard error of it (of the paired difference, over folds).

    Columns: region, text, studies (that give it), mean (over folds), behind (the best mean minus this one)
    and error (the standard error of that).
    """
    tables = []
    for region, known in _by_region(train_findings).items():
        drawn = np.random.default_rng(seed).permutation(len(known))[:sample]
        parts = np.array_split(drawn, min(folds, len(drawn)))
        table = pd.DataFrame(_candidates(known, parts, candidates), columns=["text", "studies"])
        column = {text: i for i, text in enumerate(dict.fromkeys(known[i] for i in drawn))}
        verdicts = judge([(reference, text) for text in table["text"] for reference in column])
        scores = np.array([verdict.score or 0.0 for verdict in verdicts]).reshape(len(table), len(column))
        means = np.array([scores[:, [column[known[i]] for i in part]].mean(axis=1) for part in parts])
        behind = means[:, [means.mean(axis=0).argmax()]] - means
        error = behind.std(axis=0, ddof=min(1, len(parts) - 1)) / len(parts) ** 0.5
        table = table.assign(mean=means.mean(axis=0), behind=behind.mean(axis=0), error=error)
        best = (table["behind"] <= table["error"] + 1e-9).idxmax()  # the most frequent come first
        others = table.drop(best).sort_values("mean", ascending=False, kind="stable")
        tables.append(pd.concat([table.loc[[best]], others]).assign(region=region))
    columns = ["region", "text", "studies", "mean", "behind", "error"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def _candidates(known: list[str], parts: list[np.ndarray], count: int) -> list[tuple[str, int]]:
    """The texts to try, the most frequent first, each with the number of studies that give it.

    known: the texts of one region; parts: which of them each fold holds out

    A candidate is among the `count` most frequent whichever fold is left out, and the offline judge reads in
    it named findings or structures only: "Unremarkable." would meet any normal statement. Where no text
    passes, as in a handful of studies, the most frequent stand.
    """

    def is_named(text: str) -> bool:
        return not any(finding.names & {UNNAMED, EVERYTHING} for finding in read_findings(text))

    def frequent(texts: Iterable[str]) -> list[tuple[str, int]]:
        return [(text, n) for text, n in _spelled(texts) if is_named(text)][:count]

    first = frequent(known)
    for part in parts:
        others = {text.casefold() for text, _ in frequent(np.delete(np.array(known, object), part))}
        first = [(text, n) for text, n in first if text.casefold() in others]
    return first or frequent(known) or _spelled(known)[:count]


def _by_region(studies: list[dict[str, str]]) -> dict[str, list[str]]:
    """The texts of each region that any study mentions."""
    known = [mentioned(findings) for findings in studies]
    texts = {region: [study[region] for study in known if region in study] for region in REGIONS}
    return {region: given for region, given in texts.items() if given}


def _spelled(texts: Iterable[str]) -> list[tuple[str, int]]:
    """The distinct texts, case aside, in their most frequent spelling, each with its number, most first."""
    same: dict[str, Counter] = {}
    for text in texts:
        same.setdefault(text.casefold(), Counter())[text] += 1
    ranked = sorted(same.values(), key=Counter.total, reverse=True)
    return [(spellings.most_common(1)[0][0], spellings.total()) for spellings in ranked]


def beside_best(judgements: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """The model beside the best baseline, on all and abnormal studies; one row per split, studies and region.

    The model is the first system of `judgements`; `kinds` as `scores.normality` gives them. The best of
    `BASELINES` has the highest mean on the studies that the model wrote: the hardest to beat, in hindsight.

    Columns: split, studies, region, n, judge; mean, low, high of the model; baseline (its name),
    baseline_mean, baseline_low, baseline_high; difference, difference_low, difference_high (model minus
    baseline, paired), p. Without a baseline there are no rows.
    """
    model = judgements["system"].iloc[0]
    written = judgements.loc[judgements["system"] == model, ["split", "id"]].drop_duplicates()
    judgements = judgements.merge(written, on=["split", "id"])  # a run may have written a part of the studies
    table = []
    for studies in (EVERY, ABNORMAL):
        group = judgements if studies == EVERY else judgements[judgements["id"].map(kinds) == studies]
        systems = dict(list(scored(group).groupby("system")))
        others = [name for name in BASELINES if name in systems]
        if model not in systems or not others:
            continue
        means = summary(group).set_index(["split", "region", "system"])
        pairs = [compare(systems[model], systems[name]).assign(baseline=name) for name in others]
        pairs = pd.concat(pairs, ignore_index=True)
        for row in pairs.loc[pairs.groupby(["split", "region"], sort=False)["mean_b"].idxmax()].itertuples():
            sides = {"": model, "baseline_": row.baseline}
            at = {side: means.loc[(row.split, row.region, name)] for side, name in sides.items()}
            table.append(
                {"split": row.split, "studies": studies, "region": row.region, "n": row.n}
                | {side + name: at[side][name] for side in sides for name in ("mean", "low", "high")}
                | {"baseline": row.baseline, "difference": row.difference, "p": row.p}
                | {"difference_low": row.low, "difference_high": row.high, "judge": at[""]["judge"]}
            )
    return pd.DataFrame(table) if table else pd.DataFrame(columns=["split", "studies", "region"])
