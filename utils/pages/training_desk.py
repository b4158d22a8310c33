"""The training desk of notebook 03: the plan beside the knobs, and how training goes."""

from collections.abc import Callable
from html import escape

from datasets import DatasetDict
from IPython.display import HTML

from utils.regions import NOT_FOR_CLINICAL_USE
from utils.run.machine import cards_in_words, planned_on
from utils.run.progress import in_minutes
from utils.run.workspace import StepError
from utils.settings import TrainingSettings
from utils.training.callbacks import Progress
from utils.training.plan import Plan, make_plan
from utils.training.sizes import has_room
from utils.training.speeds import Hours

from . import charts
from .page import html, quiet, refused, table, tag


def plan_beside(dataset: DatasetDict) -> Callable[[TrainingSettings], str]:
    """For a form: the plan of fine-tuning on `dataset` as its settings stand, on this machine or a T4."""
    cards, validation = planned_on(), len(dataset.get("val", ()))

    def draw(settings: TrainingSettings) -> str:
        try:
            return plan_table(make_plan(settings, dataset["train"], *cards, validation), settings)
        except StepError as error:
            return refused("no plan", error)

    return draw


def plan_table(plan: Plan, settings: TrainingSettings) -> str:
    """A plan as markup."""
    card, on = plan.card, escape(cards_in_words(plan.card, plan.gpus))
    warning = "" if has_room(card, plan.memory) else f" {tag('does not fit', 'refused')}"
    memory = f"{plan.memory:.1f}" if plan.memory >= 0.05 else "under 0.1"
    each = " on each" if plan.gpus > 1 else ""
    rows = [
        ("tokens a study", f"<b>{plan.tokens:,.0f}</b>, including {plan.image_tokens:,.0f} for its views"),
        ("trained weights", f"<b>{plan.trainable / 1e6:.1f}</b> million"),
        (f"GPU memory, peak{each}", f"<b>{memory}</b> of {card.memory:.1f} GiB{warning}"),
        ("layers recomputed", f"<b>{plan.recomputed}</b> of {plan.layers}"),
        ("optimiser steps", f"<b>{plan.steps:,}</b>"),
    ]
    if plan.look:
        rows.append(("look at the radiographs once for the findings probe", _time(plan.look)))
    rows.append((f"time on {on}, with these settings, that look included", _time(plan.hours)))
    if settings.hours and plan.sessions:
        most = f", at most {plan.sessions[2]}" if plan.sessions[2] > plan.sessions[1] else ""
        rows.append((f"sessions of {settings.hours:g} h", f"likely <b>{plan.sessions[1]}</b>{most}"))
    if plan.advice:
        rows.append(("advice", escape(plan.advice)))
    note = f"Computed from the settings, not measured on {on}. "
    note += "After 20 steps, training shows the measured speed instead."
    return table(("the plan", ""), rows) + quiet(note)


def _time(hours: Hours | None) -> str:
    if hours is None:
        return "not known for this card"
    fast, likely, slow = map(time_text, hours)
    return f"likely <b>{likely}</b>" + ("" if fast == slow else f", between {fast} and {slow}")


def progress_page(progress: Progress, data_label: str) -> HTML:
    """How training goes, for a display that is updated: rate, time left, memory, loss, and sample reports."""
    memory = progress.memory
    if progress.step == progress.steps:
        rate = f"done, {progress.rate:.2g} s a step" if progress.rate else "done"
    elif progress.rate is None:
        rate = "time left: known after 20 steps"
    else:
        rate = f"{progress.rate:.1f} s a step, <b>{time_text(progress.seconds_left / 3600)}</b> left"
    peak = f"peak memory {memory['host_peak']:.1f} GiB, no GPU"
    if "gpu_peak" in memory:
        peak = f"peak GPU memory {memory['gpu_peak']:.1f} of {memory['gpu_total']:.1f} GiB"
    page = f"step <b>{progress.step:,}</b> of {progress.steps:,} · {rate} · {peak}"
    page += charts.loss_curve(progress.log, data_label=data_label).markup(dpi=100, bbox_inches="tight")
    if progress.samples:
        shown = ([each.id, each.reference, each.report] for each in progress.samples)
        rows = ([escape(text).replace("\n", "<br>") for text in row] for row in shown)
        page += table(("validation study", "reference", "what the model writes now"), rows)
        page += quiet(f"{escape(data_label)}. {NOT_FOR_CLINICAL_USE}")
    return HTML(html(page))


def time_text(hours: float) -> str:
    """Hours and minutes."""
    minutes = round(hours * 60)
    return in_minutes(minutes) if minutes else "under a minute"
