"""The reading room of notebook 04: judged studies to leaf through, with what the probe sees in each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

import ipywidgets as widgets
import numpy as np
import pandas as pd
from datasets import Dataset
from IPython.display import HTML

from utils.findings.plans import Plan
from utils.findings.probe import Probe
from utils.models.writer import Writer
from utils.regions import REGIONS
from utils.scores.judging import by_study
from utils.scores.statistics import ERRORS, one_judge, scored

from .looking import Looking
from .page import quiet, table, tag
from .viewers import Browser, report_view

ORDERS = ("worst first", "best first", "by id")
ALL_REGIONS, ANY_ERROR = "all regions", "with or without errors"


def places(
    judgements: pd.DataFrame,
    ids: Sequence[str],
    order: str = ORDERS[0],
    region: str = ALL_REGIONS,
    error: str = ANY_ERROR,
) -> list[tuple[int, float, int]]:
    """The studies to show, in order: place in `ids`, mean score, number of significant errors.

    judgements: the rows of one system on one split
    order: one of `ORDERS`; region, error: one of `REGIONS` and `scores.ERRORS`, or no filter

    Score and errors are those of the region, where one is chosen; a study whose
    reference does not mention it is left out.
    """
    rows = scored(judgements)
    if region != ALL_REGIONS:
        rows = rows[rows["region"] == region]
    errors = rows["significant"].map(list)
    if error != ANY_ERROR:
        errors = errors.map(lambda counts: [counts[ERRORS.index(error)]])
    rows = rows.assign(errors=errors.map(sum).astype(int))
    studies = rows.groupby("id").agg(score=("value", "mean"), errors=("errors", "sum"))
    if error != ANY_ERROR:
        studies = studies[studies["errors"] > 0]
    studies = studies.sort_index()
    if order != "by id":
        studies = studies.sort_values("score", ascending=order == "worst first", kind="stable")
    position = {study: number for number, study in enumerate(ids)}
    return [
        (position[row.Index], row.score, row.errors) for row in studies.itertuples() if row.Index in position
    ]


class ReadingRoom(Browser):
    """A browser of judged studies; `draw(i)` gives the study at place i of `ids`, as in `viewers.browser`.

    judgements: the rows of one system on one split. Nothing waits for a click:
    it opens on the study with the lowest score.
    """

    def __init__(
        self,
        ids: Sequence[str],
        judgements: pd.DataFrame,
        draw: Callable[[int], "HTML | str"],
        below: Sequence[widgets.Widget] = (),
    ):
        self._ids, self._judgements = list(ids), judgements
        wide = widgets.Layout(width="300px")
        self.order = widgets.Dropdown(options=ORDERS, description="sort", layout=wide)
        self.region = widgets.Dropdown(options=(ALL_REGIONS, *REGIONS), description="region", layout=wide)
        self.error = widgets.Dropdown(options=(ANY_ERROR, *ERRORS), description="error", layout=wide)
        self._order = self._chosen()
        super().__init__(self._names(), lambda i: draw(self._order[i][0]), "study")
        for field in (self.order, self.region, self.error):
            field.observe(lambda _: self._choose(), names="value")
        filters = widgets.HBox([self.order, self.region, self.error])
        self.widget.children = (filters, *self.widget.children, *below)

    def _chosen(self) -> list[tuple[int, float, int]]:
        return places(self._judgements, self._ids, self.order.value, self.region.value, self.error.value)

    def _names(self) -> list[str]:
        return [
            f"{self._ids[place]} · {score:.2f} · {errors} error{'s' * (errors != 1)}"
            for place, score, errors in self._order
        ]

    def _choose(self) -> None:
        self._order = self._chosen()
        self.show_items(self._names())


def open_room(
    studies: Dataset,
    judgements: pd.DataFrame,
    written: Iterable[Mapping],
    beside: Sequence[str] = (),
    *,
    note: str = "",
    looking: Looking | None = None,
) -> ReadingRoom:
    """The reading room of `studies`, each as in `viewers.report_view`.

    judgements: the rows of one system on these studies
    written: its reports, as `write_reports` gives them
    beside: for each study what stands next to its views, such as `probe_bars` gives; none: nothing
    looking: shows below where the model looked, of a writer that may be closed
    """
    ids, reports = list(studies["id"]), {row["id"]: row["report"] for row in written}
    judged_studies, judge = by_study(judgements), one_judge(judgements)

    def draw(i: int) -> HTML:
        study, bars = studies[i], beside[i] if beside else ""
        if looking:
            looking.offer(study["images"])
        prediction, judged = reports[ids[i]], judged_studies.get(ids[i], {})
        return report_view(study["images"], study, prediction, judged, judge, note, bars)

    return ReadingRoom(ids, judgements, draw, [looking.widget] if looking else ())


def probe_bars(writer: Writer, studies: Dataset, name: str) -> list[str]:
    """For each of `studies`, called `name`, what the writer's probe sees, as markup: see `bars`.

    Without a probe, or where it reads no finding, there are none. The features are read where the writer
    keeps them, so a writer that is closed will do once they are there.
    """
    probe, weight = writer.probe, writer.recall_weight
    if not (probe and probe.names):
        return []
    features = writer.features(studies, name, lambda blocks, _: blocks)
    read = zip(probe.probabilities(features), writer.plans(features), strict=True)
    return [bars(probe, seen, plan, weight) for seen, plan in read]


def bars(probe: Probe, probabilities: np.ndarray, plan: Plan, recall_weight: float) -> str:
    """What `probe` sees in one study as markup: a bar for each finding, with its number and its threshold.

    probabilities: (findings,); plan: by region, what the report is to name: those findings stand out
    """
    rows, threshold = [], probe.threshold(recall_weight)
    for group, seen in zip(probe.groups, probabilities, strict=True):
        named = group.name in plan[group.region]
        name = f"<b>{escape(group.name)}</b>" if named else escape(group.name)
        meter = (
            f'<span class="meter {group.region}{" named" * named}" aria-hidden="true">'
            f'<i style="width:{seen:.0%}"></i><u style="left:{threshold:.0%}"></u></span>'
        )
        number = f"<b>{seen:.2f}</b>" if named else f"{seen:.2f}"
        rows.append((name, number, meter, tag("named", group.region) if named else ""))
    head = ("finding", "probability", "", "")
    note = (
        "Findings probe, not a diagnosis. A bar is the probability that the probe reads in these views. The "
        f"report is to name a finding from the mark on, {threshold:.2f}, which follows from "
        f"recall_weight {recall_weight:g}."
    )
    return f'<div class="probe">{table(head, rows)}{quiet(note)}</div>'
