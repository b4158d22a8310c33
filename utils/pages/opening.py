"""What each notebook opens with: missing packages, a table on the runtime, the map of the four steps."""

import importlib
import platform
import shutil
import subprocess
import sys
import tomllib
from datetime import datetime
from html import escape
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from IPython.display import HTML, display

from utils.judge import green_score
from utils.run.machine import COLAB_DISK, DRIVE, INTERNET, PRESETS, gpus, in_colab, in_kaggle
from utils.run.progress import duration
from utils.run.workspace import STEPS, StepError, Workspace, open_workspace, status, versions
from utils.settings import TIMES, Preset, preset

from .page import html, table, tag

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements-colab.txt"
GREEN_SCORE = ROOT / "requirements-green-score.txt"
_A_GPU = {
    "Colab": "choose Runtime > Change runtime type > T4 GPU, then Runtime > Run all",
    "Kaggle": "choose Settings > Accelerator > GPU T4 x2, then Run all",
}


def begin(step: str, root: str = "", size: str = "", run: str = "default") -> tuple[Workspace, Preset]:
    """Install what is missing, open a notebook's workspace, and show what it begins with: `step` of `STEPS`.

    root, size, run: the fields WORKSPACE, PRESET and RUN, see `open_workspace`

    Returns the workspace and its size's settings. Raises StepError where pip fails or another size is done.
    """
    install_missing()
    workspace = open_workspace(root, size, run)
    chosen = preset(size or workspace.size)
    display(HTML(html(_runtime(workspace, chosen) + _steps(workspace, step))))
    return workspace, chosen


def install_missing(requirements: Path = REQUIREMENTS, *options: str) -> list[str]:
    """Install those of `requirements` that are not installed in any version, and return them.

    Installed packages stay as they are: no restart. `options` are pip's. Raises StepError if pip fails.
    """
    lines = requirements.read_text(encoding="utf-8").splitlines()
    asked = [line for line in lines if line and not line.startswith("#")]
    missing = [line for line in asked if not _is_installed(line.split("==")[0])]
    if missing:
        print("Installing", " and ".join(missing))
        command = [sys.executable, "-m", "pip", "install", "--quiet", *options, *missing]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            advice = f"\n{INTERNET}" if in_kaggle() else ""
            raise StepError(f"pip could not install {' and '.join(missing)}: {done.stderr.strip()}{advice}")
        importlib.invalidate_caches()
    return missing


def take_green_score(requirements: Path = GREEN_SCORE) -> str:
    """Take the judge's prompt and parser from green-score, which is installed where it is missing.

    It comes without what it depends on, as it pins versions that no Colab has. The sentence says whose prompt
    and parser are used, and why, where they are not the package's.
    """
    try:
        install_missing(requirements, "--no-deps", "--ignore-requires-python", "--retries", "1")
    except StepError as error:
        return f"{green_score.take()} {' '.join(str(error).split())}"
    return green_score.take()


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _runtime(workspace: Workspace, chosen: Preset) -> str:
    """A table of the runtime, the GPU or how to get one, the size, and where results go and how they stay."""
    host = "Colab" if in_colab() else "Kaggle" if in_kaggle() else ""
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    size, card, lost = [chosen.name], [gpu() or "no GPU"], ""
    is_new = all(state == "not done" for state in status(workspace).values())
    done = {name[:2]: workspace.other_sizes(step) for step, name in STEPS.items()} if is_new else {}
    for other in PRESETS:
        if steps := [number for number, sizes in done.items() if other in sizes]:
            are = "is" if len(steps) == 1 else "are"
            size.append(
                f"Here no step is done yet; {', '.join(steps)} {are} done at size {other}. To go on with "
                f'that, set PRESET to "{other}" above and run all cells again.'
            )
    if host and not gpu():
        so = "the demo runs instead" if chosen.name == "demo" else f"the size {chosen.name} does not run"
        card.append(f"To get one, {_A_GPU[host]}. Without a GPU, {so}.")
        if chosen.name == "demo":
            card.append('01 and 02 need none: for the full size, set PRESET to "t4" in every notebook.')
    if in_colab() and workspace.root.is_relative_to(COLAB_DISK) and not workspace.root.is_relative_to(DRIVE):
        lost = f"<br>{tag('not on Drive')} Results are lost when this session ends."
    if in_kaggle():
        keep = escape("Only a saved version keeps results (Save Version > Save & Run All).")
        then = "In the next notebook, attach that version's output (Add Input)."
        lost = f"<br>{tag('not saved yet')} {keep} {then}"
    disk = next(path for path in (workspace.data, *workspace.data.parents) if path.exists())
    rows = (
        ("runtime", escape(f"{host or f'{platform.system()}, not Colab'} · {packages}")),
        ("GPU", escape(" ".join(card))),
        ("size", escape(". ".join(size))),
        ("results in", escape(str(workspace.root)) + lost),
        ("disk", f"{shutil.disk_usage(disk).free / 2**30:,.0f} GiB free"),
    )
    return table(("", ""), rows)


def gpu() -> str:
    """The GPUs' number, name and memory, "" where there is none."""
    import torch

    if not torch.cuda.is_available():
        return ""
    card = torch.cuda.get_device_properties(0)
    return f"{f'{gpus()} x ' if gpus() > 1 else ''}{card.name}, {card.total_memory / 2**30:.1f} GiB"


class Step(NamedTuple):
    """What a reader should know of a step before running it."""

    title: str
    needs: str
    leaves: str
    t4: str  # by the plans, `training.plan` and `scores.plan`, for IU X-Ray and the preset's settings


ABOUT = {
    "regions": Step("Findings to regions", "nothing", "regions/", "seconds offline, without a GPU"),
    "dataset": Step("Studies to a dataset", "01", "dataset/", "not measured; needs no GPU"),
    "training": Step("Fine-tuning", "02", "training/<run>/", "2.2 h (1.4 to 3.6), computed"),
    "evaluation": Step("Reports and their scores", "03", "evaluation/<run>/", "2.3 h (1.7 to 3.8), computed"),
}


def overview(workspace: Workspace, current: str) -> HTML:
    """The four steps with the one that this notebook is, what is done, and links to the others."""
    return HTML(html(f"{_steps(workspace, current)}<small>results in {escape(str(workspace.root))}</small>"))


def _steps(workspace: Workspace, current: str) -> str:
    if current not in STEPS:
        raise ValueError(f"no step called {current!r}: steps are {', '.join(STEPS)}")
    items = []
    for step, about in ABOUT.items():
        link, manifest = "" if step == current else _link(STEPS[step]), workspace.manifest(step)
        mark, you = (" class=here aria-current=step", " · you are here") if step == current else ("", "")
        # What the small sizes are likely to take, as long as the step has not shown what it takes.
        state, times = "○ not done", ", ".join(f"{name} about {of[step]}" for name, of in TIMES.items())
        if manifest:
            took = f" · took {duration(manifest['seconds'])}" if "seconds" in manifest else ""
            state = f"✓ finished {datetime.fromisoformat(manifest['finished']):%d %b %Y, %H:%M} UTC{took}"
        items.append(
            f"<li{mark}><small>step {STEPS[step][:2]}{you}</small>"
            f"<b>{f'<a {link}>{about.title}</a>' if link else about.title}</b>"
            f"<small>{state}</small><small>needs {about.needs} · leaves {escape(about.leaves)}</small>"
            f"<small>{'' if manifest else f'two CPU cores: {times} · '}full size, T4: {about.t4}</small></li>"
        )
    return f'<ol class="steps">{"".join(items)}</ol>'


def _link(notebook: str) -> str:
    """In Colab and on Kaggle no notebook lies beside this one: others open from the public address."""
    if not (in_colab() or in_kaggle()):
        return f'href="{notebook}.ipynb"'
    if not (address := public_address()):
        return ""
    link = colab_link(address, notebook)
    if in_kaggle():  # which makes a notebook of its own from the public one
        link = f"https://kaggle.com/kernels/welcome?src={address}/blob/main/notebooks/{notebook}.ipynb"
    return f'href="{link}" target="_blank"'


def public_address() -> str:
    """The project's address, noted in `pyproject.toml`; "" while there is none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


def colab_link(address: str, notebook: str) -> str:
    """Where Colab opens `notebook`, such as "01_region_split", of the project at `address`."""
    repository = address.removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{notebook}.ipynb"
