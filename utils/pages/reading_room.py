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


def ranked(
    judgements: pd.DataFrame, order: str = ORDERS[0], region: str = ALL_REGIONS, error: str = ANY_ERROR
) -> pd.DataFrame:
    """The studies to show, in order, by id: mean `score`, and number of significant `errors`.

    judgements: the rows of one system on one split
    order: one of `ORDERS`; region, error: one of `REGIONS` and `statistics.ERRORS`, or no filter

    Score and errors are those of the region, where one is chosen; a study whose reference does not mention it
    is left out.
    """
    rows = scored(judgements)
    if region != ALL_REGIONS:
        rows = rows[rows["region"] == region]
    types = range(len(ERRORS)) if error == ANY_ERROR else [ERRORS.index(error)]
    rows = rows.assign(errors=[sum(counts[i] for i in types) for counts in rows["significant"]])
    studies = rows.groupby("id").agg(score=("value", "mean"), errors=("errors", "sum"))
    if error != ANY_ERROR:
        studies = studies[studies["errors"] > 0]
    if order == "by id":
        return studies
    return studies.sort_values("score", ascending=order == "worst first", kind="stable")


class ReadingRoom(Browser):
    """A browser of judged studies, the rows of one system on one split, that opens on the lowest score."""

    def __init__(self, judgements: pd.DataFrame, draw: Callable[[str], HTML | str], below: Sequence = ()):
        self._judgements, wide = judgements, widgets.Layout(width="300px")
        self.order = widgets.Dropdown(options=ORDERS, description="sort", layout=wide)
        self.region = widgets.Dropdown(options=(ALL_REGIONS, *REGIONS), description="region", layout=wide)
        self.error = widgets.Dropdown(options=(ANY_ERROR, *ERRORS), description="error", layout=wide)
        filters = widgets.HBox([self.order, self.region, self.error])
        super().__init__(self._chosen_names(), lambda number: draw(self._studies.index[number]))
        for field in filters.children:
            field.observe(lambda _: self.show_studies(self._chosen_names()), names="value")
        self.widget.children = (filters, *self.widget.children, *below)

    def _chosen_names(self) -> list[str]:
        self._studies = ranked(self._judgements, self.order.value, self.region.value, self.error.value)
        rows = self._studies.itertuples()
        return [f"{id} · {score:.2f} · {errors} error{'s' * (errors != 1)}" for id, score, errors in rows]


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
    numbers = {study: number for number, study in enumerate(studies["id"])}
    reports = {row["id"]: row["report"] for row in written}
    judged, judge = by_study(judgements), one_judge(judgements)

    def draw(id: str) -> HTML:
        study, bars = studies[numbers[id]], beside[numbers[id]] if beside else ""
        if looking:
            looking.offer(study["images"])
        return report_view(study["images"], study, reports[id], judged.get(id, {}), judge, note, bars)

    return ReadingRoom(judgements, draw, [looking.widget] if looking else ())


def probe_bars(writer: Writer, studies: Dataset, name: str) -> list[str]:
    """For each of `studies`, called `name`, what the writer's probe sees, see `bars`; without a probe none.

    The features are read where the writer keeps them, so a closed writer will do once they are there.
    """
    probe = writer.probe
    if not (probe and probe.names):
        return []
    features = writer.features(studies, name, lambda blocks, _: blocks)
    read = zip(probe.probabilities(features), writer.plans(features), strict=True)
    return [bars(probe, seen, plan, writer.recall_weight) for seen, plan in read]


def bars(probe: Probe, probabilities: Sequence[float] | np.ndarray, plan: Plan, recall_weight: float) -> str:
    """What `probe` sees in one study as markup: a bar for each finding, with its number and its threshold.

    probabilities: (findings,); plan: by region, what the report is to name: those findings stand out
    """
    rows, threshold = [], probe.threshold(recall_weight)
    for group, seen in zip(probe.groups, probabilities, strict=True):
        named = group.name in plan[group.region]
        meter = (
            f'<span class="meter {group.region}{" named" * named}" aria-hidden="true">'
            f'<i style="width:{seen:.0%}"></i><u style="left:{threshold:.0%}"></u></span>'
        )
        texts = (escape(group.name), f"{seen:.2f}")
        texts = [f"<b>{text}</b>" for text in texts] if named else texts
        rows.append((*texts, meter, tag("named", group.region) if named else ""))
    note = (
        "Findings probe, not a diagnosis. A bar is the probability that the probe reads in these views. The "
        f"report is to name a finding from the mark on, {threshold:.2f}, which follows from "
        f"recall_weight {recall_weight:g}."
    )
    return f'<div class="probe">{table(("finding", "probability", "", ""), rows)}{quiet(note)}</div>'
