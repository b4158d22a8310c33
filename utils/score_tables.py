"""The scores as Markdown: the quiz's two tables, and the whole table with intervals, baselines and notes."""

import pandas as pd

from .regions import REGIONS
from .scores import PUBLISHED, PUBLISHED_SOURCE, SPLITS, cell, is_green, one_judge, order_splits

QUIZ_SPLITS = {"val": "Validation", "test": "Testing"}


def quiz_tables(summary: pd.DataFrame) -> str:
    """The two tables that the quiz asks for, one a split: the model's mean scores and nothing else.

    The model is the first system of `summary`.
    """
    model = summary[summary["system"] == summary["system"].iloc[0]]
    head = [_row(["Data Split", *(region.capitalize() for region in REGIONS)]), _row(["---"] * 5)]
    tables = []
    for split, name in QUIZ_SPLITS.items():
        means = model[model["split"] == split].set_index("region")["mean"]
        cells = [f"{means[region]:.2f}" if region in means else "not mentioned" for region in REGIONS]
        if len(means):
            tables.append("\n".join([*head, _row([name, *cells])]))
    return "\n\n".join([f"Mean score, judge: {one_judge(summary)}", *tables]) + "\n"


def comparison(pairs: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """`scores.compare`'s table to be read: means under `names`, the difference with its interval, and p."""
    return pd.DataFrame(
        {
            "split": pairs["split"].map(lambda split: SPLITS.get(split, split)),
            "region": pairs["region"],
            "n": pairs["n"],
            **{
                name: pairs[side].map("{:.2f}".format)
                for name, side in zip(names, ("mean_a", "mean_b"), strict=True)
            },
            "difference, 95 % interval": [
                f"{row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}]" for row in pairs.itertuples()
            ],
            "p": pairs["p"].map(p_text),
        }
    )


def p_text(value: float) -> str:
    """A p-value as it is quoted."""
    return "under 0.001" if value < 0.001 else f"{value:.3f}"


def table_markdown(summary: pd.DataFrame, *, data_label: str, iu_xray: bool = False) -> str:
    """The quiz's table as Markdown: rows validation and test, columns the regions.

    Cells read `0.70 [0.66, 0.74] n=590`. Several systems stand below each other
    within each split; of one system the column is left out. The published
    results are added only where the judge is GREEN and `iu_xray` says that the
    studies are IU X-Ray's own splits.
    """
    judge = one_judge(summary)
    rows = [
        (split, system, [cell(group, region) for region in REGIONS])
        for split in order_splits(summary["split"])
        for system, group in summary[summary["split"] == split].groupby("system", sort=False)
    ]
    splits = order_splits(summary["split"])
    published = iu_xray and is_green(judge)
    if published:
        rows += [
            (split, f"{system} (published)", [f"{mean:.2f}" for mean in means])
            for system, split, means in PUBLISHED
            if split in splits
        ]
        rows.sort(key=lambda row: splits.index(row[0]))
    several = len({system for _, system, _ in rows}) > 1
    head = ["split", *(["system"] if several else []), *REGIONS]
    title = f"**Mean score by region, {data_label}, judge: {judge}**"
    lines = [title, "", _row(head), _row(["---"] * len(head))]
    for split, system, cells in rows:
        lines.append(_row([SPLITS.get(split, split), *([system] if several else []), *cells]))
    lines += ["", *(f"- {note}" for note in _notes(summary, judge, published))]
    return "\n".join(lines) + "\n"


def _notes(summary: pd.DataFrame, judge: str, published: bool) -> list[str]:
    notes = [
        "Mean, 95 % bootstrap interval over studies, and n: the studies whose reference mentions the region."
    ]
    if not is_green(judge):
        notes.append(f"Judged by the {judge}: not to be set beside GREEN scores.")
    unjudged = int(summary["no_verdict"].sum())
    if unjudged:
        notes.append(
            f"The judge gave no verdict on {unjudged} of {summary['n'].sum():,} rows; "
            "they count as 0, as in the published numbers."
        )
    if published:
        notes.append(f"Published rows: {PUBLISHED_SOURCE}; a pair without a verdict counts as 0 there too.")
    return notes


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
