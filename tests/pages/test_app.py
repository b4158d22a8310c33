"""The page for others in a real browser: local, it reads a study, and says what it cannot read."""

import os
import re
import subprocess
import sys

import lab
import pytest
from adapters import with_probe
from conftest import ROOT

from utils.regions import REGIONS

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make browser installs it")
pytest.importorskip("gradio", reason="needs gradio: make browser installs it")

has_browser = pytest.mark.skipif(not lab.CHROMIUM, reason="needs Chromium: apt-get install chromium")
pytestmark = [pytest.mark.slow, has_browser]


@pytest.fixture(scope="module")
def address(tiny_base, phantom_dataset, tmp_path_factory):
    """Where the page is served, by the command that its users type."""
    folder = tmp_path_factory.mktemp("page")
    adapter = with_probe(tiny_base, folder / "adapter", phantom_dataset["test"])
    command = [sys.executable, "-u", "-m", "utils.pages.app", str(adapter)]
    with (folder / "log").open("w") as log:
        environment = os.environ | {"GRADIO_TEMP_DIR": str(folder / "files")}
        how = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "stderr": log, "text": True}
        server = subprocess.Popen(command, **how)
    try:
        said = ""
        while "http://" not in said:
            line = server.stdout.readline()
            assert line, (folder / "log").read_text()
            said += line
        assert "gradio.live" not in said
        yield re.search(r"http://[\w.:]+", said).group()
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def opened(address):
    """The page in Chromium, and the hosts that it asked for anything."""
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=lab.CHROMIUM)
        page = chromium.new_page(viewport=lab.SCREEN)
        page.set_default_timeout(lab.PATIENCE)
        hosts = set()
        page.on("request", lambda request: hosts.add(re.sub(r"^(\w+:/*[^/:]*).*", r"\1", request.url)))
        page.goto(address)
        page.get_by_role("button", name="Read").wait_for()
        yield page, hosts
        chromium.close()


def read(page, paths):
    page.locator("input[type=file]").set_input_files(list(map(str, paths)))
    page.get_by_label(paths[-1].name, exact=True).wait_for()  # it is there, with its size
    page.get_by_role("button", name="Read").click()


def test_a_study_is_read_and_nothing_is_asked_for_from_outside(opened, phantom_studies, tmp_path):
    page, hosts = opened
    study = next(study for study in phantom_studies["test"] if len(study.images) == 2)
    read(page, study.images)
    page.get_by_text("view 2 of 2").wait_for()
    table = page.get_by_role("table").filter(has_text="report")
    for region in REGIONS:
        assert table.get_by_text(region, exact=True).first.is_visible()
    assert page.get_by_text("Findings probe, not a diagnosis").is_visible()
    assert page.get_by_text("Not for clinical use.").first.is_visible()
    words = page.locator("span[title]")
    assert re.fullmatch(r"[01]\.\d\d", words.first.get_attribute("title"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")
    here = {"http://127.0.0.1", "http://localhost"}
    assert {host for host in hosts if not host.startswith(("data:", "blob:"))} <= here


def test_what_cannot_be_read_is_one_sentence(opened, tmp_path):
    page, _ = opened
    page.get_by_role("button", name="Read").click()
    page.get_by_text("There is no image").wait_for()
    notes = tmp_path / "notes.txt"
    notes.write_text("not a picture")
    read(page, [notes])
    page.get_by_text(re.compile(r"notes\.txt cannot be read.*Use chest radiographs")).wait_for()
