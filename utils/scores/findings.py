"""What the reports see, to be read: the findings that they name rightly, as tables and in words.

The counts are those of `utils.findings.counts`. The reader of findings is the offline judge's, in
references and in reports alike, whichever judge gave the scores.
"""

from collections.abc import Iterator, Sequence

import pandas as pd

from utils.findings import counts
from utils.findings.groups import Group
from utils.judge import OFFLINE_LABEL

from .statistics import model_and_split, order_splits, split_name
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
    known = set(zip(rows[0]["split"], rows[0]["id"], strict=True))
    parts = []
    for part in rows:
        ours = [study in known for study in zip(part["split"], part["id"], strict=True)]
        parts.append(part.loc[ours, list(counts.COLUMNS)].fillna("").astype(str))
    return counts.count(counts.on_same_studies(pd.concat(parts, ignore_index=True)), groups)


def overview(counted: pd.DataFrame) -> pd.DataFrame:
    """`counted` to be read, a row for each split and system: all findings together.

    Studies, findings that they have, findings that the reports name, how many of these rightly;
    recall, precision and F1 of these counts (micro), and the mean F1 of the findings (macro).
    """
    micro, macro = (_by_split(counted[counted["finding"] == name]) for name in (counts.MICRO, counts.MACRO))
    table = micro[["split", "system", "n", "present", "named", "right"]]
    return table.rename(columns={"n": "studies", "present": "there"}).assign(
        **{name: _values(micro, name) for name in ("recall", "precision")},
        **{"micro-F1": _values(micro, "f1", 3), "macro-F1": _values(macro, "f1", 3)},
    )


def by_finding(counted: pd.DataFrame) -> pd.DataFrame:
    """`counted` to be read, a row for each split, system and finding; of a single split without it."""
    rows = _by_split(counted[~counted["finding"].isin([counts.MICRO, counts.MACRO])])
    table = rows[["split", "system", "finding", "named", "right"]].assign(
        **{name: _values(rows, name) for name in ("recall", "precision")}, F1=_values(rows, "f1")
    )
    table.insert(3, "have it", [f"{row.present} of {row.n}" for row in rows.itertuples()])
    return table.drop(columns=["split"] if counted["split"].nunique() == 1 else [])


def _by_split(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` in the order of their splits, which are named as readers call them."""
    order = order_splits(rows["split"])
    rows = rows.sort_values("split", key=lambda each: each.map(order.index), kind="stable", ignore_index=True)
    return rows.assign(split=rows["split"].map(split_name))


def _values(rows: pd.DataFrame, name: str, digits: int = 2) -> list[str]:
    return [value(row, name, digits) for row in rows.to_dict("records")]


def value(row: dict | pd.Series, name: str, digits: int = 2) -> str:
    """A value with its interval, `0.30 [0.17, 0.45]`; a dash where it is undefined."""
    if pd.isna(row[name]):
        return "–"
    shown, low, high = (f"{row[name + end]:.{digits}f}" for end in ("", "_low", "_high"))
    return f"{shown} [{low}, {high}]"


def tables(counted: pd.DataFrame, *, data_label: str) -> str:
    """Two tables as Markdown, with what they count: all systems, and the model finding by finding.

    The model is the first system. The second table is of the test split, where there is one.
    """
    if counted.empty:
        return NONE + "\n"
    model, name, split = model_and_split(counted)
    each = by_finding(split[split["system"] == model]).drop(columns="system")
    parts = [
        f"**Findings named rightly, {data_label}, found by {READER}**",
        markdown(overview(counted)).strip(),
        f"Finding by finding, {name}, {model}:\n\n{markdown(each).strip()}",
        "\n".join(f"- {note}" for note in notes(counted)),
    ]
    return "\n\n".join(parts) + "\n"


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
    return f"Finding by finding, {name}, the others that name any:\n\n{markdown(each)}"


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
    if any(counts.SAME in name for name in counted["system"].unique()):
        yield "A system with fewer studies is set against the model on the same studies."


def sentences(counted: pd.DataFrame) -> Iterator[str]:
    """What the model sees, on the test split: in all, an enlarged heart, each other finding, the others."""
    if counted.empty:
        yield NONE
        return
    model, split, rows = model_and_split(counted)
    own = rows[rows["system"] == model].set_index("finding")
    there = own[own["present"] > 0].drop(index=[counts.MICRO, counts.MACRO], errors="ignore")
    whole, name = own.loc[counts.MICRO], split.capitalize()
    if there.empty:
        yield f"{name}: no study has any of the findings that are counted."
        return
    yield (
        f"{name}: of {whole['present']:,} findings in {whole['n']:,} studies the {model} names "
        f"{whole['right']:,} (recall {value(whole, 'recall')}), and names {_extra(whole)} that are not there "
        f"(precision {value(whole, 'precision')}); micro-F1 {value(whole, 'f1')}. Found by {READER}."
    )
    first = HEART if HEART in there.index else there["present"].idxmax()
    yield (
        f"{name}: of {_studies(there.loc[first])} with {PLAIN[first]} the {model} names "
        f"{there.loc[first, 'right']}, and {_extra(there.loc[first])} more without it."
    )
    beside = rows[(rows["system"] != model) & (rows["finding"] == first)]
    if len(beside):
        each = (f"{row['system']} {_right_and_extra(row)}" for _, row in beside.iterrows())
        yield f"{name}, {PLAIN[first]}, the others (+: more without it): {', '.join(each)}."
    rest = there.drop(index=first)
    if len(rest):
        each = (f"{PLAIN[finding]} {_right_and_extra(row)}" for finding, row in rest.iterrows())
        yield f"{name}, what else the {model} names (+: more without it): {', '.join(each)}."
    beside = rows[(rows["system"] != model) & (rows["finding"] == counts.MICRO)]
    if len(beside):
        each = (f"{row['system']} {value(row, 'f1')} n={row['n']}" for _, row in beside.iterrows())
        yield f"{name}, micro-F1 of the others: {', '.join(each)}."


def _studies(row: pd.Series) -> str:
    return f"{row['present']:,} {'study' if row['present'] == 1 else 'studies'}"


def _right_and_extra(row: pd.Series) -> str:
    """`12 of 40 (+20)`: right of those there, and named where it is not."""
    return f"{row['right']} of {row['present']} (+{_extra(row)})"


def _extra(row: pd.Series) -> str:
    """How often a finding is named where it is not."""
    return f"{row['named'] - row['right']:,}"
