"""The reading room: judged studies to leaf through, sorted by score, filtered by region and error.

Only the study that is shown is drawn, so that 590 of them open as fast as one.
"""

from collections.abc import Callable, Sequence

import ipywidgets as widgets
import pandas as pd
from IPython.display import HTML

from .regions import REGIONS
from .scores import ERRORS, scored
from .viewers import Browser

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
    place = {study: number for number, study in enumerate(ids)}
    return [(place[row.Index], row.score, row.errors) for row in studies.itertuples() if row.Index in place]


class ReadingRoom(Browser):
    """A browser of judged studies; `draw(i)` gives the study at place i of `ids`, as in `viewers.browser`.

    judgements: the rows of one system on one split. Nothing waits for a click:
    it opens on the study with the lowest score.
    """

    def __init__(self, ids: Sequence[str], judgements: pd.DataFrame, draw: Callable[[int], "HTML | str"]):
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
        self.widget.children = (filters, *self.widget.children)

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
