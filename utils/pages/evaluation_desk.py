"""What notebook 04 shows: plans beside its forms, who writes, the check of the judge, and all charts.

A plan says how many reports there are to write or questions to ask, and the hours.
"""

from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from pathlib import Path

import pandas as pd
from datasets import DatasetDict
from IPython.display import HTML, Markdown, display

from utils.judge import OFFLINE_LABEL, Engine, JudgeError, compare_green_score, judge_of
from utils.models.loading import how_to_read
from utils.models.systems import BASE, MODEL, SHUFFLED
from utils.models.writer import ids_to_write
from utils.run.machine import Card, cards_in_words, planned_on
from utils.run.workspace import StepError
from utils.scores import baselines, plan, report
from utils.scores.judging import Tables, check_judge, published_judgements
from utils.scores.parallel import ANSWERS
from utils.scores.stages import OVERLAP, Reports, Results
from utils.scores.statistics import diversity, error_counts, one_split, split_name
from utils.scores.tables import FEW, by_kind, rounded
from utils.settings import GenerationSettings, JudgeSettings
from utils.training.lengths import study_lengths
from utils.training.probing import POINTS
from utils.training.speeds import Hours

from . import score_charts
from .charts import Chart, save
from .finding_charts import findings_named, point_in_words
from .page import html, quiet, refused, table
from .training_desk import time_text

WHO = {  # who writes, in a few words
    MODEL: "the model of step 3: the probe reads findings in the views, the model writes them up",
    SHUFFLED: "the same model, but each study with the views of another: does it use them?",
    baselines.CONSTANT: "one report for everyone: the training text of each region that scores best",
    baselines.FREQUENT: "one report for everyone: the most frequent training text of each region",
    baselines.NEAREST: "the findings of the training study whose image features are nearest",
    baselines.PROBED: "the probe's findings, each in one fixed sentence, without a language model",
}
CANDIDATES = 3  # texts a region that are shown
CHOSEN = """\
Training texts of each region that score best if everyone gets them, by the offline judge. \
The first is taken: the most frequent text within one standard error of the best. mean: over ten folds. \
behind: the best mean minus this one; error: the standard error of that."""


def writing_beside(dataset: DatasetDict, adapter: Path) -> Callable[[GenerationSettings], str]:
    """For a form: the plan of writing reports on validation and test with `adapter`, a folder."""
    reading, path = how_to_read(adapter), adapter.parent / POINTS
    lengths = study_lengths(reading["base"], reading["image_tokens"], reading["views"], dataset["test"])
    prompt = round(lengths.mean - lengths.answer)
    points = pd.read_csv(path) if path.exists() else pd.DataFrame()
    note = "A saved report is not written again. That of the base model comes after the first scores."

    def draw(settings: GenerationSettings) -> str:
        counts = {split_name(name): len(dataset[name]) for name in ("val", "test") if name in dataset}
        if settings.studies:
            counts = {name: min(count, settings.studies) for name, count in counts.items()}
        for control in (SHUFFLED, BASE):
            counts[control] = len(ids_to_write(dataset["test"], settings, control))

        def seconds(name: str, card: Card) -> Hours:
            untaught = settings.max_new_tokens if name == BASE else 0
            return plan.report_seconds(reading, prompt, settings.batch_size, card, untaught)

        look = partial(plan.looked_at, reading, len(dataset["test"]))
        planned = _planned(counts, "reports", note, seconds, look)
        if points.empty:
            return planned
        nearest = points.iloc[(points["recall_weight"] - settings.recall_weight).abs().argmin()]
        return f"{planned}<p>{escape(point_in_words(nearest))}</p>"

    return draw


def judging_beside(systems: Tables, cache: Path, of_base: int = 0) -> Callable[[JudgeSettings], str]:
    """For a form: the plan of judging `systems`, their rows by name, with the answers saved in `cache`.

    of_base: questions that the base model's reports will add that are not written yet
    """
    note = "A question is a distinct pair of reference and report without a saved answer."

    def draw(settings: JudgeSettings) -> str:
        try:
            engine = judge_of(settings)
        except JudgeError as error:
            return refused("no plan", error)
        asked, alike = plan.chosen(systems, settings.systems), settings.identical_without_asking
        counts = plan.questions(asked, engine, cache=cache, identical_without_asking=alike)
        if of_base and settings.systems == "all":
            counts[BASE] = counts.get(BASE, 0) + of_base
        if settings.engine != "green":
            return _planned(counts, "questions", f"{note} The time depends on the {settings.engine} judge.")
        measured = f"{note} The bar shows the measured rate."
        return _planned(counts, "questions", measured, lambda _, card: plan.judge_seconds(card))

    return draw


def _planned(
    counts: dict[str, int], unit: str, note: str, each: Callable | None = None, look: Callable | None = None
) -> str:
    """The plan on this machine's GPUs, or on a T4 where there is none.

    each: the seconds of one piece of a name in `counts`; None: not known
    look: what comes first, on so many cards: its hours count, its pieces are of another kind
    """
    card, gpus = planned_on()
    on, pieces = cards_in_words(card, gpus), {**counts, "all": sum(counts.values())}
    if each and not card.peak_16:
        note = f"{note} The time is not known for {on}."
    if not each or not card.peak_16:
        rows = [(escape(name), f"{count:,}") for name, count in pieces.items()]
        return table(("the plan", unit), rows) + quiet(escape(note))
    items = [plan.planned(name, count, each(name, card), gpus) for name, count in counts.items()]
    items, shown = [look(card, gpus), *items] if look else items, [""] * bool(look)
    shown += [f"{count:,}" for count in pieces.values()]
    rows = []
    for item, count in zip([*items, plan.total(items)], shown, strict=True):
        fast, likely, slow = map(time_text, item.hours)
        between = fast if fast == slow else f"{fast} to {slow}"
        rows.append((escape(item.name), count, f"<b>{likely}</b>", between))
    head = ("the plan", unit, escape(f"likely on {on}"), "between")
    return table(head, rows) + quiet(escape(f"{note} Computed, not measured on {on}."))


def who_writes(reports: Reports) -> HTML:
    """Who has written, what that is, and how many reports."""
    counts = {name: rows.groupby(["split", "id"]).ngroups for name, rows in reports.systems.items()}
    rows = [(f"<b>{escape(name)}</b>", escape(WHO[name]), f"{count:,}") for name, count in counts.items()]
    return HTML(html(table(("who", "what it is", "reports"), rows)))


def self_check(engine: Engine, folder: Path) -> list[Markdown | pd.DataFrame]:
    """Twenty questions that GREEN has answered, put to `engine`: what to display, or why not."""
    if engine.label == OFFLINE_LABEL:
        return [Markdown("No self-check: the offline stand-in is not GREEN, so the two may differ.")]
    try:
        known = published_judgements(folder / "published_test.csv")
        answered = known[["reference", "prediction", "completion"]].itertuples(index=False)
        compared = compare_green_score(answered)
        checked = check_judge(engine, known, cache=folder / ANSWERS)
    except StepError as reason:
        return [Markdown(f"No self-check: {reason}")]
    return [Markdown(compared), Markdown(checked.attrs["verdict"]), checked.round(2)]


class Figures:
    """The charts of step 4, drawn and saved; `saved` has by title the picture and its alt text."""

    def __init__(self, results: Results):
        self._charts = dict(_charts(results))
        paths = {title: results.folder / f"{title.lower().replace(' ', '_')}.png" for title in self._charts}
        self.saved = {title: (save(chart, paths[title]), chart.alt) for title, chart in self._charts.items()}

    def show(self, *titles: str) -> None:
        """Show those of `titles` that there are: without a baseline, say, nothing is set beside the best."""
        display(*(self._charts[title] for title in titles if title in self._charts))


def _charts(results: Results) -> Iterator[tuple[str, Chart]]:
    label, best = {"data_label": results.data_label}, results.best
    if len(results.counted):
        yield report.SEEN, findings_named(one_split(results.counted), **label)
    if len(best):
        yield "Scores", score_charts.beside_best(best[best["split"] == "test"], **label)
    yield "All systems", score_charts.region_bars(results.summary, **label)
    yield "Spread", score_charts.score_distribution(results.test, **label)
    yield "Errors", score_charts.error_types(error_counts(results.test), **label)


def more(results: Results) -> HTML:
    """Tables that few need, each to unfold."""
    few = f"{results.told_by} Where n is under {FEW}, the interval is too narrow."
    candidates = results.reports.candidates.groupby("region", sort=False).head(CANDIDATES)
    folded = (
        ("All, normal and abnormal test studies", few, by_kind(results.test, results.kinds, whole=True)),
        ("Shared words on the test studies", f"{OVERLAP} Shared words know no negation.", results.words),
        ("Different reports, and regions left empty", "", diversity(results.judgements)),
        ("What the constant report was chosen from", CHOSEN, candidates),
    )
    parts = []
    for title, note, rows in folded:
        cells = ([escape(str(cell)) for cell in row] for row in rounded(rows).itertuples(index=False))
        body = f"{quiet(escape(note))}{table([*map(escape, rows.columns)], cells)}"
        parts.append(f"<details><summary>{escape(title)}</summary>{body}</details>")
    return HTML(html("".join(parts)))
