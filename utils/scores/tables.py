"""The scores as tables to read: the quiz's two, the whole one with intervals and notes, and other metrics.

Shared words are BLEU-4 and ROUGE-L by region, metrics that papers quote. They know no negation and follow
GREEN poorly. Tokens are lower-case runs of letters and digits; other tokenisations give other numbers. BLEU-4
(Papineni et al., 2002; nltk) is one number over all studies, without smoothing, and so has no interval.
ROUGE-L (Lin, 2004) is the mean over studies of the F1 of the longest common subsequence.
"""

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pandas as pd

from utils.findings.sentences import words
from utils.judge import Pair
from utils.models.systems import BASE, OF_BASE
from utils.regions import REGIONS, tidy
from utils.run.disk import write_text

from . import statistics
from .statistics import cell, groups, interval, is_green, one_judge, quoted, scored, split_name, summary

FEW = 20  # studies; the percentile bootstrap of fewer is a tenth too narrow, and worse
QUIZ_SPLITS = {"val": "Validation", "test": "Testing"}
RADEVAL = ("radgraph", "ratescore") if find_spec("radeval") else ()  # clinical, no server, more is better


def quiz_tables(summary: pd.DataFrame) -> str:
    """The two tables that the quiz asks for, one a split: the means of the model, the first system."""
    model = summary[summary["system"] == summary["system"].iloc[0]]
    parts = [f"Mean score, judge: {one_judge(summary)}"]
    for split, name in QUIZ_SPLITS.items():
        means = model[model["split"] == split].set_index("region")["mean"].map("{:.2f}".format)
        if len(means):
            head = ["Data Split", *(region.capitalize() for region in REGIONS)]
            parts.append(grid(head, [[name, *means.reindex(REGIONS).fillna("not mentioned")]]))
    return "\n\n".join(parts) + "\n"


def comparison(pairs: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """`scores.compare`'s table to be read: means under `names`, the difference with its interval, and p."""
    means = zip(names, ("mean_a", "mean_b"), strict=True)
    table = pairs[["region", "n"]].assign(**{name: pairs[side].map("{:.2f}".format) for name, side in means})
    table.insert(0, "split", pairs["split"].map(split_name))
    told = [difference(*row) for row in pairs[["difference", "low", "high"]].to_numpy()]
    table["difference, 95 % interval"] = told
    table["p"] = ["under 0.001" if p < 0.001 else f"{p:.3f}" for p in pairs["p"]]
    return table


def difference(value: float, low: float, high: float) -> str:
    """A difference with its interval: `+0.04 [-0.01, +0.09]`."""
    return quoted(value, low, high, "+.2f")


def comparisons(judgements: pd.DataFrame) -> pd.DataFrame:
    """The first system set against each other one, paired by study: a row for each system, split, region."""
    model, *others = judgements["system"].unique()
    tables = []
    for other in others:
        pairs = statistics.compare(*(judgements[judgements["system"] == name] for name in (model, other)))
        rows = comparison(pairs, (model, other)).drop(columns=[model, other])
        rows.insert(0, "minus", other)
        tables.append(rows)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["minus"])


def by_kind(judgements: pd.DataFrame, kinds: dict[str, str], *, whole: bool = False) -> pd.DataFrame:
    """The scores on each kind of study, such as normal and abnormal: `0.70 [0.66, 0.74] n=590` by region.

    One row per split, system and kind; with `whole` one of all studies before them. `kinds` by study id, as
    `scores.normality` gives them. Studies without a kind are in no row of a kind; n shows how many are in.
    Systems may have different judges.
    """
    rows, table = scored(judgements), []
    for split, system in product(statistics.order_splits(rows["split"]), rows["system"].unique()):
        of_system = rows[(rows["split"] == split) & (rows["system"] == system)]
        of_kinds = of_system.groupby(of_system["id"].map(kinds))
        for studies, group in [(statistics.EVERY, of_system)] * whole + list(of_kinds):
            if len(group):
                names, means = {"split": split, "system": system, "studies": studies}, summary(group)
                table.append(names | {region: cell(means, region) for region in REGIONS})
    return pd.DataFrame(table)


def beside(best: pd.DataFrame) -> pd.DataFrame:
    """`baselines.beside_best`'s table to be read, one row per region: all and abnormal side by side."""
    table: dict[tuple[str, str], dict[str, str]] = {}
    for row in best.itertuples():
        split, studies = split_name(row.split), row.studies
        baseline = quoted(row.baseline_mean, row.baseline_low, row.baseline_high)
        cells = table.setdefault((split, row.region), {"split": split, "region": row.region})
        cells[f"{studies}: model"] = f"{quoted(row.mean, row.low, row.high)} n={row.n}"
        cells[f"{studies}: best baseline"] = f"{baseline} {row.baseline}"
        differs = difference(row.difference, row.difference_low, row.difference_high)
        cells[f"{studies}: difference"] = differs
    return pd.DataFrame(table.values()).fillna("not mentioned")


def markdown(rows: pd.DataFrame) -> str:
    """`rows` as a Markdown table."""
    return grid(rows.columns, rows.to_numpy())


def rounded(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with their numbers to three digits, as texts."""
    return rows.map(lambda cell: f"{cell:.3f}" if isinstance(cell, float) else cell)


def grid(head: Iterable, rows: Iterable[Iterable]) -> str:
    """A Markdown table of any values; `DataFrame.to_markdown` would leave what a model wrote as markup."""
    head, marks = list(head), {"&": "&amp;", "<": "&lt;", "|": "\\|", "![": "!\\["}
    lines = []
    for row in (head, ["---"] * len(head), *rows):
        cells = [re.sub(r"[&<|]|!\[", lambda mark: marks[mark[0]], tidy(str(cell))) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table_markdown(summary: pd.DataFrame, *, data_label: str, iu_xray: bool = False) -> str:
    """The quiz's table as Markdown: rows validation and test, columns the regions.

    Cells read `0.70 [0.66, 0.74] n=590`. Several systems stand below each other within each split; of one
    system the column is left out. The published results are added only where the judge is GREEN and `iu_xray`
    says that the studies are IU X-Ray's own splits.
    """
    judge = one_judge(summary)
    published = statistics.PUBLISHED if iu_xray and is_green(judge) else ()
    rows = []
    for split in statistics.order_splits(summary["split"]):
        for system, group in summary[summary["split"] == split].groupby("system", sort=False):
            rows.append([split_name(split), system, *(cell(group, region) for region in REGIONS)])
        for system, of_split, means in published:
            if of_split == split:
                rows.append([split_name(split), f"{system} (published)", *map("{:.2f}".format, means)])
    table = pd.DataFrame(rows, columns=["split", "system", *REGIONS])
    if table["system"].nunique() == 1:
        del table["system"]
    notes = "\n".join(f"- {note}" for note in _notes(summary, judge, bool(published)))
    return f"**Mean score by region, {data_label}, judge: {judge}**\n\n{markdown(table)}\n\n{notes}\n"


def _notes(summary: pd.DataFrame, judge: str, published: bool) -> Iterator[str]:
    yield "Mean, 95 % bootstrap interval over studies, and n (studies whose reference mentions the region)."
    if (summary["low"] == summary["high"]).any():
        yield "An interval without width says that all n scores are equal, not that the mean is certain."
    if (summary["n"] < FEW).any():
        yield f"Intervals over fewer than {FEW} studies are too narrow: take them as a rough guide."
    if not is_green(judge):
        yield f"Judged by the {judge}. Do not compare these scores with GREEN scores."
    if BASE in set(summary["system"]):
        yield OF_BASE
    if unjudged := summary["no_verdict"].sum():
        rows = f"{unjudged} of {summary['n'].sum():,} rows"
        yield f"The judge gave no verdict on {rows}; they count as 0, as in the published numbers."
    if published:
        yield (
            "Published rows: the quiz's published leaderboard (GREEN-RadLlama2-7b, full IU X-Ray splits, no "
            "n or interval given); a pair without a verdict counts as 0 there too."
        )


@lru_cache(maxsize=65536)
def rouge_l(reference: str, prediction: str) -> float:
    """F1 of the longest common subsequence of tokens, 0 to 1."""
    wanted, given = words(reference), words(prediction)
    if not wanted or not given:
        return 0.0
    row = [0] * (len(given) + 1)
    for word in wanted:
        above = row[:]
        for i, other in enumerate(given, start=1):
            row[i] = above[i - 1] + 1 if word == other else max(above[i], row[i - 1])
    return 2 * row[-1] / (len(wanted) + len(given))


def bleu_4(references: Iterable[str], predictions: Iterable[str]) -> float:
    """Corpus BLEU-4, 0 to 1, one reference to a prediction."""
    from nltk.translate.bleu_score import corpus_bleu  # here, as charts are imported without waiting for it

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # nltk's, of 0 where no four words agree
        return float(corpus_bleu([[words(text)] for text in references], list(map(words, predictions))))


def text_metrics(judgements: pd.DataFrame, radeval: Sequence[str] = ()) -> pd.DataFrame:
    """One row per system, split and region: n, score (the judge's mean), BLEU-4, ROUGE-L with its interval.

    Of the rows that the judge scores, those whose reference has text; an empty prediction counts as 0.
    For each score a pair of the `radeval` metrics a column more, with its interval (see `radeval_scores`).
    """
    rows = scored(judgements).fillna({"prediction": ""})
    pairs = list(zip(rows["reference"], rows["prediction"], strict=True))
    means = {"ROUGE-L": [rouge_l(*pair) for pair in pairs]} | radeval_scores(pairs, radeval)
    table = []
    for names, group in groups(rows.assign(**means)):
        row = names | {"n": len(group), "score": group["value"].mean()}
        row["BLEU-4"] = bleu_4(group["reference"], group["prediction"])
        for name in means:
            low, high = interval(group[name])
            row |= {name: group[name].mean(), f"{name} low": low, f"{name} high": high}
        table.append(row)
    return pd.DataFrame(table)


def radeval_scores(pairs: list[Pair], metrics: Sequence[str]) -> dict[str, list[float]]:
    """The scores of (reference, prediction) pairs by RadEval's `metrics`, by the names that it gives them.

    RadEval (Xu et al., 2025) must be installed, and loads the models of its metrics itself. Each distinct
    pair is asked once; an empty prediction is scored 0 without asking, so name only metrics of which more is
    better.
    """
    asked = [pair for pair in dict.fromkeys(pairs) if pair[1].strip()]
    if not metrics or not asked:
        return {}
    from radeval import RadEval

    evaluator = RadEval(metrics=list(metrics), per_sample=True, show_progress=False)
    references, predictions = map(list, zip(*asked, strict=True))
    scores = evaluator(refs=references, hyps=predictions)
    by_pair = {name: dict(zip(asked, map(float, values), strict=True)) for name, values in scores.items()}
    return {name: [known.get(pair, 0.0) for pair in pairs] for name, known in by_pair.items()}


def write_pairs(judgements: pd.DataFrame, path: Path) -> Path:
    """Write the judged pairs as JSON lines for other metrics, such as RadEval's: see docs/evaluation.md."""
    rows = scored(judgements)[["reference", "prediction", "id", "region", "system", "split"]]
    rows = rows.fillna({"prediction": ""}).astype(str)
    rows = rows.rename(columns={"reference": "ref", "prediction": "hyp"}).to_dict("records")
    return write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
