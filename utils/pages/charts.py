"""Figures of the studies and of the training, and what these and `score_charts` share. A figure is a `Chart`.

Colours are Okabe and Ito's, which the colour-blind can tell apart, and every series has a hatch or a marker
as well, for a grey print. What the data are and who judged them stands inside each picture, because pictures
travel without their captions. Lengths are in inches.
"""

import base64
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from utils.regions import NOT_FOR_CLINICAL_USE, REGIONS
from utils.run.disk import replacing_file
from utils.scores.statistics import split_name

INK, GREY, RULE = "#1a1a1a", "#5f6368", "#d9dce0"
BLUE, VERMILION = "#0072B2", "#D55E00"
COLOURS = (BLUE, "#E69F00", "#56B4E9", "#009E73", "#CC79A7", GREY, VERMILION)
SERIES = tuple(zip(COLOURS, ("", "////", "....", "\\\\\\\\", "xxxx", "oooo", "||||"), strict=True))
WIDTH, DPI = 9.0, 110
_TICK = {"color": GREY, "labelcolor": INK, "major.size": 0}
STYLE = (
    {"font.size": 9, "text.color": INK, "axes.edgecolor": GREY, "axes.labelcolor": GREY}
    | {"text.parse_math": False}  # reports may hold a dollar sign
    | {f"axes.spines.{side}": False for side in ("top", "right", "left")}
    | {f"{axis}tick.{part}": look for axis in "xy" for part, look in _TICK.items()}
    | {"hatch.linewidth": 0.6, "legend.frameon": False}
)


class Chart(Figure):
    """A Figure that a notebook shows once, without pyplot and its global state; `alt` says what it shows."""

    alt = ""

    def markup(self, **look) -> str:
        """A PNG as markup; under it, to unfold, what it shows in words, which is its alt text too."""
        buffer, alt = io.BytesIO(), escape(self.alt)
        self.savefig(buffer, format="png", **look)
        data = base64.b64encode(buffer.getvalue()).decode()
        return (
            f'<figure style="margin:0"><img alt="{alt}" style="max-width:100%;background:#fff" '
            f'src="data:image/png;base64,{data}"><figcaption style="font-size:12px"><details>'
            f"<summary>Description of this picture</summary>{alt}</details></figcaption></figure>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.markup()}  # exported pages leave out the alt text of a bare PNG


def only_split(rows: pd.DataFrame) -> str:
    """The name of the one split that `rows` are of; raises ValueError for several."""
    if rows["split"].nunique() != 1:
        raise ValueError(f"a picture of one split, not of {list(rows['split'].unique())}")
    return split_name(rows["split"].iloc[0])


def save(fig: Chart, path: Path) -> Path:
    """Write `fig` as a PNG with its alt text as Description, whole or not at all; gives the path."""
    with replacing_file(path) as part:
        fig.savefig(part, format="png", metadata={"Description": fig.alt})
    return path


def figure(height: float, title: str, subtitle: str) -> Chart:
    """An empty chart; `subtitle` says what the data are and, where scores are shown, who judged them."""
    fig = Chart(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    fig.alt = f"{title}: {subtitle}"
    fig.text(0.12 / WIDTH, 1 - 0.27 / height, title, weight="bold", fontsize=11)
    fig.text(0.12 / WIDTH, 1 - 0.48 / height, subtitle, color=GREY, fontsize=8.5)
    return fig


def tell(fig: Chart, sentence: str) -> None:
    """Add a sentence to the alt text."""
    fig.alt = f"{fig.alt.removesuffix('.')}. {sentence}"


def panels(
    fig: Chart, count: int, *, top: float, bottom: float, left: float, right: float = 0.15, gap: float = 0.0
) -> list[Axes]:
    """`count` axes side by side; margins in inches."""
    height = fig.get_figheight()
    span = (WIDTH - left - right - gap * (count - 1)) / count
    size = (span / WIDTH, (height - top - bottom) / height)
    return [fig.add_axes(((left + i * (span + gap)) / WIDTH, bottom / height, *size)) for i in range(count)]


def series(i: int) -> tuple[str, str]:
    """Colour and hatch of the series of number `i`. Raises ValueError where they could not be told apart."""
    if i >= len(SERIES):
        raise ValueError(f"a chart can show at most {len(SERIES)} series: draw fewer")
    return SERIES[i]


def bar(ax: Axes, at: float, value: float, thickness: float, i: int, horizontal: bool = False) -> None:
    """A bar of the series of number `i`."""
    colour, hatch = series(i)
    draw = ax.barh if horizontal else ax.bar
    draw(at, value, thickness, color=colour, hatch=hatch, edgecolor="white", linewidth=0)


def shift(i: int, count: int, thickness: float) -> float:
    """How far from the middle the bar of number `i` stands, of `count` beside each other."""
    return (i - (count - 1) / 2) * thickness


def whisker(ax: Axes, x: Sequence[float], y: Sequence[float], width: float = 1.1) -> None:
    """The line of an interval, from one point to another; x and y hold two values each."""
    ax.plot(x, y, color=INK, linewidth=width, solid_capstyle="butt")


def note(ax: Axes, text: str, at: Sequence[float], points: tuple[float, float] = (3, 0), **look) -> None:
    """A text so many `points` right of and above a place in the panel."""
    ax.annotate(text, at, points, textcoords="offset points", **{"va": "center"} | look)


def hatch_colour(colour: str) -> str:
    """Grey on the pale colours, white on the others."""
    return GREY if min(to_rgb(colour)) > 0.55 else "white"


def legend(fig: Chart, entries: list[tuple[str, str, str]]) -> None:
    """A legend of (name, colour, hatch) under the subtitle; comes last, as the figure grows by its rows."""
    handles = [Patch(fc=c, ec=hatch_colour(c), hatch=hatch, label=name) for name, c, hatch in entries]
    look = {"loc": "upper left", "fontsize": 8.5, "handlelength": 1.4, "columnspacing": 1.6}
    for rows in range(1, len(handles) + 1):
        columns, corner = math.ceil(len(handles) / rows), (0.02 / WIDTH, 1 - 0.52 / fig.get_figheight())
        order = [handle for column in range(columns) for handle in handles[column::columns]]
        shown = fig.legend(handles=order, bbox_to_anchor=corner, ncols=columns, **look)
        if shown.get_window_extent().width <= WIDTH * fig.dpi:
            return
        shown.remove()
        _grow(fig, 0.19)


def _grow(fig: Chart, more: float) -> None:
    """Make room of `more` inches below the subtitle; what is drawn keeps its size."""
    height = fig.get_figheight()
    share = height / (height + more)
    for ax in fig.axes:
        box = ax.get_position()
        ax.set_position((box.x0, box.y0 * share, box.width, box.height * share))
    for text in fig.texts:
        text.set_y(1 - (1 - text.get_position()[1]) * share)
    fig.set_figheight(height + more)


def grid(ax: Axes, axis: str) -> None:
    """Lines behind what is drawn: across "x", "y" or "both"."""
    ax.grid(axis=axis, color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)


def region_axis(ax: Axes, notes: Sequence[str]) -> None:
    """The four regions along x, each with its note below."""
    ax.set_xticks(range(len(REGIONS)), [f"{r}\n{n}".strip() for r, n in zip(REGIONS, notes, strict=True)])
    ax.set_xlim(-0.5, len(REGIONS) - 0.5)
    grid(ax, "y")


def name_axis(ax: Axes, names: Sequence[str], shown: bool) -> None:
    """Names down the y axis; in a panel right of the first they are not `shown`."""
    ax.set_yticks(range(len(names)), names if shown else [""] * len(names))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.spines["left"].set_visible(True)


def panel_title(ax: Axes, text: str) -> None:
    """The name of a panel, above it on the left."""
    ax.set_title(text, loc="left", fontsize=9, weight="bold", color=GREY, pad=4)


@mpl.rc_context(STYLE)
def region_coverage(counts: pd.DataFrame, *, data_label: str) -> Chart:
    """How often each region is mentioned; `counts` of studies by split, of `studies` and each region."""
    fig = figure(3.4, "Studies that mention each region", data_label)
    (ax,) = panels(fig, 1, top=0.95, bottom=0.35, left=0.45)
    names, width = [], 0.84 / len(counts)
    for i, (split, row) in enumerate(counts.iterrows()):
        shares = row[list(REGIONS)] / row["studies"]
        for x, (region, share) in enumerate(shares.items()):
            at = x + shift(i, len(counts), width)
            bar(ax, at, share, width * 0.92, i)
            label = f"{share:.0%}\n{row[region]:,}"
            ax.text(at, share + 0.015, label, ha="center", va="bottom", fontsize=7.5, linespacing=1.1)
        tell(fig, f"{split_name(split)}: {', '.join(f'{r} {share:.0%}' for r, share in shares.items())}")
        names.append((f"{split_name(split)} ({row['studies']:,} studies)", *series(i)))
    region_axis(ax, [""] * len(REGIONS))
    ax.set(ylim=(0, 1.2), yticks=np.arange(0, 1.01, 0.25))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    legend(fig, names)
    return fig


@mpl.rc_context(STYLE)
def confusion(tables: Mapping[str, pd.DataFrame], *, data_label: str) -> Chart:
    """Where gold has the sentences against where each split has them, one panel per split.

    `tables` by the split's name, each from `split.gold.confusion`: gold in the index, the split in the
    columns. The colour is the share of gold's row, one hue from white to blue; the number is the count.
    """
    names = list(next(iter(tables.values())).index)
    fig = figure(4.5, "Where the sentences go: gold in rows, the split in columns", data_label)
    axes = panels(fig, len(tables), top=1.1, bottom=0.75, left=0.95, gap=0.25)
    hue = LinearSegmentedColormap.from_list("share", ["#ffffff", BLUE])
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        counts = table.to_numpy()
        shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
        ax.imshow(shares, cmap=hue, vmin=0, vmax=1, aspect="auto")
        for (y, x), count in np.ndenumerate(counts):
            look = {"ha": "center", "va": "center", "weight": "bold" if x == y else "normal"}
            look["color"] = "white" if shares[y, x] > 0.55 else INK if count else GREY
            ax.text(x, y, f"{count:,}" if count else "·", **look)
        turn = {"rotation": 35, "ha": "right"} if len(tables) > 1 else {}
        ax.set_xticks(range(len(names)), names, **turn)
        ax.set_yticks(range(len(names)), names if ax is axes[0] else [""] * len(names))
        ax.spines["bottom"].set_visible(False)
        diagonal = f"{np.trace(counts):,} of {counts.sum():,} on the diagonal"
        panel_title(ax, f"{title}\n{diagonal}")
        tell(fig, f"{title}: {diagonal}")
    return fig


@mpl.rc_context(STYLE)
def gallery(studies: Sequence[Mapping], *, data_label: str, columns: int = 3) -> Chart:
    """A grid of studies, each a mapping of `id`, `views` (images) and `caption`."""
    rows = -(-len(studies) // columns)
    wide, tall, most = (WIDTH - 0.12) / columns, 2.95, 8  # lines of a caption
    height = 0.6 + rows * tall
    fig = figure(height, "Studies", f"{data_label} · {NOT_FOR_CLINICAL_USE}")
    for i, study in enumerate(studies):
        x, y = 0.12 + (i % columns) * wide, height - 0.6 - (i // columns + 1) * tall
        each = (wide - 0.1) / len(study["views"])
        for number, view in enumerate(study["views"]):
            left, size = x + number * each, ((each - 0.06) / WIDTH, (tall - 1.51) / height)
            ax = fig.add_axes((left / WIDTH, (y + 1.4) / height, *size), anchor="SW")
            ax.imshow(np.asarray(view), cmap="gray")
            ax.set_axis_off()
        fig.text(x / WIDTH, (y + 1.24) / height, study["id"], weight="bold", fontsize=8)
        wrapped = (textwrap.wrap(line, int(wide * 14.5)) for line in study["caption"].splitlines())
        lines = [part for line in wrapped for part in line]
        if len(lines) > most:
            lines = [*lines[: most - 1], "…"]
        caption = {"va": "top", "fontsize": 7.5, "color": GREY, "linespacing": 1.25}
        fig.text(x / WIDTH, (y + 1.18) / height, "\n".join(lines), **caption)
    tell(fig, f"views and captions of {', '.join(study['id'] for study in studies)}")
    return fig


@mpl.rc_context(STYLE)
def loss_curve(log: pd.DataFrame, *, data_label: str) -> Chart:
    """Training and evaluation loss over steps; `log` has step, loss, eval_loss (NaN where not taken)."""
    fig = figure(3.6, "Loss over training", data_label)
    (ax,) = panels(fig, 1, top=0.7, bottom=0.5, left=0.5, right=1.35)
    columns = (("loss", "training", BLUE, ""), ("eval_loss", "evaluation", VERMILION, "o"))
    lines = [(log[["step", column]].dropna().to_numpy(), *look) for column, *look in columns]
    lines = [line for line in lines if len(line[0])]
    for line, _, colour, marker in lines:
        ax.plot(*line.T, color=colour, marker=marker, markersize=4.5, linewidth=1.6)
    # The two names stand at the ends of their lines, apart even where the lines meet, and above the axis.
    for i, (line, name, colour, _) in enumerate(sorted(lines, key=lambda line: line[0][-1, 1])):
        note(ax, f"{name} {line[-1, 1]:.3f}", line[-1], (9, 16 * i), color=colour, weight="bold")
        tell(fig, f"{name} ends at {line[-1, 1]:.3f}, step {line[-1, 0]:.0f}")
    if not lines:
        ax.text(0.5, 0.5, "no loss logged yet", transform=ax.transAxes, ha="center", color=GREY)
    grid(ax, "y")
    ax.set(xlabel="optimiser step", ylim=(0, None), xlim=(0, None))
    ax.margins(x=0.02)
    return fig
