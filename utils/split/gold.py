"""The split against gold: sentence-level agreement, by region, and where two splits part ways."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data import phantoms
from utils.data.studies import Study
from utils.findings.sentences import STOPWORDS, sentences, words
from utils.regions import ALL, tidy
from utils.run.disk import read_json
from utils.settings import SplitSettings

from .questions import Split, SplitError

IN_REGION = 0.6  # share of an original sentence's content words that must stand in a region's text
SEVERAL = "several"  # a sentence that is in more regions than one
RESAMPLES, SEED = 2000, 17  # of the bootstrap over studies

Pair = tuple[str, Split]  # a study's findings as written, and its gold split


def content_words(text: str) -> list[str]:
    """The words of `text` in lower case, without stop words and the placeholder XXXX."""
    return [word for word in words(text) if word not in STOPWORDS and word != "xxxx"]


def agreement(originals: list[str], ours: list[Split], gold: list[Split], prompt: str = "") -> pd.DataFrame:
    """Two splits of the same reports compared, one row per original sentence.

    Columns: study (position), sentence, ours and gold (regions joined by "+", "" where the split has it
    nowhere), agree (on the set of regions; missing where either is ""). A sentence is in a region when 60 %
    of its `content_words` stand anywhere in that region's text. A study that `prompt` shows as an example
    ("Findings: ... Answer:") is left out.
    """
    prompt, rows = tidy(prompt), []
    for study, (text, *splits) in enumerate(zip(originals, ours, gold, strict=True)):
        if f"Findings: {tidy(text)} Answer:" in prompt:
            continue
        sides = [{name: set(content_words(split.get(name) or "")) for name in ALL} for split in splits]
        for sentence in sentences(text):
            mine, theirs = (_regions_of(content_words(sentence), side) for side in sides)
            rows.append((study, sentence, mine, theirs, mine == theirs if mine and theirs else None))
    frame = pd.DataFrame(rows, columns=["study", "sentence", "ours", "gold", "agree"])
    return frame.astype({"agree": "boolean"})


def _regions_of(content: list[str], side: dict[str, set[str]]) -> str:
    least = IN_REGION * len(content)
    return "+".join(n for n in ALL if content and sum(word in side[n] for word in content) >= least)


def by_region(frame: pd.DataFrame) -> pd.DataFrame:
    """The agreement by region, with n and a 95 % interval (bootstrap over studies).

    Index: the regions, others, and "all". Columns: n (sentences that either split has in the region; for
    "all", that both place somewhere), agree (the share that both have there; for "all", in exactly the same),
    low, high.
    """
    scored = frame[frame["agree"].notna()]
    rows = {}
    for name in ALL:
        mine, theirs = (scored[side].str.split("+").map({name}.issubset) for side in ("ours", "gold"))
        rows[name] = _share((mine & theirs)[mine | theirs], scored["study"][mine | theirs])
    rows["all"] = _share(scored["agree"], scored["study"])
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["n", "agree", "low", "high"])
    return table.astype({"n": int})


def _share(right: pd.Series, study: pd.Series) -> tuple[int, float, float, float]:
    """n, the share that is right, and its interval: sentences of one study are drawn together."""
    if right.empty:
        return 0, np.nan, np.nan, np.nan
    each = right.astype(float).groupby(study).agg(["sum", "size"]).to_numpy()
    # The draws of scipy.stats.bootstrap, which refuses a single study.
    drawn = np.random.default_rng(SEED).integers(len(each), size=(RESAMPLES, len(each)))
    hits, sizes = each[drawn].sum(axis=1).T
    low, high = np.quantile(hits / sizes, [0.025, 0.975])
    return len(right), float(right.astype(float).mean()), float(low), float(high)


def confusion(frame: pd.DataFrame) -> pd.DataFrame:
    """Sentences that both place, by their region in gold (index) and in ours (columns), or "several"."""
    scored, names = frame[frame["agree"].notna()], [*ALL, SEVERAL]
    columns = (scored[side] for side in ("gold", "ours"))
    sides = (column.mask(column.str.contains("+", regex=False), SEVERAL) for column in columns)
    return pd.crosstab(*sides).reindex(index=names, columns=names, fill_value=0)


def disagreements(frames: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of frames of `agreement` by name: sentences on which a split and gold differ, and those not in gold."""
    parted = pd.concat(frames, names=["split", None]).reset_index("split")
    differ = parted[~parted["agree"].fillna(True)].drop(columns="agree")
    return differ, parted.loc[parted["gold"] == "", ["study", "sentence"]].drop_duplicates()


def gold_for(train: Sequence[Study], settings: SplitSettings, originals: str, drawn: bool) -> list[Pair]:
    """Studies with gold for examples and to measure: R2Gen's at `originals`, or phantoms where `drawn`."""
    count, pairs = settings.examples + settings.gold_studies, []
    if originals:
        pairs = gold_pairs({study.id: study.findings for study in train if study.findings}, originals, count)
    elif drawn:
        pairs = [(phantom.original, phantom.findings) for phantom in phantoms.stream(7, count, 64)]
    else:
        print("GOLD_ORIGINALS is empty: the prompt has no examples, and the split cannot be measured.")
    print(f"{len(pairs)} studies with gold")
    return pairs


def gold_pairs(findings: dict[str, Split], originals: str | Path, most: int) -> list[Pair]:
    """At most `most` of the studies `findings` (by id), evenly spread, with their text in R2Gen's
    annotation. Raises SplitError where the file `originals` is not there, is no annotation, or has none of
    them."""
    try:
        splits = read_json(Path(originals))
        texts = {study["id"]: study["report"] for studies in splits.values() for study in studies}
    except OSError:
        raise SplitError(f"There is no file {originals}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        fault = "is not R2Gen's annotation: its studies have no unsplit report"
        raise SplitError(f"{originals} {fault}.") from None
    pairs = [(texts[name], split) for name, split in findings.items() if isinstance(texts.get(name), str)]
    if not pairs:
        raise SplitError(f"{originals} contains none of these {len(findings):,} studies.")
    step = max(1, len(pairs) // max(1, most))
    return pairs[::step][:most]


def with_examples(prompt: str, pairs: Sequence[Pair]) -> str:
    """`prompt` with studies as further examples, in the form of its own; `agreement` leaves these out."""
    answers = [{name: tidy(split.get(name) or "") for name in ALL} for _, split in pairs]
    shown = (
        f"Example\nFindings:\n{tidy(text)}\n\nAnswer:\n{json.dumps(answer, ensure_ascii=False)}"
        for (text, _), answer in zip(pairs, answers, strict=True)
    )
    return "\n\n".join([prompt.rstrip(), *shown])
