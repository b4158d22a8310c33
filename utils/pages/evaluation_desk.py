"""The plan of step 4 beside the forms of notebook 04: reports to write, questions to ask, hours."""

from collections.abc import Callable
from html import escape
from pathlib import Path

import pandas as pd
from datasets import DatasetDict

from utils.judge import JudgeError
from utils.machine import Card, planned_on, several
from utils.models.loading import how_to_read
from utils.models.writer import SHUFFLED
from utils.scores import plan
from utils.scores.judging import judge_of
from utils.scores.means import SPLITS
from utils.settings import GenerationSettings, JudgeSettings
from utils.training.lengths import study_lengths
from utils.training.probing import POINTS
from utils.training.speeds import Hours

from .finding_charts import point_in_words
from .page import quiet, table, tag
from .training_desk import time_text


def writing_beside(dataset: DatasetDict, adapter: Path) -> Callable[[GenerationSettings], str]:
    """For a form: the plan of writing reports on validation and test with `adapter`, a folder."""
    reading = how_to_read(adapter)
    lengths = study_lengths(reading["base"], reading["image_tokens"], reading["views"], dataset["test"])
    prompt = round(lengths.mean - lengths.answer)
    points = adapter.parent / POINTS
    points = pd.read_csv(points) if points.exists() else pd.DataFrame()

    def draw(settings: GenerationSettings) -> str:
        counts = {SPLITS[name]: len(dataset[name]) for name in ("val", "test") if name in dataset}
        if settings.studies:
            counts = {name: min(count, settings.studies) for name, count in counts.items()}
        counts[SHUFFLED] = min(len(dataset["test"]), settings.shuffled)
        note = "A saved report is not written again."
        planned = _plan(
            counts,
            "reports",
            note,
            lambda card: plan.report_seconds(reading, prompt, settings.batch_size, card),
            lambda card, gpus: [plan.looked_at(reading, len(dataset["test"]), card, gpus)],
        )
        return planned + _named(points, settings.recall_weight)

    return draw


def judging_beside(systems: dict[str, pd.DataFrame], cache: Path) -> Callable[[JudgeSettings], str]:
    """For a form: the plan of judging `systems`, their rows by name, with the answers saved in `cache`."""

    def draw(settings: JudgeSettings) -> str:
        try:
            engine = judge_of(settings)
        except JudgeError as error:
            return f"{tag('no plan', 'refused')} {escape(str(error))}"
        counts = plan.questions(
            plan.chosen(systems, settings.systems),
            engine,
            cache=cache,
            identical_without_asking=settings.identical_without_asking,
        )
        note = "A question is a distinct pair of reference and report without a saved answer."
        if settings.engine != "green":
            return _counted(counts, "questions", f"{note} The time depends on the {settings.engine} judge.")
        return _plan(counts, "questions", f"{note} The bar shows the measured rate.", plan.judge_seconds)

    return draw


def _named(points: pd.DataFrame, recall_weight: float) -> str:
    """What the reports will name, by the point on the curve of step 3 that is nearest to `recall_weight`."""
    if points.empty:
        return ""
    nearest = points.iloc[(points["recall_weight"] - recall_weight).abs().argmin()]
    return f"<p>{escape(point_in_words(nearest))}</p>"


def _plan(
    counts: dict[str, int],
    unit: str,
    note: str,
    seconds: Callable[[Card], Hours],
    before: Callable[[Card, int], list[plan.Item]] = lambda *_: [],
) -> str:
    """The plan on this machine's GPUs, or on a T4 where there is none; `seconds` are those of one piece.

    before: what comes first, on so many cards: its hours count, its pieces are of another kind
    """
    card, gpus = planned_on()
    on, rows = several(card, gpus), []
    if not card.peak_16:
        return _counted(counts, unit, f"{note} The time is not known for {on}.")
    first, items = before(card, gpus), plan.planned(counts, seconds(card), gpus)
    for item in [*first, *items, plan.total([*first, *items])]:
        fast, likely, slow = map(time_text, item.hours)
        between = fast if fast == slow else f"{fast} to {slow}"
        count = "" if item in first else f"{item.count if item in items else sum(counts.values()):,}"
        rows.append((escape(item.what), count, f"<b>{likely}</b>", between))
    note = f"{note} Computed, not measured on {on}."
    return table(("the plan", unit, escape(f"likely on {on}"), "between"), rows) + quiet(escape(note))


def _counted(counts: dict[str, int], unit: str, note: str) -> str:
    rows = [(escape(name), f"{count:,}") for name, count in {**counts, "all": sum(counts.values())}.items()]
    return table(("the plan", unit), rows) + quiet(escape(note))
