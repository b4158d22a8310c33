"""Figures of the judged reports."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from utils.regions import REGIONS
from utils.scores.baselines import BASELINES
from utils.scores.statistics import ERRORS, order_splits, scored, split_name

from . import charts
from .charts import (
    BLUE,
    GREY,
    INK,
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

# How a score is shown, from the worst to the best: name, colour, hatch.
BANDS = (
    ("left empty", "#ffffff", "////"),
    ("no verdict", "#c9ccd1", "...."),
    ("0", charts.VERMILION, "xxxx"),
    ("up to 0.5", "#f6c89a", "\\\\\\\\"),
    ("above 0.5", "#a9d3ee", ""),
    ("1", BLUE, ""),
)


@mpl.rc_context(STYLE)
def region_bars(summary: pd.DataFrame, *, data_label: str) -> Chart:
    """Mean score by region with its 95 % interval, one panel per split; `summary` from `scores.summary`."""
    splits, systems = order_splits(summary["split"]), list(summary["system"].unique())
    fig = figure(4.0, "Mean score by region, with 95 % interval", _where(data_label, summary))
    axes = panels(fig, len(splits), top=1.02, bottom=0.52, left=0.42, gap=0.3)
    for ax, split in zip(axes, splits, strict=True):
        rows = summary[summary["split"] == split].set_index(["system", "region"])
        present = [system for system in systems if system in rows.index]
        width, size, crowded = 0.82 / len(present), 8, len(systems) * len(splits) > 6
        if crowded:  # so that neighbours do not touch
            size = 6.5 if len(present) < 7 else 5.5
        for number, system in enumerate(present):
            of_system = rows.loc[system]
            for region, row in of_system.iterrows():
                at = REGIONS.index(region) + charts.shift(number, len(present), width)
                values, text = (row["mean"], row["low"], row["high"]), f"{row['mean']:.2f}"
                text = text.removeprefix("0") if crowded else text
                _mean_bar(ax, at, values, min(width * 0.9, 0.45), systems.index(system), text, size)
            means = (f"{r} {of_system.loc[r, 'mean']:.2f}" for r in REGIONS if r in of_system.index)
            tell(fig, f"{split_name(split)}, {system}: {', '.join(means)}")
        _score_axis(ax, rows, split_name(split), ax is axes[0])
    legend(fig, [(name, *series(i)) for i, name in enumerate(systems)])
    return fig


@mpl.rc_context(STYLE)
def beside_best(best: pd.DataFrame, *, data_label: str) -> Chart:
    """Rows of one split of `baselines.beside_best`: a panel for all studies, one for the abnormal ones.

    Raises ValueError for several splits.
    """
    split, groups = only_split(best), list(best["studies"].unique())
    looks = {name: i for i, name in enumerate(BASELINES, start=1)}
    fig = figure(4.0, "The model beside the best baseline, with 95 % interval", _where(data_label, best))
    axes = panels(fig, len(groups), top=1.02, bottom=0.52, left=0.42, gap=0.3)
    for ax, studies in zip(axes, groups, strict=True):
        rows = best[best["studies"] == studies].set_index("region")
        title = f"{split}, {studies} studies"
        for region, row in rows.iterrows():
            x = REGIONS.index(region)
            for at, side, i in ((x - 0.2, "", 0), (x + 0.2, "baseline_", looks[row["baseline"]])):
                values = [row[f"{side}{value}"] for value in ("mean", "low", "high")]
                _mean_bar(ax, at, values, 0.36, i, f"{values[0]:.2f}", 8)
            means = f"model {row['mean']:.2f}, {row['baseline']} {row['baseline_mean']:.2f}"
            tell(fig, f"{title}, {region}: {means}")
        _score_axis(ax, rows, title, ax is axes[0])
    used = [name for name in BASELINES if name in set(best["baseline"])]
    legend(fig, [("model", *series(0)), *((name, *series(looks[name])) for name in used)])
    return fig


def _mean_bar(ax: Axes, at: float, values: tuple, width: float, i: int, text: str, size: float) -> None:
    """The bar of a mean with its interval, `values`, and its `text` above."""
    mean, low, high = values
    bar(ax, at, mean, width, i)
    charts.whisker(ax, [at, at], [low, high])
    ax.text(at, high + 0.015, text, ha="center", va="bottom", fontsize=size)


def _score_axis(ax: Axes, rows: pd.DataFrame, title: str, is_first: bool) -> None:
    charts.region_axis(ax, _counts(rows))
    ax.set(ylim=(0, 1.09), yticks=np.arange(0, 1.01, 0.25))
    ax.tick_params(labelleft=is_first)
    panel_title(ax, title)


def _counts(rows: pd.DataFrame) -> list[str]:
    """Over how many studies the means of each region are."""
    counts = rows.groupby("region")["n"].agg(["min", "max"]).itertuples()
    texts = {region: f"n={low}" if low == high else f"n={low} to {high}" for region, low, high in counts}
    return [texts.get(region, "not mentioned") for region in REGIONS]


@mpl.rc_context(STYLE)
def score_distribution(judgements: pd.DataFrame, *, data_label: str) -> Chart:
    """How the scores spread, by region and system: the share in each band of score, as stacked bars."""
    rows = scored(judgements)
    systems, names, value = list(rows["system"].unique()), [name for name, *_ in BANDS], rows["value"]
    empty = rows["prediction"].fillna("").str.strip() == ""
    conditions = [empty, rows["no_verdict"], value == 0, value <= 0.5, value < 1]
    rows["band"] = np.select(conditions, names[:-1], names[-1])
    fig = figure(1.35 + 4 * (0.3 * len(systems) + 0.14), "Distribution of scores", _where(data_label, rows))
    left = max(1.5, 0.075 * max(map(len, systems)) + 1.0)
    (ax,) = panels(fig, 1, top=0.98, bottom=0.12, left=left, right=0.75)
    y, look = 0.0, {"va": "center", "fontsize": 8, "color": GREY}
    for region in REGIONS:
        start = y
        for system in systems:
            bands = rows.loc[(rows["region"] == region) & (rows["system"] == system), "band"]
            _stack(ax, y, bands)
            ax.text(-0.012, y, system, ha="right", **look)
            ax.text(1.008, y, f"n={len(bands)}", ha="left", **look)
            y += 1
            if len(bands):
                tell(fig, f"{region}, {system}: {(bands == '1').mean():.0%} score 1, n={len(bands)}")
        offset = -(left - 0.12) / (charts.WIDTH - left - 0.75)
        ax.text(offset, (start + y - 1) / 2, region, ha="left", va="center", weight="bold")
        y += 0.5
    ax.set(xlim=(0, 1), ylim=(y - 0.9, -0.6), xticks=[], yticks=[])
    ax.spines["bottom"].set_visible(False)
    legend(fig, [band for band in BANDS if (rows["band"] == band[0]).any()])
    return fig


def _stack(ax: Axes, y: float, bands: pd.Series) -> None:
    left = 0.0
    for name, colour, hatch in BANDS:
        share = (bands == name).mean() if len(bands) else 0.0
        edge = charts.hatch_colour(colour) if hatch else "white"
        ax.barh(y, share, 0.84, left=left, color=colour, hatch=hatch, edgecolor=edge, linewidth=0.5)
        if share >= 0.05:
            look = {"color": "white"} if name == "1" else {}
            if hatch:
                look = {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}}
            ax.text(left + share / 2, y, f"{share:.0%}", ha="center", va="center", fontsize=7.5, **look)
        left += share


@mpl.rc_context(STYLE)
def error_types(counts: pd.DataFrame, *, data_label: str) -> Chart:
    """Significant errors per 100 judged regions, by `statistics.error_counts`; only types that are made."""
    systems = list(counts["system"].unique())
    total = counts.groupby(["region", "error", "system"])[["significant", "n"]].sum()
    rate = 100 * total["significant"] / total["n"]
    made = [error for error in ERRORS if rate.xs(error, level="error").any()] or list(ERRORS)
    height = 1.25 + len(made) * (0.17 * len(systems) + 0.12)
    fig = figure(height, "Clinically significant errors per 100 judged regions", _where(data_label, counts))
    axes, thick = panels(fig, len(REGIONS), top=1.05, bottom=0.1, left=2.05, gap=0.3), 0.84 / len(systems)
    for ax, region in zip(axes, REGIONS, strict=True):
        rates = rate[rate.index.get_level_values("region") == region].droplevel("region")
        for y, error in enumerate(made):
            for i, system in enumerate(systems):
                if (error, system) not in rates.index:
                    continue
                value, at = rates[error, system], y + charts.shift(i, len(systems), thick)
                bar(ax, at, value, thick * 0.9, i, horizontal=True)
                text = "<1" if 0 < value < 0.5 else f"{value:.0f}"
                charts.note(ax, text, (value, at), fontsize=7, color=INK if value else GREY)
        ax.set(xlim=(0, rate.max() * 1.2 or 1), xticks=[])
        charts.name_axis(ax, made, ax is axes[0])
        ax.spines["bottom"].set_visible(False)
        panel_title(ax, region)
        if rates.max() > 0:
            error, system = rates.idxmax()
            tell(fig, f"{region}: most often {error}, {rates.max():.0f} in 100 ({system})")
    legend(fig, [(name, *series(i)) for i, name in enumerate(systems)])
    return fig


@mpl.rc_context(STYLE)
def differences(pairs: pd.DataFrame, names: tuple[str, str], *, data_label: str, judge: str) -> Chart:
    """The difference of two systems or runs, the first of `names` minus the second: see `scores.compare`."""
    splits = order_splits(pairs["split"])
    where = f"{data_label} · judged by {judge} · above 0: {names[0]} is better (filled: interval excludes 0)"
    fig = figure(3.6, f"{names[0]} minus {names[1]}, paired by study, with 95 % interval", where)
    reach = max(pairs[["low", "high"]].abs().to_numpy().max() * 1.25, 0.05)
    axes = panels(fig, len(splits), top=0.85, bottom=0.52, left=0.55, gap=0.45)
    for ax, split in zip(axes, splits, strict=True):
        rows = pairs[pairs["split"] == split]
        for row in rows.itertuples():
            x, text = REGIONS.index(row.region), f"{row.difference:+.2f}"
            charts.whisker(ax, [x, x], [row.low, row.high], 1.3)
            clear = row.low > 0 or row.high < 0  # a filled mark: the interval leaves 0 out
            ax.plot(x, row.difference, "o", color=BLUE, markerfacecolor=BLUE if clear else "white")
            charts.note(ax, text, (x, row.difference), (7, 0), fontsize=8)
            tell(fig, f"{split_name(split)}, {row.region}: {text}, n={row.n}")
        ax.axhline(0, color=GREY, linewidth=0.8)
        charts.region_axis(ax, _counts(rows))
        ax.set_ylim(-reach, reach)
        panel_title(ax, split_name(split))
    return fig


def _where(data_label: str, rows: pd.DataFrame) -> str:
    """The line under a title: what the data are and who judged them."""
    splits = ", ".join(split_name(s) for s in order_splits(rows["split"]))
    return f"{data_label}, {splits} · judged by {', '.join(rows['judge'].unique())}"
