"""The plan of step 4 beside the forms of notebook 04: reports to write, questions to ask, hours."""

from collections.abc import Callable
from html import escape
from pathlib import Path

import pandas as pd
from datasets import DatasetDict

from utils.judge import JudgeError
from utils.machine import Card, cards_in_words, planned_on
from utils.models.loading import how_to_read
from utils.models.systems import BASE, SHUFFLED
from utils.models.writer import ids_to_write
from utils.scores import plan
from utils.scores.judging import judge_of
from utils.scores.statistics import SPLIT_NAMES
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
        counts = {SPLIT_NAMES[name]: len(dataset[name]) for name in ("val", "test") if name in dataset}
        if settings.studies:
            counts = {name: min(count, settings.studies) for name, count in counts.items()}
        for control in (SHUFFLED, BASE):
            counts[control] = len(ids_to_write(dataset["test"], settings, control))
        note = "A saved report is not written again. That of the base model comes after the first scores."

        def seconds(name: str, card: Card) -> Hours:
            untaught = settings.max_new_tokens if name == BASE else 0
            return plan.report_seconds(reading, prompt, settings.batch_size, card, untaught)

        planned = _plan(
            counts,
            "reports",
            note,
            seconds,
            lambda card, gpus: [plan.looked_at(reading, len(dataset["test"]), card, gpus)],
        )
        return planned + _named(points, settings.recall_weight)

    return draw


def judging_beside(
    systems: dict[str, pd.DataFrame], cache: Path, of_base: int = 0
) -> Callable[[JudgeSettings], str]:
    """For a form: the plan of judging `systems`, their rows by name, with the answers saved in `cache`.

    of_base: questions that the base model's reports will add that are not written yet
    """

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
        if of_base and settings.systems == "all":
            counts[BASE] = counts.get(BASE, 0) + of_base
        note = "A question is a distinct pair of reference and report without a saved answer."
        if settings.engine != "green":
            return _counted(counts, "questions", f"{note} The time depends on the {settings.engine} judge.")
        return _plan(counts, "questions", f"{note} The bar shows the measured rate.", _of_judge)

    return draw


def _of_judge(_: str, card: Card) -> Hours:
    return plan.judge_seconds(card)


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
    seconds: Callable[[str, Card], Hours],
    before: Callable[[Card, int], list[plan.Item]] = lambda *_: [],
) -> str:
    """The plan on this machine's GPUs, or on a T4 where there is none.

    seconds: those of one piece of a name in `counts`
    before: what comes first, on so many cards: its hours count, its pieces are of another kind
    """
    card, gpus = planned_on()
    on, rows = cards_in_words(card, gpus), []
    if not card.peak_16:
        return _counted(counts, unit, f"{note} The time is not known for {on}.")
    first, items = before(card, gpus), []
    for name, count in counts.items():
        items += plan.planned({name: count}, seconds(name, card), gpus)
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
