"""What all figures share: colours, style, margins, and how one is saved.

Colours are Okabe and Ito's, which the colour-blind can tell apart, and every
series has a hatch or a marker as well, so that a grey print can be read. What
the data are and who judged them stands inside each picture, because pictures
travel without their captions. Lengths are in inches.
"""

import base64
import io
from html import escape
from pathlib import Path

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .regions import REGIONS
from .workspace import replacing_file

INK, GREY, RULE = "#1a1a1a", "#5f6368", "#d9dce0"
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
SERIES = ((BLUE, ""), (ORANGE, "////"), ("#56B4E9", "...."), (GREEN, "\\\\\\\\"), (PURPLE, "xxxx"))
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

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        # As HTML: exported pages leave out the alt text of a bare PNG.
        return {"text/html": captioned(buffer.getvalue(), self.alt)}


def captioned(picture: bytes, alt: str) -> str:
    """A PNG as markup; under it, to unfold, what it shows in words, which is its alt text too."""
    data = base64.b64encode(picture).decode()
    return (
        f'<figure style="margin:0"><img alt="{escape(alt)}" style="max-width:100%;background:#fff" '
        f'src="data:image/png;base64,{data}"><figcaption style="font-size:12px"><details>'
        f"<summary>This picture in words</summary>{escape(alt)}</details></figcaption></figure>"
    )


def save(fig: Chart, path: str | Path) -> Path:
    """Write `fig` as a PNG with its alt text as Description, whole or not at all; gives the path."""
    path = Path(path)
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


def tell(fig: Chart, what: str) -> None:
    """Add a sentence to the alt text."""
    fig.alt = f"{fig.alt.removesuffix('.')}. {what}"


def panels(fig, count, *, top, bottom, left, right=0.15, gap=0.0) -> list:
    """`count` axes side by side; margins in inches."""
    height = fig.get_figheight()
    span = (WIDTH - left - right - gap * (count - 1)) / count
    boxes = [left + i * (span + gap) for i in range(count)]
    return [
        fig.add_axes((x / WIDTH, bottom / height, span / WIDTH, (height - top - bottom) / height))
        for x in boxes
    ]


def series(i: int) -> tuple[str, str]:
    """Colour and hatch of the series of number `i`. Raises ValueError where they could not be told apart."""
    if i >= len(SERIES):
        raise ValueError(f"a chart tells {len(SERIES)} series apart, not more: draw fewer")
    return SERIES[i]


def hatch_colour(colour: str) -> str:
    """Grey on the pale colours, white on the others."""
    return GREY if min(to_rgb(colour)) > 0.55 else "white"


def bar(ax, at: float, value: float, thickness: float, i: int, horizontal: bool = False) -> None:
    """A bar of the series of number `i`."""
    colour, hatch = series(i)
    draw = ax.barh if horizontal else ax.bar
    draw(at, value, thickness, color=colour, hatch=hatch, edgecolor="white", linewidth=0)


def legend(fig, entries: list[tuple[str, str, str]]) -> None:
    """A legend under the subtitle; an entry is a name, a colour and a hatch."""
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor=hatch_colour(colour), label=name)
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


def region_axis(ax, notes: list[str]) -> None:
    """The four regions along x, each with its note below."""
    ax.set_xticks(range(len(REGIONS)), [f"{r}\n{n}".strip() for r, n in zip(REGIONS, notes, strict=True)])
    ax.set_xlim(-0.5, len(REGIONS) - 0.5)
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)


def panel_title(ax, text: str) -> None:
    """The name of a panel, above it on the left."""
    ax.set_title(text, loc="left", fontsize=9, weight="bold", color=GREY, pad=4)
