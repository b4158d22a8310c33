"""A study of one's own in notebook 04: chosen or named, read by the fine-tuned model, and shown."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

import ipywidgets as widgets
from datasets import Dataset
from PIL import Image

from utils.data.studies import DataError
from utils.models.study import StudyReport, open_views, read_study, side_of
from utils.models.writer import Writer
from utils.regions import REGIONS
from utils.run.workspace import StepError

from .looking import Looking
from .page import Live, html, quiet, refused, table, tag
from .reading_room import bars
from .viewers import labels, views

UNSURE = "230,140,20"  # red, green and blue of the shade behind a word
DARKEST = 0.75  # opacity of that shade where the probability is 0
LEGEND = (1.0, 0.75, 0.5, 0.25, 0.0)
EXAMPLE = "This is a test study, as an example."


def study_view(images: Sequence[Image.Image], report: StudyReport, writer: Writer, note: str = "") -> str:
    """A study that was read, as markup: views, what the probe sees, and the report with its words shaded."""
    left = len(images) - report.views
    more = quiet(f"Not read: {left} more, as the model was taught on {report.views} views a study.")
    rows = []
    for region in REGIONS:
        words = " ".join(_shaded(escape(text), sure) for text, sure in report.words.get(region, ()))
        if added := report.added.get(region):
            words = f"{escape(added)} {quiet('(added, as the probe sees it)')} {words}"
        rows.append((tag(region, region), words or quiet("nothing written")))
    probe, seen = writer.probe, list(report.findings.values())
    beside = bars(probe, seen, report.plan, writer.recall_weight) if seen else ""
    steps = " ".join(_shaded(f"&nbsp;{sure:.2f}&nbsp;", sure) for sure in LEGEND)
    meaning = quiet("Probability that the model gave each word: rest the pointer on a word to read its own.")
    side = f'<div class="side">{views(images[: report.views], len(images))}{beside}</div>'
    report_table = f"{more if left else ''}{table(('region', 'report'), rows)}"
    return f"{labels(note)}{side}{report_table}<p>{steps} {meaning}</p>"


def _shaded(text: str, probability: float) -> str:
    """A word, the darker the less probable; the number shows where the pointer rests."""
    shade = f"rgba({UNSURE},{DARKEST * (1 - probability):.2f})"
    return f'<span title="{probability:.2f}" style="background:{shade}">{text}</span>'


class Desk(Live):
    """Takes one study's views, as files or paths, and shows what the model makes of them."""

    def __init__(self, writer: Writer, example: Sequence[Image.Image], training: Dataset, note: str = ""):
        self._writer = writer
        self.files = widgets.FileUpload(accept=".dcm,.dicom,.png,.jpg,.jpeg", multiple=True)
        self.files.description = "Choose files"
        look = {"layout": widgets.Layout(width="420px"), "placeholder": "frontal.dcm; lateral.dcm"}
        self.paths = widgets.Text(description="or paths", continuous_update=False, **look)
        self.shown = widgets.HTML()
        self.files.observe(lambda change: change["new"] and self._take(self._chosen), names="value")
        self.paths.observe(lambda change: change["new"].strip() and self._take(self._named), names="value")
        self.looking = Looking(writer, training)
        bar = widgets.HBox([self.files, self.paths])
        super().__init__(widgets.VBox([bar, self.shown, self.looking.widget]), lambda: self.shown.value)
        self._show(lambda: list(example), EXAMPLE, note)

    def _take(self, views: Callable[[], list[Image.Image]]) -> None:
        self.shown.value = html(quiet("The model reads the study."))
        self._show(views, "This is your study. Nothing left this machine.")

    def _show(self, views: Callable[[], list[Image.Image]], whose: str, note: str = "") -> None:
        try:
            images = views()
            report = read_study(self._writer, images)
            drawn = study_view(images, report, self._writer, note)
            self.looking.offer(images, report)
        except (DataError, StepError) as error:
            drawn, whose = f"<p>{refused('not read', error)}</p>", ""
            self.looking.offer([])
        self.shown.value = html(drawn + f"<small>{escape(whose)}</small>")
        self.refresh()

    def _chosen(self) -> list[Image.Image]:
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for name, content in sorted(uploaded(self.files.value)):
                paths.append(Path(folder, Path(name).name))
                paths[-1].write_bytes(content)
            return open_views(paths, side_of(self._writer.reading))

    def _named(self) -> list[Image.Image]:
        parts = (part.strip(" '\"") for part in self.paths.value.split(";"))
        paths = [Path(part).expanduser() for part in parts if part]
        return open_views(paths, side_of(self._writer.reading))


def uploaded(value: Mapping | Sequence[Mapping]) -> list[tuple[str, bytes]]:
    """Name and content of each file in a FileUpload's `value`: a dict in ipywidgets 7, a tuple in 8."""
    if isinstance(value, Mapping):
        return [(name, file["content"]) for name, file in value.items()]
    return [(file["name"], bytes(file["content"])) for file in value]
