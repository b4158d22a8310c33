"""Figures of findings: what the probe would name at each operating point, and what the reports name."""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from utils.findings import counts
from utils.scores.findings import READER
from utils.settings import RECALL_WEIGHT

from . import charts
from .charts import (
    GREY,
    INK,
    SERIES,
    STYLE,
    Chart,
    bar,
    figure,
    legend,
    only_split,
    panel_title,
    panels,
    series,
    tell,
)

SHOWN = {"recall": ("present", "of those there, named"), "precision": ("named", "of those named, there")}


@mpl.rc_context(STYLE)
def findings_named(counted: pd.DataFrame, *, data_label: str) -> Chart:
    """Recall and precision by finding with their 95 % intervals, findings on the y axis, a panel each.

    `counted` are the rows of one split of `scores.findings.count`. Drawn are the first system and
    those after it that name anything, as many as can be told apart; the alt text names the others.
    Raises ValueError for several splits.
    """
    split = only_split(counted)
    rows = counted[(counted["finding"] != counts.MACRO) & ~counted["system"].str.contains(counts.SAME)]
    whole = rows[rows["finding"] == counts.MICRO].set_index("system")
    drawn = [name for i, name in enumerate(whole.index) if not i or whole.loc[name, "named"]][: len(SERIES)]
    findings = list(rows["finding"].unique())
    labels = ["all together" if name == counts.MICRO else name for name in findings]
    by = rows.set_index(["finding", "system"])
    height, thick = 1.6 + len(findings) * (0.15 * len(drawn) + 0.16), 0.84 / len(drawn)
    where = f"{data_label}, {split} · 95 % interval · found by {READER}"
    fig = figure(height, "Findings that the reports name", where)
    axes = panels(fig, 2, top=1.08, bottom=0.32, left=2.05, right=0.45, gap=0.55)
    for ax, (value, (below, meaning)) in zip(axes, SHOWN.items(), strict=True):
        for y, finding in enumerate(findings):
            for i, name in enumerate(drawn):
                at = y + charts.shift(i, len(drawn), thick)
                _bar(ax, by.loc[(finding, name)], value, below, at, thick, i)
        ax.set(xlim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1])
        charts.name_axis(ax, labels, ax is axes[0])
        ax.tick_params(labelsize=8)
        charts.grid(ax, "x")
        panel_title(ax, f"{value}: {meaning}")
    for name in drawn:
        cells = zip(labels, (by.loc[(finding, name)] for finding in findings), strict=True)
        shares = ", ".join(f"{label} {row['right']} of {row['present']}" for label, row in cells)
        tell(fig, f"{name}, named of those there: {shares}")
    if left := [name for name in whole.index if name not in drawn]:
        tell(fig, f"Not drawn, as they name none or there is no room: {', '.join(left)}")
    legend(fig, [(f"{name} (n={whole.loc[name, 'n']})", *series(i)) for i, name in enumerate(drawn)])
    return fig


def _bar(ax: Axes, row: pd.Series, value: str, below: str, at: float, thick: float, i: int) -> None:
    """A bar with its interval and, behind it, its counts: 12/40."""
    end = 0.0
    if row[below]:
        bar(ax, at, row[value], thick * 0.9, i, horizontal=True)
        charts.whisker(ax, [row[f"{value}_low"], row[f"{value}_high"]], [at, at], 1.0)
        end = max(row[f"{value}_high"], row[value])
    colour = INK if row["right"] else GREY
    charts.note(ax, f"{row['right']}/{row[below]}", (end, at), fontsize=6.5, color=colour)


@mpl.rc_context(STYLE)
def operating_curve(points: pd.DataFrame, *, data_label: str, chosen: float = RECALL_WEIGHT) -> Chart:
    """Precision and recall of `probe.operating_points` of validation; the weight `chosen` is marked."""
    fig = figure(3.6, "How many findings to name", f"{data_label}, validation · all findings together")
    (ax,) = panels(fig, 1, top=0.9, bottom=0.75, left=0.9, right=0.5)
    ax.plot(points["recall"], points["precision"], color=series(0)[0], marker="o", markersize=4)
    for row in points.itertuples():
        at, is_chosen = (row.recall, row.precision), abs(row.recall_weight - chosen) < 1e-9
        if is_chosen:
            ax.plot(*at, "o", markersize=10, color=SERIES[1][0], zorder=1)
        look = {"va": "baseline", "fontsize": 8, "color": INK if is_chosen else GREY}
        charts.note(ax, f"{row.recall_weight:g}", at, (5, 5), **look)
        tell(fig, point_in_words(row))
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall: of the findings that are there, named")
    ax.set_ylabel("precision: of those named, there")
    charts.grid(ax, "both")
    return fig


def point_in_words(point) -> str:
    """A row of `findings.probe.operating_points` as a sentence."""
    right = f"{10 * point.precision:.0f}" if point.named else "none"
    return (
        f"recall_weight {point.recall_weight:g}: of ten findings named about {right} are there, and of ten "
        f"that are there about {10 * point.recall:.0f} are named "
        f"(validation, {point.present:.0f} findings there)"
    )
