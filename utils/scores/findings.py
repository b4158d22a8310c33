"""What the reports see, to be read: the findings that they name rightly, as tables and in words.

The counts are those of `utils.findings.counts`. The reader of findings is the offline judge's, in
references and in reports alike, whichever judge gave the scores.
"""

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from utils.findings import counts
from utils.findings.groups import Group
from utils.judge import OFFLINE_LABEL

from .statistics import model_and_split, order_splits, quoted, split_name
from .tables import FEW, markdown

READER = f"the reader of the {OFFLINE_LABEL}"
NONE = "No finding is named by enough training studies to be counted."
HEART = "cardiomegaly"  # the finding of the first sentence
# How a sentence names a finding: "12 of 40 studies with ...".
PLAIN = {
    "effusion": "an effusion",
    "opacity": "an opacity, consolidation or atelectasis",
    "hypoinflation": "low lung volumes",
    "hyperinflation": "large lung volumes",
    "granuloma": "a granuloma",
    "nodule": "a nodule",
    "pneumothorax": "a pneumothorax",
    "edema": "an edema",
    "cardiomegaly": "an enlarged heart",
    "wide mediastinum": "a wide mediastinum",
    "tortuous or calcified aorta": "a tortuous or calcified aorta",
    "degenerative change": "degenerative change",
    "scoliosis": "scoliosis",
    "fracture": "a fracture",
}


def count(rows: Sequence[pd.DataFrame], groups: Sequence[Group]) -> pd.DataFrame:
    """`counts.count` of the systems in `rows`, the model's first, with the model on each other's studies.

    Of the later `rows`, such as recorded predictions, those of the model's studies are taken.
    """
    known = rows[0][["split", "id"]].drop_duplicates()
    parts = (part[list(counts.COLUMNS)].merge(known, on=["split", "id"]) for part in rows)
    every = pd.concat(parts, ignore_index=True).fillna("").astype(str)
    return counts.count(counts.on_same_studies(every), groups)


def overview(counted: pd.DataFrame) -> pd.DataFrame:
    """`counted` to be read, a row for each split and system: all findings (micro), and mean F1 (macro)."""
    micro, macro = (_by_split(counted[counted["finding"] == name]) for name in (counts.MICRO, counts.MACRO))
    values = {name: _values(micro, name) for name in ("recall", "precision")}
    values |= {"micro-F1": _values(micro, "f1", 3), "macro-F1": _values(macro, "f1", 3)}
    table = micro[["split", "system", "n", "present", "named", "right"]].assign(**values)
    return table.rename(columns={"n": "studies", "present": "there"})


def by_finding(counted: pd.DataFrame) -> pd.DataFrame:
    """`counted` to be read, a row for each split, system and finding; of a single split without it."""
    rows = _by_split(counted[~counted["finding"].isin([counts.MICRO, counts.MACRO])])
    values = {"recall": _values(rows, "recall"), "precision": _values(rows, "precision")}
    table = rows[["split", "system", "finding", "named", "right"]].assign(**values, F1=_values(rows, "f1"))
    table.insert(3, "have it", [f"{row.present} of {row.n}" for row in rows.itertuples()])
    return table.drop(columns=["split"] if counted["split"].nunique() == 1 else [])


def _by_split(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` in the order of their splits, which are named as readers call them."""
    parts = [rows[rows["split"] == split] for split in order_splits(rows["split"])]
    return pd.concat(parts, ignore_index=True).assign(split=lambda rows: rows["split"].map(split_name))


def _values(rows: pd.DataFrame, name: str, digits: int = 2) -> list[str]:
    return [value(row, name, digits) for row in rows.to_dict("records")]


def value(row: dict | pd.Series, name: str, digits: int = 2) -> str:
    """A value with its interval, `0.30 [0.17, 0.45]`; a dash where it is undefined."""
    if pd.isna(row[name]):
        return "–"
    return quoted(row[name], row[f"{name}_low"], row[f"{name}_high"], f".{digits}f")


def tables(counted: pd.DataFrame, *, data_label: str) -> str:
    """Two tables as Markdown, with what they count: all systems, and the model's findings one by one."""
    if counted.empty:
        return NONE + "\n"
    model, name, split = model_and_split(counted)
    each = by_finding(split[split["system"] == model]).drop(columns="system")
    lines = "".join(f"- {note}\n" for note in notes(counted))
    return (
        f"**Findings named rightly, {data_label}, found by {READER}**\n\n{markdown(overview(counted))}\n\n"
        f"Finding by finding, {name}, {model}:\n\n{markdown(each)}\n\n{lines}"
    )


def others(counted: pd.DataFrame) -> str:
    """The other systems that name anything, finding by finding, as Markdown; empty where there is none."""
    if counted.empty:
        return ""
    model, name, split = model_and_split(counted)
    naming = split[(split["finding"] == counts.MICRO) & (split["named"] > 0)]["system"]
    shown = [system for system in naming if system != model and not system.startswith(model + counts.SAME)]
    if not shown:
        return ""
    each = by_finding(split[split["system"].isin(shown)])
    return f"Finding by finding, {name}, the others that name any:\n\n{markdown(each)}\n"


def notes(counted: pd.DataFrame) -> Iterator[str]:
    """What the tables count, a sentence each."""
    findings = counted["finding"].unique()[:-2]
    yield (
        f"The findings are those that training reports name often: {', '.join(findings)}. A finding counts "
        "only where the reference mentions its region; an empty text names nothing."
    )
    yield (
        "there: findings that the studies have. Recall: right of those there. Precision: right of those "
        "named; a dash where none is. Micro: of all findings together. Macro: the mean of their F1. "
        "Brackets: 95 % bootstrap interval over studies."
    )
    if (counted["f1_low"] == counted["f1_high"]).any():
        yield "An interval without width says that none was right or all were, not that this is certain."
    if (counted["n"] < FEW).any():
        yield f"Intervals over fewer than {FEW} studies are too narrow: take them as a rough guide."
    if counted["system"].str.contains(counts.SAME, regex=False).any():
        yield "A system with fewer studies is set against the model on the same studies."


def sentences(counted: pd.DataFrame) -> Iterator[str]:
    """What the model sees, on the test split: in all, an enlarged heart, each other finding, the others."""
    if counted.empty:
        yield NONE
        return
    model, split, rows = model_and_split(counted)
    whole, present = findings_of(rows, model)
    name = split.capitalize()
    if present.empty:
        yield f"{name}: no study has any of the findings that are counted."
        return
    yield (
        f"{name}: of {whole['present']:,} findings in {whole['n']:,} studies the {model} names "
        f"{whole['right']:,} (recall {value(whole, 'recall')}), and names {_extra(whole)} that are not there "
        f"(precision {value(whole, 'precision')}); micro-F1 {value(whole, 'f1')}. Found by {READER}."
    )
    first = present.loc[HEART if HEART in present.index else present["present"].idxmax()]
    studies = f"{first['present']:,} {'study' if first['present'] == 1 else 'studies'}"
    extra = f"{_extra(first)} more without it"
    yield f"{name}: of {studies} with {PLAIN[first.name]} the {model} names {first['right']}, and {extra}."

    def those(finding: str, tell: Callable[[pd.Series], str]) -> str:
        """What is told of the other systems' rows of a finding."""
        beside = rows[(rows["system"] != model) & (rows["finding"] == finding)]
        return ", ".join(f"{row['system']} {tell(row)}" for _, row in beside.iterrows())

    if others := those(first.name, _right_and_extra):
        yield f"{name}, {PLAIN[first.name]}, the others (+: more without it): {others}."
    rest = present.drop(index=first.name).iterrows()
    if each := ", ".join(f"{PLAIN[finding]} {_right_and_extra(row)}" for finding, row in rest):
        yield f"{name}, what else the {model} names (+: more without it): {each}."
    if others := those(counts.MICRO, lambda row: f"{value(row, 'f1')} n={row['n']}"):
        yield f"{name}, micro-F1 of the others: {others}."


def findings_of(rows: pd.DataFrame, model: str) -> tuple[pd.Series, pd.DataFrame]:
    """Of the rows of one split those of `model`: all findings together, and by finding each that is there."""
    own = rows[rows["system"] == model].set_index("finding")
    return own.loc[counts.MICRO], own.drop(index=[counts.MICRO, counts.MACRO]).query("present > 0")


def _right_and_extra(row: pd.Series) -> str:
    """`12 of 40 (+20)`: right of those there, and named where it is not."""
    return f"{row['right']} of {row['present']} (+{_extra(row)})"


def _extra(row: pd.Series) -> str:
    """How often a finding is named where it is not."""
    return f"{row['named'] - row['right']:,}"
