"""Where the model looked, as a heat map on the views of one study: on demand, with its time said before."""

from collections.abc import Iterable, Sequence
from html import escape

import ipywidgets as widgets
import numpy as np
from datasets import Dataset
from PIL import Image

from utils.models.looked import mean_views, passes, where_it_looked
from utils.models.study import StudyReport, read_study
from utils.models.writer import Writer
from utils.regions import REGIONS
from utils.run.workspace import StepError

from .page import html, quiet, refused
from .viewers import view

HOT = (230, 120, 20)  # red, green and blue
ENOUGH = 200  # training studies, at most, make a mean view
MOST = 0.7  # opacity of the hottest patch
TIME_IT = "Where it looked"


def heated(image: Image.Image, heat: np.ndarray, most: float) -> Image.Image:
    """A view with (rows, columns) of heat on it; `most` of it is the most opaque, and below 0 is none."""
    grey = image.convert("L").convert("RGB")
    share = np.clip(heat / most, 0, 1) if most > 0 else np.zeros_like(heat)
    mask = Image.fromarray(np.uint8(255 * MOST * share)).resize(image.size, Image.Resampling.BILINEAR)
    opacity = np.asarray(mask, dtype=float)[..., None] / 255
    return Image.fromarray(np.uint8(np.asarray(grey, dtype=float) * (1 - opacity) + np.array(HOT) * opacity))


def heat_view(images: Sequence[Image.Image], heat: np.ndarray, region: str) -> str:
    """The views with the heat of one region, (views, rows, columns), as markup."""
    most = float(heat.max())
    both = enumerate(zip(images, heat, strict=False), start=1)
    drawn = (view(heated(image, at, most), f"{region}: where it looked, view {n}") for n, (image, at) in both)
    caption = f"Without any one part, the text on {region} is as probable as it was."
    if most > 0:
        caption = (
            "Each part of the views was replaced in turn by what the mean training view shows there. The "
            f"more orange a part, the less probable is the text on {region} without it, at most by "
            f"{most:.1f} in log-probability."
        )
    return f'<div class="side">{"".join(drawn)}</div>{quiet(escape(caption))}'


class Looking:
    """A button, a region and the heat map of one study after the other; `training` makes the mean views."""

    def __init__(self, writer: Writer, training: Dataset):
        self._writer, self._training, self._means = writer, training, None
        wide = widgets.Layout(width="260px")
        self.button = widgets.Button(description=TIME_IT, icon="search", layout=wide)
        self.region = widgets.Dropdown(options=REGIONS, description="region", layout=wide)
        self.shown = widgets.HTML()
        self.button.on_click(lambda _: self._clicked())
        self.region.observe(lambda _: self._draw(), names="value")
        self.widget = widgets.VBox([widgets.HBox([self.button, self.region]), self.shown])
        self.offer([])

    def offer(self, images: Sequence[Image.Image], report: StudyReport | None = None) -> None:
        """Stand ready for a study, given as its views, and what `read_study` made of it, if that is known."""
        self._images, self._report, self._heat = images, report, {}
        self.button.disabled = not len(images)
        self._say("The first click reads the study once and tells how long the rest takes.")
        if report:
            self._announce()

    def _announce(self) -> None:
        count = passes(self._report.views)
        seconds = max(1, round(count * self._report.seconds))
        time = f"{seconds} s" if seconds < 100 else f"{seconds / 60:.0f} min"
        self.button.description = f"{TIME_IT} ({time})"
        self._say(f"The model will read the study {count} times, which takes about {time} here.")

    def _say(self, text: str) -> None:
        self.shown.value = html(quiet(escape(text)))

    def _clicked(self) -> None:
        self.button.disabled = True
        try:
            if self._report is None:
                self._say("The model reads the study.")
                self._report = read_study(self._writer, self._images)
                self._announce()
            else:
                if self._means is None:
                    every = -(-len(self._training) // ENOUGH)
                    some = self._training.select(range(0, len(self._training), every))
                    self._means = mean_views(some["images"], self._writer.reading["views"])
                study = (self._images, self._report, self._means)
                self._heat = where_it_looked(self._writer, *study, self._progress)
                self._draw()
        except StepError as error:
            self.shown.value = html(refused("not done", error))
        finally:
            self.button.disabled = False

    def _progress(self, batches: Sequence, _: str) -> Iterable:
        for number, batch in enumerate(batches):
            self._say(f"{number / len(batches):.0%} done")
            yield batch

    def _draw(self) -> None:
        region = self.region.value
        if region in self._heat:
            self.shown.value = html(heat_view(self._images, self._heat[region], region))
        elif self._heat:
            self._say(f"The model wrote nothing on {region}.")
