"""The four notebooks in a real browser, in order, as a person uses them: `make browser`.

A short run: few phantoms and few training steps.
"""

import json
import re
import textwrap
from pathlib import Path

import lab
import loopback
import nbformat
import pytest

from utils.data import phantoms
from utils.run.workspace import STEPS
from utils.split.offline import split_offline

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make browser installs it")
pytest.importorskip("jupyterlab", reason="needs JupyterLab: make browser installs it")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not lab.CHROMIUM, reason="needs Chromium: apt-get install chromium"),
]
STUDIES = {"train": 72, "val": 8, "test": 24, "seed": 2024}
TRAINING = {"epochs": 2, "evaluate_every": 9, "save_every": 9}
SENTENCE = "Write every answer in lower case."


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the project, with phantoms in it."""
    project = lab.house(tmp_path_factory.mktemp("house") / "chest-xray-regions")
    phantoms.write(project / "data", **STUDIES)
    return project


@pytest.fixture(scope="module")
def browser(house, tmp_path_factory):
    """A page in Chromium and the JupyterLab that it looks at."""
    with lab.opened(house, tmp_path_factory.mktemp("jupyter")) as page_and_address:
        yield page_and_address


@pytest.fixture
def opened(browser, house):
    """Opens the notebook of a step, and runs it whole."""

    def open_and_run(step: str, **parameters) -> lab.Notebook:
        path = house / "notebooks" / f"{STEPS[step]}.ipynb"
        places = {"WORKSPACE": str(house / "run"), "DATA": str(house / "data")}
        notebook = lab.Notebook(*browser, path, house, **{"PRESET": "demo", **places, **parameters})
        notebook.run_all()
        assert notebook.complaints() == []
        return notebook

    return open_and_run


@pytest.fixture
def language_model():
    """A server on this machine that splits as the offline engine does."""
    server = loopback.start(lambda text, turn, body: json.dumps(split_offline(text)))
    yield server
    server.shutdown()
    server.server_close()


def manifest(house: Path, folder: str) -> dict:
    return json.loads((house / "run" / folder / "manifest.json").read_text())


def test_what_is_broken_is_found(browser, house):
    """Or the tests below would pass on anything."""
    faults = """
        import sys
        from IPython.display import HTML, display
        print("a warning", file=sys.stderr)
        display(HTML("<div style='width: 3000px'>wide</div>"), HTML("<img src='data:,'>"))
    """
    cell = nbformat.v4.new_code_cell(textwrap.dedent(faults).strip())
    path = house / "notebooks" / "faulty.ipynb"
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": spec}), path)
    notebook = lab.Notebook(*browser, path, house)
    notebook.run_all()
    found = "\n".join(notebook.complaints())
    for fault in ("stderr: a warning", "scrolls sideways", "without alt text", "without a caption"):
        assert fault in found


def test_01_an_edited_prompt_reaches_the_language_model(opened, house, language_model):
    notebook = opened("regions")
    assert notebook.output("Mild degenerative endplate changes").is_visible()
    assert manifest(house, "regions")["settings"]["engine"] == "offline"

    prompt, address = notebook.field("text"), notebook.field("base url")
    prompt.fill(f"{prompt.input_value()}\n{SENTENCE}")
    prompt.blur()
    notebook.field("engine").select_option("openai")
    address.fill(language_model.url)
    address.blur()
    notebook.run_all()
    assert notebook.complaints() == []
    told = {call["body"]["messages"][0]["content"] for call in language_model.calls}
    assert len(told) == 1 and told.pop().rstrip().endswith(SENTENCE)
    assert manifest(house, "regions")["settings"]["engine"] == "openai"
    notebook.output("openai, split_v1").wait_for()  # beside the offline engine, on gold


def test_02_a_slider_changes_what_is_built(opened, house):
    notebook = opened("dataset")
    notebook.move("views", "ArrowLeft", "1")
    notebook.run_all()
    assert manifest(house, "dataset")["settings"]["views"] == 1
    notebook.output(re.compile(r"views\s*1\s*widget")).get_by_role("button", name="Reset to preset").click()
    notebook.run_all()
    assert manifest(house, "dataset")["settings"]["views"] == 2
    assert notebook.complaints() == []

    browser = notebook.output("window center")
    notebook.field("mentions").select_option("bone")
    browser.get_by_text(re.compile(r"^1 of \d+$")).wait_for()
    notebook.move("zoom", "ArrowRight", "1.50")
    assert notebook.complaints() == []


def test_03_the_plan_follows_a_slider_in_a_group_that_opens(opened, house):
    notebook = opened("training", SETTINGS=TRAINING)
    desk = notebook.output("Reset to preset")
    row = desk.get_by_role("row", name="optimiser steps")
    playwright.expect(row).to_contain_text("36")  # twice 72 studies, 4 at a time
    assert notebook.field("epochs").is_visible() and not notebook.field("accumulation").is_visible()
    desk.get_by_text("memory and speed").click()
    notebook.move("batch size", "ArrowRight", "5")
    playwright.expect(row).to_contain_text("30")  # twice 72 studies, 5 at a time


def test_04_the_reading_room_leafs_and_filters(opened, house):
    notebook = opened("evaluation")
    room = notebook.output("with or without errors")
    room.get_by_text(f"1 of {STUDIES['test']}", exact=True).wait_for()
    frontal = room.get_by_role("img").first
    worst = frontal.get_attribute("src")
    room.get_by_role("button", name="Next").click()
    room.get_by_text(f"2 of {STUDIES['test']}", exact=True).wait_for()
    playwright.expect(frontal).not_to_have_attribute("src", worst)
    room.get_by_label("region", exact=True).first.select_option("bone")
    fewer = room.get_by_text(re.compile(r"^1 of \d+$")).first
    fewer.wait_for()
    assert int(fewer.inner_text().split()[-1]) < STUDIES["test"]
    for label in ("phantom radiographs: drawn, not patients", "not GREEN", "Not for clinical use."):
        assert room.get_by_text(label).first.is_visible()
    assert notebook.complaints() == []
