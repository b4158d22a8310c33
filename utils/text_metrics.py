"""BLEU-4 and ROUGE-L by region: metrics that papers quote, as further columns beside the judge's score.

They count shared words, know no negation, and follow GREEN poorly. Tokens are
lower-case runs of letters and digits; other tokenisations give other numbers.
BLEU-4 (Papineni et al., 2002; nltk) is one number over all studies, without
smoothing, and so has no interval; ROUGE-L (Lin, 2004) is the mean over studies
of the F1 of the longest common subsequence.
"""

import re
import warnings
from functools import lru_cache

import pandas as pd
from nltk.translate.bleu_score import corpus_bleu

from .scores import groups, interval, scored

TOKENISATION = "lower-case runs of letters and digits"


def tokens(text: str) -> list[str]:
    """The words and numbers of `text`, in lower case."""
    return re.findall(r"\w+", text.lower())


@lru_cache(maxsize=65536)
def rouge_l(reference: str, prediction: str) -> float:
    """F1 of the longest common subsequence of tokens, 0 to 1."""
    wanted, given = tokens(reference), tokens(prediction)
    if not wanted or not given:
        return 0.0
    row = [0] * (len(given) + 1)
    for word in wanted:
        above = row[:]
        for i, other in enumerate(given, start=1):
            row[i] = above[i - 1] + 1 if word == other else max(above[i], row[i - 1])
    return 2 * row[-1] / (len(wanted) + len(given))


def bleu_4(references: list[str], predictions: list[str]) -> float:
    """Corpus BLEU-4, 0 to 1, one reference to a prediction."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # nltk's, of 0 where no four words agree
        return float(corpus_bleu([[tokens(text)] for text in references], list(map(tokens, predictions))))


def text_metrics(judgements: pd.DataFrame) -> pd.DataFrame:
    """One row per (system, split, region): n, score (the judge's mean), BLEU-4, ROUGE-L with its interval.

    Of the rows that the judge scores, those whose reference has text; an empty prediction counts as 0.
    """
    rows = scored(judgements)
    table = []
    for names, group in groups(rows):
        pairs = list(zip(group["reference"], group["prediction"].fillna(""), strict=True))
        overlaps = [rouge_l(*pair) for pair in pairs]
        low, high = interval(overlaps)
        table.append(
            names
            | {"n": len(group), "score": group["value"].mean()}
            | {"BLEU-4": bleu_4(*map(list, zip(*pairs, strict=True)))}
            | {"ROUGE-L": sum(overlaps) / len(overlaps), "ROUGE-L low": low, "ROUGE-L high": high}
        )
    return pd.DataFrame(table)
