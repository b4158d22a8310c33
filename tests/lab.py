"""JupyterLab in headless Chromium: a notebook as a person sees it, found by labels and texts."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from papermill.iorw import load_notebook_node, write_ipynb
from papermill.parameterize import parameterize_notebook
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SCREEN = {"width": 1366, "height": 768}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE, RUN_PATIENCE = 60_000, 600_000  # ms: the longest that anything may take, and a whole notebook
# No news to fetch, and every cell is on the page, not only those in view.
PREFERENCES = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
# What a reader would call broken, as sentences.
COMPLAINTS = """panel => {
  const found = [], all = selector => [...panel.querySelectorAll(selector)];
  const said = node => node.innerText.trim().slice(0, 300);
  for (const kind of ["error", "stderr"])
    for (const node of all(`.jp-OutputArea-output[data-mime-type$="${kind}"]`))
      found.push(`${kind}: ${said(node)}`);
  for (const node of [document.documentElement, panel, ...all("*")]) {
    const width = node.clientWidth, whole = node === document.documentElement;
    if (node.matches(".cm-scroller")) continue;  // code, in a cell of its own
    const scrolls = whole || /auto|scroll/.test(getComputedStyle(node).overflowX);
    if (scrolls && width && node.scrollWidth > width + 1)
      found.push(`scrolls sideways, ${node.scrollWidth} in ${width}: <${node.className}> ${said(node)}`);
  }
  for (const picture of all(".jp-OutputArea img")) {
    if (["", "Image"].includes(picture.alt.trim()))  // JupyterLab fills in "Image"
      found.push("a picture without alt text");
    if (!picture.closest("figure")?.querySelector("figcaption")?.innerText.trim())
      found.push(`a picture without a caption: ${picture.alt.slice(0, 80)}`);
  }
  return found;
}"""
RAN = """last => {
  const counts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(
    prompt => Number(prompt.textContent.match(/\\d+/)?.[0] ?? 0));
  const failed = document.querySelector('.jp-OutputArea-output[data-mime-type$="error"]');
  return failed !== null || (counts.length > 0 && counts.every(count => count > last));
}"""


def house(project: Path) -> Path:
    """A copy of the project at `project`, whose notebooks can be changed."""
    for name in ("notebooks", "utils"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements-colab.txt", "requirements-green-score.txt"):
        shutil.copy(ROOT / name, project)
    return project


@contextmanager
def opened(project: Path, home: Path):
    """A page in Chromium, and the JupyterLab on the folder `project` that it looks at."""
    from playwright.sync_api import sync_playwright  # not in every environment that reads this file

    with served(project, home) as address, sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM)
        page = chromium.new_page(viewport=SCREEN)
        page.set_default_timeout(PATIENCE)
        yield page, address
        chromium.close()


@contextmanager
def served(project: Path, home: Path):
    """JupyterLab on the folder `project`, with settings of its own under `home`; gives address and token."""
    for name, values in PREFERENCES.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    folders = {"LAB_SETTINGS": "settings", "LAB_WORKSPACES": "workspaces"}
    folders |= {"_CONFIG": "config", "_RUNTIME": "runtime"}
    places = {f"JUPYTER{name}_DIR": str(home / folder) for name, folder in folders.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=project, env=os.environ | places, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield _address(server, home)
    finally:
        server.terminate()
        server.wait()


def _address(server: subprocess.Popen, home: Path) -> dict:
    """What the server says of itself once it listens."""
    while server.poll() is None:
        for said in (home / "runtime").glob("jpserver-*.json"):
            try:
                return json.loads(said.read_text())
            except ValueError:  # not written to its end yet
                break
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start: {(home / 'server.log').read_text()}")


class Notebook:
    """A notebook that is open in the browser."""

    def __init__(self, page, address: dict, path: Path, project: Path, **parameters):
        """Opens the notebook at `path`, after its parameters' cell was followed by one with `parameters`."""
        write_ipynb(parameterize_notebook(load_notebook_node(str(path)), parameters), str(path))
        self._page, self._ran = page, 0
        place = path.relative_to(project).as_posix()
        page.goto(f"{address['url']}lab/tree/{place}?token={address['token']}&reset")
        page.locator(".jp-Notebook .jp-InputPrompt").first.wait_for()
        self.panel = page.locator(".jp-NotebookPanel")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # the status bar, once all is there

    def run_all(self) -> None:
        """Run every cell. Waits until each has run, or one has failed."""
        self.start_all()
        self.wait()

    def start_all(self) -> None:
        """As a person does: from the menu."""
        self._page.get_by_role("menuitem", name="Run", exact=True).click()
        self._page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def has_run(self) -> bool:
        """Whether every cell that was started has run, or one has failed."""
        return self._page.evaluate(RAN, self._ran)

    def wait(self) -> None:
        """Until every cell that was started has run, or one has failed."""
        self._page.wait_for_function(RAN, arg=self._ran, timeout=RUN_PATIENCE)
        self._ran = self._page.evaluate(
            "Math.max(...[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
            ".map(prompt => Number(prompt.textContent.match(/\\d+/)?.[0] ?? 0)))"
        )

    def complaints(self) -> list[str]:
        """Errors, warnings, what scrolls sideways, pictures without alt text or caption."""
        self._page.wait_for_function("[...document.images].every(picture => picture.complete)")
        return self.panel.evaluate(COMPLAINTS)

    def output(self, text: str | re.Pattern):
        """The first output that shows `text`."""
        return self.outputs(text).first

    def outputs(self, text: str | re.Pattern):
        """All outputs that show `text`."""
        return self.panel.locator(".jp-OutputArea-output:visible", has_text=text)

    def field(self, label: str):
        """The field with this label."""
        return self.panel.get_by_label(label, exact=True)

    def move(self, label: str, key: str, to: str) -> None:
        """Move the slider with this label by one key; it then reads `to`, and the kernel has heard."""
        slider = self.panel.locator(".widget-slider").filter(has=self._page.get_by_text(label, exact=True))
        slider.get_by_role("slider").press(key)
        slider.get_by_text(to, exact=True).wait_for()
        self._page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()

    def picture(self, output) -> Image.Image:
        """A picture of an output, whole even where it is taller than the screen."""
        self._page.set_viewport_size({**SCREEN, "height": 2000})
        shot = Image.open(io.BytesIO(output.screenshot())).convert("RGB")
        self._page.set_viewport_size(SCREEN)
        return shot
