"""The figures. Each function returns a matplotlib Figure; `save` writes it.

Colours are Okabe and Ito's, which the colour-blind can tell apart, and every
series has a hatch or a marker as well, so that a grey print can be read. What
the data are and who judged them stands inside each picture, because pictures
travel without their captions.
"""

import io
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.colors
import matplotlib.lines
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .regions import REGIONS
from .scores import ERRORS, SPLITS, order_splits, scored

NOT_CLINICAL = "Not for clinical use"
INK, GREY, RULE = "#1a1a1a", "#5f6368", "#d9dce0"
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
SERIES = ((BLUE, ""), (ORANGE, "////"), ("#56B4E9", "...."), (GREEN, "\\\\\\\\"), (PURPLE, "xxxx"))
# How a score is shown: name, colour, hatch, and whether white text is needed on it.
BANDS = (
    ("left empty", "#ffffff", "////", False),
    ("no verdict", "#c9ccd1", "....", False),
    ("0", VERMILION, "", True),
    ("up to 0.5", "#f6c89a", "", False),
    ("above 0.5", "#a9d3ee", "", False),
    ("1", BLUE, "", True),
)
WIDTH, DPI = 9.0, 110
STYLE = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # reports may hold a dollar sign
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
}


class Chart(Figure):
    """A Figure that a notebook shows once, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def save(fig: Figure, path: str | Path, alt: str) -> Path:
    """Write `fig` as a PNG with `alt` as its Description, whole or not at all; gives the path."""
    path = Path(path)
    if not alt.strip():
        raise ValueError(f"{path.name} needs an alt text: say in a sentence what the figure shows")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        fig.savefig(part, format="png", metadata={"Description": alt})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


@mpl.rc_context(STYLE)
def region_bars(summary: pd.DataFrame, *, data_label: str) -> Figure:
    """Mean score by region with its 95 % interval, a panel a split; `summary` from `scores.summary`."""
    splits, systems = order_splits(summary["split"]), list(summary["system"].unique())
    fig = _figure(4.0, "Mean score by region, with 95 % interval", _where(data_label, summary))
    axes = _panels(fig, len(splits), top=1.02, bottom=0.52, left=0.42, gap=0.3)
    for ax, split in zip(axes, splits, strict=True):
        rows = summary[summary["split"] == split].set_index(["system", "region"])
        width = 0.82 / len(systems)
        for i, system in enumerate(systems):
            for x, region in enumerate(REGIONS):
                if (system, region) not in rows.index:
                    continue
                row, at = rows.loc[(system, region)], x + (i - (len(systems) - 1) / 2) * width
                _bar(ax, at, row["mean"], width * 0.9, i)
                ax.plot([at, at], [row["low"], row["high"]], color=INK, linewidth=1.1, solid_capstyle="butt")
                size = 8 if len(systems) * len(splits) <= 6 else 6.5
                ax.text(
                    at, row["high"] + 0.015, f"{row['mean']:.2f}", ha="center", va="bottom", fontsize=size
                )
        counts = rows.groupby("region")["n"].agg(["min", "max"])
        _region_axis(ax, [_count(counts, region) for region in REGIONS])
        ax.set(ylim=(0, 1.09), yticks=np.arange(0, 1.01, 0.25))
        _panel_title(ax, SPLITS.get(split, split))
    _legend(fig, [(name, *_series(i)) for i, name in enumerate(systems)])
    return fig


@mpl.rc_context(STYLE)
def score_distribution(judgements: pd.DataFrame, *, data_label: str) -> Figure:
    """How the scores spread, by region and system: the share in each band of score, as stacked bars."""
    rows = scored(judgements)
    systems = list(rows["system"].unique())
    bands = _bands(rows)
    fig = _figure(1.35 + 4 * (0.3 * len(systems) + 0.14), "How the scores spread", _where(data_label, rows))
    label_width = max(1.5, 0.075 * max(map(len, systems)) + 1.0)
    (ax,) = _panels(fig, 1, top=0.98, bottom=0.12, left=label_width, right=0.75)
    y = 0.0
    for region in REGIONS:
        start = y
        for system in systems:
            of_bar = bands[(rows["region"] == region) & (rows["system"] == system)]
            _stack(ax, y, of_bar)
            ax.text(-0.012, y, system, ha="right", va="center", fontsize=8, color=GREY)
            ax.text(1.008, y, f"n={len(of_bar)}", ha="left", va="center", fontsize=8, color=GREY)
            y += 1
        offset = -(label_width - 0.12) / (WIDTH - label_width - 0.75)
        ax.text(offset, (start + y - 1) / 2, region, ha="left", va="center", weight="bold")
        y += 0.5
    ax.set(xlim=(0, 1), ylim=(y - 0.9, -0.6), xticks=[], yticks=[])
    ax.spines["bottom"].set_visible(False)
    _legend(fig, [(name, colour, hatch) for name, colour, hatch, _ in BANDS if (bands == name).any()])
    return fig


@mpl.rc_context(STYLE)
def error_types(counts: pd.DataFrame, *, data_label: str) -> Figure:
    """Significant errors per 100 judged regions, by type and region; `counts` from `scores.error_counts`."""
    systems = list(counts["system"].unique())
    total = counts.groupby(["region", "error", "system"], observed=True)[["significant", "n"]].sum()
    rate = 100 * total["significant"] / total["n"]
    height = 1.4 + 6 * (0.2 * len(systems) + 0.12)
    fig = _figure(height, "Clinically significant errors per 100 judged regions", _where(data_label, counts))
    axes = _panels(fig, len(REGIONS), top=1.05, bottom=0.12, left=1.85, gap=0.3)
    thick = 0.8 / len(systems)
    for ax, region in zip(axes, REGIONS, strict=True):
        for y, error in enumerate(ERRORS):
            for i, system in enumerate(systems):
                if (region, error, system) not in rate.index:
                    continue
                value, at = rate[region, error, system], y + (i - (len(systems) - 1) / 2) * thick
                _bar(ax, at, value, thick * 0.9, i, horizontal=True)
                ax.text(value + rate.max() * 0.02, at, f"{value:.0f}", va="center", fontsize=7.5)
        ax.set(xlim=(0, rate.max() * 1.15 or 1), ylim=(len(ERRORS) - 0.5, -0.5), xticks=[])
        ax.set_yticks(range(len(ERRORS)), ERRORS if ax is axes[0] else [""] * len(ERRORS))
        ax.spines[["left", "bottom"]].set_visible([True, False][0])
        ax.spines["bottom"].set_visible(False)
        _panel_title(ax, region)
    _legend(fig, [(name, *_series(i)) for i, name in enumerate(systems)])
    return fig


@mpl.rc_context(STYLE)
def loss_curve(log: pd.DataFrame, *, data_label: str) -> Figure:
    """Training and evaluation loss over steps; `log` has step, loss, eval_loss (NaN where not taken)."""
    fig = _figure(3.6, "Loss over training", data_label)
    (ax,) = _panels(fig, 1, top=0.8, bottom=0.5, left=0.55, right=1.2)
    for column, colour, marker, name in (
        ("loss", BLUE, "", "training"),
        ("eval_loss", VERMILION, "o", "evaluation"),
    ):
        line = log[["step", column]].dropna() if column in log else pd.DataFrame()
        if line.empty:
            continue
        ax.plot(line["step"], line[column], color=colour, marker=marker, markersize=4, linewidth=1.6)
        ax.annotate(
            f"{name}\n{line[column].iloc[-1]:.3f}",
            (line["step"].iloc[-1], line[column].iloc[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold",
        )
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set(xlabel="optimiser step", ylim=(0, None))
    return fig


@mpl.rc_context(STYLE)
def region_coverage(counts: pd.DataFrame, *, data_label: str) -> Figure:
    """How often studies mention each region; `counts` has index split, columns studies and the four regions."""
    fig = _figure(3.4, "Studies that mention each region", data_label)
    (ax,) = _panels(fig, 1, top=0.95, bottom=0.35, left=0.45)
    splits = order_splits(counts.index)
    width = 0.84 / len(splits)
    for i, split in enumerate(splits):
        for x, region in enumerate(REGIONS):
            share = counts.loc[split, region] / counts.loc[split, "studies"]
            at = x + (i - (len(splits) - 1) / 2) * width
            _bar(ax, at, share, width * 0.92, i)
            label = f"{share:.0%}\n{counts.loc[split, region]:,}"
            ax.text(at, share + 0.015, label, ha="center", va="bottom", fontsize=7.5, linespacing=1.1)
    _region_axis(ax, [""] * len(REGIONS))
    ax.set(ylim=(0, 1.2), yticks=np.arange(0, 1.01, 0.25))
    ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
    names = [f"{SPLITS.get(s, s)} ({counts.loc[s, 'studies']:,} studies)" for s in splits]
    _legend(fig, [(name, *_series(i)) for i, name in enumerate(names)])
    return fig


@mpl.rc_context(STYLE)
def study_card(
    views: Sequence,
    reference: Mapping[str, str],
    prediction: Mapping[str, str],
    judgements: pd.DataFrame | None,
    note: str,
) -> Figure:
    """One study: its views beside the reference and the predicted findings by region.

    `views` are PIL images or arrays; `judgements` are the study's rows of one
    system (region, score, significant, matched), or None before judging;
    `note` says which study, data and judge this is, and stands in the picture.
    """
    lines = {
        region: [textwrap.wrap(text.get(region) or "", 37) for text in (reference, prediction)]
        for region in REGIONS
        if reference.get(region) or prediction.get(region)
    }
    heights = {region: 0.42 + 0.165 * max(1, *map(len, texts)) for region, texts in lines.items()}
    height = max(3.4, 1.05 + sum(heights.values()))
    fig = _figure(height, note, NOT_CLINICAL)
    _views(fig, views, (0.12, 0.12, 2.75, height - 0.85))
    verdicts = {} if judgements is None else judgements.set_index("region").to_dict("index")
    y = height - 0.82
    for x, head in ((3.1, "reference"), (6.0, "model")):
        fig.text(x / WIDTH, (y + 0.08) / height, head, color=GREY, fontsize=8)
    for region, texts in lines.items():
        y -= 0.06
        fig.add_artist(
            mpl.lines.Line2D([3.1 / WIDTH, 8.88 / WIDTH], [y / height] * 2, color=RULE, linewidth=0.8)
        )
        fig.text(3.1 / WIDTH, (y - 0.2) / height, region, weight="bold")
        _verdict(fig, verdicts.get(region), bool(reference.get(region)), y - 0.2, height)
        for x, text in zip((3.1, 6.0), texts, strict=True):
            body, colour = ("\n".join(text), INK) if text else ("not mentioned", GREY)
            fig.text(
                x / WIDTH, (y - 0.32) / height, body, va="top", fontsize=8.5, linespacing=1.3, color=colour
            )
        y -= heights[region] - 0.06
    return fig


@mpl.rc_context(STYLE)
def gallery(studies: Sequence[Mapping], *, data_label: str, columns: int = 3) -> Figure:
    """A grid of studies, each a mapping of `id`, `views` (images) and `caption`."""
    rows = -(-len(studies) // columns)
    wide, tall = (WIDTH - 0.3) / columns, 2.45
    height = 0.75 + rows * tall
    fig = _figure(height, "Studies", f"{data_label} · {NOT_CLINICAL.lower()}")
    for i, study in enumerate(studies):
        x, y = 0.15 + (i % columns) * wide, height - 0.72 - (i // columns + 1) * tall
        _views(fig, study["views"], (x, y + 0.78, wide - 0.15, tall - 0.8), columns=len(study["views"]))
        fig.text(x / WIDTH, (y + 0.62) / height, study["id"], weight="bold", fontsize=8)
        caption = "\n".join(textwrap.wrap(study["caption"], int(wide * 15), max_lines=3, placeholder=" …"))
        fig.text(
            x / WIDTH, (y + 0.56) / height, caption, va="top", fontsize=7.5, color=GREY, linespacing=1.25
        )
    return fig


@mpl.rc_context(STYLE)
def confusion(tables: Mapping[str, pd.DataFrame], *, data_label: str) -> Figure:
    """Where gold has the sentences against where each split has them, a panel a split.

    `tables` by the split's name, each from `split_gold.confusion`: gold in the
    index, the split in the columns. The colour is the share of gold's row, one
    hue from white to blue; the number is the count.
    """
    names = list(next(iter(tables.values())).index)
    fig = _figure(4.5, "Where the sentences go: gold down, the split across", data_label)
    axes = _panels(fig, len(tables), top=1.1, bottom=0.75, left=0.95, gap=0.25)
    hue = mpl.colors.LinearSegmentedColormap.from_list("share", ["#ffffff", BLUE])
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        share = table.div(table.sum(axis=1).clip(lower=1), axis=0).to_numpy()
        ax.imshow(share, cmap=hue, vmin=0, vmax=1, aspect="auto")
        for (y, x), count in np.ndenumerate(table.to_numpy()):
            ax.text(
                x,
                y,
                f"{count:,}" if count else "·",
                ha="center",
                va="center",
                weight="bold" if x == y else "normal",
                color="white" if share[y, x] > 0.55 else INK if count else GREY,
            )
        turn = {"rotation": 35, "ha": "right"} if len(tables) > 1 else {}
        ax.set_xticks(range(len(names)), names, **turn)
        ax.set_yticks(range(len(names)), names if ax is axes[0] else [""] * len(names))
        ax.spines["bottom"].set_visible(False)
        right, total = np.trace(table.to_numpy()), table.to_numpy().sum()
        _panel_title(ax, f"{title}\n{right:,} of {total:,} on the diagonal")
    return fig


def _figure(height: float, title: str, subtitle: str) -> Chart:
    fig = Chart(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    fig.text(0.12 / WIDTH, 1 - 0.27 / height, title, weight="bold", fontsize=11)
    fig.text(0.12 / WIDTH, 1 - 0.48 / height, subtitle, color=GREY, fontsize=8.5)
    return fig


def _where(data_label: str, rows: pd.DataFrame) -> str:
    """The line under a title: what the data are and who judged them."""
    splits = ", ".join(SPLITS.get(s, s) for s in order_splits(rows["split"]))
    return f"{data_label}, {splits} · judged by {', '.join(rows['judge'].unique())}"


def _panels(fig, count, *, top, bottom, left, right=0.15, gap=0.0) -> list:
    """`count` axes side by side; margins in inches."""
    height = fig.get_figheight()
    span = (WIDTH - left - right - gap * (count - 1)) / count
    boxes = [left + i * (span + gap) for i in range(count)]
    return [
        fig.add_axes((x / WIDTH, bottom / height, span / WIDTH, (height - top - bottom) / height))
        for x in boxes
    ]


def _series(i: int) -> tuple[str, str]:
    return SERIES[i % len(SERIES)]


def _bar(ax, at: float, value: float, thickness: float, i: int, horizontal: bool = False) -> None:
    colour, hatch = _series(i)
    draw = ax.barh if horizontal else ax.bar
    draw(at, value, thickness, color=colour, hatch=hatch, edgecolor="white", linewidth=0)


def _legend(fig, entries: list[tuple[str, str, str]]) -> None:
    handles = [
        Patch(
            facecolor=colour,
            hatch=hatch,
            edgecolor=GREY if colour in ("#ffffff", "#c9ccd1") else "white",
            label=name,
        )
        for name, colour, hatch in entries
    ]
    fig.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.02 / WIDTH, 1 - 0.52 / fig.get_figheight()),
        ncols=len(handles),
        fontsize=8.5,
        handlelength=1.4,
        columnspacing=1.6,
    )


def _region_axis(ax, notes: list[str]) -> None:
    ax.set_xticks(range(len(REGIONS)), [f"{r}\n{n}".strip() for r, n in zip(REGIONS, notes, strict=True)])
    ax.set_xlim(-0.5, len(REGIONS) - 0.5)
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)


def _panel_title(ax, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=9, weight="bold", color=GREY, pad=4)


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
    for name, colour, hatch, dark in BANDS:
        share = (bands == name).mean() if len(bands) else 0.0
        edge = GREY if hatch else "white"
        ax.barh(y, share, 0.84, left=left, color=colour, hatch=hatch, edgecolor=edge, linewidth=0.5)
        if share >= 0.05:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1} if hatch else None
            colour = "white" if dark else INK
            ax.text(
                left + share / 2,
                y,
                f"{share:.0%}",
                ha="center",
                va="center",
                fontsize=7.5,
                color=colour,
                bbox=box,
            )
        left += share


def _views(fig, views: Sequence, box: tuple[float, float, float, float], columns: int | None = None) -> None:
    """The views in a grid inside `box` (x, y, width, height in inches)."""
    x, y, width, height = box
    columns = columns or (1 if len(views) <= 2 else 2)
    rows = -(-len(views) // columns)
    for i, view in enumerate(views):
        w, h = width / columns, height / rows
        at = (x + (i % columns) * w, y + height - (i // columns + 1) * h)
        ax = fig.add_axes(
            (at[0] / WIDTH, at[1] / fig.get_figheight(), (w - 0.05) / WIDTH, (h - 0.05) / fig.get_figheight())
        )
        ax.imshow(np.asarray(view), cmap="gray")
        ax.set_axis_off()
        ax.set_anchor("N")


def _verdict(fig, row: Mapping | None, described: bool, y: float, height: float) -> None:
    """A score as a pill with its counts, at the right of a region's heading."""
    if row is None or not described:
        return
    score, errors = row["score"], sum(row["significant"])
    shown = "no verdict" if pd.isna(score) else f"{score:.2f}"
    fig.text(
        8.88 / WIDTH,
        y / height,
        f"score {shown} · {row['matched']} matched, {errors} error{'s' * (errors != 1)}",
        ha="right",
        fontsize=8,
        color=INK,
    )
