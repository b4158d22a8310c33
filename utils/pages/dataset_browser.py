"""The dataset browser: studies by split, region and words of their findings, and their views under a window.

Choosing reads texts alone, and only the views on show are decoded: thousands of studies open as fast as one.
"""

import re
from html import escape

import ipywidgets as widgets
import numpy as np
import pandas as pd
from datasets import DatasetDict
from PIL import Image, ImageDraw, ImageFont

from utils.data.drawing import LABEL
from utils.regions import REGIONS
from utils.scores.statistics import split_name

from .page import picture, quiet, table, tag
from .viewers import Browser, labels

ALL_SPLITS, ANY_REGION = "all splits", "any region"
WHOLE = (128, 256, 1, 0.5, 0.5)  # a view as it is stored: window center and width, zoom, across, down
SIDE = 440  # pixels: the longest side of a view on the page; two fit beside each other on a laptop


def texts(dataset: DatasetDict) -> pd.DataFrame:
    """One row per study: split, row in the split, id, views, and the text of each region."""
    columns = ["id", "views", *REGIONS]
    parts = {name: rows.select_columns(columns).to_pandas() for name, rows in dataset.items()}
    return pd.concat(parts, names=["split", "row"]).reset_index()


def find(
    studies: pd.DataFrame, split: str = ALL_SPLITS, region: str = ANY_REGION, words: str = ""
) -> pd.DataFrame:
    """The rows of `texts` of one split, whose findings mention a region and hold each of `words`.

    Where a region is chosen the words must stand in its text. A word finds longer ones that begin with it;
    it finds text, so that "effusion" finds "no effusion" too.
    """
    text = studies[list(REGIONS) if region == ANY_REGION else [region]].agg("\n".join, axis=1)
    chosen = text.str.strip() != ""
    if split != ALL_SPLITS:
        chosen &= studies["split"] == split
    for word in words.split():
        chosen &= text.str.contains(_beginning(word), case=False)
    return studies[chosen]


def windowed(view: Image.Image, center: float, width: float) -> Image.Image:
    """8-bit grey levels under a window, black below it and white above, as in DICOM PS3.3, C.11.2.1.2.1."""
    levels = np.clip(((np.arange(256) - (center - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)
    return view.convert("L").point(np.uint8(np.rint(levels)).tolist())


def zoomed(view: Image.Image, zoom: float, across: float, down: float) -> Image.Image:
    """The part of a view that `zoom` leaves, at `across` and `down` from 0 to 1, scaled to `SIDE` pixels."""
    width, height = (side / zoom for side in view.size)
    left, top = (view.width - width) * across, (view.height - height) * down
    scale = SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return view.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


class DatasetBrowser(Browser):
    """Studies of a dataset to leaf through, with filters, zoom and window; phantoms are always marked."""

    def __init__(self, dataset: DatasetDict, data_label: str):
        self._dataset, self._data_label = dataset, data_label
        self._studies = texts(dataset)
        narrow, wide = widgets.Layout(width="240px"), widgets.Layout(width="340px")
        splits = [(split_name(name), name) for name in (ALL_SPLITS, *dataset)]
        self.split = widgets.Dropdown(options=splits, description="split", layout=narrow)
        self.region = widgets.Dropdown(options=(ANY_REGION, *REGIONS), description="mentions", layout=narrow)
        hint = {"placeholder": "words in the findings; press Enter", "continuous_update": False}
        self.words = widgets.Text(description="finding", layout=wide, **hint)
        slider = {"continuous_update": False, "layout": wide, "style": {"description_width": "105px"}}
        self.center = widgets.IntSlider(WHOLE[0], 0, 255, description="window center", **slider)
        self.width = widgets.IntSlider(WHOLE[1], 2, 512, description="window width", **slider)
        self.zoom = widgets.FloatSlider(1, min=1, max=6, step=0.5, description="zoom", **slider)
        self.across = widgets.FloatSlider(0.5, min=0, max=1, step=0.05, description="across", **slider)
        self.down = widgets.FloatSlider(0.5, min=0, max=1, step=0.05, description="down", **slider)
        button = widgets.Layout(width="120px")
        self.whole = widgets.Button(description="Whole view", icon="undo", layout=button)
        self._looks = (self.center, self.width, self.zoom, self.across, self.down)
        super().__init__(self._chosen_names(), self._draw_study)
        for field in (self.split, self.region, self.words):
            field.observe(lambda _: self.show_studies(self._chosen_names()), names="value")
        for field in self._looks:
            field.observe(lambda _: self._changing or self._show(), names="value")
        self.whole.on_click(lambda _: self._reset())
        choosing = [self.split, self.region, self.words]
        rows = (choosing, [self.center, self.width, self.whole], [self.zoom, self.across, self.down])
        wrap = widgets.Layout(flex_flow="row wrap")
        filters, *looks = (widgets.HBox(fields, layout=wrap) for fields in rows)
        bar, shown = self.widget.children
        self.widget.children = (filters, bar, *looks, shown)

    def _chosen_names(self) -> list[str]:
        self._chosen = find(self._studies, self.split.value, self.region.value, self.words.value)
        rows = self._chosen[["id", "split", "views"]].itertuples(index=False)
        return [f"{id} · {split_name(split)} · {count} view{'s' * (count != 1)}" for id, split, count in rows]

    def _reset(self) -> None:
        """Back to the whole views as they are stored, drawn once."""
        self._changing = True
        for field, value in zip(self._looks, WHOLE, strict=True):
            field.value = value
        self._changing = False
        self._show()

    def _draw_study(self, number: int) -> str:
        study = self._chosen.iloc[number]
        views = self._dataset[study["split"]][int(study["row"])]["images"]
        figures = (self._figure(view, f"view {n} of {len(views)}") for n, view in enumerate(views, start=1))
        rows = ((tag(name, name), self._marked(study[name]) or quiet("not mentioned")) for name in REGIONS)
        side = f'<div class="side">{"".join(figures)}</div>'
        return f"{labels(self._data_label)}{side}{table(('region', 'findings'), rows)}"

    def _figure(self, view: Image.Image, name: str) -> str:
        """A view as it is looked at, with a caption that says how."""
        center, width, *part = (field.value for field in self._looks)
        caption = f"{name} · center {center}, width {width} · zoom {part[0]:g}"
        shown = zoomed(windowed(view, center, width), *part)
        if "phantom" in self._data_label.lower():
            caption = f"phantom, {caption}"
            if part[0] > 1:  # the whole picture is marked when it is drawn
                corner = (shown.width - 8, shown.height - 8)
                look = {"font": ImageFont.load_default(16), "fill": 255, "stroke_width": 2, "stroke_fill": 0}
                ImageDraw.Draw(shown).text(corner, LABEL, anchor="rs", **look)
        return picture(shown, caption)

    def _marked(self, text: str) -> str:
        """A text as markup; what the search found in it is marked."""
        words = self.words.value.split()
        if not words:
            return escape(text)
        parts = re.split(f"({'|'.join(map(_beginning, words))})", text, flags=re.IGNORECASE)
        parts = map(escape, parts)
        return "".join(f'<mark class="note">{part}</mark>' if n % 2 else part for n, part in enumerate(parts))


def _beginning(word: str) -> str:
    """A pattern for `word` at the beginning of a word."""
    return rf"(?<!\w){re.escape(word)}"
