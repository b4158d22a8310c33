"""What the README and the pages behind it say of the project is so."""

import re

from conftest import ROOT

from utils.pages.opening import ABOUT
from utils.scores import plan as scores_plan
from utils.settings import PRESETS, preset
from utils.training import plan as training_plan

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}


def flat(settings: dict, prefix: str = "") -> dict[str, str]:
    """Every setting by its dotted name."""
    found = {}
    for name, value in settings.items():
        found |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": str(value)}
        )
    return found


def test_the_presets_differ_in_what_the_table_says_and_in_nothing_else():
    rows = re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \|$", DOCS["training"], re.M)
    t4, small, demo = (flat(preset(name).model_dump(exclude={"name"})) for name in PRESETS)
    assert set(rows) == {
        (name, t4[name], small[name], demo[name])
        for name in t4
        if len({t4[name], small[name], demo[name]}) > 1
    }
    assert len(rows) <= 18


def test_it_is_read_in_two_minutes():
    assert len(README.split()) <= 900


def test_the_sections_of_the_reproducibility_checklist_are_there():
    for section in (
        "Environments and Requirements",
        "Dataset",
        "Preprocessing",
        "Training",
        "Trained Models",
        "Inference",
        "Evaluation",
        "Results",
        "Contributing",
        "Acknowledgement",
    ):
        assert f"## {section}\n" in README


def test_the_tables_of_the_plans_are_those_that_the_plans_make():
    assert training_plan.table() in DOCS["training"] and scores_plan.cards_table() in DOCS["training"]
    assert scores_plan.table() in DOCS["evaluation"]


def test_the_cards_of_the_steps_say_what_the_plans_say():
    (likely,) = re.findall(r"^\| `pooled` .* GiB \| ([\d.]+ \([^)]+\)) \|", training_plan.table(), re.M)
    (step_4,) = re.findall(r"^\| all \|[^|]*\| ([\d.]+) (\([^)]+\)) \|", scores_plan.table(), re.M)
    likely, between = likely.split(" ", 1)
    assert ABOUT["training"].t4 == f"{likely} h {between}, computed"
    assert ABOUT["evaluation"].t4 == "{} h {}, computed".format(*step_4)
