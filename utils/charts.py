"""The figures. Each function returns a matplotlib Figure; `save` writes it.

Colours are Okabe and Ito's, which the colour-blind can tell apart, and every
series has a hatch or a marker as well, so that a grey print can be read. What
the data are and who judged them stands inside each picture, because pictures
travel without their captions.
"""

import io
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
    """A Figure that a notebook shows once, without pyplot and its global state; `alt` says what it shows."""

    alt = ""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def save(fig: Chart, path: str | Path) -> Path:
    """Write `fig` as a PNG with its alt text as Description, whole or not at all; gives the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        fig.savefig(part, format="png", metadata={"Description": fig.alt})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


@mpl.rc_context(STYLE)
def region_bars(summary: pd.DataFrame, *, data_label: str) -> Chart:
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
                _bar(ax, at, row["mean"], min(width * 0.9, 0.45), i)
                ax.plot([at, at], [row["low"], row["high"]], color=INK, linewidth=1.1, solid_capstyle="butt")
                mean, size = f"{row['mean']:.2f}", 8
                if len(systems) * len(splits) > 6:  # so that neighbours do not touch
                    mean, size = mean.removeprefix("0"), 6.5
                ax.text(at, row["high"] + 0.015, mean, ha="center", va="bottom", fontsize=size)
        counts = rows.groupby("region")["n"].agg(["min", "max"])
        _region_axis(ax, [_count(counts, region) for region in REGIONS])
        ax.set(ylim=(0, 1.09), yticks=np.arange(0, 1.01, 0.25))
        ax.tick_params(labelleft=ax is axes[0])
        _panel_title(ax, SPLITS.get(split, split))
        for system in systems:
            means = [f"{r} {rows.loc[(system, r), 'mean']:.2f}" for r in REGIONS if (system, r) in rows.index]
            _tell(fig, f"{SPLITS.get(split, split)}, {system}: {', '.join(means)}")
    _legend(fig, [(name, *_series(i)) for i, name in enumerate(systems)])
    return fig


@mpl.rc_context(STYLE)
def score_distribution(judgements: pd.DataFrame, *, data_label: str) -> Chart:
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
            if len(of_bar):
                _tell(fig, f"{region}, {system}: {(of_bar == '1').mean():.0%} score 1, n={len(of_bar)}")
        offset = -(label_width - 0.12) / (WIDTH - label_width - 0.75)
        ax.text(offset, (start + y - 1) / 2, region, ha="left", va="center", weight="bold")
        y += 0.5
    ax.set(xlim=(0, 1), ylim=(y - 0.9, -0.6), xticks=[], yticks=[])
    ax.spines["bottom"].set_visible(False)
    _legend(fig, [(name, colour, hatch) for name, colour, hatch, _ in BANDS if (bands == name).any()])
    return fig


@mpl.rc_context(STYLE)
def error_types(counts: pd.DataFrame, *, data_label: str) -> Chart:
    """Significant errors per 100 judged regions, by type and region; `counts` from `scores.error_counts`."""
    systems = list(counts["system"].unique())
    total = counts.groupby(["region", "error", "system"], observed=True)[["significant", "n"]].sum()
    rate = 100 * total["significant"] / total["n"]
    height = 1.25 + len(ERRORS) * (0.17 * len(systems) + 0.12)
    fig = _figure(height, "Clinically significant errors per 100 judged regions", _where(data_label, counts))
    axes = _panels(fig, len(REGIONS), top=1.05, bottom=0.1, left=2.05, gap=0.3)
    thick = 0.84 / len(systems)
    for ax, region in zip(axes, REGIONS, strict=True):
        for y, error in enumerate(ERRORS):
            for i, system in enumerate(systems):
                if (region, error, system) not in rate.index:
                    continue
                value, at = rate[region, error, system], y + (i - (len(systems) - 1) / 2) * thick
                _bar(ax, at, value, thick * 0.9, i, horizontal=True)
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
        ax.set(xlim=(0, rate.max() * 1.2 or 1), ylim=(len(ERRORS) - 0.5, -0.5), xticks=[])
        ax.set_yticks(range(len(ERRORS)), ERRORS if ax is axes[0] else [""] * len(ERRORS))
        ax.spines["left"].set_visible(True)
        ax.spines["bottom"].set_visible(False)
        _panel_title(ax, region)
        most = rate[rate.index.get_level_values("region") == region]
        if most.max() > 0:
            _, error, system = most.idxmax()
            _tell(fig, f"{region}: most often {error}, {most.max():.0f} in 100 ({system})")
    _legend(fig, [(name, *_series(i)) for i, name in enumerate(systems)])
    return fig


@mpl.rc_context(STYLE)
def differences(pairs: pd.DataFrame, names: tuple[str, str], *, data_label: str, judge: str) -> Chart:
    """The paired difference of two systems or runs by region, with its interval.

    `pairs` from `scores.compare`; `names` are those of the two, the first minus the second.
    """
    splits = order_splits(pairs["split"])
    where = f"{data_label} · judged by {judge} · above 0: {names[0]} is better"
    fig = _figure(3.6, f"{names[0]} minus {names[1]}, paired by study, with 95 % interval", where)
    axes = _panels(fig, len(splits), top=0.85, bottom=0.52, left=0.55, gap=0.45)
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
            _tell(fig, f"{SPLITS.get(split, split)}, {region}: {row['difference']:+.2f}, n={row['n']}")
        ax.axhline(0, color=GREY, linewidth=0.8)
        _region_axis(ax, [f"n={rows.loc[r, 'n']}" if r in rows.index else "not mentioned" for r in REGIONS])
        ax.set_ylim(-reach, reach)
        _panel_title(ax, SPLITS.get(split, split))
    return fig


@mpl.rc_context(STYLE)
def loss_curve(log: pd.DataFrame, *, data_label: str) -> Chart:
    """Training and evaluation loss over steps; `log` has step, loss, eval_loss (NaN where not taken)."""
    fig = _figure(3.6, "Loss over training", data_label)
    (ax,) = _panels(fig, 1, top=0.7, bottom=0.5, left=0.5, right=1.35)
    series = (("loss", "training", BLUE, ""), ("eval_loss", "evaluation", VERMILION, "o"))
    lines = [(log[["step", column]].dropna(), *look) for column, *look in series]
    lines = [(line.to_numpy(), *look) for line, *look in lines if len(line)]
    if not lines:
        ax.text(0.5, 0.5, "no loss logged yet", transform=ax.transAxes, ha="center", color=GREY)
    for line, _, colour, marker in lines:
        ax.plot(*line.T, color=colour, marker=marker, markersize=4.5, linewidth=1.6)
    # The two names stand at the ends of their lines, apart even where the lines meet.
    lines.sort(key=lambda entry: entry[0][-1, 1])
    for i, (line, name, colour, _) in enumerate(lines):
        shift = 0 if len(lines) == 1 else (-8, 8)[i]
        text = f"{name} {line[-1, 1]:.3f}"
        ax.annotate(
            text, line[-1], (9, shift), textcoords="offset points", va="center", color=colour, weight="bold"
        )
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set(xlabel="optimiser step", ylim=(0, None), xlim=(0, None))
    ax.margins(x=0.02)
    for line, name, *_ in lines:
        _tell(fig, f"{name} ends at {line[-1, 1]:.3f}, step {line[-1, 0]:.0f}")
    return fig


@mpl.rc_context(STYLE)
def region_coverage(counts: pd.DataFrame, *, data_label: str) -> Chart:
    """How often each region is mentioned, by split.

    `counts` counts studies: index split, columns `studies` (all) and the four regions.
    """
    fig = _figure(3.4, "Studies that mention each region", data_label)
    (ax,) = _panels(fig, 1, top=0.95, bottom=0.35, left=0.45)
    splits = list(counts.index)
    width = 0.84 / len(splits)
    for i, split in enumerate(splits):
        for x, region in enumerate(REGIONS):
            share = counts.loc[split, region] / counts.loc[split, "studies"]
            at = x + (i - (len(splits) - 1) / 2) * width
            _bar(ax, at, share, width * 0.92, i)
            label = f"{share:.0%}\n{counts.loc[split, region]:,}"
            ax.text(at, share + 0.015, label, ha="center", va="bottom", fontsize=7.5, linespacing=1.1)
        shares = [f"{r} {counts.loc[split, r] / counts.loc[split, 'studies']:.0%}" for r in REGIONS]
        _tell(fig, f"{SPLITS.get(split, split)}: {', '.join(shares)}")
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
) -> Chart:
    """One study: its views beside the reference and the predicted findings by region.

    `views` are PIL images or arrays; `judgements` are the study's rows of one
    system (region, score, significant, matched), or None before judging;
    `note` says which study, data and judge this is, and stands in the picture.
    """
    lines = {
        region: [textwrap.wrap(text.get(region) or "", 38) for text in (reference, prediction)]
        for region in REGIONS
        if reference.get(region) or prediction.get(region)
    }
    line, head, left, middle, right = 0.165, 0.52, 3.1, 6.0, 8.88  # inches
    heights = {region: head + line * max(1, *map(len, texts)) for region, texts in lines.items()}
    height = max(3.7, 0.95 + sum(heights.values()))
    fig = _figure(height, note, NOT_CLINICAL)
    _views(fig, views, (0.12, 0.12, 2.75, height - 0.8), columns=1 if len(views) <= 2 else 2, anchor="N")
    verdicts = {} if judgements is None else judgements.set_index("region").to_dict("index")
    y = height - 0.75
    for x, name in ((left, "reference"), (middle, "written by the model")):
        fig.text(x / WIDTH, y / height, name, color=GREY, fontsize=8)
    y -= 0.09
    for region, texts in lines.items():
        rule = mpl.lines.Line2D(
            (left / WIDTH, right / WIDTH), (y / height, y / height), color=RULE, linewidth=0.8
        )
        fig.add_artist(rule)
        fig.text(left / WIDTH, (y - 0.2) / height, region, weight="bold")
        if reference.get(region) and region in verdicts:
            _verdict(fig, verdicts[region], right / WIDTH, (y - 0.2) / height)
        silent = ("not mentioned", "left empty" if reference.get(region) else "not mentioned")
        for x, text, nothing in zip((left, middle), texts, silent, strict=True):
            for i, words in enumerate(text or [nothing]):
                at = (y - 0.42 - i * line) / height
                fig.text(x / WIDTH, at, words, fontsize=8.5, color=INK if text else GREY)
        y -= heights[region]
    _tell(fig, f"{len(views)} views beside the reference and the model's text of {', '.join(lines)}")
    return fig


@mpl.rc_context(STYLE)
def gallery(studies: Sequence[Mapping], *, data_label: str, columns: int = 3) -> Chart:
    """A grid of studies, each a mapping of `id`, `views` (images) and `caption`."""
    rows = -(-len(studies) // columns)
    wide, tall = (WIDTH - 0.12) / columns, 2.35
    height = 0.6 + rows * tall
    fig = _figure(height, "Studies", f"{data_label} · {NOT_CLINICAL.lower()}")
    for i, study in enumerate(studies):
        x, y = 0.12 + (i % columns) * wide, height - 0.6 - (i // columns + 1) * tall
        box = (x, y + 0.8, wide - 0.1, tall - 0.85)
        _views(fig, study["views"], box, columns=len(study["views"]), anchor="SW")
        fig.text(x / WIDTH, (y + 0.64) / height, study["id"], weight="bold", fontsize=8)
        lines = textwrap.wrap(study["caption"], int(wide * 14.5), max_lines=3, placeholder=" …")
        caption = {"va": "top", "fontsize": 7.5, "color": GREY, "linespacing": 1.25}
        fig.text(x / WIDTH, (y + 0.58) / height, "\n".join(lines), **caption)
    _tell(fig, f"views and captions of {', '.join(study['id'] for study in studies)}")
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
    fig.alt = f"{title}: {subtitle}"
    fig.text(0.12 / WIDTH, 1 - 0.27 / height, title, weight="bold", fontsize=11)
    fig.text(0.12 / WIDTH, 1 - 0.48 / height, subtitle, color=GREY, fontsize=8.5)
    return fig


def _tell(fig: Chart, what: str) -> None:
    fig.alt = f"{fig.alt}. {what}"


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
    if i >= len(SERIES):
        raise ValueError(f"a chart tells {len(SERIES)} series apart, not more: draw fewer")
    return SERIES[i]


def _bar(ax, at: float, value: float, thickness: float, i: int, horizontal: bool = False) -> None:
    colour, hatch = _series(i)
    draw = ax.barh if horizontal else ax.bar
    draw(at, value, thickness, color=colour, hatch=hatch, edgecolor="white", linewidth=0)


def _legend(fig, entries: list[tuple[str, str, str]]) -> None:
    pale = {colour for name, colour, hatch, _ in BANDS if hatch}
    handles = [
        Patch(
            facecolor=colour,
            hatch=hatch,
            edgecolor=GREY if colour in pale else "white",
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


def _views(fig, views: Sequence, box: tuple, columns: int, anchor: str) -> None:
    """The views in a grid inside `box` (x, y, width, height in inches)."""
    x, y, width, height = box
    rows = -(-len(views) // columns)
    w, h = width / columns, height / rows
    for i, view in enumerate(views):
        left, bottom = x + (i % columns) * w, y + height - (i // columns + 1) * h
        tall = fig.get_figheight()
        ax = fig.add_axes((left / WIDTH, bottom / tall, (w - 0.06) / WIDTH, (h - 0.06) / tall))
        ax.imshow(np.asarray(view), cmap="gray")
        ax.set_axis_off()
        ax.set_anchor(anchor)


def _verdict(fig, row: Mapping, x: float, y: float) -> None:
    """A region's score in its band's colour, with what was matched and missed."""
    errors = sum(row["significant"])
    judged = "" if pd.isna(row["score"]) else f"{row['matched']} matched, {errors} error{'s' * (errors != 1)}"
    name = _bands(pd.DataFrame([row]).assign(value=row["score"], no_verdict=pd.isna(row["score"])))[0]
    colour, dark = next((colour, dark) for band, colour, _, dark in BANDS if band == name)
    box = {"facecolor": colour, "edgecolor": GREY, "linewidth": 0.5, "boxstyle": "round,pad=0.3"}
    shown = name if pd.isna(row["score"]) else f"{row['score']:.2f}"
    ink = "white" if dark else INK
    pill = fig.text(x - 0.006, y, shown, ha="right", fontsize=8, weight="bold", color=ink, bbox=box)
    width = len(pill.get_text()) * 0.0078 + 0.022
    fig.text(x - width, y, judged, ha="right", fontsize=8, color=GREY)
