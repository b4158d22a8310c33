"""Figures of the judged reports."""

import matplotlib as mpl
import numpy as np
import pandas as pd

from utils.regions import REGIONS
from utils.scores.baselines import BASELINES
from utils.scores.statistics import ERRORS, order_splits, scored, split_name

from .charts import (
    BLUE,
    GREY,
    INK,
    STYLE,
    VERMILION,
    WIDTH,
    Chart,
    bar,
    figure,
    hatch_colour,
    legend,
    panel_title,
    panels,
    region_axis,
    series,
    tell,
)

# How a score is shown, from the worst to the best: name, colour, hatch.
BANDS = (
    ("left empty", "#ffffff", "////"),
    ("no verdict", "#c9ccd1", "...."),
    ("0", VERMILION, "xxxx"),
    ("up to 0.5", "#f6c89a", "\\\\\\\\"),
    ("above 0.5", "#a9d3ee", ""),
    ("1", BLUE, ""),
)


@mpl.rc_context(STYLE)
def region_bars(summary: pd.DataFrame, *, data_label: str) -> Chart:
    """Mean score by region with its 95 % interval, a panel a split; `summary` from `scores.summary`."""
    splits, systems = order_splits(summary["split"]), list(summary["system"].unique())
    fig = figure(4.0, "Mean score by region, with 95 % interval", _where(data_label, summary))
    axes = panels(fig, len(splits), top=1.02, bottom=0.52, left=0.42, gap=0.3)
    for ax, split in zip(axes, splits, strict=True):
        rows = summary[summary["split"] == split].set_index(["system", "region"])
        present = [system for system in systems if system in rows.index]
        width = 0.82 / len(present)
        for number, system in enumerate(present):
            i = systems.index(system)  # its look, in every panel
            for x, region in enumerate(REGIONS):
                if (system, region) not in rows.index:
                    continue
                row, at = rows.loc[(system, region)], x + (number - (len(present) - 1) / 2) * width
                bar(ax, at, row["mean"], min(width * 0.9, 0.45), i)
                ax.plot([at, at], [row["low"], row["high"]], color=INK, linewidth=1.1, solid_capstyle="butt")
                mean, size = f"{row['mean']:.2f}", 8
                if len(systems) * len(splits) > 6:  # so that neighbours do not touch
                    mean, size = mean.removeprefix("0"), 6.5 if len(present) < 7 else 5.5
                ax.text(at, row["high"] + 0.015, mean, ha="center", va="bottom", fontsize=size)
        counts = rows.groupby("region")["n"].agg(["min", "max"])
        region_axis(ax, [_count(counts, region) for region in REGIONS])
        ax.set(ylim=(0, 1.09), yticks=np.arange(0, 1.01, 0.25))
        ax.tick_params(labelleft=ax is axes[0])
        panel_title(ax, split_name(split))
        for system in systems:
            means = [f"{r} {rows.loc[(system, r), 'mean']:.2f}" for r in REGIONS if (system, r) in rows.index]
            if means:
                tell(fig, f"{split_name(split)}, {system}: {', '.join(means)}")
    legend(fig, [(name, *series(i)) for i, name in enumerate(systems)])
    return fig


@mpl.rc_context(STYLE)
def beside_best(best: pd.DataFrame, *, data_label: str) -> Chart:
    """The model beside the best baseline by region: a panel for all studies, one for the abnormal ones.

    `best` are the rows of one split of `baselines.beside_best`. Which baseline is the best
    of a region shows in the look of its bar. Raises ValueError for several splits.
    """
    if best["split"].nunique() != 1:
        raise ValueError(f"a picture of one split, not of {list(best['split'].unique())}")
    split, groups = best["split"].iloc[0], list(best["studies"].unique())
    looks = {name: i for i, name in enumerate(BASELINES, start=1)}
    fig = figure(4.0, "The model beside the best baseline, with 95 % interval", _where(data_label, best))
    axes = panels(fig, len(groups), top=1.02, bottom=0.52, left=0.42, gap=0.3)
    for ax, group in zip(axes, groups, strict=True):
        rows = best[best["studies"] == group].set_index("region")
        name = f"{split_name(split)}, {group} studies"
        for region, row in rows.iterrows():
            x = REGIONS.index(region)
            for at, side, i in ((x - 0.2, "", 0), (x + 0.2, "baseline_", looks[row["baseline"]])):
                mean, low, high = (row[f"{side}{value}"] for value in ("mean", "low", "high"))
                bar(ax, at, mean, 0.36, i)
                ax.plot([at, at], [low, high], color=INK, linewidth=1.1, solid_capstyle="butt")
                ax.text(at, high + 0.015, f"{mean:.2f}", ha="center", va="bottom", fontsize=8)
            tell(
                fig,
                f"{name}, {region}: model {row['mean']:.2f}, {row['baseline']} {row['baseline_mean']:.2f}",
            )
        region_axis(ax, [f"n={rows.loc[r, 'n']}" if r in rows.index else "not mentioned" for r in REGIONS])
        ax.set(ylim=(0, 1.09), yticks=np.arange(0, 1.01, 0.25))
        ax.tick_params(labelleft=ax is axes[0])
        panel_title(ax, name)
    used = [name for name in BASELINES if name in set(best["baseline"])]
    legend(fig, [("model", *series(0)), *((name, *series(looks[name])) for name in used)])
    return fig


@mpl.rc_context(STYLE)
def score_distribution(judgements: pd.DataFrame, *, data_label: str) -> Chart:
    """How the scores spread, by region and system: the share in each band of score, as stacked bars."""
    rows = scored(judgements)
    systems = list(rows["system"].unique())
    bands = _bands(rows)
    fig = figure(1.35 + 4 * (0.3 * len(systems) + 0.14), "Distribution of scores", _where(data_label, rows))
    label_width = max(1.5, 0.075 * max(map(len, systems)) + 1.0)
    (ax,) = panels(fig, 1, top=0.98, bottom=0.12, left=label_width, right=0.75)
    y = 0.0
    for region in REGIONS:
        start = y
        for system in systems:
            of_bar = bands[(rows["region"] == region) & (rows["system"] == system)]
            _stack(ax, y, of_bar)
            ax.text(-0.012, y, system, ha="right", va="center", fontsize=8, color=GREY)
            ax.text(1.008, y, f"n={len(of_bar)}", ha="left", va="center", fontsize=8, color=GREY)
            y += 1
            if len(of_bar):
                tell(fig, f"{region}, {system}: {(of_bar == '1').mean():.0%} score 1, n={len(of_bar)}")
        offset = -(label_width - 0.12) / (WIDTH - label_width - 0.75)
        ax.text(offset, (start + y - 1) / 2, region, ha="left", va="center", weight="bold")
        y += 0.5
    ax.set(xlim=(0, 1), ylim=(y - 0.9, -0.6), xticks=[], yticks=[])
    ax.spines["bottom"].set_visible(False)
    legend(fig, [band for band in BANDS if (bands == band[0]).any()])
    return fig


@mpl.rc_context(STYLE)
def error_types(counts: pd.DataFrame, *, data_label: str) -> Chart:
    """Significant errors per 100 judged regions, by type and region; types that nobody makes are left out.

    `counts` from `scores.error_counts`.
    """
    systems = list(counts["system"].unique())
    total = counts.groupby(["region", "error", "system"], observed=True)[["significant", "n"]].sum()
    rate = 100 * total["significant"] / total["n"]
    made = [error for error in ERRORS if rate.xs(error, level="error").any()] or list(ERRORS)
    height = 1.25 + len(made) * (0.17 * len(systems) + 0.12)
    fig = figure(height, "Clinically significant errors per 100 judged regions", _where(data_label, counts))
    axes = panels(fig, len(REGIONS), top=1.05, bottom=0.1, left=2.05, gap=0.3)
    thick = 0.84 / len(systems)
    for ax, region in zip(axes, REGIONS, strict=True):
        for y, error in enumerate(made):
            for i, system in enumerate(systems):
                if (region, error, system) not in rate.index:
                    continue
                value, at = rate[region, error, system], y + (i - (len(systems) - 1) / 2) * thick
                bar(ax, at, value, thick * 0.9, i, horizontal=True)
                shown = "<1" if 0 < value < 0.5 else f"{value:.0f}"
                colour = INK if value else GREY
                ax.annotate(
                    shown,
                    (value, at),
                    (3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                    color=colour,
                )
        ax.set(xlim=(0, rate.max() * 1.2 or 1), ylim=(len(made) - 0.5, -0.5), xticks=[])
        ax.set_yticks(range(len(made)), made if ax is axes[0] else [""] * len(made))
        ax.spines["left"].set_visible(True)
        ax.spines["bottom"].set_visible(False)
        panel_title(ax, region)
        most = rate[rate.index.get_level_values("region") == region]
        if most.max() > 0:
            _, error, system = most.idxmax()
            tell(fig, f"{region}: most often {error}, {most.max():.0f} in 100 ({system})")
    legend(fig, [(name, *series(i)) for i, name in enumerate(systems)])
    return fig


@mpl.rc_context(STYLE)
def differences(pairs: pd.DataFrame, names: tuple[str, str], *, data_label: str, judge: str) -> Chart:
    """The paired difference of two systems or runs by region, with its interval.

    `pairs` from `scores.compare`; `names` are those of the two, the first minus the second.
    """
    splits = order_splits(pairs["split"])
    where = f"{data_label} · judged by {judge} · above 0: {names[0]} is better (filled: interval excludes 0)"
    fig = figure(3.6, f"{names[0]} minus {names[1]}, paired by study, with 95 % interval", where)
    axes = panels(fig, len(splits), top=0.85, bottom=0.52, left=0.55, gap=0.45)
    reach = max(pairs[["low", "high"]].abs().to_numpy().max() * 1.25, 0.05)
    for ax, split in zip(axes, splits, strict=True):
        rows = pairs[pairs["split"] == split].set_index("region")
        for x, region in enumerate(REGIONS):
            if region not in rows.index:
                continue
            row = rows.loc[region]
            ax.plot([x, x], [row["low"], row["high"]], color=INK, linewidth=1.3, solid_capstyle="butt")
            clear = row["low"] > 0 or row["high"] < 0  # a filled mark: the interval leaves 0 out
            ax.plot(x, row["difference"], "o", color=BLUE, markerfacecolor=BLUE if clear else "white")
            ax.annotate(
                f"{row['difference']:+.2f}",
                (x, row["difference"]),
                (7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
            tell(fig, f"{split_name(split)}, {region}: {row['difference']:+.2f}, n={row['n']}")
        ax.axhline(0, color=GREY, linewidth=0.8)
        region_axis(ax, [f"n={rows.loc[r, 'n']}" if r in rows.index else "not mentioned" for r in REGIONS])
        ax.set_ylim(-reach, reach)
        panel_title(ax, split_name(split))
    return fig


def _where(data_label: str, rows: pd.DataFrame) -> str:
    """The line under a title: what the data are and who judged them."""
    splits = ", ".join(split_name(s) for s in order_splits(rows["split"]))
    return f"{data_label}, {splits} · judged by {', '.join(rows['judge'].unique())}"


def _count(counts: pd.DataFrame, region: str) -> str:
    if region not in counts.index:
        return "not mentioned"
    low, high = counts.loc[region]
    return f"n={low}" if low == high else f"n={low} to {high}"


def _bands(rows: pd.DataFrame) -> pd.Series:
    """The name of the band of `BANDS` that each judged row falls in."""
    empty = rows["prediction"].fillna("").str.strip() == ""
    names = [name for name, *_ in BANDS]
    value = rows["value"]
    conditions = [empty, rows["no_verdict"], value == 0, value <= 0.5, value < 1]
    return pd.Series(np.select(conditions, names[:-1], names[-1]), index=rows.index)


def _stack(ax, y: float, bands: pd.Series) -> None:
    left = 0.0
    for name, colour, hatch in BANDS:
        share = (bands == name).mean() if len(bands) else 0.0
        edge = hatch_colour(colour) if hatch else "white"
        ax.barh(y, share, 0.84, left=left, color=colour, hatch=hatch, edgecolor=edge, linewidth=0.5)
        if share >= 0.05:
            look = {"ha": "center", "va": "center", "fontsize": 7.5}
            if hatch:
                look["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            elif name == "1":
                look["color"] = "white"
            ax.text(left + share / 2, y, f"{share:.0%}", **look)
        left += share
